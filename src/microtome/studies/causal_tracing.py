"""Causal tracing: in a run that has forgotten its subject, where does the fact come back?

Noise makes the subject's tokens unreadable. In that run one thing at a time is put back as it was:
a hidden state, or what some layers of MLPs, or of attention, add at one token. How much of the
answer's probability comes back is measured, by part of the text and layer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from pydantic import Field

from microtome import figures
from microtome.errors import PromptError
from microtome.language.sites import Dimensions
from microtome.prompts.answers import piece
from microtome.prompts.encoding import Encoded
from microtome.prompts.prompts import Prompts
from microtome.readings.facts import PARTS
from microtome.report import Picture, Section
from microtome.studies.parameters import Parameters
from microtome.studies.study import (
    CELLS,
    PROMPT,
    Claim,
    Data,
    Labelled,
    Measured,
    Place,
    Study,
    Sweep,
)
from microtome.studies.telling import picture, section, table
from microtome.texts import Texts, visible
from microtome.verbs.model import Model
from microtome.verbs.tracing import KINDS, SUBJECT, trace_facts

LAST_SUBJECT, LAST = PARTS[3], PARTS[6]
SHOWN = PARTS[1:]
"""Before the subject nothing was changed, so nothing can come back."""
TOKENS = "The| Space| Need|le| is| in| downtown"


class CausalTracing(Parameters):
    """As published.

    Attributes:
        samples: of the noise.
        noise: its standard deviation, in those of the subject's embeddings.
        window: how many layers of MLPs, or of attention, are put back together.
    """

    model: str = "gpt2-xl"
    prompt: str = "The Space Needle is in downtown"
    roles: dict[str, Any] = Field(default_factory=lambda: {SUBJECT: "The Space Needle"})
    samples: int = Field(10, ge=1)
    noise: float = Field(3.0, gt=0)
    window: int = Field(10, ge=1)


def sweeps(parameters: CausalTracing) -> dict[str, Sweep]:
    """None: what is edited depends on the subject's tokens and on the model's activations."""
    return {}


def watched(parameters: CausalTracing, dims: Dimensions) -> dict[str, Sweep]:
    """The maps that tracing walks, as on the published prompt."""
    corrupt = f'noise(std={parameters.noise!r}, how="add") embed@{{0,1,2,3}}'
    over = {"seed": list(range(parameters.samples))}
    restored = {kind: (f"add(0.0) L*.{site}@*",) for kind, site in KINDS.items()}
    return {
        name: Sweep((corrupt, *edits), ("prob",), over)
        for name, edits in {"none": (), **restored}.items()
    }


def check_subject(encoded: Encoded) -> None:
    """Raise `PromptError` unless there is a subject."""
    if SUBJECT not in encoded.tokens.places:
        raise PromptError(
            f"This study makes the subject unreadable, and {encoded.prompt.shown} has none: name "
            "its words as a role, roles={'subject': 'Berlin'}."
        )


def observe(
    model: Model, prompts: Prompts, parameters: CausalTracing, place: Place
) -> dict[str, Labelled]:
    """The indirect effects ``[prompt, kind, part, layer]``, probabilities ``[prompt, run]``, and
    the answers' token ids ``[prompt]``."""
    traces = trace_facts(
        model,
        prompts,
        samples=parameters.samples,
        noise_std=parameters.noise,
        window=parameters.window,
        out=place.folder,
        overwrite=place.overwrite,
        tell=place.tell,
    )
    effect, part = traces.effect, traces.data["part"]
    by_part = [effect.where(part == name).mean("pos") for name in SHOWN]
    named = xr.DataArray([*SHOWN], dims="part", name="part")
    runs = [traces.data["clean"], traces.data["corrupted"].mean("sample")]
    probs = np.stack([run.values for run in runs], axis=1)
    return {
        "effect": xr.concat(by_part, named, coords="minimal", compat="override").drop_vars(
            ["text", "token"], errors="ignore"
        ),
        "probs": xr.DataArray(
            probs,
            {PROMPT: effect[PROMPT].values, "run": ["clean", "corrupted"]},
            (PROMPT, "run"),
        ),
        "answer": xr.DataArray(
            [one.target for one in traces.encoded], {PROMPT: effect[PROMPT].values}, (PROMPT,)
        ),
        CELLS: traces.data["prob"].notnull().sum(["kind", "layer", "pos", "sample"]),
    }


# --------------------------------------------------------------------------------- measurements


def measure_mlp(effect: xr.DataArray, total: float) -> Measured:
    """Where the MLPs' effect ``[part, layer]`` is largest."""
    layers = effect.sizes["layer"]
    if not total > 0 or bool(effect.isnull().all()):
        return Measured(None, np.nan, {"total": total}, "forgotten")
    own = effect.transpose("part", "layer").values
    row, layer = np.unravel_index(int(np.nanargmax(own)), own.shape)
    part = str(effect["part"].values[row])
    words = {"layer": int(layer), "n": layers, "effect": float(effect.max())}
    middle = bool(layers / 4 <= layer < 3 * layers / 4)
    if part != LAST_SUBJECT:
        return Measured(False, float(layer), words, "elsewhere")
    return Measured(middle, float(layer), words)


def measure_attention(attention: xr.DataArray, mlp: xr.DataArray, total: float) -> Measured:
    """Whether attention at the last token comes later than MLPs at the subject's last."""
    late, early = attention.sel(part=LAST), mlp.sel(part=LAST_SUBJECT)
    if not total > 0 or bool(late.isnull().all()) or bool(early.isnull().all()):
        return Measured(None, np.nan, {"total": total}, "forgotten")
    last, first = (int(np.nanargmax(one.values)) for one in (late, early))
    words = {"late": last, "early": first, "n": attention.sizes["layer"]}
    return Measured(last > first, float(last - first), words)


def _total(data: Data[CausalTracing]) -> float:
    probs = data.array("probs")
    return float(probs.sel(run="clean") - probs.sel(run="corrupted"))


def answer_of(data: Data[CausalTracing]) -> str:
    """The answer whose probability is traced, on the first prompt, with its spaces shown."""
    ids = data.observed["answer"]
    assert isinstance(ids, xr.DataArray), "they are along prompts alone"
    return visible(piece(int(ids.values[0]), data.model.tokenizer))


def _of(data: Data[CausalTracing], kind: str) -> xr.DataArray:
    return data.array("effect").sel(kind=kind)


CLAIMS: tuple[Claim[CausalTracing], ...] = (
    Claim("mlp", lambda data: measure_mlp(_of(data, "mlp"), _total(data))),
    Claim(
        "attention",
        lambda data: measure_attention(_of(data, "attention"), _of(data, "mlp"), _total(data)),
    ),
)


def numbers(data: Data[CausalTracing]) -> dict[str, Any]:
    """Both probabilities, and the largest effect of each kind with its place."""
    probs = data.array("probs")
    found: dict[str, Any] = {str(run): float(probs.sel(run=run)) for run in probs["run"].values}
    for kind in KINDS:
        own = _of(data, kind)
        found[f"largest_{kind}"] = float(own.max())
    return found


# ------------------------------------------------------------------------------------- sections


def sections(data: Data[CausalTracing], texts: Texts) -> tuple[Section, ...]:
    """A map for each kind, and the largest effects by part."""
    parts = [texts(f"parts.{name.replace(' ', '_')}") for name in SHOWN]

    def drawn(kind: str) -> Picture:
        own = _of(data, kind).assign_coords(part=parts).dropna("part", how="all")
        return picture(
            texts,
            f"maps.{kind}",
            lambda title: figures.matrix(own, title=title, unit=texts("unit"), diverging=True),
            window=data.parameters.window,
        )

    largest = data.array("effect").max("layer").assign_coords(part=parts)
    frame = largest.dropna("part", how="all").to_dataframe("effect")["effect"].unstack("kind")
    frame = frame.loc[[part for part in parts if part in frame.index], [*KINDS]].reset_index()
    probs = data.array("probs")
    return (
        section(
            texts,
            "maps",
            tuple(map(drawn, KINDS)),
            (table(texts, "maps.largest", frame),),
            ("text",) if data.several else ("answer", "text"),
            prompt=data.text,
            answer=answer_of(data),
            clean=float(probs.sel(run="clean")),
            corrupted=float(probs.sel(run="corrupted")),
        ),
    )


STUDY = Study(
    name="causal-tracing",
    parameters=CausalTracing,
    tokens=TOKENS,
    sites=("resid_post", "mlp_out", "attn_out"),
    key_figure="mlp",
    sweeps=sweeps,
    watched=watched,
    observe_all=observe,
    check=check_subject,
    claims=CLAIMS,
    sections=sections,
    numbers=numbers,
)
