"""Memory of what is recorded of a prompt, a donor or reference prompts, and of a block."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from microtome.language.operations import Source
from microtome.language.regions import Layout
from microtome.language.sites import HEADS, OF_READERS, POSITIONS, Dimensions, Site
from microtome.plan.memory.budget import Budget
from microtome.plan.question import Question
from microtome.prompts.ways import Way, ways_of

if TYPE_CHECKING:
    from microtome.readings.inside import Gauge


def bytes_of_block(dims: Dimensions, tokens: int, itemsize: int) -> int:
    """What a block has in memory besides attention scores, on so many tokens."""
    return itemsize * tokens * (12 * dims.d_model + 6 * dims.experts * dims.d_mlp)


def bytes_of_trace(dims: Dimensions, length: int, start: int, itemsize: int) -> int:
    """What is recorded of one prompt's clean run: the stream between blocks from a start on, and
    keys and values unless it is an encoder's."""
    keys_and_values = 2 * dims.n_layers * dims.n_kv_heads * dims.d_head * length * dims.causal
    inputs = (dims.n_layers + 1) * dims.d_model * (length - start)
    return itemsize * (keys_and_values + inputs + dims.d_model * length)


def bytes_of_source(
    layout: Layout, dims: Dimensions, length: int, itemsize: int, by_head: bool = False
) -> int:
    """What is recorded of one donor or reference prompt for an edit.

    What heads read is one stream, unless something is computed ``by_head``.
    """
    values = 1
    one_stream = layout.site.name in OF_READERS and not by_head
    for axis, chosen in zip(layout.site.axes, layout.indices, strict=True):
        if one_stream and axis in HEADS:
            continue
        if axis == "k_pos":
            values *= length
        elif axis not in POSITIONS:
            values *= dims.size(axis)
        elif isinstance(chosen, str):
            values *= length
        else:
            values *= max(chosen) - min(chosen) + 1
    layers = len(layout.layers) if isinstance(layout.layers, tuple) else dims.n_layers
    return itemsize * values * (1 if layout.layers is None else layers)


@lru_cache(maxsize=8)
def bytes_of_means(question: Question) -> int:
    """The running sums of reference prompts in float64, and what is recorded of one of them."""
    found = _sums(question)
    return sum(found) + max(found, default=0)


def _sums(question: Question, whole: bool = False) -> list[int]:
    """Bytes of each running sum of reference prompts, in float64; or of all their positions."""
    found: dict[tuple[Site, tuple[Way, ...]], int] = {}
    for one, targets in zip(question.encoded, question.targets, strict=True):
        for edits, own in zip(question.variants, targets, strict=True):
            for edit, target in zip(edits, own, strict=True):
                if edit.source is not Source.REFERENCE:
                    continue
                place = target.changed.site, ways_of(edit.place, one.tokens, edit.alignment)
                layout = _of_all_positions(target.changed) if whole else target.changed
                size = bytes_of_source(layout, question.dims, len(one.tokens), 8, True)
                found[place] = max(found.get(place, 0), size)
    return [*found.values()]


def _of_all_positions(layout: Layout) -> Layout:
    axes = zip(layout.site.axes, layout.indices, strict=True)
    return replace(layout, indices=tuple("*" if axis in POSITIONS else own for axis, own in axes))


REFERENCES_SHARE = 8
"""What runs of several references take of the memory: one part in so many, at most."""


def references_at_once(question: Question, budget: Budget) -> int:
    """How many reference prompts to run in a pass: as many as fill a tile, and fit.

    What is recorded of one is less than its sums in float64 would be, and a block's inside.
    """
    longest = max((len(one.tokens.read) for one in question.references), default=1)
    inside = bytes_of_block(question.dims, longest, budget.itemsize)
    fit = budget.memory // REFERENCES_SHARE // (sum(_sums(question, whole=True)) + inside)
    return max(1, min(budget.tile // longest, fit))


def bytes_of_gauges(dims: Dimensions, gauges: Sequence[Gauge], length: int, itemsize: int) -> int:
    """What is recorded of one prompt's clean run for the metrics inside the model."""
    places = {place for gauge in gauges for place in gauge.places(dims)}

    def units(site: Site) -> int:
        left = ("pos", *HEADS) if site.name in OF_READERS else ("pos",)
        return math.prod(dims.size(axis) for axis in site.axes if axis not in left)

    return itemsize * length * sum(units(site) for site, _ in places)
