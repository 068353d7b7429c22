"""Memory of whole units, as each path runs them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from microtome.language.sites import Dimensions
from microtome.plan.beside import together
from microtome.plan.cells import Cells
from microtome.plan.idlers import IDLERS
from microtome.plan.memory.budget import LEAST, Budget
from microtome.plan.memory.held import held_for
from microtome.plan.memory.kept import bytes_of_past, bytes_of_streams
from microtome.plan.memory.needs import Needs, needs_of, places_of
from microtome.plan.memory.recorded import bytes_of_gauges
from microtome.plan.memory.room import room_for
from microtome.plan.paths import first_written
from microtome.plan.question import Question
from microtome.plan.starts import Alike
from microtome.plan.units import Unit


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


COMPARED_SHARE = 8
"""Logits that verification compares take one part in so many of the memory at most, unless those of
one prompt at one position take more."""

EACH = 8
"""What a cell's logits are compared in, in float64: both paths' own, the clean ones, and what they
are apart."""


def compared_at_once(dims: Dimensions, budget: Budget) -> int:
    """How many rows of logits verification compares together."""
    return max(1, budget.memory // COMPARED_SHARE // _bytes_of_logits(dims, budget))


def _bytes_of_logits(dims: Dimensions, budget: Budget) -> int:
    copies = 3 if dims.shapes_logits else 1  # a cap takes two steps
    return dims.d_vocab * budget.itemsize * copies


def bytes_of_comparison(
    question: Question, prompts: Sequence[int], cells: int, needs: Needs, budget: Budget
) -> int:
    """What the logits of some cells take, on both paths, while they are compared.

    Of all prompts at all positions that a metric reads, as far as they fit; and of a cell at a time
    in float64, with what metrics make of it on both paths.
    """
    places = sum(len(places_of(question, prompt)) for prompt in prompts)
    own = 2 + IDLERS + 2 * cells
    rows = min(places * own, max(own, compared_at_once(question.dims, budget)))
    exact = EACH * 8 * question.dims.d_vocab + 2 * needs.exact if rows else 0
    return rows * _bytes_of_logits(question.dims, budget) + exact


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
    rooms = (room_for(needs, length - start, length, held.bytes, budget) for start in starts)
    each = zip(starts, rooms, counts[starts].tolist(), strict=True)
    for _, used in together(each, cells, question.dims, budget):
        most = max(most, used)
    if budget.verified:
        rows = min(1 + budget.verified, 1 + verified_at_once(needs, length, budget))
        kept = 2 * bytes_of_streams(question.dims, length, first, budget)
        if len(unit.prompts) == 1:
            kept += bytes_of_past(question.dims, length, budget)
        compared = bytes_of_comparison(question, unit.prompts, rows - 1, needs, budget)
        most = max(most, kept + max(bytes_of_verification(rows, needs, length), compared))
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
