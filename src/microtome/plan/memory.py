"""Memory of a sweep besides the weights: what is planned, and how a budget is spent."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from microtome.errors import SweepError
from microtome.language.edges import Edge, recorded_of
from microtome.language.operations import Operation, Source
from microtome.language.regions import Layout
from microtome.language.sites import (
    APART,
    HEADS,
    OF_GROUPS,
    OF_HEADS,
    OF_READERS,
    POSITIONS,
    Dimensions,
    Site,
)
from microtome.plan.cells import Cells
from microtome.plan.paths import bytes_beside, bytes_on_the_way, first_written
from microtome.plan.question import Question
from microtome.plan.starts import Alike
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

LEAST = 6
"""Rows of a pass, however long the prompts are, if memory allows: what a sweep verifies usually."""

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
        verified: how many cells of a unit are computed again on the reference path.
        host: bytes that the machine has left; None: not known.
        shared: activations are in the machine's own memory, beside the results.
    """

    memory: int = DEFAULT_MEMORY
    tile: int = TILES["cpu"]
    itemsize: int = 4
    reading: int = READING["cpu"]
    verified: int = 0
    host: int | None = None
    shared: bool = True


@dataclass(frozen=True)
class Needs:
    """What one cell takes of the memory, whatever position it starts at.

    Attributes:
        dims: the model's.
        itemsize: bytes of one activation.
        edited: bytes of what the edits take of a layer: values before and after, what they come
            from, and the receipt in float64.
        scores: how many copies of the attention scores there are at once.
        branches: rows more in attention, one for each head whose own view is edited.
        copies: copies of the stream that are made for what single heads read and write.
        gauges: bytes of the numbers that metrics inside the model have read.
        look: bytes of the activations that they are read off.
        end: bytes at the end: what the unembedding reads, and its logits where metrics need all.
        exact: bytes of what metrics make of these in float64.
    """

    dims: Dimensions
    itemsize: int
    edited: int
    scores: int
    branches: int
    copies: int
    gauges: int
    look: int
    end: int
    exact: int

    def stays(self, own: int) -> int:
        """Bytes of a cell of ``own`` positions between blocks."""
        return own * self.dims.d_model * self.itemsize + self.gauges + RECEIPT

    def inside(self, own: int, seen: int) -> int:
        """Bytes of a cell inside a block: ``own`` positions that attend to ``seen``.

        Residual stream, queries, keys and values, the MLP's intermediate results (an activation
        function makes several), and the attention scores, unless a fused kernel never has them: it
        does where a cell has no prefix and nobody looks at its weights. Keys and values from the
        first position on, twice, where the family's attention takes them copied for each cell.
        Attention once more for each branch, and the stream for what single heads read or write.
        """
        dims = self.dims
        block = bytes_of_block(dims, own, self.itemsize)
        if dims.copies_prefix:
            block += 4 * seen * dims.n_heads * dims.d_head * self.itemsize
        scores = self.scores if own < seen or dims.copies_prefix or self.scores > UNSEEN else 0
        attention = scores * dims.n_heads * own * seen * self.itemsize
        stream = own * dims.d_model * self.itemsize
        again = self.branches * (6 * stream + attention) + self.copies * stream
        return block + attention + again + self.edited


RECEIPT = 64
"""Bytes of a cell's receipt and numbers on their way."""

UNSEEN, SEEN = 3, 6
"""Copies of the attention scores that there are at once: nobody looks at them, or somebody does."""

COPIES, LOOKED = 3, 1
"""Copies of the stream for each head whose reading or writing is edited, and is looked at."""

LOOK = 8
"""Metrics inside the model look at as many cells at a time as take one part in so many."""


def needs_of(question: Question, cells: Cells, prompts: Sequence[int], budget: Budget) -> Needs:
    """What a cell of some prompts of one length takes, by the one that needs most."""
    dims, length = question.dims, len(question.encoded[prompts[0]].tokens.read)
    layouts = [cells.layouts[prompt] for prompt in prompts]
    sites = {layout.site.name for own in layouts for layout in own}
    fitted = [gauge.on(question.encoded[prompts[0]], dims) for gauge in question.gauges]
    return Needs(
        dims=dims,
        itemsize=budget.itemsize,
        edited=max(_edited(cells, own, length, budget.itemsize) for own in set(layouts)),
        scores=SEEN if "pattern" in sites else UNSEEN,
        branches=branches_of(cells, dims),
        copies=COPIES * apart_of(cells) + LOOKED * _wide((g.site for g in question.gauges), dims),
        gauges=8 * sum(math.prod(one.shape) for one in fitted),
        look=max((one.bytes_of_looking(dims, budget.itemsize) for one in fitted), default=0),
        end=_end(question, budget.itemsize),
        exact=_exact(question),
    )


def _edited(cells: Cells, layouts: Sequence[Layout], length: int, itemsize: int) -> int:
    """What the edits of one cell take of a layer, by the variant that needs most."""
    most = 0
    for edits in cells.edits:
        sources, changed = 0, 0
        for edit, layout in zip(edits, layouts, strict=True):
            widened = (
                length if axis == edit.widens else size
                for axis, size in zip(layout.site.axes, layout.shape, strict=True)
            )
            size = math.prod(widened)
            brought = edit.source is not Source.NOTHING or isinstance(edit.address, Edge)
            sources += 2 * size * itemsize if brought else 0
            changed = max(changed, size * (3 * itemsize + RECEIPT))
        most = max(most, sources + changed)
    return most


EXACT = 2**24
"""Bytes of float64 that metrics over the vocabulary take at a time: more are no faster, and would
leave holes of their size behind in the memory of the process."""


def _end(question: Question, itemsize: int) -> int:
    """What a cell takes after the last block: the final norm, and logits where metrics need all."""
    dims = question.dims
    final = dims.d_model * 4 * max(itemsize, 4)
    if all(one.metric.columns for one in question.readings):
        return final
    copies = 3 if dims.shapes_logits else 1  # a cap takes two steps
    return final + dims.d_vocab * itemsize * copies


def _exact(question: Question) -> int:
    """What the metrics that need the whole vocabulary make of a cell's logits, in float64."""
    wide = [one.metric for one in question.readings if not one.metric.columns]
    if not wide:
        return 0
    kept = 1 + any(metric.logprobs for metric in wide)
    return 8 * question.dims.d_vocab * (kept + max(metric.holds for metric in wide))


@dataclass(frozen=True)
class Room:
    """How the memory of a walk is spent on cells that start at one position.

    Attributes:
        held: bytes of what is recorded of the clean runs.
        cell: bytes that each cell of a batch takes between blocks.
        row: bytes that each cell of a tile takes inside a block.
        end: bytes that each cell takes at the end, of those that it is computed of at a time.
        exact: bytes that metrics take besides, of each cell that they are computed of at a time.
        tile: cells in a tile.
        batch: cells in a batch.
        ends: cells whose end is computed at a time.
        reads: cells whose metrics are, of these.
        look: bytes that metrics inside the model take of each cell that they look at.
        looks: cells that they look at, at a time.
    """

    held: int
    cell: int
    row: int
    end: int
    exact: int
    tile: int
    batch: int
    ends: int
    reads: int
    look: int
    looks: int

    def used(self, cells: int) -> int:
        """Bytes, with so many cells to walk."""
        batch = min(self.batch, cells)
        tile = min(self.tile, batch)
        inside = tile * self.row + min(self.looks, tile) * self.look
        # The clean run's own end is there as well.
        last = (1 + min(self.ends, batch)) * self.end + (1 + min(self.reads, batch)) * self.exact
        return self.held + batch * self.cell + max(inside, last)


def room_for(needs: Needs, own: int, seen: int, held: int, budget: Budget) -> Room:
    """How a budget is spent on cells of ``own`` positions that attend to ``seen``.

    Raises:
        SweepError: not even one cell fits.
    """
    row, cell = needs.inside(own, seen), needs.stays(own)
    least = held + cell + max(row + needs.look, 2 * (needs.end + needs.exact))
    if least > budget.memory:
        raise SweepError(
            f"memory={budget.memory:,} bytes are too few: one cell at a time needs {least:,}, of "
            f"which {held:,} for the clean runs of prompts of {seen} tokens. Give at least that, "
            "or ask for less: shorter prompts, fewer metrics."
        )
    free = budget.memory - held
    looks = max(1, free // LOOK // needs.look) if needs.look else 1
    tile = max(1, min(budget.tile // own, (free - looks * needs.look) // 2 // row))
    looks = min(looks, tile)
    reads = max(1, min(EXACT, free // 4) // needs.exact - 1) if needs.exact else budget.tile
    most = min(free // 2 - (1 + reads) * needs.exact, max(EXACT, budget.memory // 16))
    ends = max(1, min(budget.tile, most // needs.end - 1))
    reads = min(reads, ends)
    last = (1 + ends) * needs.end + (1 + reads) * needs.exact
    reserved = max(tile * row + looks * needs.look, last)
    return Room(
        held=held,
        cell=cell,
        row=row,
        end=needs.end,
        exact=needs.exact,
        tile=tile,
        batch=max(1, (free - reserved) // cell),
        ends=ends,
        reads=reads,
        look=needs.look,
        looks=looks,
    )


def bytes_of_block(dims: Dimensions, tokens: int, itemsize: int) -> int:
    """What a block has in memory besides attention scores, on so many tokens."""
    return itemsize * tokens * (12 * dims.d_model + 6 * dims.experts * dims.d_mlp)


def branches_of(cells: Cells, dims: Dimensions) -> int:
    """How many rows more a cell takes in attention: one for each head whose own view it edits."""
    names = {*OF_HEADS, *OF_GROUPS.values()} if dims.n_kv_heads < dims.n_heads else {*OF_HEADS}
    return _heads_at(cells, names)


def apart_of(cells: Cells) -> int:
    """How many heads of a cell have what they read or write edited, each by itself.

    The MLP counts as one.
    """
    alone = sum(layout.site.name == "mlp_in" for layout in cells.layouts[0])
    return _heads_at(cells, APART) + alone


def _heads_at(cells: Cells, names: Collection[str]) -> int:
    """How many heads a cell edits at these sites, in a layer."""
    own = [layout for layout in cells.layouts[0] if layout.site.name in names]
    return sum(layout.shape[1] for layout in own)


def _wide(sites: Iterable[Site], dims: Dimensions) -> int:
    """The most heads of a site among these that is as wide as the stream for each; 0: none is."""
    return max((dims.size(site.axes[1]) for site in sites if site.name in APART), default=0)


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


STREAMS = 8
"""Cells whose residual stream behind their edits is kept for verification, at most."""


STREAMS_SHARE = 16
"""They take one part in so many of the memory at most, with those that they are held against."""


PAST_SHARE = 16
"""So does the past of a prompt, or it is not kept."""


def streams_kept(dims: Dimensions, length: int, budget: Budget) -> int:
    """Of how many cells of a prompt of so many tokens.

    Of none in a mixture of experts, where they are not compared.
    """
    if not budget.verified or dims.experts > 1:
        return 0
    most = STREAMS if budget.itemsize < 4 else min(STREAMS, budget.verified)
    pair = 4 * length * dims.d_model * max(budget.itemsize, 4)
    return min(most, budget.memory // STREAMS_SHARE // pair)


def bytes_of_streams(dims: Dimensions, length: int, start: int, budget: Budget) -> int:
    """What is kept of these from a position on: edited and clean, in float32 at least."""
    each = 2 * (length - start) * dims.d_model * max(budget.itemsize, 4)
    return streams_kept(dims, length, budget) * each


def bytes_of_past(dims: Dimensions, length: int, budget: Budget) -> int:
    """What is kept of a prompt's clean run so that cells may be computed again from its middle.

    0 where that is more than a part of the memory: they are computed in whole then.
    """
    own = bytes_of_trace(dims, length, length, budget.itemsize)
    return own if own <= budget.memory // PAST_SHARE else 0


@dataclass(frozen=True)
class Held:
    """What is recorded while some prompts of one length are walked.

    Attributes:
        prompts: how many at a time.
        bytes: of their clean runs, of the donors' and reference prompts' activations, and of the
            streams that verification keeps.
        passes: bytes that the pass of the clean runs takes, besides.
    """

    prompts: int
    bytes: int
    passes: int


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

    Raises:
        SweepError: not even one of them fits.
    """
    dims, gauges, itemsize = question.dims, question.gauges, budget.itemsize
    recorded = max(
        sum(_recorded(cells, edits, prompts[0], dims, length, itemsize)) for edits in cells.edits
    )
    each = bytes_of_trace(dims, length, start, itemsize) + recorded
    each += bytes_of_gauges(dims, gauges, length, itemsize)
    each += bytes_beside(cells, dims, length, itemsize)
    fixed = bytes_of_means(question)
    fixed += bytes_on_the_way(cells, prompts, dims, length - start, budget.memory, itemsize)
    if budget.verified:
        fixed += bytes_of_streams(dims, length, start, budget)
    # Donors may go along in the pass; and prompts again, of which more is recorded.
    inside = bytes_of_block(dims, length, itemsize) * (1 + texts_of(cells))
    looked = [*(layout.site for layout in cells.layouts[prompts[0]]), *(g.site for g in gauges)]
    inside += LOOKED * _wide(looked, dims) * length * dims.d_model * itemsize
    fit = min(budget.tile // length, len(prompts), budget.memory // 4 // max(each, inside))
    together = max(1, fit)
    held = Held(together, fixed + together * each, together * inside)
    if held.bytes + held.passes > budget.memory:
        raise SweepError(
            f"memory={budget.memory:,} bytes are too few: the clean run of a prompt of {length} "
            f"tokens needs {held.bytes + held.passes:,}. Give more, or ask for shorter prompts."
        )
    return held


def _recorded(
    cells: Cells,
    edits: Sequence[Operation],
    prompt: int,
    dims: Dimensions,
    length: int,
    itemsize: int,
) -> Iterator[int]:
    """Bytes of what edits need of a prompt's donor, and of what its writers write in both."""
    layouts, shares = cells.layouts[prompt], cells.shares[prompt]
    for edit, layout, share in zip(edits, layouts, shares, strict=True):
        own = layout if share is None else recorded_of(share, dims)
        texts = (edit.source is Source.DONOR) + (share is not None)
        yield texts * bytes_of_source(own, dims, length, itemsize)


def texts_of(cells: Cells) -> int:
    """How many texts of each prompt are run besides its clean run: of its donor, and its own."""
    donors = any(edit.source is Source.DONOR for edits in cells.edits for edit in edits)
    return donors + any(share is not None for share in cells.shares[0])


def bytes_of_reference(question: Question, cells: Cells, budget: Budget) -> int:
    """What the reference path takes: two passes' logits, and what a pass has inside a block."""
    lengths = question.lengths
    prompt = lengths.index(max(lengths))
    needs, longest = needs_of(question, cells, [prompt], budget), lengths[prompt]
    logits = 3 * longest * question.dims.d_vocab * budget.itemsize
    recorded = bytes_of_gauges(question.dims, question.gauges, longest, budget.itemsize)
    inside = needs.inside(longest, longest) + needs.gauges + needs.look
    return logits + recorded + max(inside, 2 * (needs.end + needs.exact))


def bytes_of_verification(rows: int, needs: Needs, length: int) -> int:
    """What one pass of so many whole prompts takes, read only where metrics look.

    The clean run, the cells that are computed again, and those that change nothing.
    """
    stream = rows * length * needs.dims.d_model * needs.itemsize
    each = needs.inside(length, length) + needs.gauges + needs.look + needs.end + needs.exact
    return stream + rows * each


def bytes_of_walk(
    question: Question,
    cells: Cells,
    unit: Unit,
    groups: Sequence[Alike],
    needs: Needs,
    budget: Budget,
) -> int:
    """What the walk of a unit takes, whose cells start and need so."""
    length = len(question.encoded[unit.prompts[0]].tokens.read)
    counts = np.sum([group.per_start() for group in groups], axis=0)
    starts = np.flatnonzero(counts).tolist()
    first = starts[0] if starts else length - 1
    for prompt in unit.prompts:
        written = first_written(cells, prompt, cells.of_prompt(prompt))
        first = first if written is None else min(first, written)
    held = held_for(question, cells, unit.prompts, length, first, budget)
    most = held.bytes + max(held.passes, 2 * (needs.end + needs.exact))
    for start in starts:
        room = room_for(needs, length - start, length, held.bytes, budget)
        most = max(most, room.used(int(counts[start])))
    if budget.verified:
        rows = min(1 + budget.verified, 1 + verified_at_once(needs, length, budget))
        kept = 2 * bytes_of_streams(question.dims, length, first, budget)
        if len(unit.prompts) == 1:
            kept += bytes_of_past(question.dims, length, budget)
        most = max(most, bytes_of_verification(rows, needs, length) + kept)
    return most


def verified_at_once(needs: Needs, length: int, budget: Budget) -> int:
    """How many cells to compute again in one pass, beside a clean run.

    As many as fill a tile, and fit into half the memory with what is kept for them.
    """
    own = bytes_of_verification(1, needs, length)
    kept = 2 * bytes_of_streams(needs.dims, length, 0, budget)
    free = budget.memory // 2 - kept - bytes_of_past(needs.dims, length, budget)
    fit = min(max(budget.tile // length, LEAST), free // own)
    return max(1, fit - 1)
