"""The audit of an approximate map: which cells are computed exactly, and what they say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from microtome.engines.assembled import Assembled
from microtome.engines.block import Array
from microtome.language.regions import Column
from microtome.plan.audit import Audit
from microtome.plan.plan import Plan
from microtome.plan.question import coordinate
from microtome.stats.auditing import (
    CONFIDENCE,
    Drawn,
    agreement,
    bound,
    draw,
    recall,
    spent,
    strongest_first,
)

STRONGEST, DRAWN, DOUBTED = 1, 2, 3
"""Why a cell was computed exactly; 0: it was not."""

RECALLED = 20
"""How many of the strongest cells are looked for, where so many are computed exactly."""

NOBODY: Column = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Choice:
    """Which cells of a plan are computed exactly.

    Attributes:
        population: the numbers of the cells whose edits change something.
        drawn: which of these, by their place among them.
        why: of each of ``drawn.cells``, why.
        fresh: the numbers of those that were not chosen before, in order.
        turn: how often cells were chosen before.
    """

    population: Column
    drawn: Drawn
    why: np.ndarray[Any, np.dtype[np.int8]]
    fresh: Column
    turn: int = 0

    @property
    def numbers(self) -> Column:
        """Their numbers, as of ``drawn.cells``."""
        return self.population[self.drawn.cells]


@dataclass(frozen=True, eq=False)
class Audited:
    """What the audit of a map found.

    Attributes:
        method: the approximation.
        why: of each cell, why it is exact; 0 where it is approximate; of the plan's shape.
        approximate: per metric its approximate values, of the plan's shape.
        found: per metric what the exact cells say, in plain values.
        cells: how many cells are exact.
        asked: the audit that was asked for.
        other: the approximation that it was held against, to refine it.
        rounds: how often cells were chosen.
    """

    method: str
    why: np.ndarray[Any, np.dtype[np.int8]]
    approximate: Mapping[str, Array]
    found: Mapping[str, Any]
    cells: int
    asked: Audit
    other: str | None = None
    rounds: int = 1

    @property
    def enough(self) -> bool:
        """Whether the bound on the first metric is as low as it was to be, or all is exact."""
        bound = next(iter(self.found.values()))["bound"]
        below = self.asked.below
        return bound is None or below is None or bound["effect"] <= below

    def as_dict(self) -> dict[str, Any]:
        """What the provenance keeps."""
        asked = self.asked.as_dict()
        told = {"cells": self.cells, "asked": asked.pop("cells"), **asked}
        if self.asked.refines:
            told |= {"against": self.other, "rounds": self.rounds, "enough": self.enough}
        return {**told, "metrics": dict(self.found)}


def choose(
    plan: Plan,
    rough: Assembled,
    audit: Audit,
    seed: int,
    other: Assembled | None = None,
    before: Choice | None = None,
) -> Choice:
    """The cells of an audit, by the first metric's approximate effects.

    The first time those that it holds strongest, those in doubt, and some at random. Every other
    time more of those that may be strong, twice as many as before, and others at random.

    Args:
        plan: of the whole map.
        rough: the map.
        audit: how many are wanted.
        seed: of the draw.
        other: another approximation of the map, to say which cells are in doubt.
        before: what was chosen the last time.
    """
    points = tuple(plan.cells.points.T)
    population = np.flatnonzero(rough.changed[points] != 0)
    if not len(population):
        population = np.arange(len(plan.cells))
    name, turn = str(plan.question.asked[0]), 0 if before is None else before.turn + 1
    effects = _effects(plan, rough, name)[population]
    doubts = np.zeros_like(effects)
    if other is not None:
        doubts = np.abs(effects - _effects(plan, other, name)[population])
    some, top = audit.cells, audit.cells // 2
    if before is None:
        strongest = strongest_first(effects)[:top]
        by = doubts if other is not None else effects
        more = strongest_first(by, strongest)[: audit.refine]
        known, why = more, np.full(len(more), DOUBTED if other is not None else STRONGEST)
    else:
        some, top = some - top, 0
        more = strongest_first(np.abs(effects) + doubts, before.drawn.cells)
        more = more[: audit.cells * 2 ** (turn - 1)]
        known = np.concatenate([before.drawn.cells, more])
        why = np.concatenate([before.why, np.full(len(more), DOUBTED)])
    chance = np.random.default_rng([seed % 2**64, len(population), *([turn] if turn else [])])
    drawn = draw(effects, plan.cells.entry[population], some, chance, known, top)
    own = len(drawn.strongest) - len(known)
    reasons = np.concatenate(
        [np.full(own, STRONGEST), why, np.full(len(drawn.sample), DRAWN)]
    ).astype(np.int8)
    old = NOBODY if before is None else before.numbers
    fresh = np.setdiff1d(population[drawn.cells], old)
    return Choice(population, drawn, reasons, fresh, turn)


def _effects(plan: Plan, found: Assembled, name: str) -> Array:
    """The effects on a metric, ``[cell]``."""
    values = found.values[name][tuple(plan.cells.points.T)]
    with np.errstate(invalid="ignore"):
        effects: Array = values - found.clean[name][plan.cells.prompt]
    return effects


def audited(
    plan: Plan,
    method: str,
    audit: Audit,
    chosen: Choice,
    rough: Assembled,
    fine: Assembled,
    other: str | None = None,
) -> tuple[Assembled, Audited]:
    """The map, with the exact values of the cells that have them, and what these say."""
    why = np.zeros(plan.shape, dtype=np.int8)
    why[tuple(plan.cells.points[chosen.numbers].T)] = chosen.why
    clean = {
        name: np.where(np.isnan(own), rough.clean[name], own) for name, own in fine.clean.items()
    }
    values, approximate = {}, {}
    for name, own in rough.values.items():
        along = (slice(None), *[None] * (own.ndim - 1))
        approximate[name] = own - rough.clean[name][along] + clean[name][along]
        values[name] = np.where(why > 0, fine.values[name], approximate[name])
    whole = replace(
        fine,
        values=values,
        clean=clean,
        changed=np.where(why > 0, fine.changed, rough.changed),
        norm=np.where(why > 0, fine.norm, rough.norm),
        work=fine.work + rough.work,
        notes=rough.notes + fine.notes,
    )
    at, confidence = chosen.numbers, CONFIDENCE if audit.below is None else spent(chosen.turn)
    found = {}
    for name in rough.values:
        both = (_effects(plan, rough, name)[at], _effects(plan, whole, name)[at])
        found[name] = said(chosen.drawn, *both, partial(_named, plan, at), confidence)
    exact = int((why > 0).sum())
    told = Audited(method, why, approximate, found, exact, audit, other, chosen.turn + 1)
    return whole, told


def _named(plan: Plan, numbers: Column, worst: int) -> dict[str, Any]:
    """The coordinates of one of some cells."""
    point = plan.cells.points[numbers[worst]].tolist()
    axes = zip(plan.axes, point, strict=True)
    return {axis.name: coordinate(axis.values[at]) for axis, at in axes}


def said(
    drawn: Drawn,
    approximate: Array,
    exact: Array,
    named: Callable[[int], dict[str, Any]],
    confidence: float = CONFIDENCE,
) -> dict[str, Any]:
    """What exact effects beside approximate ones say of a metric's map, in plain values.

    Args:
        drawn: which cells are exact.
        approximate, exact: their effects, in this order.
        named: which cell one of them is.
        confidence: of the bound.
    """
    agreed = agreement(approximate, exact, drawn.weights)
    limits = bound(drawn, approximate, exact, confidence)
    found = recall(drawn, exact, RECALLED, confidence)
    return {
        **asdict(agreed),
        "worst": {
            "cell": named(agreed.worst),
            "approximate": float(approximate[agreed.worst]),
            "exact": float(exact[agreed.worst]),
        },
        "bound": None if limits is None else asdict(limits),
        "recall": None if found is None else asdict(found),
    }
