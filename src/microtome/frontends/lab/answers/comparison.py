"""Two maps on one scale, and their difference: of two prompts, two models, or two edits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from microtome import Effects
from microtome.figures import Drawn, matrix, series, style
from microtome.figures.labels import escaped, shown
from microtome.figures.view import cut
from microtome.frontends.lab.answers.measuring import canonical
from microtome.readings.registry import about

ROWS = 10
"""Cells that differ most, that are listed."""


@dataclass(frozen=True, eq=False)
class Side:
    """One of two maps.

    Attributes:
        name: what it is called: the prompt, the model or the edit.
        effects: the map, of one prompt.
    """

    name: str
    effects: Effects


@dataclass(frozen=True)
class Row:
    """A cell of both maps.

    Attributes:
        where: its coordinates, in words.
        left, right: its effect in each.
    """

    where: str
    left: float
    right: float

    @property
    def difference(self) -> float:
        """Right − left."""
        return self.right - self.left


@dataclass(frozen=True)
class Comparison:
    """Two maps beside each other.

    Attributes:
        metric, unit: what is measured.
        limit: the effect at the ends of both scales.
        left, right: the maps; None where there is nothing to draw, as of a single cell.
        difference: right − left; None where there is none.
        why_not: why there is no difference; else empty.
        rows: the cells that differ most, the largest difference first.
        noise: both noise floors together: a difference no larger may be rounding.
    """

    metric: str
    unit: str
    limit: float
    left: Drawn | None
    right: Drawn | None
    difference: Drawn | None
    why_not: str
    rows: tuple[Row, ...]
    noise: float


def compared(left: Side, right: Side, metric: str) -> Comparison:
    """Put two maps on one scale, and take one from the other where their cells are the same.

    Args:
        left, right: the maps.
        metric: measured in both, with a difference.

    Raises:
        MetricError: there is no such metric.
        EffectsError: it was not measured.
    """
    name = canonical(metric)
    both = [side.effects.delta(name).isel(prompt=0) for side in (left, right)]
    limit = max(_reach(one) for one in both) or 1.0
    why, at = _why_apart(left, right, name), cut(left.effects, name)
    places = (at, at if not why else cut(right.effects, name))
    drawn = [
        _map(side, name, limit, place) for side, place in zip((left, right), places, strict=True)
    ]
    noise = sum(side.effects.noise_floor(name) or 0.0 for side in (left, right))
    return Comparison(
        metric=name,
        unit=about(name).unit,
        limit=limit,
        left=drawn[0],
        right=drawn[1],
        difference=None if why else _difference(left, right, name, at),
        why_not=why,
        rows=() if why else _rows(*both),
        noise=noise,
    )


def _reach(effect: xr.DataArray) -> float:
    finite = effect.values[np.isfinite(effect.values)]
    return float(np.abs(finite).max(initial=0.0))


def _why_apart(left: Side, right: Side, metric: str) -> str:
    """Why the cells of one map are not those of the other; empty where they are."""
    one, other = (side.effects.delta(metric).isel(prompt=0) for side in (left, right))
    if one.dims != other.dims:
        spans = (" × ".join(map(str, each.dims)) or "one cell" for each in (one, other))
        return "The one map is over {}, the other over {}.".format(*spans)
    for dim in one.dims:
        mine, theirs = one[dim].values, other[dim].values
        if not np.array_equal(mine, theirs):
            return (
                f"The one map has {len(mine)} of {dim}, the other {len(theirs)}, so that their "
                "cells are not each other's."
                if len(mine) != len(theirs)
                else f"The two maps have other coordinates along {dim}."
            )
    return ""


def _map(side: Side, metric: str, limit: float, at: Mapping[str, Any]) -> Drawn | None:
    if not _lines(side.effects, metric, at).dims:
        return None
    made = side.effects.figure(metric, title=side.name, limit=limit, **at)
    style.entitle(made, escaped(side.name), style.WIDTH / 2)  # there are two beside each other
    return made


def _lines(effects: Effects, metric: str, at: Mapping[str, Any]) -> xr.DataArray:
    """The effects that a figure shows, at some coordinates."""
    return effects.delta(metric).isel(prompt=0).sel(dict(at))


def _difference(left: Side, right: Side, metric: str, at: Mapping[str, Any]) -> Drawn | None:
    one, other = (_lines(side.effects, metric, at) for side in (left, right))
    title, unit = escaped(f"{right.name} − {left.name}"), about(metric).unit
    note = escaped(", ".join(f"{dim} {shown(value)}" for dim, value in at.items()))
    if one.ndim == 0:
        return None
    found = other.copy(data=other.values - one.values)
    if one.ndim == 1:
        [dim] = one.dims
        lines = {"right − left": (one[dim].values, found.values)}
        made = series(
            lines, x_title=str(dim), y_title=f"effect on {metric}, {unit}", title=title, note=note
        )
        return Drawn(made)
    return Drawn(matrix(found, title=title, unit=f"effect, {unit}", diverging=True, note=note))


def _rows(left: xr.DataArray, right: xr.DataArray) -> tuple[Row, ...]:
    """The cells that differ most; those that do not exist are left out."""
    apart = np.abs(right.values - left.values)
    order = np.argsort(-np.nan_to_num(apart, nan=-1.0), axis=None, kind="stable")
    found = []
    for index in (np.unravel_index(n, apart.shape) for n in order[:ROWS].tolist()):
        if not np.isnan(apart[index]):
            where = ", ".join(
                f"{dim} {shown(left[dim].values[n].item())}"
                for dim, n in zip(left.dims, index, strict=True)
            )
            found.append(Row(where, float(left.values[index]), float(right.values[index])))
    return tuple(found)
