"""What a plan has to know of an approximation; those that compute are in `engines.approximate`."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import numpy as np

from microtome.amounts import many
from microtome.errors import MetricError, SweepError, listing
from microtome.language.operations import Operation
from microtome.language.regions import Column, Layout
from microtome.language.sites import OF_HEADS, Dimensions
from microtome.plan.cells import Cells
from microtome.plan.memory.budget import Budget
from microtome.plan.memory.recorded import bytes_of_block, bytes_of_source
from microtome.plan.question import Question
from microtome.readings.names import ON_OUTPUT

Chosen = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Passes:
    """How often a prompt goes through the model, however many cells it has.

    Attributes:
        forward: forward passes.
        backward: ways back, each twice the work of a forward pass.
        blocks: how often one block is run for each cell, besides.
    """

    forward: int
    backward: int
    blocks: int = 0


@runtime_checkable
class Approximation(Protocol):
    """A method as plans see it; see `engines.approximate.method.Method`."""

    @property
    def about(self) -> str:
        """What it computes, in words."""

    def check(self, question: Question) -> None:
        """Raise where it says nothing of what is asked."""

    def passes(self, question: Question) -> Passes:
        """What it takes of a prompt."""


def check(
    method: Approximation, question: Question, cells: Cells, whole: str | None = None
) -> None:
    """Raise where no gradient says anything of what is asked.

    Args:
        method: the method.
        question: what is asked.
        cells: its cells.
        whole: why the model can only be run as it is, where that is so.

    Raises:
        MetricError: a metric has no gradient, or none that says anything.
        SweepError: an edit has none; or the method refuses.
    """
    good = listing(name for name in ON_OUTPUT if name in _SLOPED)
    for one in question.asked:
        if one.inside:
            raise MetricError(
                f"method={str(method)!r} takes gradients of metrics on the output, and {one} is "
                f"inside the model: measure {good}, or take method='exact'."
            )
    for reading in question.readings:
        if reading.metric.flat:
            raise MetricError(
                f"method={str(method)!r} cannot approximate {reading}: {reading.metric.flat}. "
                f"Measure {good}, or take method='exact'."
            )
    for edit in question.edits:
        if edit.address.site.name == "logits":
            raise SweepError(
                f"method={str(method)!r}: '{edit}' edits the output itself, where nothing is left "
                "to approximate: take method='exact'."
            )
        if not edit.rowwise:
            raise SweepError(
                f"method={str(method)!r}: '{edit}' is a function of the user's own, which might "
                "look across cells: take method='exact'."
            )
    if whole is not None:
        raise SweepError(
            f"method={str(method)!r} takes gradients through the model's own parts, and {whole}. "
            "Take that off, or take method='exact'."
        )
    method.check(question)
    _refuse_meeting(method, question, cells)


_SLOPED = ("logit", "logit_diff", "prob", "logprob", "loss")


def _refuse_meeting(method: Approximation, question: Question, cells: Cells) -> None:
    """Raise where two edits of a cell change the same value: their changes do not add up.

    Raises:
        SweepError: they do.
    """
    for prompt, layouts in enumerate(cells.layouts):
        stars = cells.values(cells.span(prompt))
        count = len(cells.of_prompt(prompt))
        for one, two in itertools.combinations(range(len(layouts)), 2):
            edits = question.edits[one], question.edits[two]
            if _meet(edits, layouts[one], layouts[two], stars, count, question.dims):
                raise SweepError(
                    f"method={str(method)!r}: '{edits[0]}' and '{edits[1]}' "
                    "change the same values, and what they do together is no sum of what each "
                    "does. Make one edit of them, or take method='exact'."
                )


BOUNDARIES: Mapping[str, int] = MappingProxyType(
    {"embed": 0, "resid_pre": 0, "resid_post": 1, "final_in": 1}
)
"""Sites between blocks: whether they are before a layer, or behind it."""


def _meet(
    edits: Sequence[Operation],
    one: Layout,
    two: Layout,
    stars: dict[str, Column],
    cells: int,
    dims: Dimensions,
) -> bool:
    sites = {one.site.name, two.site.name}
    # What one head's key is made of goes past edits of the key itself, and of its group's.
    past = [(f"{p}_in", other) for p in "qkv" for other in (p, f"{p}_head", f"{p}_in_group")]
    goes_past = sites in map(set, past)
    between = BOUNDARIES.keys() >= sites
    of_group = any(sites == {own, shared} for own, shared in OF_HEADS.items())
    if one.site != two.site and not (goes_past or between or of_group):
        return False
    chosen = [_layers(layout, stars, dims.n_layers) for layout in (one, two)]
    if between:
        behind = [BOUNDARIES[layout.site.name] for layout in (one, two)]
        chosen = [np.pad(own, ((0, 0), (n, 1 - n))) for own, n in zip(chosen, behind, strict=True)]
    both = (chosen[0] & chosen[1]).any(axis=1)
    if goes_past:
        return bool(both.any())
    widened = {edit.widens for edit in edits}
    columns = (_columns(layout, stars, cells, dims if of_group else None) for layout in (one, two))
    for axis, mine, other in zip(one.site.axes, *columns, strict=True):
        if axis in widened:  # all along it are changed
            continue
        both = both & (mine[:, :, None] == other[:, None, :]).any(axis=(1, 2))
    return bool(both.any())


def _columns(
    layout: Layout, stars: dict[str, Column], cells: int, grouped: Dimensions | None
) -> Sequence[Column]:
    """Which indices each cell changes, by axis; of heads by themselves, their groups'."""
    found = [*layout.at(None, stars, cells).columns]
    if grouped is not None and layout.site.name in OF_HEADS:
        found[1] = found[1] * grouped.n_kv_heads // grouped.n_heads
    return found


def _layers(layout: Layout, stars: dict[str, Column], layers: int) -> Chosen:
    """In which layers each cell is edited, ``[cell, layer]``."""
    found: Chosen
    if isinstance(layout.layers, str):
        found = stars[layout.layers][:, None] == np.arange(layers)
        return found
    found = np.zeros((1, layers), dtype=bool)
    found[:, list(layout.blocks)] = True
    return found


def bytes_of_prompt(question: Question, cells: Cells, prompt: int, budget: Budget) -> int:
    """What one prompt takes in memory while its gradients are: all that its pass has made.

    What each block makes, kept for the way back; at the addressed sites the values, and a gradient
    for each metric; logits where metrics look, in float64.
    """
    dims, length = question.dims, question.lengths[prompt]
    itemsize = max(budget.itemsize, 4)
    kept = dims.n_layers * bytes_of_block(dims, length, itemsize)
    kept += dims.n_layers * dims.n_heads * length * length * itemsize
    sites = {layout.site.name: layout for layout in cells.layouts[prompt]}
    wide = sum(bytes_of_source(one, dims, length, itemsize, True) for one in sites.values())
    numbers = len(question.readings)
    return kept + wide * (3 + 2 * numbers) + numbers * dims.d_vocab * (itemsize + 4 * 8)


def together(question: Question, cells: Cells, prompts: Sequence[int], budget: Budget) -> int:
    """How many prompts of one length to take gradients of together: as many as memory allows.

    Raises:
        SweepError: not even one fits.
    """
    each = max(bytes_of_prompt(question, cells, prompt, budget) for prompt in prompts)
    if each > budget.memory:
        raise SweepError(
            f"memory={budget.memory:,} bytes are too few: the gradients of a prompt of "
            f"{many(question.lengths[prompts[0]], 'token')} need {each:,}. Give more, or ask for "
            "less: shorter prompts, fewer sites."
        )
    return min(len(prompts), budget.memory // each)
