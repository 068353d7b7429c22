"""Where cells start in the walk: which neighbouring starts share a batch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from microtome.language.regions import Column
from microtome.language.sites import Dimensions
from microtome.plan.cells import Cells
from microtome.plan.units import Unit

Array = np.ndarray[Any, np.dtype[np.float64]]


class Starts(NamedTuple):
    """Some cells of a prompt, by number, and the position where each starts, ``[cell]``."""

    cells: Column
    positions: Column


def starts_of(
    cells: Cells, unit: Unit, length: int, dims: Dimensions, reading: int
) -> Mapping[int, Starts]:
    """Where a unit's cells start in the walk, by prompt; those that change nothing do not.

    At the first position that they edit; or earlier, with cells that start there, where one batch
    is cheaper than two. Between the two it is the clean run, computed once more.
    """
    own = {prompt: _moving(cells, unit, prompt) for prompt in unit.prompts}
    alike: dict[bytes, list[int]] = defaultdict(list)
    for prompt, numbers in own.items():
        shape = np.stack([cells.position[numbers], cells.entry[numbers]]).tobytes()
        alike[shape].append(prompt)
    found = {}
    for prompts in alike.values():
        numbers = own[prompts[0]]
        positions, which = np.unique(cells.position[numbers], return_inverse=True)
        blocks = dims.n_layers - cells.entry[numbers]
        work = len(prompts) * np.bincount(which, blocks).astype(np.float64)
        depth = np.zeros(len(positions))
        np.maximum.at(depth, which, blocks)
        shared = shared_starts(positions, work, depth, length, reading)
        for prompt in prompts:
            found[prompt] = Starts(own[prompt], shared[which])
    return {prompt: found[prompt] for prompt in unit.prompts}


def _moving(cells: Cells, unit: Unit, prompt: int) -> Column:
    numbers = cells.of_prompt(prompt)[unit.first : unit.last]
    return numbers[~cells.still[numbers]]


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
        reading: see `microtome.plan.memory.Budget`.
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
