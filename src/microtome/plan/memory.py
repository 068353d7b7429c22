"""Memory of a sweep besides the weights: what is planned, and how a budget is spent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from microtome.errors import SweepError
from microtome.language.operations import Source
from microtome.language.regions import Layout
from microtome.language.sites import OF_HEADS, POSITIONS, Dimensions, Site
from microtome.plan.cells import Cells
from microtome.plan.question import Question
from microtome.plan.starts import Starts
from microtome.plan.units import Unit
from microtome.prompts.ways import Way, ways_of

if TYPE_CHECKING:
    from microtome.readings.inside import Gauge

DEFAULT_MEMORY = 2 * 2**30
"""Bytes for a sweep besides the model, unless ``memory=`` says otherwise."""


TILES = {"cpu": 512, "cuda": 16384}
"""Device → tokens that a block is run on at a time.

On a CPU more do not make matrix products any faster, and what a block computes in between no longer
fits into the caches. An accelerator wants many.
"""

READING = {"cpu": 32, "cuda": 1024}
"""Device → tokens that a block could be run on in the time that reading its weights takes.

A product of n rows takes as long as n + 32 do at the full rate: measured on two CPU cores, at
widths from 768 to 1280. On an accelerator it is a guess: most of it is the block's own launch.
"""


@dataclass(frozen=True)
class Budget:
    """What a sweep may use of the machine.

    Attributes:
        memory: bytes besides the model.
        tile: tokens that a block is run on at a time.
        itemsize: bytes of one activation.
        reading: what a block costs besides its tokens, in tokens.
    """

    memory: int = DEFAULT_MEMORY
    tile: int = TILES["cpu"]
    itemsize: int = 4
    reading: int = READING["cpu"]


@dataclass(frozen=True)
class Room:
    """How the memory of a walk is spent on cells that start at one position.

    Attributes:
        held: bytes of what is recorded of the clean runs.
        cell: bytes that each cell of a batch takes between blocks.
        row: bytes that each cell of a tile takes inside a block.
        tile: cells in a tile.
        batch: cells in a batch.
        logits: rows of the whole vocabulary that are held at a time.
    """

    held: int
    cell: int
    row: int
    tile: int
    batch: int
    logits: int

    def used(self, cells: int) -> int:
        """Bytes, with so many cells to walk."""
        batch = min(self.batch, cells)
        return self.held + batch * self.cell + min(self.tile, batch) * self.row


def room_for(
    dims: Dimensions, own: int, seen: int, held: int, budget: Budget, branches: int = 0
) -> Room:
    """How a budget is spent on cells of ``own`` positions that attend to ``seen``.

    Raises:
        SweepError: not even one cell fits.
    """
    row = bytes_of_row(dims, own, seen, budget.itemsize, branches)
    cell = own * dims.d_model * budget.itemsize
    vocabulary = dims.d_vocab * (budget.itemsize + 5 * 8)  # metrics compute in float64
    free = budget.memory - held
    least = held + max(row + cell, vocabulary)
    if least > budget.memory:
        raise SweepError(
            f"memory={budget.memory:,} bytes are too few: one cell at a time needs {least:,}, of "
            f"which {held:,} for the clean runs of prompts of {seen} tokens."
        )
    tile = max(1, min(budget.tile // own, free // 2 // row))
    return Room(
        held=held,
        cell=cell,
        row=row,
        tile=tile,
        batch=max(1, (free - tile * row) // cell),
        logits=max(1, free // 2 // vocabulary),
    )


def bytes_of_row(dims: Dimensions, own: int, seen: int, itemsize: int, branches: int = 0) -> int:
    """Memory of one cell of a tile inside a block: ``own`` positions that attend to ``seen``.

    Residual stream, queries, keys and values, the MLP's intermediate results (an activation
    function makes several), three copies of the attention scores, and an edit's values in float64
    for its receipt; keys and values from the first position on, twice, where the family's attention
    takes them copied for each cell. Attention once more for each branch. Generous, so that what is
    planned fits.
    """
    block = own * (12 * dims.d_model + 6 * dims.experts * dims.d_mlp)
    if dims.copies_prefix:
        block += 4 * seen * dims.n_heads * dims.d_head
    receipt = 5 * 8 * own * max(dims.d_model, dims.d_mlp)
    scores = 3 * dims.n_heads * own * seen
    return itemsize * (block + scores + branches * (6 * own * dims.d_model + scores)) + receipt


def branches_of(cells: Cells) -> int:
    """How many rows more a cell takes in attention: one for each head whose own view it edits."""
    own = [layout for layout in cells.layouts[0] if layout.site.name in OF_HEADS]
    heads = [layout.indices[layout.site.axes.index("head")] for layout in own]
    return sum(1 if isinstance(chosen, str) else len(chosen) for chosen in heads)


def bytes_of_trace(dims: Dimensions, length: int, start: int, itemsize: int) -> int:
    """What is recorded of one prompt's clean run: the stream between blocks from a start on, and
    keys and values unless it is an encoder's."""
    keys_and_values = 2 * dims.n_layers * dims.n_kv_heads * dims.d_head * length * dims.causal
    inputs = (dims.n_layers + 1) * dims.d_model * (length - start)
    return itemsize * (keys_and_values + inputs + dims.d_model * length)


def bytes_of_source(layout: Layout, dims: Dimensions, length: int, itemsize: int) -> int:
    """What is recorded of one donor or reference prompt for an edit."""
    values = 1
    for axis, chosen in zip(layout.site.axes, layout.indices, strict=True):
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
    found: dict[tuple[Site, tuple[Way, ...]], int] = {}
    for one, targets in zip(question.encoded, question.targets, strict=True):
        for edits, own in zip(question.variants, targets, strict=True):
            for edit, target in zip(edits, own, strict=True):
                if edit.source is not Source.REFERENCE:
                    continue
                place = target.layout.site, ways_of(edit.address, one.tokens, edit.alignment)
                size = bytes_of_source(target.layout, question.dims, len(one.tokens), 8)
                found[place] = max(found.get(place, 0), size)
    return sum(found.values()) + max(found.values(), default=0)


def bytes_of_gauges(dims: Dimensions, gauges: Sequence[Gauge], length: int, itemsize: int) -> int:
    """What is recorded of one prompt's clean run for the metrics inside the model."""
    places = {place for gauge in gauges for place in gauge.places(dims)}
    units = (math.prod(dims.size(a) for a in site.axes if a != "pos") for site, _ in places)
    return itemsize * length * sum(units)


@dataclass(frozen=True)
class Held:
    """What is recorded while some prompts of one length are walked.

    Attributes:
        prompts: how many at a time.
        bytes: of their clean runs, and of the donors' and reference prompts' activations.
    """

    prompts: int
    bytes: int


def held_for(
    question: Question,
    cells: Cells,
    prompts: Sequence[int],
    length: int,
    start: int,
    budget: Budget,
) -> Held:
    """How many of a unit's prompts to walk together, from a first edited position on.

    As many as fill a tile, if they take no more than a quarter of the memory.
    """
    dims, gauges = question.dims, question.gauges
    each = bytes_of_trace(dims, length, start, budget.itemsize)
    each += bytes_of_gauges(dims, gauges, length, budget.itemsize)

    each += max(
        sum(
            bytes_of_source(layout, dims, length, budget.itemsize)
            for edit, layout in zip(edits, cells.layouts[prompts[0]], strict=True)
            if edit.source is Source.DONOR
        )
        for edits in cells.edits
    )
    fixed = bytes_of_means(question)
    fit = min(budget.tile // length, len(prompts), budget.memory // 4 // each)
    together = max(1, fit)
    return Held(together, fixed + together * each)


def bytes_of_reference(dims: Dimensions, longest: int, budget: Budget, branches: int) -> int:
    """What the reference path takes: two passes' logits, and what a pass has inside a block."""
    logits = 2 * longest * dims.d_vocab * budget.itemsize
    return logits + bytes_of_row(dims, longest, longest, budget.itemsize, branches)


def bytes_of_walk(
    question: Question, cells: Cells, unit: Unit, starts: Mapping[int, Starts], budget: Budget
) -> int:
    """What the walk of a unit takes."""
    dims, length = question.dims, len(question.encoded[unit.prompts[0]].tokens)
    positions = np.concatenate([one.positions for one in starts.values()])
    first = int(positions.min()) if len(positions) else length - 1
    held = held_for(question, cells, unit.prompts, length, first, budget).bytes
    most = held
    for start, count in zip(*np.unique(positions, return_counts=True), strict=True):
        room = room_for(dims, length - int(start), length, held, budget, branches_of(cells))
        most = max(most, room.used(int(count)))
    return most
