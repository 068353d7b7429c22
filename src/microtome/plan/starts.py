"""Where cells start in the walk: which neighbouring starts share a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from microtome.language.regions import Column
from microtome.language.sites import Dimensions
from microtome.plan.cells import Cells
from microtome.plan.units import Array, Unit


class Starts(NamedTuple):
    """Some cells of a prompt, by number, and the position where each starts, ``[cell]``."""

    cells: Column
    positions: Column


@dataclass(frozen=True, eq=False)
class Alike:
    """Prompts with as many cells at each position and block: they start in the same way.

    Attributes:
        prompts: the plan's, by number.
        counts: how many cells of each differ from a position on, and enter at a block,
            ``[position, block]``.
        starts: where the cells of each position start, ``[position]``.
    """

    prompts: tuple[int, ...]
    counts: Column
    starts: Column

    def per_start(self) -> Column:
        """How many cells start at each position, of all these prompts, ``[position]``."""
        found = np.zeros(len(self.starts), dtype=np.int64)
        np.add.at(found, self.starts, len(self.prompts) * self.counts.sum(axis=1))
        return found


def alike(
    cells: Cells, unit: Unit, length: int, dims: Dimensions, reading: int
) -> tuple[Alike, ...]:
    """How a unit's cells start in the walk; those that change nothing do not.

    At the first position that they edit; or earlier, with cells that start there, where one batch
    is cheaper than two. Between the two it is the clean run, computed once more.
    """
    groups: dict[bytes, tuple[Column, list[int]]] = {}
    for prompt in unit.prompts:
        counts = _counts(cells, _own(cells, unit, prompt), length, dims)
        groups.setdefault(counts.tobytes(), (counts, []))[1].append(prompt)
    return tuple(
        Alike(tuple(prompts), counts, _starts(counts, len(prompts), length, dims, reading))
        for counts, prompts in groups.values()
    )


def starts_of(
    cells: Cells, unit: Unit, length: int, dims: Dimensions, reading: int
) -> Mapping[int, Starts]:
    """Where each of a unit's cells starts, by prompt."""
    found = {}
    for group in alike(cells, unit, length, dims, reading):
        for prompt in group.prompts:
            numbers = moving_of(cells, unit, prompt)
            found[prompt] = Starts(numbers, group.starts[cells.position[numbers]])
    return {prompt: found[prompt] for prompt in unit.prompts}


def moving_of(cells: Cells, unit: Unit, prompt: int) -> Column:
    """The numbers of a unit's cells of one prompt, without those that change nothing."""
    own = _own(cells, unit, prompt)
    return np.arange(own.start, own.stop)[~cells.still[own]]


def _own(cells: Cells, unit: Unit, prompt: int) -> slice:
    """Which of the plan's cells are a unit's, of one prompt."""
    own = cells.span(prompt)
    return slice(min(own.start + unit.first, own.stop), min(own.start + unit.last, own.stop))


def _counts(cells: Cells, own: slice, length: int, dims: Dimensions) -> Column:
    """How many of some cells differ from a position on and enter at a block."""
    position, entry, blocks = cells.position[own], cells.entry[own], dims.n_layers + 1
    if cells.still[own].any():
        moving = ~cells.still[own]
        position, entry = position[moving], entry[moving]
    counts = np.bincount(position * blocks + entry, minlength=length * blocks)
    return counts.reshape(length, blocks)


def _starts(counts: Column, prompts: int, length: int, dims: Dimensions, reading: int) -> Column:
    """Where the cells of each position start; where there are none, at the position itself."""
    blocks = dims.n_layers - np.arange(counts.shape[1])
    used = np.flatnonzero(counts.any(axis=1))
    work = prompts * (counts[used] @ blocks).astype(np.float64)
    depth = ((counts[used] > 0) * blocks).max(axis=1, initial=0).astype(np.float64)
    starts = np.arange(length)
    starts[used] = shared_starts(used, work, depth, length, reading)
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
        reading: see `microtome.plan.memory.budget.Budget`.
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
