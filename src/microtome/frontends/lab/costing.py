"""What a map will take, before any of it is computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from microtome.frontends.importing import imported
from microtome.frontends.lab.asked import Asked
from microtome.frontends.lab.desk import Desk

if TYPE_CHECKING:
    from microtome.plan.plan import Plan

AT_ONCE = 6.0
"""Seconds up to which a map is computed without being asked for."""
VERIFIED = 4
"""Cells that a sweep of a map computes again, as `mt.sweep` has it unless told otherwise."""


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
    question = imported("microtome.verbs.asking").asking(
        model, asked.prompt, asked.edit, metrics=asked.metric, to_run=False
    )
    verified = imported("microtome.plan.verify").Verify.of(VERIFIED).most
    budget = imported("microtome.verbs.options").budget_of(model, verified=verified)
    plan: Plan = imported("microtome.plan.plan").make_plan(question, "auto", budget, model.whole)
    tokens = max(plan.question.lengths)
    return Cost(
        cells=len(plan.cells),
        passes=plan.cost.passes,
        reference_passes=plan.cost.reference_passes,
        seconds=desk.pace(asked.model, asked.prompt) * tokens * plan.cost.passes,
        units=len(plan.units),
    )
