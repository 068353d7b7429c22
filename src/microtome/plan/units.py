"""Units: a plan's cells cut into pieces of some seconds each.

A unit is what is run, verified, stored, resumed and sent elsewhere. It depends on the question and
the model's shape alone, not on the memory budget or the machine: prompts of one length whose clean
runs are worth tracing together, or a part of the cells of a single prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from microtome.language.regions import Column
from microtome.language.sites import Dimensions
from microtome.plan.cells import Cells
from microtome.plan.work import flops_of_block, flops_of_pass

Array = np.ndarray[Any, np.dtype[np.float64]]

WORK = 2e12
"""Operations of a unit, about: some ten seconds on two CPU cores."""

PASSES = 40
"""Full forward passes that a unit is worth at least, so that verifying a cell or two is cheap."""

OVERHEAD = 2e8
"""Operations that could be done in the time that a cell takes besides its own."""

MOST = 2**62
"""More cells than any prompt has."""

TOKENS = 512
"""Tokens of the prompts of a unit, about: more are not traced any faster together."""


@dataclass(frozen=True)
class Unit:
    """Some cells of some prompts of one length.

    Attributes:
        number: its own, from 0.
        prompts: the plan's prompts, by number.
        first, last: which of each prompt's own cells, the last not included.
    """

    number: int
    prompts: tuple[int, ...]
    first: int
    last: int


def cut(
    cells: Cells, kinds: Sequence[tuple[int, ...]], dims: Dimensions, walks: bool
) -> tuple[Unit, ...]:
    """The units of a plan: its cells in order, prompts of one kind together.

    Args:
        cells: of the plan.
        kinds: per prompt its length, and what else prompts have to share to be run together.
        dims: the model's.
        walks: whether they walk.
    """
    lengths = [kind[0] for kind in kinds]
    work = _work(cells, lengths, dims, walks)
    most = max(WORK, PASSES * flops_of_pass(dims, max(lengths)))
    found: list[Unit] = []
    for prompts, begin, end in _pieces(cells, kinds, work, most):
        found.append(Unit(len(found), prompts, begin, end))
    return tuple(found)


def cut_by_prompt(cells: Cells, kinds: Sequence[tuple[int, ...]]) -> tuple[Unit, ...]:
    """The units of a plan whose work is by the prompt, however many cells it has: all of each."""
    found: list[Unit] = []
    for prompts, begin, end in _pieces(cells, kinds, np.zeros(len(cells)), WORK):
        found.append(Unit(len(found), prompts, begin, end))
    return tuple(found)


def refined(units: Sequence[Unit], turn: int = 0) -> tuple[Unit, ...]:
    """The units of a few cells of the same plan, numbered on: its prompts, as they are together.

    How many there are is known before it is known which cells they have.

    Args:
        units: of the plan.
        turn: how often cells were chosen before, each time in as many units.
    """
    together = dict.fromkeys(unit.prompts for unit in units)
    first = len(units) + turn * len(together)
    numbers = range(first, first + len(together))
    return tuple(
        Unit(number, prompts, 0, MOST) for number, prompts in zip(numbers, together, strict=True)
    )


def numbers_of(cells: Cells, unit: Unit) -> Column:
    """The numbers of a unit's cells, in order."""
    each = (cells.of_prompt(prompt)[unit.first : unit.last] for prompt in unit.prompts)
    return np.concatenate([*each])


def passes_of(cells: Cells, unit: Unit, length: int, dims: Dimensions) -> float:
    """Full forward passes that the walk of a unit is worth, by its operations."""
    numbers = numbers_of(cells, unit)
    own = np.maximum(length - cells.position[numbers], 0)
    blocks = ((dims.n_layers - cells.entry[numbers]) * own).sum()
    return float(blocks * flops_of_block(dims, 1, length) / flops_of_pass(dims, length))


def count_of(cells: Cells, unit: Unit) -> int:
    """How many cells a unit has."""
    own = map(cells.span, unit.prompts)
    return sum(max(0, min(unit.last, one.stop - one.start) - unit.first) for one in own)


def _work(cells: Cells, lengths: Sequence[int], dims: Dimensions, walks: bool) -> Array:
    """Operations of each cell, ``[cell]``, its overhead among them."""
    work: Array = np.empty(len(cells))
    for prompt, length in enumerate(lengths):
        own = cells.span(prompt)
        if walks:
            token = flops_of_block(dims, 1, length)
            tokens = np.maximum(length - cells.position[own], 0)
            work[own] = (dims.n_layers - cells.entry[own]) * tokens * token + OVERHEAD
        else:
            work[own] = flops_of_pass(dims, length) + OVERHEAD
    return work


def _pieces(
    cells: Cells, kinds: Sequence[tuple[int, ...]], work: Array, most: float
) -> Iterator[tuple[tuple[int, ...], int, int]]:
    by_kind = sorted(range(len(kinds)), key=kinds.__getitem__)
    for (length, *_), group in groupby(by_kind, key=kinds.__getitem__):
        together: list[int] = []
        done = 0.0
        for prompt in group:
            own = cells.span(prompt)
            cost = float(work[own].sum())
            full = done + cost > most or (len(together) + 1) * length > TOKENS
            if together and full:
                yield tuple(together), 0, _most_cells(cells, together)
                together, done = [], 0.0
            if cost > most:
                yield from (((prompt,), a, b) for a, b in _parts(work[own], most))
            else:
                together.append(prompt)
                done += cost
        if together:
            yield tuple(together), 0, _most_cells(cells, together)


def _most_cells(cells: Cells, prompts: Sequence[int]) -> int:
    return max(len(range(len(cells))[cells.span(prompt)]) for prompt in prompts)


def _parts(work: Array, most: float) -> Iterator[tuple[int, int]]:
    """Where to cut a prompt's cells into parts of about equal work."""
    until = np.cumsum(work)
    pieces = int(np.ceil(until[-1] / most))
    ends = np.searchsorted(until, until[-1] * np.arange(1, pieces) / pieces) + 1
    edges = np.unique([0, *ends.tolist(), len(work)])
    yield from zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
