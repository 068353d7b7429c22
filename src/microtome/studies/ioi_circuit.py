"""The circuit of the indirect object: which heads play its parts, by what rule, and how faithful.

After Wang et al. 2022, "Interpretability in the wild" (arXiv:2211.00593), with the parts found by
stated rules on the model at hand, from a donor in which the other of the two people gives:

- **name movers** write the answer to the logits themselves, and look at it from the last token;
- **negative name movers** write against it, and look at it;
- **S-inhibition heads** look at the second mention of the giver, and the queries of name movers
  read them;
- **backup heads** are missed where the name movers are silenced, and by more than where they are
  not.

Heads that write to the logits as much as a name mover and play no part are named as that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from microtome import figures
from microtome.circuits import Circuit, Graph, Scores, draw
from microtome.circuits.faithfulness import faithfulness
from microtome.errors import CircuitError, PromptError
from microtome.prompts.encoding import Encoded
from microtome.prompts.prompt import Prompt
from microtome.report import Section
from microtome.results.effects import Effects
from microtome.studies.ioi_parts import (
    LEAST,
    LOOK,
    Head,
    backups,
    heads_by,
    inhibition,
    movers,
    negative,
)
from microtome.studies.parameters import Parameters
from microtome.studies.premise import prefers
from microtome.studies.study import Claim, Data, Measured, Study, Sweep
from microtome.studies.telling import lines, picture, section, table
from microtome.texts import Texts
from microtome.verbs.model import Model
from microtome.verbs.sweep import sweep

SCORE = "logit_diff"
SHARES = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
"""Of all nodes, how many are in a circuit."""
SMALL, MOST = 0.3, 0.8
"""A circuit of this share of all nodes keeps so much of the score."""
SHOWN = 12
"""Nodes of the circuit that is drawn."""
PLACES = ("IO", "S1", "S2")
ROLES = ("movers", "negative", "inhibition", "backup")


class IoiCircuit(Parameters):
    """As published, on one of the paper's kind of sentences."""

    model: str = "gpt2"
    prompt: str = "When Sam and Sally went to the park, Sam gave a gift to"
    donor: str | None = "When Sam and Sally went to the park, Sally gave a gift to"
    target: str | None = " Sally"
    contrast: str | None = " Sam"


def sweeps(parameters: IoiCircuit) -> dict[str, Sweep]:
    """Each node, each head's edge to the logits, and each head silenced."""
    return {
        "input": Sweep(("patch embed",), (SCORE,)),
        "heads": Sweep(("patch L*.z.h*",), (SCORE,)),
        "mlps": Sweep(("patch L*.mlp_out",), (SCORE,)),
        "direct": Sweep(("patch L*.z.h* -> final_in@-1",), (SCORE,)),
        "silenced": Sweep(("zero L*.z.h*@-1",), (SCORE,)),
    }


def check(encoded: Encoded) -> None:
    """Raise `PromptError` unless there is a donor of the same length, and both names are there."""
    if encoded.donor is None or len(encoded.donor.read) != len(encoded.tokens.read):
        raise PromptError(
            "This study patches from a donor of the same length: give one, with the other of the "
            "two people giving."
        )
    places_of(encoded)


def places_of(encoded: Encoded) -> dict[str, int]:
    """Where the receiver (IO) stands, and the giver first (S1) and last (S2).

    Raises:
        PromptError: the prompt is no such sentence.
    """
    ids = np.array(encoded.tokens.ids)
    io = np.flatnonzero(ids == encoded.target)
    giver = np.flatnonzero(ids == encoded.contrast)
    if not len(io) or len(giver) < 2:
        raise PromptError(
            f"In {encoded.prompt.shown} the target is to be named once and the contrast twice, "
            "each as one token: 'When Sam and Sally went to the park, Sam gave a gift to'."
        )
    return {"IO": int(io[0]), "S1": int(giver[0]), "S2": int(giver[-1])}


def observe(
    model: Model, prompt: Prompt, parameters: IoiCircuit, effects: Mapping[str, Effects]
) -> dict[str, xr.DataArray | xr.Dataset]:
    """Where heads look, what they do without the name movers, and how faithful circuits are."""
    [encoded] = model.encode(prompt)
    attention = looks(model, prompt, encoded)
    direct, clean = direct_of(effects["direct"]), float(effects["direct"].clean(SCORE)[0])
    own = movers(direct.isel(prompt=0, drop=True), attention, clean)
    return {
        "attention": attention,
        "queries": into_queries(model, prompt, own, direct.isel(prompt=0, drop=True)),
        "backup": missed_more(model, prompt, own, effects["silenced"]),
        "faithful": kept_by(model, prompt, nodes_of(model, effects)),
    }


def looks(model: Model, prompt: Prompt, encoded: Encoded) -> xr.DataArray:
    """The attention from the last token to the three names, ``[layer, head, place]``."""
    places = places_of(encoded)
    weights = model.run(prompt, keep=["L*.pattern@-1,:"])["L*.pattern@-1,:"]
    last = weights.isel(prompt=0, q_pos=0, drop=True).transpose("layer", "head", "k_pos")
    found = last.values[..., [places[name] for name in PLACES]].astype(float)
    coordinates = {"layer": last["layer"], "head": last["head"], "place": list(PLACES)}
    return xr.DataArray(found, coordinates, ("layer", "head", "place"))


def into_queries(model: Model, prompt: Prompt, own: list[Head], like: xr.DataArray) -> xr.DataArray:
    """The largest edge of each head to a name mover's query, ``[layer, head]``; NaN of none."""
    found = xr.full_like(like, np.nan)
    for layer, head in own:
        if layer > 0:
            edit = f"patch L*.z.h* -> L{layer}.q_in.h{head}@-1"
            effects = sweep(model, prompt, edit, metrics=SCORE, progress=False)
            worth = direct_of(effects).isel(prompt=0, drop=True).reindex_like(like)
            found = xr.concat([found, worth], "mover").max("mover")
    return found


def missed_more(model: Model, prompt: Prompt, own: list[Head], silenced: Effects) -> xr.DataArray:
    """How much more each head is missed where the name movers are silenced, ``[layer, head]``.

    A head that the score is better without is not missed: 0. NaN of a name mover, and everywhere
    where there is none.
    """
    alone = -silenced.delta(SCORE).isel(prompt=0, drop=True)
    if not own:
        return xr.full_like(alone, np.nan)
    movers_off = [f"zero L{layer}.z.h{head}@-1" for layer, head in own]
    joint = sweep(
        model, prompt, [*movers_off, "zero L*.z.h*@-1"], metrics=SCORE, progress=False
    ).data[SCORE].isel(prompt=0, drop=True)  # fmt: skip
    layer, head = own[0]  # silenced once more, it changes nothing
    found = float(joint.sel(layer=layer, head=head)) - joint - alone.clip(min=0.0)
    for layer, head in own:
        found.loc[{"layer": layer, "head": head}] = np.nan
    return found


def kept_by(model: Model, prompt: Prompt, scores: Scores) -> xr.DataArray:
    """The faithfulness of circuits of the strongest nodes, ``[share]``.

    NaN where the donor's score is the prompt's.
    """
    own = {share: scores.circuit(int(share * len(scores))) for share in SHARES}
    try:
        found = faithfulness(model, prompt, own, SCORE, progress=False)["faithfulness"].values
    except CircuitError:  # there is nothing that a circuit could be faithful to
        found = np.full(len(SHARES), np.nan)
    return xr.DataArray(found, {"share": list(SHARES)}, ("share",))


def nodes_of(model: Model, effects: Mapping[str, Effects]) -> Scores:
    """The scores of all nodes, out of their sweeps."""
    inputs, heads, mlps = (effects[name].delta(SCORE).values for name in ("input", "heads", "mlps"))
    return Scores.of_nodes(Graph.of(model), inputs, heads, mlps, SCORE)


# ------------------------------------------------------------------------------------ the parts


def direct_of(effects: Effects) -> xr.DataArray:
    """How much worse the score is without each head's edge to the logits, ``[…, layer, head]``."""
    return -effects.delta(SCORE).rename(from_layer="layer", from_head="head")


def parts(data: Data[IoiCircuit]) -> dict[str, tuple[list[Head], xr.DataArray]]:
    """Each part's heads, and what it is judged by, ``[layer, head]``; means over prompts."""
    clean, attention = data.clean("direct", SCORE), data.array("attention")
    direct = direct_of(data.effects["direct"]).mean("prompt")
    queries = data.array("queries")
    backup = data.array("backup")
    return {
        "movers": (movers(direct, attention, clean), direct),
        "negative": (negative(direct, attention, clean), -direct),
        "inhibition": (inhibition(queries, attention, clean), queries),
        "backup": (backups(backup, clean), backup),
    }


def unnamed(data: Data[IoiCircuit]) -> tuple[list[Head], xr.DataArray]:
    """Heads whose edge to the logits counts, either way, and that play no part; and that edge."""
    direct = direct_of(data.effects["direct"]).mean("prompt")
    own = {head for heads, _ in parts(data).values() for head in heads}
    counting = heads_by(abs(direct) >= LEAST * abs(data.clean("direct", SCORE)), by=abs(direct))
    return [head for head in counting if head not in own], direct


# --------------------------------------------------------------------------------- measurements


def named(heads: list[Head]) -> str:
    """Heads as the paper calls them: layer and number."""
    return ", ".join(f"{layer}.{head}" for layer, head in heads)


def measure_part(
    heads: list[Head], by: xr.DataArray, attention: xr.DataArray, clean: float
) -> Measured:
    """Whether a part is played, by which heads, and by how much; and who has more and does not."""
    finite = heads_by(by.notnull(), by=by)
    if not finite:
        return Measured(None, np.nan, wording="nobody")
    strongest, most = (heads or finite)[0], finite[0]
    words: dict[str, Any] = {
        "heads": named(heads),
        "first": named([strongest]),
        "largest": _at(by, strongest),
        "most": _at(by, most),
        "whose": named([most]),
        "clean": clean,
        **{place: _at(attention.sel(place=place), most) for place in PLACES},
    }
    if not clean > 0:
        return Measured(None, words["largest"], words, wording="unanswered")
    played = "measured" if strongest == most else "surpassed"
    return Measured(bool(heads), words["largest"], words, wording=played if heads else "none")


def _at(by: xr.DataArray, head: Head) -> float:
    return float(by.sel(layer=head[0], head=head[1]))


def measure_faithful(kept: xr.DataArray, clean: float) -> Measured:
    """How much of the score the circuit of a share of all nodes keeps."""
    f = float(kept.sel(share=SMALL))
    words = {"f": f, "share": 100 * SMALL, "clean": clean}
    if not clean > 0 or np.isnan(f):
        return Measured(None, f, words, wording="unanswered" if np.isfinite(f) else "same")
    return Measured(f >= MOST, f, words)


def _part(name: str) -> Claim[IoiCircuit]:
    def measure(data: Data[IoiCircuit]) -> Measured:
        clean = data.clean("direct", SCORE)
        return measure_part(*parts(data)[name], data.array("attention"), clean)

    return Claim(name, measure)


CLAIMS: tuple[Claim[IoiCircuit], ...] = (
    *map(_part, ROLES),
    Claim(
        "faithful",
        lambda data: measure_faithful(data.array("faithful"), data.clean("direct", SCORE)),
    ),
)


def numbers(data: Data[IoiCircuit]) -> dict[str, Any]:
    """The clean score, the heads of each part, and the faithfulness by size."""
    return {
        "clean_score": data.clean("direct", SCORE),
        "parts": {name: named(heads) for name, (heads, _) in parts(data).items()},
        "unnamed": named(unnamed(data)[0]),
        "faithfulness": dict(
            zip(map(str, SHARES), data.array("faithful").values.tolist(), strict=True)
        ),
        "circuit": list(_circuit(data).nodes),
    }


def _circuit(data: Data[IoiCircuit]) -> Circuit:
    scores = nodes_of(data.model, data.effects)
    return scores.circuit(min(SHOWN, len(scores)))


# ------------------------------------------------------------------------------------- sections


def sections(data: Data[IoiCircuit], texts: Texts) -> tuple[Section, ...]:
    """Who plays which part, and the circuit with its faithfulness."""
    return (_parts(data, texts), _drawn(data, texts))


def _parts(data: Data[IoiCircuit], texts: Texts) -> Section:
    attention = data.array("attention")
    rows = [
        {
            "part": texts(f"roles.{name}"),
            "layer": layer,
            "head": head,
            "worth": _at(by, (layer, head)),
            **{place: _at(attention.sel(place=place), (layer, head)) for place in PLACES},
        }
        for name, (heads, by) in {**parts(data), "unnamed": unnamed(data)}.items()
        for layer, head in heads
    ]
    frame = pd.DataFrame(rows, columns=["part", "layer", "head", "worth", *PLACES])
    direct = direct_of(data.effects["direct"]).mean("prompt")
    made = picture(
        texts,
        "parts.direct",
        lambda title: figures.matrix(direct, title=title, unit="logit", diverging=True),
    )
    return section(
        texts, "parts", (made,), (table(texts, "parts.table", frame),),
        clean=data.clean("direct", SCORE), least=100 * LEAST, look=100 * LOOK,
    )  # fmt: skip


def _drawn(data: Data[IoiCircuit], texts: Texts) -> Section:
    circuit = _circuit(data)

    def drawn(title: str) -> Any:
        made = draw(circuit, title=title)
        made.update_layout(title={"subtitle": {"text": ""}})
        return made

    faithful = data.observed["faithful"]
    assert isinstance(faithful, xr.DataArray), "it is one"
    curve = picture(
        texts,
        "circuit.faithfulness",
        lambda title: lines(
            texts,
            {texts("circuit.own"): faithful},
            x_title=texts("circuit.x"),
            y_title=texts("circuit.y"),
            title=title,
            levels={texts("circuit.whole"): 1.0},
        ),
    )
    return section(
        texts, "circuit", (picture(texts, "circuit.drawn", drawn), curve),
        nodes=len(circuit.nodes), edges=len(circuit),
    )  # fmt: skip


STUDY = Study(
    name="ioi-circuit",
    parameters=IoiCircuit,
    tokens="When| Sam| and| Sally| went| to| the| park|,| Sam| gave| a| gift| to",
    donor_tokens="When| Sam| and| Sally| went| to| the| park|,| Sally| gave| a| gift| to",
    sites=("z", "q"),
    key_figure="drawn",
    sweeps=sweeps,
    observe=observe,
    check=check,
    premise=lambda data, texts: prefers(data, "direct", texts),
    claims=CLAIMS,
    sections=sections,
    numbers=numbers,
)
