"""What a map will take, before any of it is computed."""

from __future__ import annotations

from dataclasses import dataclass

import microtome as mt
from microtome.frontends.lab.asked import Asked
from microtome.frontends.lab.desk import Desk

AT_ONCE = 6.0
"""Seconds up to which a map is computed without being asked for."""


@dataclass(frozen=True)
class Cost:
    """What a map takes.

    Attributes:
        cells: how many it has.
        passes: forward passes of the same number of operations.
        reference_passes: forward passes if each cell were run by itself.
        seconds: about how long it will take here, without verification.
        units: in how many parts it grows.
    """

    cells: int
    passes: float
    reference_passes: int
    seconds: float
    units: int

    @property
    def is_small(self) -> bool:
        """Whether it is computed without being asked for."""
        return self.seconds <= AT_ONCE


def cost_of(desk: Desk, asked: Asked) -> Cost:
    """The cost of a sweep, by its plan and the model's pace.

    Raises:
        MicrotomeError: the sweep cannot be made.
    """
    model = desk.model(asked.model)
    asked.check_size(model)
    experiment = mt.Experiment(
        model=asked.model, prompts=[asked.prompt], edits=[asked.edit], metrics=[asked.metric]
    )
    plan = experiment.plan(model)
    tokens = max(plan.question.lengths)
    return Cost(
        cells=len(plan.cells),
        passes=plan.cost.passes,
        reference_passes=plan.cost.reference_passes,
        seconds=desk.pace(asked.model, asked.prompt) * tokens * plan.cost.passes,
        units=len(plan.units),
    )
