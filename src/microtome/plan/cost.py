"""What a sweep costs: operations and bytes, from the shapes alone."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from microtome.edits import Source
from microtome.errors import SweepError
from microtome.language.regions import Column, Layout
from microtome.language.sites import OF_HEADS, POSITIONS, Dimensions
from microtome.prompts.encoding import Encoded
from microtome.readings.inside import Gauge

Array = np.ndarray[Any, np.dtype[np.float64]]

if TYPE_CHECKING:
    from microtome.plan.plan import Cells

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


def flops_of_block(dims: Dimensions, tokens: int, seen: int) -> float:
    """Operations of one block on so many tokens, each of which attends to ``seen`` positions.

    The matrix products, with 2 for a multiply-add.
    """
    width = dims.n_heads * dims.d_head
    kv_width = dims.n_kv_heads * dims.d_head
    mlp = dims.experts * dims.mlp_matrices * dims.d_mlp
    weights = dims.d_model * (2 * width + 2 * kv_width + mlp)
    return 2.0 * tokens * (weights + 2 * seen * width)


def flops_of_pass(dims: Dimensions, tokens: int) -> float:
    """Operations of one full forward pass, the unembedding included."""
    unembedding = 2.0 * tokens * dims.d_model * dims.d_vocab
    return flops_of_blocks(dims, tokens) + unembedding


def flops_of_blocks(dims: Dimensions, tokens: int) -> float:
    """Operations of one forward pass without the unembedding."""
    return dims.n_layers * flops_of_block(dims, tokens, tokens)


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


def bytes_of_gauges(dims: Dimensions, gauges: Sequence[Gauge], length: int, itemsize: int) -> int:
    """What is recorded of one prompt's clean run for the metrics inside the model."""
    places = {place for gauge in gauges for place in gauge.places(dims)}
    units = (math.prod(dims.size(a) for a in site.axes if a != "pos") for site, _ in places)
    return itemsize * length * sum(units)


@dataclass(frozen=True)
class Cost:
    """What a sweep takes.

    Attributes:
        token_blocks: how often some block is run on some token, for the cells.
        flops: floating-point operations, multiplications and additions: cells, clean runs, donors
            and reference prompts. Without what metrics need of the vocabulary.
        passes: full forward passes of the same number of operations.
        reference_passes: forward passes that the reference path makes for the same map.
        bytes: memory at any one time besides the weights, roughly.
    """

    token_blocks: int
    flops: float
    passes: float
    reference_passes: int
    bytes: float


def cost_of(
    dims: Dimensions,
    encoded: Sequence[Encoded],
    reference: Sequence[Encoded],
    cells: Cells,
    walks: bool,
    budget: Budget,
    gauges: Sequence[Gauge] = (),
) -> Cost:
    """What the cells of a plan take, on the walk or on the reference path.

    Raises:
        SweepError: the budget is too small.
    """
    lengths = [len(one.tokens) for one in encoded]
    seen = np.array(lengths)[cells.prompt]
    layers: Column = dims.n_layers - cells.entry if walks else np.full(len(cells), dims.n_layers)
    starts = starts_of(cells, lengths, dims, budget)
    own = seen - starts if walks else seen
    others = [one.tokens for one in encoded]
    sources = {edit.source for variant in cells.edits for edit in variant}
    if Source.DONOR in sources:
        others += [one.donor for one in encoded if one.donor is not None]
    if Source.REFERENCE in sources:
        others += [one.tokens for one in reference]
    each = [flops_of_block(dims, 1, length) for length in range(int(seen.max()) + 1)]
    run_clean = flops_of_blocks if walks else flops_of_pass
    flops = float((layers * own * np.array(each)[seen]).sum())
    if not walks:
        flops += 2.0 * dims.d_model * dims.d_vocab * float(own.sum())
    flops += sum(run_clean(dims, len(tokens)) for tokens in others)
    longest = int(seen.max())
    return Cost(
        token_blocks=int((layers * own).sum()),
        flops=flops,
        passes=flops / flops_of_pass(dims, longest),
        reference_passes=len(cells) + len(others),
        bytes=float(
            _bytes_of_walk(dims, encoded, reference, cells, starts, budget, gauges)
            if walks
            else _bytes_of_reference(dims, longest, budget, branches_of(cells))
        ),
    )


def _bytes_of_reference(dims: Dimensions, longest: int, budget: Budget, branches: int) -> int:
    logits = 2 * longest * dims.d_vocab * budget.itemsize
    return logits + bytes_of_row(dims, longest, longest, budget.itemsize, branches)


def _bytes_of_walk(
    dims: Dimensions,
    encoded: Sequence[Encoded],
    reference: Sequence[Encoded],
    cells: Cells,
    starts: Column,
    budget: Budget,
    gauges: Sequence[Gauge],
) -> int:
    most = 0
    lengths = np.array([len(one.tokens) for one in encoded])
    for length in np.unique(lengths).tolist():
        prompts = np.flatnonzero(lengths == length)
        positions = starts[np.isin(cells.prompt, prompts)]
        if not len(positions):
            continue
        first = int(positions.min())
        one, references = int(prompts[0]), len(reference)
        held = held_for(dims, cells, one, length, first, references, budget, gauges).bytes
        for start, count in zip(*np.unique(positions, return_counts=True), strict=True):
            own = length - int(start)
            room = room_for(dims, own, length, held, budget, branches_of(cells))
            most = max(most, room.used(int(count)))
    return most


def starts_of(cells: Cells, lengths: Sequence[int], dims: Dimensions, budget: Budget) -> Column:
    """Where each cell starts in the walk, ``[cell]``.

    At the first position that it edits; or earlier, with cells that start there, where one batch is
    cheaper than two. Between the two it is the clean run, computed once more.
    """
    starts = cells.position.copy()
    alike: dict[tuple[int, bytes], list[Column]] = defaultdict(list)
    for prompt, length in enumerate(lengths):
        own = np.flatnonzero(cells.prompt == prompt)
        alike[length, np.stack([cells.position[own], cells.entry[own]]).tobytes()].append(own)
    for (length, _), prompts in alike.items():
        positions, which = np.unique(cells.position[prompts[0]], return_inverse=True)
        blocks = dims.n_layers - cells.entry[prompts[0]]
        work = len(prompts) * np.bincount(which, blocks).astype(np.float64)
        depth = np.zeros(len(positions))
        np.maximum.at(depth, which, blocks)
        shared = shared_starts(positions, work, depth, length, budget.reading)
        for own in prompts:
            starts[own] = shared[which]
    return starts


def shared_starts(
    positions: Column, work: Array, depth: Array, length: int, reading: int
) -> Column:
    """The cheapest way to let neighbouring starts walk together: where each of them starts then.

    A batch costs its cells' blocks × the tokens from its start to the end, and once for every block
    that it runs, the reading of weights.

    Args:
        positions: the starts, in order.
        work: blocks that the cells of each have to run, all together.
        depth: blocks that the first of them to enter has to run.
        length: of the prompt.
        reading: see `Budget`.
    """
    until = np.concatenate([[0.0], np.cumsum(work)])
    best = np.zeros(len(positions) + 1)  # of the first n starts
    first = np.zeros(len(positions), dtype=np.int64)  # of the last batch of the first n + 1
    for last in range(len(positions)):
        deepest = np.maximum.accumulate(depth[last::-1])[::-1]
        tokens = (length - positions[: last + 1]) * (until[last + 1] - until[: last + 1])
        costs = best[: last + 1] + tokens + reading * deepest
        first[last] = int(np.argmin(costs))
        best[last + 1] = costs[first[last]]
    shared, end = np.empty_like(positions), len(positions)
    while end:
        begin = first[end - 1]
        shared[begin:end] = positions[begin]
        end = begin
    return shared


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
    dims: Dimensions,
    cells: Cells,
    prompt: int,
    length: int,
    start: int,
    references: int,
    budget: Budget,
    gauges: Sequence[Gauge] = (),
) -> Held:
    """How many prompts like this one to walk together, from a first edited position on.

    As many as fill a tile, if they take no more than a quarter of the memory.
    """
    each = bytes_of_trace(dims, length, start, budget.itemsize)
    each += bytes_of_gauges(dims, gauges, length, budget.itemsize)

    def recorded(source: Source) -> int:
        """For one donor or reference prompt, by the variant that needs most."""
        return max(
            sum(
                bytes_of_source(layout, dims, length, budget.itemsize)
                for edit, layout in zip(edits, cells.layouts[prompt], strict=True)
                if edit.source is source
            )
            for edits in cells.edits
        )

    each += recorded(Source.DONOR)
    fixed = references * recorded(Source.REFERENCE)
    fit = min(budget.tile // length, len(cells.layouts), budget.memory // 4 // each)
    prompts = max(1, fit)
    return Held(prompts, fixed + prompts * each)
