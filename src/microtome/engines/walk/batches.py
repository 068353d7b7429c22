"""Which cells walk together: batches of cells, and tiles of a batch. Pure.

A batch is a rectangle, prompts × cells: prompts of one length whose cells start at the same
position (`plan.starts`) and enter at the same layers. So one matrix product serves all
cells of a prompt and, over the prompts, all of a batch. A tile is a part of a batch that a block is
run on at a time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from microtome.language.regions import Column
from microtome.plan.beside import reading_of, together
from microtome.plan.memory.budget import Budget
from microtome.plan.memory.held import held_for
from microtome.plan.memory.needs import needs_of
from microtome.plan.memory.room import Room, room_for
from microtome.plan.paths import first_written
from microtome.plan.plan import Plan
from microtome.plan.starts import Starts, starts_of
from microtome.plan.units import Unit


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
        starts: per prompt, the cells to walk and where each starts.
        start: where the first of them does.
        held: bytes of what is recorded of them.
    """

    prompts: tuple[int, ...]
    starts: Mapping[int, Starts]
    start: int
    held: int


def companies(plan: Plan, unit: Unit, budget: Budget) -> Iterator[Company]:
    """The prompts of a unit, as many together as the budget allows."""
    question = plan.question
    length = len(question.encoded[unit.prompts[0]].tokens.read)
    reading = reading_of(plan.cells, question.dims, budget)
    starts = starts_of(plan.cells, unit, length, question.dims, reading)
    firsts = [int(one.positions.min()) for one in starts.values() if len(one.cells)]
    written = (first_written(plan.cells, prompt, one.cells) for prompt, one in starts.items())
    firsts += [first for first in written if first is not None]
    start = min([*firsts, length - 1])  # a donor that is the text changes no position
    held = held_for(question, plan.cells, unit.prompts, length, start, budget)
    for part in _parts(len(unit.prompts), held.prompts):
        own = unit.prompts[part]
        yield Company(own, {prompt: starts[prompt] for prompt in own}, start, held.bytes)


Roomy = tuple[Batch, Room]
"""A batch, and the memory that it has."""


def convoys(plan: Plan, company: Company, budget: Budget) -> Iterator[list[Roomy]]:
    """The cells of some prompts, in batches that go through the layers side by side."""
    each = (((own, room), room, len(own)) for own, room in batches(plan, company, budget))
    for some, _ in together(each, plan.cells, plan.question.dims, budget):
        yield some


def halves(convoy: Sequence[Roomy]) -> tuple[Sequence[Roomy], Sequence[Roomy]]:
    """Two convoys of half the batches; or of halves of the batch, if there is one."""
    if len(convoy) > 1:
        half = len(convoy) // 2
        return convoy[:half], convoy[half:]
    [(batch, room)] = convoy
    first, second = batch.halves()
    return [(first, room)], [(second, room)]


def batches(plan: Plan, company: Company, budget: Budget) -> Iterator[Roomy]:
    """The cells of some prompts, in batches that fit into the memory."""
    length = len(plan.question.encoded[company.prompts[0]].tokens.read)
    alike: dict[tuple[int, bytes], list[tuple[int, Column]]] = defaultdict(list)
    for prompt, (own, positions) in company.starts.items():
        for position in np.unique(positions).tolist():
            chosen = own[positions == position]
            entering = plan.cells.entry[chosen]
            order = np.argsort(entering, kind="stable")
            alike[position, entering[order].tobytes()].append((prompt, chosen[order]))
    needs = needs_of(plan.question, plan.cells, company.prompts, budget)
    for (position, _), rows in alike.items():
        room = room_for(needs, length - position, length, company.held, budget)
        prompts, cells = zip(*rows, strict=True)
        whole = Batch(prompts, np.stack(cells), plan.cells.entry[cells[0]], position)
        for tile in tiles(len(prompts), range(len(cells[0])), room.batch):
            part = whole.cells[tile.prompts, tile.cells]
            yield (
                Batch(prompts[tile.prompts], part, whole.layers[tile.cells], position),
                room,
            )
