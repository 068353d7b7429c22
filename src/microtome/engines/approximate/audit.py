"""The audit of an approximate map: which cells are computed exactly, and what they say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from microtome.engines.assembled import Assembled
from microtome.engines.block import Array
from microtome.language.regions import Column
from microtome.plan.audit import Audit
from microtome.plan.plan import Plan
from microtome.plan.question import coordinate
from microtome.stats.auditing import Drawn, agreement, bound, draw, recall

STRONGEST, DRAWN = 1, 2
"""Why a cell was computed exactly; 0: it was not."""

RECALLED = 20
"""How many of the strongest cells are looked for, where so many are computed exactly."""


@dataclass(frozen=True, eq=False)
class Choice:
    """Which cells of a plan are computed exactly.

    Attributes:
        population: the numbers of the cells whose edits change something.
        drawn: which of these, by their place among them.
    """

    population: Column
    drawn: Drawn

    @property
    def numbers(self) -> Column:
        """Their numbers, in order."""
        return np.sort(self.population[self.drawn.cells])


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
    """

    method: str
    why: np.ndarray[Any, np.dtype[np.int8]]
    approximate: Mapping[str, Array]
    found: Mapping[str, Any]
    cells: int
    asked: Audit

    def as_dict(self) -> dict[str, Any]:
        """What the provenance keeps."""
        asked = {"asked": self.asked.cells, "refine": self.asked.refine}
        return {"cells": self.cells, **asked, "metrics": dict(self.found)}


def choose(plan: Plan, rough: Assembled, audit: Audit, seed: int) -> Choice:
    """The cells of an audit, by the first metric's approximate effects."""
    points = tuple(plan.cells.points.T)
    population = np.flatnonzero(rough.changed[points] != 0)
    if not len(population):
        population = np.arange(len(plan.cells))
    effects = _effects(plan, rough, str(plan.question.asked[0]))[population]
    chance = np.random.default_rng([seed % 2**64, len(population)])
    drawn = draw(effects, plan.cells.entry[population], audit.cells, chance, audit.refine)
    return Choice(population, drawn)


def _effects(plan: Plan, found: Assembled, name: str) -> Array:
    """The effects on a metric, ``[cell]``."""
    values = found.values[name][tuple(plan.cells.points.T)]
    with np.errstate(invalid="ignore"):
        effects: Array = values - found.clean[name][plan.cells.prompt]
    return effects


def audited(
    plan: Plan, method: str, audit: Audit, chosen: Choice, rough: Assembled, fine: Assembled
) -> tuple[Assembled, Audited]:
    """The map, with the exact values of the cells that have them, and what these say."""
    why = np.zeros(plan.shape, dtype=np.int8)
    points, at = plan.cells.points, chosen.population[chosen.drawn.cells]
    top = len(chosen.drawn.strongest)
    for numbers, reason in ((at[:top], STRONGEST), (at[top:], DRAWN)):
        why[tuple(points[numbers].T)] = reason
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
    found = {}
    for name in rough.values:
        both = (_effects(plan, rough, name)[at], _effects(plan, whole, name)[at])
        found[name] = said(plan, chosen.drawn, *both, at)
    exact = int((why > 0).sum())
    return whole, Audited(method, why, approximate, found, exact, audit)


def said(
    plan: Plan, drawn: Drawn, approximate: Array, exact: Array, numbers: Column
) -> dict[str, Any]:
    """What exact effects beside approximate ones say of a metric's map, in plain values."""
    agreed = agreement(approximate, exact, drawn.weights)
    limits, found = bound(drawn, approximate, exact), recall(drawn, exact, RECALLED)
    worst = plan.cells.points[numbers[agreed.worst]]
    where = {
        axis.name: coordinate(axis.values[at])
        for axis, at in zip(plan.axes, worst.tolist(), strict=True)
    }
    return {
        **asdict(agreed),
        "worst": {
            "cell": where,
            "approximate": float(approximate[agreed.worst]),
            "exact": float(exact[agreed.worst]),
        },
        "bound": None if limits is None else asdict(limits),
        "recall": None if found is None else asdict(found),
    }
