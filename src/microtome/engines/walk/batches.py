"""Which cells walk together: batches of cells, and tiles of a batch. Pure.

A batch is a rectangle, prompts × cells: prompts of one length whose cells start at the same
position (`sweep.cost.starts_of`) and enter at the same layers. So one matrix product serves all
cells of a prompt and, over the prompts, all of a batch. A tile is a part of a batch that a block is
run on at a time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np

from microtome.language.regions import Column
from microtome.language.sites import Dimensions
from microtome.plan.cost import Budget, Room, branches_of, held_for, room_for, starts_of
from microtome.plan.plan import Plan
from microtome.prompts.encoding import Encoded
from microtome.readings.inside import Gauge


@dataclass(frozen=True, eq=False)
class Batch:
    """Cells that walk together.

    Attributes:
        prompts: the plan's prompts, one per row.
        cells: numbers of the plan's cells, ``[prompt, cell]``, in the order in which they enter.
        layers: the block that each enters, ``[cell]``, the same for every prompt.
        position: where they start: no later than any of them edits.
    """

    prompts: tuple[int, ...]
    cells: Column
    layers: Column
    position: int

    def __len__(self) -> int:
        return int(self.cells.size)

    def halves(self) -> tuple[Batch, Batch]:
        """Two batches of half the cells: of half the prompts, if there are several."""
        if len(self.prompts) > 1:
            half = len(self.prompts) // 2
            return (
                Batch(self.prompts[:half], self.cells[:half], self.layers, self.position),
                Batch(self.prompts[half:], self.cells[half:], self.layers, self.position),
            )
        half = self.cells.shape[1] // 2
        return self._columns(slice(None, half)), self._columns(slice(half, None))

    def _columns(self, chosen: slice) -> Batch:
        return Batch(self.prompts, self.cells[:, chosen], self.layers[chosen], self.position)


@dataclass(frozen=True)
class Tile:
    """A part of a batch: some of its prompts, and some of their cells."""

    prompts: slice
    cells: slice


def tiles(prompts: int, cells: range, size: int) -> Iterator[Tile]:
    """A rectangle cut into tiles of about so many cells, of nearly equal size."""
    if len(cells) >= size:
        for prompt in range(prompts):
            for part in _parts(len(cells), size):
                own = cells[part]
                yield Tile(slice(prompt, prompt + 1), slice(own.start, own.stop))
    elif cells:
        for part in _parts(prompts, size // len(cells)):
            yield Tile(part, slice(cells.start, cells.stop))


def _parts(total: int, size: int) -> Iterator[slice]:
    pieces = -(-total // size)
    ends = [total * n // pieces for n in range(pieces + 1)]
    for first, last in pairwise(ends):
        yield slice(first, last)


@dataclass(frozen=True)
class Company:
    """Prompts of one length whose clean runs are traced together.

    Attributes:
        prompts: their numbers in the plan.
        starts: where each of the plan's cells starts, ``[cell]``.
        start: where the first of their own does.
        held: bytes of what is recorded of them.
    """

    prompts: tuple[int, ...]
    starts: Column
    start: int
    held: int


def companies(
    plan: Plan,
    encoded: Sequence[Encoded],
    dims: Dimensions,
    references: int,
    budget: Budget,
    gauges: Sequence[Gauge] = (),
) -> Iterator[Company]:
    """The prompts of a plan, as many of one length together as the budget allows."""
    starts = starts_of(plan.cells, [len(one.tokens) for one in encoded], dims, budget)
    by_length = sorted(range(len(encoded)), key=lambda n: len(encoded[n].tokens))
    for length, group in groupby(by_length, key=lambda n: len(encoded[n].tokens)):
        prompts = list(group)
        own = starts[np.isin(plan.cells.prompt, prompts)]
        start = int(own.min()) if len(own) else length - 1
        held = held_for(dims, plan.cells, prompts[0], length, start, references, budget, gauges)
        for part in _parts(len(prompts), held.prompts):
            yield Company(tuple(prompts[part]), starts, start, held.bytes)


def batches(
    plan: Plan, company: Company, length: int, dims: Dimensions, budget: Budget
) -> Iterator[tuple[Batch, Room]]:
    """The cells of some prompts, in batches that fit into the memory."""
    alike: dict[tuple[int, bytes], list[tuple[int, Column]]] = defaultdict(list)
    for prompt in company.prompts:
        own = np.flatnonzero(plan.cells.prompt == prompt)
        positions = company.starts[own]
        for position in np.unique(positions).tolist():
            chosen = own[positions == position]
            entering = plan.cells.entry[chosen]
            order = np.argsort(entering, kind="stable")
            alike[position, entering[order].tobytes()].append((prompt, chosen[order]))
    for (position, _), rows in alike.items():
        branches = branches_of(plan.cells)
        room = room_for(dims, length - position, length, company.held, budget, branches)
        prompts, cells = zip(*rows, strict=True)
        whole = Batch(prompts, np.stack(cells), plan.cells.entry[cells[0]], position)
        for tile in tiles(len(prompts), range(len(cells[0])), room.batch):
            part = whole.cells[tile.prompts, tile.cells]
            yield (
                Batch(prompts[tile.prompts], part, whole.layers[tile.cells], position),
                room,
            )
