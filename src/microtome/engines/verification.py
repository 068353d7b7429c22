"""Verification: a few cells of a walk recomputed on the reference path.

All logits at all positions that a metric reads are compared, not the metrics alone: whatever is
read off them is then right as well.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from microtome.engines import reference
from microtome.engines.block import Block
from microtome.engines.collector import Collector
from microtome.engines.walk.walk import Walk
from microtome.errors import VerificationError, listing
from microtome.passes.hooks import forward
from microtome.passes.trace import ids_of
from microtome.plan.plan import Plan
from microtome.plan.units import Unit
from microtome.readings.inside import Gauge
from microtome.readings.output import Reading

EXACT = 1e-9
"""Tolerance of logits in float64."""

INNER = 1e-6
"""The same where the family's own code computes attention or norms in float32 all the same."""

ROUNDING = 5e-5
"""Tolerance of logits in float32, times their standard deviation where that is above 1."""

HALF_UNITS = 64
"""The same in a half-precision type, in units of its own rounding: 0.5 in bfloat16."""


@dataclass(frozen=True)
class Verification:
    """What was recomputed, and how far apart the two paths were.

    Attributes:
        cells: how many cells were recomputed.
        largest_difference: of any of their logits; None where none was recomputed.
        tolerance: what was allowed for the cell that came nearest to its tolerance.
        why: what this rests on, in words.
    """

    cells: int
    largest_difference: float | None
    tolerance: float | None
    why: str

    def as_dict(self) -> dict[str, Any]:
        """Its fields as plain values."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Verified:
    """An executor that holds some cells of every unit against the reference path.

    Attributes:
        walk: the executor whose cells are verified.
        cells: how many of a unit.
        seed: of their choice.
    """

    walk: Walk
    cells: int
    seed: int

    def run(self, unit: Unit) -> Block:
        """Compute the cells of a unit, and some of them again.

        Raises:
            VerificationError: a cell is beyond the tolerance.
        """
        chosen = self._choose(unit)
        into = self.walk.collect(unit, chosen)
        block = into.block(unit)
        return replace(block, verification=self._verify(into, chosen).as_dict())

    def _choose(self, unit: Unit) -> frozenset[int]:
        """The numbers of the cells to compute again, at random with a seed."""
        numbers = self.walk.plan.numbers(unit).tolist()
        some = min(self.cells, len(numbers))
        return frozenset(random.Random(self.seed + unit.number).sample(numbers, some))

    def _verify(self, into: Collector, chosen: frozenset[int]) -> Verification:
        worst, allowed = 0.0, 0.0
        for number in sorted(chosen):
            for gap in _gaps(self.walk, into, number):
                if not gap.difference <= gap.tolerance:
                    raise VerificationError(_complaint(self.walk.plan, number, gap))
                if allowed == 0.0 or gap.difference / gap.tolerance > worst / allowed:
                    worst, allowed = gap.difference, gap.tolerance
        if not chosen:
            return Verification(0, None, None, "verify=0: nothing was recomputed")
        why = "chosen at random; all logits at the positions read were compared"
        if into.inside:
            why += ", and all values of the metrics inside the model"
        return Verification(len(chosen), worst, allowed, why)


@dataclass(frozen=True)
class Gap:
    """How far apart the two paths are in one metric of one cell.

    Attributes:
        of: the metric.
        walk: its value on the walk.
        reference: its value on the reference path.
        difference: the largest, of logits or of values.
        tolerance: what is allowed.
    """

    of: Reading | Gauge
    walk: float
    reference: float
    difference: float
    tolerance: float


def _gaps(walk: Walk, into: Collector, number: int) -> Iterator[Gap]:
    model, cell = walk.model, walk.plan.cells[number]
    one, exact = walk.plan.question.encoded[cell.prompt], not model.anatomy.family.inner
    row = int(into.rows(np.array([number]))[0])
    watch = reference.watch_of(model, one, list(into.inside))
    logits, _, inside = reference.run_cell(model, cell, one, walk.sources, watch)
    clean = forward(model.hf, model.anatomy, ids_of([one.tokens], model.hf))
    for reading, values in into.values.items():
        at = reading.position(one, model.anatomy.dims)
        wanted = logits[0, at].double()
        found = into.witnesses[number, at].double().to(wanted.device)
        difference = float((found - wanted).abs().max())
        value = float(reading.measure(logits[:, at], clean[:, at], one)[0])
        if reading.metric.columns:
            # It has not seen the witness's logits, so its own value is compared as well; it is
            # the difference of two logits at most.
            difference = max(difference, abs(value - values[row]) / 2)
        tolerance = tolerance_of(logits.dtype, float(wanted.std()), exact)
        yield Gap(reading, float(values[row]), value, difference, tolerance)
    for gauge, now in inside.items():
        own = now[0].cpu().numpy()
        there = into.inside[gauge][row][tuple(map(slice, own.shape))]
        undefined = np.isnan(there) & np.isnan(own)
        apart = np.where(undefined, 0, np.abs(there - own))
        largest = np.unravel_index(int(np.argmax(apart)), apart.shape)  # a NaN comes first
        yield Gap(
            gauge,
            float(there[largest]),
            float(own[largest]),
            float(apart[largest]),
            tolerance_of(logits.dtype, watch.size(gauge, 0), exact),
        )


def _complaint(plan: Plan, number: int, gap: Gap) -> str:
    cell = plan.cells[number]
    named = zip(plan.axes, cell.index, strict=True)
    return (
        "The walk and the reference path disagree at "
        f"{ {axis.name: axis.values[n] for axis, n in named} } "
        f"({listing(cell.edits)}): {gap.of} is {gap.walk:.6g} and {gap.reference:.6g}; the largest "
        f"difference is {gap.difference:.2g}, tolerance {gap.tolerance:.2g}. Nothing of this sweep "
        "is kept. Use engine='reference', and please report this with the model's name."
    )


def tolerance_of(dtype: torch.dtype, spread: float, exact: bool = True) -> float:
    """How far logits of a type may differ between two ways of computing them.

    A family that is not ``exact`` computes in float32 in places, where one value in a hundred
    million falls on the other side of a rounding.

    >>> tolerance_of(torch.float64, 3.0), tolerance_of(torch.bfloat16, 1.0)
    (1e-09, 0.5)
    """
    if dtype == torch.float64:
        return EXACT if exact else INNER
    rounding = ROUNDING if dtype == torch.float32 else HALF_UNITS * torch.finfo(dtype).eps
    return rounding * max(1.0, spread)
