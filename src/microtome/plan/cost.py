"""What a sweep costs: operations and bytes, from the shapes alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from microtome.language.operations import Source
from microtome.language.sites import Dimensions
from microtome.plan.cells import Cells
from microtome.plan.idlers import twins_of
from microtome.plan.memory import Budget, branches_of, bytes_of_reference, bytes_of_walk
from microtome.plan.question import Question
from microtome.plan.starts import Starts, starts_of
from microtome.plan.units import Unit, numbers_of
from microtome.plan.work import flops_of_block, flops_of_blocks, flops_of_pass


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
    question: Question, cells: Cells, units: Sequence[Unit], walks: bool, budget: Budget
) -> Cost:
    """What the cells of a plan take, on the walk or on the reference path.

    Raises:
        SweepError: the budget is too small.
    """
    dims, lengths = question.dims, question.lengths
    tokens, flops, most = 0, 0.0, 0
    for unit in units:
        length = lengths[unit.prompts[0]]
        block = flops_of_block(dims, 1, length)
        if walks:
            starts = starts_of(cells, unit, length, dims, budget.reading)
            own = sum(_walked(cells, one, length, dims) for one in starts.values())
            own += sum(_walked(cells, _riding(cells, one), length, dims) for one in starts.values())
            flops += own * block + len(unit.prompts) * flops_of_blocks(dims, length)
            most = max(most, bytes_of_walk(question, cells, unit, starts, budget))
        else:
            passes = len(numbers_of(cells, unit))
            own = passes * dims.n_layers * length
            flops += passes * flops_of_pass(dims, length)
            flops += len(unit.prompts) * flops_of_pass(dims, length)
        tokens += own
    others = _others(question)
    flops += sum((flops_of_blocks if walks else flops_of_pass)(dims, n) for n in others)
    if not walks:
        most = bytes_of_reference(dims, max(lengths), budget, branches_of(cells))
    return Cost(
        token_blocks=int(tokens),
        flops=flops,
        passes=flops / flops_of_pass(dims, max(lengths)),
        reference_passes=len(cells) + len(lengths) + len(others),
        bytes=float(most),
    )


def _walked(cells: Cells, starts: Starts, length: int, dims: Dimensions) -> int:
    """How often some block is run on some token, for some cells of a prompt."""
    blocks = dims.n_layers - cells.entry[starts.cells]
    return int((blocks * (length - starts.positions)).sum())


def _riding(cells: Cells, starts: Starts) -> Starts:
    """The cells that idlers go along with."""
    twins = np.isin(starts.cells, twins_of(cells, starts.cells))
    return Starts(starts.cells[twins], starts.positions[twins])


def _others(question: Question) -> list[int]:
    """The lengths of the donors and reference prompts that are run."""
    sources = {edit.source for variant in question.variants for edit in variant}
    found = []
    if Source.DONOR in sources:
        found += [len(one.donor) for one in question.encoded if one.donor is not None]
    if Source.REFERENCE in sources:
        found += [len(one.tokens) for one in question.references]
    return found
