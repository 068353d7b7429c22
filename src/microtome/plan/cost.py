"""What a sweep costs: operations and bytes, from the shapes alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from microtome.language.edges import Edge
from microtome.language.operations import Source
from microtome.language.sites import Dimensions
from microtome.plan.approximation import Approximation, bytes_of_prompt, together
from microtome.plan.beside import reading_of
from microtome.plan.cells import Cells
from microtome.plan.idlers import twins_of
from microtome.plan.memory.budget import Budget
from microtome.plan.memory.needs import Needs, apart_of, needs_of
from microtome.plan.memory.whole import bytes_of_reference, bytes_of_walk
from microtome.plan.paths import blocks_on_the_way, first_written
from microtome.plan.question import Question
from microtome.plan.results import bytes_of_results, refuse_too_many
from microtome.plan.starts import Alike, alike, moving_of
from microtome.plan.units import Unit, count_of
from microtome.plan.work import flops_of_block, flops_of_blocks, flops_of_pass, flops_of_reading


@dataclass(frozen=True)
class Cost:
    """What a sweep takes.

    Attributes:
        token_blocks: how often some block is run on some token, for the cells.
        flops: floating-point operations, multiplications and additions: cells, clean runs, donors
            and reference prompts. Without what metrics need of the vocabulary.
        passes: full forward passes of the same number of operations.
        reference_passes: forward passes that the reference path makes for the same map.
        bytes: memory at any one time besides the weights and the results.
        result_bytes: memory of the machine itself for all that is measured.
    """

    token_blocks: int
    flops: float
    passes: float
    reference_passes: int
    bytes: float
    result_bytes: float = 0.0


def total(costs: Sequence[Cost]) -> Cost:
    """What several passes over the same cells take, one after another."""
    return Cost(
        token_blocks=sum(one.token_blocks for one in costs),
        flops=sum(one.flops for one in costs),
        passes=sum(one.passes for one in costs),
        reference_passes=sum(one.reference_passes for one in costs),
        bytes=max(one.bytes for one in costs),
        result_bytes=max(one.result_bytes for one in costs),
    )


def cost_of(
    question: Question,
    cells: Cells,
    shape: Sequence[int],
    units: Sequence[Unit],
    walks: bool,
    budget: Budget,
) -> Cost:
    """What the cells of a plan take, on a map of some shape, on the walk or the reference path.

    Raises:
        SweepError: the budget is too small, or what is measured does not fit into the machine.
    """
    dims, lengths = question.dims, question.lengths
    tokens, flops, most = 0, 0.0, 0
    needs: dict[tuple[int, ...], Needs] = {}
    for unit in units:
        length = lengths[unit.prompts[0]]
        block = flops_of_block(dims, 1, length)
        if walks:
            groups = alike(cells, unit, length, dims, reading_of(cells, dims, budget))
            own = sum(_walked(one, length, dims) for one in groups)
            own += sum(_idled(cells, unit, one, length) for one in groups)
            flops += own * block + len(unit.prompts) * flops_of_blocks(dims, length)
            flops += sum(_read_apart(cells, one, length, dims) for one in groups)
            flops += _on_the_way(cells, unit, length, dims) * block
            if unit.prompts not in needs:
                needs[unit.prompts] = needs_of(question, cells, unit.prompts, budget)
            own_needs = needs[unit.prompts]
            most = max(most, bytes_of_walk(question, cells, unit, groups, own_needs, budget))
        else:
            passes = count_of(cells, unit)
            own = passes * dims.n_layers * length
            flops += passes * flops_of_pass(dims, length)
            flops += len(unit.prompts) * flops_of_pass(dims, length)
        tokens += own
    others = _others(question)
    flops += sum((flops_of_blocks if walks else flops_of_pass)(dims, n) for n in others)
    if not walks:
        most = bytes_of_reference(question, cells, budget)
    most += budget.copied
    results = bytes_of_results(question, cells, shape)
    refuse_too_many(results, most, shape, budget)
    return Cost(
        token_blocks=int(tokens),
        flops=flops,
        passes=flops / flops_of_pass(dims, max(lengths)),
        reference_passes=len(cells) + len(lengths) + len(others),
        bytes=float(most),
        result_bytes=float(results),
    )


def cost_by_gradients(
    question: Question,
    cells: Cells,
    shape: Sequence[int],
    units: Sequence[Unit],
    method: Approximation,
    budget: Budget,
) -> Cost:
    """What the cells of a plan take by gradients: so many passes for each prompt, whatever it has.

    Raises:
        SweepError: the budget is too small, or what is measured does not fit into the machine.
    """
    dims, lengths, passes = question.dims, question.lengths, method.passes(question)
    times = passes.forward + 2 * passes.backward
    each = np.array([flops_of_pass(dims, length) for length in lengths])
    cell = np.array([flops_of_block(dims, length, length) for length in lengths])
    flops = times * each.sum() + passes.blocks * cell[cells.prompt].sum()
    flops += sum(flops_of_blocks(dims, length) for length in _others(question))
    most = 0
    for unit in units:
        own = max(bytes_of_prompt(question, cells, prompt, budget) for prompt in unit.prompts)
        most = max(most, own * together(question, cells, unit.prompts, budget))
    most += budget.copied
    results = bytes_of_results(question, cells, shape)
    refuse_too_many(results, most, shape, budget)
    return Cost(
        token_blocks=times * dims.n_layers * sum(lengths),
        flops=float(flops),
        passes=float(flops / flops_of_pass(dims, max(lengths))),
        reference_passes=len(cells) + len(lengths) + len(_others(question)),
        bytes=float(most),
        result_bytes=float(results),
    )


def _walked(group: Alike, length: int, dims: Dimensions) -> int:
    """How often some block is run on some token, for the cells of some prompts."""
    blocks = dims.n_layers - np.arange(dims.n_layers + 1)
    each = (group.counts @ blocks) * (length - group.starts)
    return len(group.prompts) * int(each.sum())


def _read_apart(cells: Cells, group: Alike, length: int, dims: Dimensions) -> float:
    """Operations of the cells of some prompts for what single heads read and write.

    Not of edges: what a writer's cells read is made once for all of them.
    """
    if all(share is not None for share in cells.shares[0]):
        return 0.0
    tokens = len(group.prompts) * int(group.counts.sum(axis=1) @ (length - group.starts))
    layers = max(len(layout.blocks) for layout in cells.layouts[0])
    return tokens * layers * apart_of(cells) * flops_of_reading(dims)


def _on_the_way(cells: Cells, unit: Unit, length: int, dims: Dimensions) -> int:
    """How often some block is run on some token, for what paths bring to their readers."""
    found = 0
    for prompt in unit.prompts:
        numbers = cells.of_prompt(prompt)[unit.first : unit.last]
        first = first_written(cells, prompt, numbers)
        if first is not None and len(numbers):
            streams = len(np.unique(cells.variant[numbers]))  # each parameter has its own
            blocks = blocks_on_the_way(cells, prompt, numbers, dims)
            found += streams * (length - min(first, length)) * sum(int(own.sum()) for own in blocks)
    return found


def _idled(cells: Cells, unit: Unit, group: Alike, length: int) -> int:
    """The same, for the cells that change nothing and go along with them."""
    twins = twins_of(cells, moving_of(cells, unit, group.prompts[0]))
    blocks = group.counts.shape[1] - 1 - cells.entry[twins]
    each = blocks * (length - group.starts[cells.position[twins]])
    return len(group.prompts) * int(each.sum())


def _others(question: Question) -> list[int]:
    """The lengths of the donors and reference prompts that are run."""
    sources = {edit.source for variant in question.variants for edit in variant}
    found = []
    if Source.DONOR in sources:
        found += [len(one.donor) for one in question.encoded if one.donor is not None]
    if any(isinstance(edit.address, Edge) for edit in question.edits):
        found += question.lengths
    if Source.REFERENCE in sources:
        found += [len(one.tokens) for one in question.references]
    return found
