"""Host memory for what a sweep measures: planned before anything runs, and refused if too much.

The budget of ``memory=`` is for the walk. Results are as large as the map that was asked for, so
they are counted by themselves and held against what the machine has left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from microtome.errors import SweepError
from microtome.plan.cells import Cells
from microtome.plan.memory.budget import Budget
from microtome.plan.question import Question

NUMBER = 8
"""Bytes of a number: values are float64, and so are receipts and the columns of the cells."""

RECEIPTS = 2
"""Numbers of a cell's receipt: values changed, and the norm of the change."""


def bytes_of_results(question: Question, cells: Cells, shape: Sequence[int]) -> int:
    """What the values of a map of this shape take, from the first cell to the labelled result.

    Every cell's values and receipt once in the block that they arrive in and once on the map, where
    cells that do not exist have their places too; the values without edits likewise; and the
    cells themselves, as columns.
    """
    outputs = len(question.readings)
    inner = [_largest(question, number) for number in range(len(question.gauges))]
    places, prompts = math.prod(shape), len(question.encoded)
    each = outputs + sum(inner)
    arrays = (len(cells) + places) * (each + RECEIPTS) + 2 * prompts * each
    # Where they stand on each axis, and their numbers, variants, first positions and blocks; and
    # where they stand in their unit.
    columns = len(cells) * (len(shape) + 5)
    return NUMBER * (arrays + columns + _labels(question, places))


def _largest(question: Question, number: int) -> int:
    """How many values a metric inside the model has in a cell, on the longest prompt."""
    gauge = question.gauges[number]
    shapes = [gauge.on(one, question.dims).shape for one in question.encoded]
    return math.prod(max(sizes) for sizes in zip(*shapes, strict=True))


def _labels(question: Question, places: int) -> int:
    """Numbers that labels take: of token ids, whole numbers, texts, and which text is whose."""
    ids = sum(one.metric.unit == "token id" for one in question.readings)
    return 4 * ids * places


def refuse_too_many(result: int, walk: float, shape: Sequence[int], budget: Budget) -> None:
    """Raise if what is measured does not fit into what the machine has left.

    Raises:
        SweepError: it does not.
    """
    needed = result + (int(walk) if budget.shared else 0)
    if budget.host is None or needed <= budget.host:
        return
    beside = f" and {walk / 2**20:,.0f} MiB for computing them" if budget.shared else ""
    instead = ""
    if budget.shared and budget.copied:
        beside += f" ({budget.copied / 2**20:,.0f} of them for a copy of the model)"
        instead = (
            " Or do without the copy: load the model in float32 for gradients; leave screen= out."
        )
    raise SweepError(
        f"The results of this map, {' × '.join(map(str, shape))}, need {result / 2**20:,.0f} MiB"
        f"{beside}, and the machine has {budget.host / 2**20:,.0f} MiB left. memory= is for the "
        "walk and does not help here: ask for fewer cells, prompts or metrics, or for metrics "
        f"inside the model at fewer positions or layers.{instead}"
    )
