"""The plan of a sweep: its axes and cells, its units, which engine takes them, and what they cost.

Pure: no tensor is touched. A cell is one point of the product of all axes: edits without stars, for
one prompt. Cells that do not exist (a position beyond a shorter prompt) are absent; so are those at
a position that has no counterpart in an aligned donor. A map has up to hundreds of thousands of
cells, so they are kept as columns (`Cells`), and a `Cell` is made when it is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from microtome.errors import SweepError, listing
from microtome.language.edges import Edge
from microtome.language.operations import Operation
from microtome.language.order import exists, refuse
from microtome.language.regions import Column, Layout
from microtome.plan import approximation
from microtome.plan.approximation import Approximation
from microtome.plan.cells import Axis, Cell, Cells
from microtome.plan.choice import GRADIENTS, Choice, choose
from microtome.plan.cost import Cost, cost_by_gradients, cost_of, total
from microtome.plan.legs import legs_of
from microtome.plan.memory.budget import Budget
from microtome.plan.mirror import axes_of, computed, mirror
from microtome.plan.question import Question, Target
from microtome.plan.units import Unit, cut, cut_by_prompt, numbers_of, refined
from microtome.prompts.alignment import ABSENT, SAME


@dataclass(frozen=True)
class Plan:
    """The cells of a question, in order, prompt by prompt; who takes them, and at what cost.

    ``absent`` counts the cells that do not exist, and ``why_absent`` says for what reasons some do
    not. ``mirror`` is the order of axes in which a map of pairs is itself: what is not among the
    cells is its mirror image. ``exact`` is who takes cells of an approximation that are
    computed exactly.
    """

    question: Question
    axes: tuple[Axis, ...]
    cells: Cells
    units: tuple[Unit, ...]
    choice: Choice
    cost: Cost
    absent: int = 0
    why_absent: str = ""
    mirror: tuple[int, ...] = ()
    exact: Choice | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The size of the map along each axis."""
        return tuple(len(axis.values) for axis in self.axes)

    @cached_property
    def legs(self) -> tuple[Plan, ...]:
        """The plans that are run for this one, cell by cell the same: mostly itself alone."""
        return tuple(replace(self, question=leg) for leg in legs_of(self.question))

    @property
    def again(self) -> tuple[Unit, ...]:
        """The units in which some of the cells are computed again, more exactly."""
        return refined(self.units)

    def of_cells(self, numbers: Column, turn: int = 0) -> Plan:
        """The plan of some of the cells, given in order, in units that are numbered on.

        They are computed exactly, whatever the others are. ``turn`` says how often cells were
        chosen before.
        """
        points, variant = self.cells.points[numbers], self.cells.variant[numbers]
        cells = replace(self.cells, points=points, variant=variant)
        units = refined(self.units, turn)
        return replace(self, cells=cells, units=units, choice=self.exact or self.choice)

    def numbered(self, first: int) -> Plan:
        """The same in units that are numbered from a number on."""
        units = (replace(unit, number=first + n) for n, unit in enumerate(self.units))
        return replace(self, units=tuple(units))

    def of_prompt(self, prompt: int) -> list[Cell]:
        """The cells of one prompt."""
        return [self.cells[n] for n in self.cells.of_prompt(prompt).tolist()]

    def numbers(self, unit: Unit) -> Column:
        """The numbers of a unit's cells, in order."""
        return numbers_of(self.cells, unit)


def make_plan(
    question: Question,
    engine: str = "auto",
    budget: Budget = Budget(),  # noqa: B008  (frozen)
    whole: str | None = None,
    method: Approximation | None = None,
) -> Plan:
    """The plan of a question.

    Args:
        question: what is asked.
        engine: ``"walk"``, ``"reference"``, or ``"auto"``: the walk wherever it can go.
        budget: what the walk may use of the machine.
        whole: why the model can only be run as it is, where that is so.
        method: how effects are approximated; None: they are exact.

    Raises:
        SweepError: the walk is asked for where it cannot go, the budget is too small for it, or no
            cell exists; or the method says nothing of the edits, or of corrupted runs.
        MetricError: the method says nothing of a metric.
    """
    dims, edits = question.dims, question.edits
    if method is not None and (question.corruption or question.window > 1):
        raise SweepError(
            f"method={str(method)!r} says nothing of corrupted runs, nor of windows of layers: "
            "take 'exact'."
        )
    choice = choose(engine, edits, dims.causal, whole)
    ranges = question.ranges
    stars = [Axis(name, tuple(range(max(len(r[name]) for r in ranges)))) for name in ranges[0]]
    axes = (Axis("prompt", tuple(range(len(question.encoded)))), *stars, *question.varied)
    cells, mirrored = _cells(question)
    if not len(cells):
        for edge in (edit.address for edit in edits if isinstance(edit.address, Edge)):
            raise refuse(edge, dims)
        raise SweepError(
            f"No cell of {listing(edits)} exists: no token attends to a later one or beyond its "
            "layer's window, here or in the donor; a knockout has to leave each token a key; and a "
            "position without a counterpart in the donor cannot be patched. "
            "'microtome plan' shows what is aligned with what, token by token."
        )
    shape = [len(axis.values) for axis in axes]
    legs, exact = legs_of(question), None
    if method is None:
        walks = choice.engine == "walk"
        units = cut(cells, question.kinds, dims, walks)
        cost = total([cost_of(leg, cells, shape, units, walks, budget) for leg in legs])
    else:
        approximation.check(method, question, cells, whole)
        exact, choice = choice, Choice(GRADIENTS, f"method {method}: {method.about}")
        units = cut_by_prompt(cells, question.kinds)
        each = [cost_by_gradients(leg, cells, shape, units, method, budget) for leg in legs]
        cost = total(each)
    every = sum(math.prod(map(len, own.values())) for own in ranges) * len(question.variants)
    absent = every - len(cells) - mirrored
    why = _why_absent(question) if absent else ""
    image = axes_of(mirror(edits), [axis.name for axis in axes])
    return Plan(question, axes, cells, units, choice, cost, absent, why, image, exact)


def _why_absent(question: Question) -> str:
    """Why some of the points that the stars of the edits span are no cells."""
    edits, causal = question.edits, question.dims.causal
    weights = [edit for edit in edits if "k_pos" in edit.lands.site.axes]
    reasons = {
        "a writer is not before its reader": any(isinstance(e.address, Edge) for e in edits),
        "no token attends to a later one": causal and bool(weights),
        "a layer with a sliding window sees no further": bool(question.dims.reaches and weights),
        "two tokens stand in another order in the donor": causal and _reorders(question),
        "a knockout has to leave each token a key": any(edit.widens for edit in weights),
        "a position has no counterpart in the donor": any(e.alignment != SAME for e in edits),
    }
    return "; or ".join(reason for reason, holds in reasons.items() if holds)


def _reorders(question: Question) -> bool:
    """Whether attention weights come from other positions of another text, perhaps."""
    every = (target for variants in question.targets for own in variants for target in own)
    return any(one.is_moved for one in every if "k_pos" in one.layout.site.axes)


def _cells(question: Question) -> tuple[Cells, int]:
    """The cells, and how many more are the mirror images of some of these."""
    pairs, mirrored = mirror(question.edits), 0
    extra = [len(axis.values) for axis in question.varied]
    columns = []
    for prompt, own in enumerate(question.ranges):
        shape = [len(span) for span in own.values()] + extra
        inner = np.indices(shape).reshape(len(shape), math.prod(shape))
        there = _there(question, prompt, inner.T, extra, list(own))
        first = computed(pairs, list(own), inner.T)
        mirrored += int((there & ~first).sum())
        there &= first
        inner = inner if there.all() else inner[:, there]
        numbers = np.full((1, inner.shape[1]), prompt)
        columns.append(np.concatenate([numbers, inner]))
    points = np.concatenate(columns, axis=1).T
    cells = Cells(
        edits=question.variants,
        layouts=tuple(
            tuple(target.layout for target in per_variant[0]) for per_variant in question.targets
        ),
        live=question.live,
        stars=tuple(question.ranges[0]),
        points=points,
        variant=_variant_of(points, extra),
        causal=question.dims.causal,
        shares=tuple(
            tuple(target.share for target in per_variant[0]) for per_variant in question.targets
        ),
    )
    return cells, mirrored


def _variant_of(points: Column, extra: Sequence[int]) -> Column:
    """The variant of each point: its parameters are the last axes."""
    if not extra:
        return np.broadcast_to(np.int64(0), len(points))
    found: Column = np.ravel_multi_index(tuple(points[:, -len(extra) :].T), tuple(extra))
    return found


def _there(
    question: Question, prompt: int, points: Column, extra: Sequence[int], stars: Sequence[str]
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which points of a prompt exist.

    Their positions have counterparts wherever one is needed, and no token attends to a later one,
    nor to one outside of its window, neither here nor where a weight comes from.
    """
    there, variant = np.ones(len(points), dtype=bool), _variant_of(points, extra)
    causal, windows = question.dims.causal, bool(question.dims.reaches)
    values = {name: points[:, n] for n, name in enumerate(stars)}
    for number, (edits, targets) in enumerate(
        zip(question.variants, question.targets[prompt], strict=True)
    ):
        for edit, target in zip(edits, targets, strict=True):
            where = target.layout
            if isinstance(edit.address, Edge):
                assert target.share is not None, "an edge has a writer"
                there &= exists(edit.address, target.share, where, values, question.dims)
            weights = (causal or windows) and "k_pos" in where.site.axes
            if weights:
                left = edit.widens == "k_pos"
                there &= where.attended(values, len(points), left, causal)
                if not edit.keeps_zeros:
                    _refuse_absent(edit, where, values, there, causal)
            for moved in target.moved:
                for star, column in moved.items():
                    found = column[points[:, stars.index(star)]] != ABSENT
                    there &= found | (variant != number)
            if weights and target.is_moved:
                there &= _in_order(target, values, len(points), causal) | (variant != number)
    return there


def _in_order(
    target: Target, stars: Mapping[str, Column], cells: int, causal: bool
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which cells take each attention weight that exists from one that does, ``[cell]``."""
    ours = target.layout.absent(stars, cells, causal)
    alike = np.ones(cells, dtype=bool)
    for other, moved in zip(target.others, target.moved, strict=True):
        own = {**stars, **{star: column[stars[star]] for star, column in moved.items()}}
        theirs = other.absent(own, cells, causal)
        for one, another in zip(ours, theirs, strict=True):
            alike &= (another == one).all(axis=(1, 2))
    return alike


def _refuse_absent(
    edit: Operation, where: Layout, stars: Mapping[str, Column], there: Column, causal: bool
) -> None:
    """Raise if a cell that exists takes in, among others, weights that do not exist."""
    for cell in np.flatnonzero(there & where.has_absent(stars, len(there), causal))[:1]:
        for region in where.regions(**{name: int(own[cell]) for name, own in stars.items()}):
            edit.check(region, causal)
