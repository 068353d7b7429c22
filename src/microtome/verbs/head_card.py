"""A card of one head: what it does to the answer, what it writes, where it looks, what feeds it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from microtome import stats
from microtome.edits import edit as parsed
from microtome.errors import AddressError, EditError, MetricError, PromptError
from microtome.model.loaded import check_loaded
from microtome.prompts.encoding import Encoded
from microtome.prompts.prompts import Given, Prompts
from microtome.readings.patterns import SCORES
from microtome.spoken import spoken
from microtome.verbs.attention import Attention, attention, head_scores
from microtome.verbs.attribution import attribute_logits
from microtome.verbs.head_circuit import HeadCircuit, head_circuit
from microtome.verbs.head_names import head_of
from microtome.verbs.model import Model
from microtome.verbs.readout import recorded
from microtome.verbs.sweep import sweep

READS = ("q_in", "k_in", "v_in")
"""What a head reads."""
ENOUGH = 3
"""Prompts over which effects can be correlated, at least."""
FED = 4
"""Prompts over which what feeds a head is measured."""


@spoken
@dataclass(frozen=True, eq=False, repr=False)
class HeadCard:
    """What one head does, over some prompts.

    Attributes:
        layer, head: which.
        metric: what is measured: ``logit_diff``, or ``logit`` where there are no contrasts.
        effects: a row per edit of the head, at all positions: ``edit``, and the mean ``effect`` on
            the metric with its 95 % interval (``low``, ``high``; Student's t), p and n.
        share: what it writes for the metric directly, in logits; see `attribute_logits`.
        looks: where the position that is read looks: ``at``, a role or a token, and the mean
            ``weight`` with its interval; the largest first.
        scores: ``score``, ``value``, ``low``, ``high`` on rows of random tokens that stand twice;
            empty where the model takes no such text.
        circuit: the head on the vocabulary.
        fed: the strongest writers into its queries, keys and values: ``reads``, ``writer``, and the
            mean ``effect`` of the edge with its interval, over the first prompts.
        not_fed: why there is none, where there is not; else empty.
        neighbours: the heads whose effects, by the last of `effects`' edits, go up and down with
            this one's from prompt to prompt: ``head``, Pearson's ``correlation``, and ``n``
            prompts; the most alike first, opposite ones too. Nothing of fewer than three prompts,
            or where effects are the same in all of them but for noise.
        attention: the head's patterns.
        provenance: what is needed to repeat it.
    """

    layer: int
    head: int
    metric: str
    effects: pd.DataFrame
    share: stats.Estimate
    looks: pd.DataFrame
    scores: pd.DataFrame
    circuit: HeadCircuit
    fed: pd.DataFrame
    not_fed: str
    neighbours: pd.DataFrame
    attention: Attention
    provenance: Mapping[str, Any]

    @property
    def name(self) -> str:
        """``L23.h3``."""
        return f"L{self.layer}.h{self.head}"

    def __repr__(self) -> str:
        tables = (self.effects, self.looks.head(3), self.scores)
        shown = "\n".join(table.to_string(index=False) for table in tables)
        return f"<HeadCard of {self.name}>\nwrites {self.share}\n{shown}\n{self.circuit}"


@spoken
def head_card(
    model: Model,
    head: str,
    prompts: Given | Iterable[Given],
    *,
    k: int = 10,
    tokens: int = 300,
    seed: int = 0,
) -> HeadCard:
    """What one head does, all on one card.

    Its effect is exact: the head is taken away, and where the prompts have donors patched from
    them, in maps that verify themselves. What feeds it is exact too, edge by edge: what each
    earlier head and MLP writes is patched (or zeroed, without donors) in what this head's queries,
    keys or values alone read.

    Args:
        model: from `load`; one that predicts the next token.
        head: such as ``"L23.h3"``.
        prompts: with a target, and perhaps a contrast, of one token.
        k: how many rows of what it looks at and of what feeds it.
        tokens: of the vocabulary, for what it copies.
        seed: of their draw, and of the rows of random tokens.

    Raises:
        AddressError: there is no such head.
        MetricError: a prompt lacks a target.

    >>> import microtome as mt
    >>> model = mt.load("nano")
    >>> card = mt.head_card(model, "L4.h3", mt.tasks.ioi(2), tokens=20)
    >>> card.effects["edit"].tolist()
    ['zero L4.z.h3', 'patch L4.z.h3']
    """
    check_loaded(model)
    layer, number = head_of(head, model.anatomy.dims)
    given = Prompts.of(prompts)
    encoded = model.encode(given)
    metric = _metric(encoded)
    address = f"L{layer}.z.h{number}"
    patched = all(one.donor is not None for one in encoded)
    edits = [f"zero {address}", *([f"patch {address}"] if patched else [])]
    shares = attribute_logits(model, given, metric).data["head_out"]
    seen = attention(model, given, f"L{layer}.pattern.h{number}")
    found, why = _fed(model, given[:FED], layer, number, metric, patched)
    return HeadCard(
        layer=layer,
        head=number,
        metric=metric,
        effects=pd.DataFrame([_effect(model, given, text, metric) for text in edits]),
        share=stats.mean(shares.sel(layer=layer, head=number, drop=True).values),
        looks=_looks(seen, encoded).head(k),
        scores=_scores(model, layer, number, seed),
        circuit=head_circuit(model, head, tokens=tokens, seed=seed),
        fed=found.head(k),
        not_fed=why,
        neighbours=_neighbours(model, given, edits[-1].split()[0], (layer, number), metric).head(k),
        attention=seen,
        provenance=recorded(
            model, encoded, head=f"L{layer}.h{number}", metric=metric, k=k, tokens=tokens, seed=seed
        ),
    )


def _metric(encoded: Sequence[Encoded]) -> str:
    for one in encoded:
        if one.target is None:
            raise MetricError(
                f"What a head does to an answer is asked, and {one.prompt.shown} has no target: "
                "give Prompt(…, target=…)."
            )
    return "logit_diff" if all(one.contrast is not None for one in encoded) else "logit"


def _effect(model: Model, prompts: Prompts, text: str, metric: str) -> dict[str, Any]:
    effects = sweep(model, prompts, parsed(text), metrics=[metric], progress=False)
    own = stats.mean(effects.delta(metric).values)
    return {
        "edit": text, "effect": own.value, "low": own.low, "high": own.high, "p": own.p, "n": own.n,
    }  # fmt: skip


def _neighbours(
    model: Model, prompts: Prompts, edit: str, head: tuple[int, int], metric: str
) -> pd.DataFrame:
    """How the effects of all other heads correlate with one's, over prompts."""
    columns = ["head", "correlation", "n"]
    if len(prompts) < ENOUGH:
        return pd.DataFrame(columns=columns)
    effects = sweep(model, prompts, parsed(f"{edit} L*.z.h*"), metrics=[metric], progress=False)
    each = effects.delta(metric).transpose("prompt", "layer", "head").values
    away = each - each.mean(0)
    sizes = np.linalg.norm(away, axis=0)
    noise = effects.provenance["noise_floor"][metric] * np.sqrt(len(each))  # of nothing but that
    own = away[:, *head]
    rows = [
        (
            f"L{layer}.h{number}",
            float(own @ away[:, layer, number] / (size * sizes[head])),
            len(own),
        )
        for (layer, number), size in np.ndenumerate(sizes)
        if (layer, number) != head and size > noise and sizes[head] > noise
    ]
    frame = pd.DataFrame(rows, columns=columns)
    order = np.argsort(-np.abs(frame["correlation"].to_numpy(dtype=float)), kind="stable")
    return frame.iloc[order].reset_index(drop=True)


def _looks(seen: Attention, encoded: Sequence[Encoded]) -> pd.DataFrame:
    """Mean weights by role, where all prompts have the same ones; of one prompt, by token."""
    rows: dict[str, list[float]] = {}
    shared = [
        role
        for role in encoded[0].tokens.places
        if all(role in one.tokens.places for one in encoded)
    ]
    for number, one in enumerate(encoded):
        weights = seen.data["pattern"].isel(prompt=number, layer=0, head=0)
        own = weights.isel(q_pos=one.tokens.reading).values
        rows.setdefault("first token", []).append(float(own[0]))
        for role in shared:
            rows.setdefault(f"@{role}", []).append(float(own[one.tokens.role(role)]))
        if len(encoded) == 1:
            for position, piece in enumerate(one.tokens.pieces[1:], start=1):
                rows.setdefault(f"{position} {piece!r}", []).append(float(own[position]))
    frame = pd.DataFrame(
        [(at, *_ends(values)) for at, values in rows.items()],
        columns=["at", "weight", "low", "high"],
    )
    return frame.sort_values("weight", ascending=False, kind="stable").reset_index(drop=True)


def _scores(model: Model, layer: int, head: int, seed: int) -> pd.DataFrame:
    columns = ["score", "value", "low", "high"]
    try:
        data = head_scores(model, seed=seed).data.sel(layer=layer, head=head)
    except PromptError:  # the model has no room for them, or no words
        return pd.DataFrame(columns=columns)
    rows = [(name, *_ends(data[name].values.tolist())) for name in SCORES]
    return pd.DataFrame(rows, columns=columns)


def _fed(
    model: Model, prompts: Prompts, layer: int, head: int, metric: str, patched: bool
) -> tuple[pd.DataFrame, str]:
    """The effects of the edges into a head, the strongest first; or why there are none."""
    columns = ["reads", "writer", "effect", "low", "high"]
    writers = ("embed", "L*.head_out.h*", "L*.mlp_out") if layer else ("embed",)
    rows: list[tuple[Any, ...]] = []
    try:
        for reads in READS:
            for writer in writers:
                text = f"{'patch' if patched else 'zero'} {writer} -> L{layer}.{reads}.h{head}"
                effects = sweep(model, prompts, parsed(text), metrics=[metric], progress=False)
                rows += [(reads, *row) for row in _edges(effects.delta(metric), writer)]
    except (AddressError, EditError) as error:  # a stream that is no sum has no edges
        return pd.DataFrame(columns=columns), str(error)
    frame = pd.DataFrame(rows, columns=columns)
    order = np.argsort(-np.abs(frame["effect"].to_numpy()), kind="stable")
    return frame.iloc[order].reset_index(drop=True), ""


def _edges(effect: xr.DataArray, writer: str) -> Iterator[tuple[Any, ...]]:
    """Each writer that is before the reader, with the mean effect of its edge."""
    stars = [str(name) for name in effect.dims if name != "prompt"]
    for index in np.ndindex(*(effect.sizes[name] for name in stars)):
        own = effect.isel(dict(zip(stars, index, strict=True)))
        if own.isnull().all():
            continue
        name = writer
        for number in index:
            name = name.replace("*", str(number), 1)
        yield name, *_ends(own.values.tolist())


def _ends(values: Sequence[float]) -> tuple[float, float, float]:
    """A mean with the ends of its interval."""
    found = stats.mean(list(values))
    return found.value, found.low, found.high
