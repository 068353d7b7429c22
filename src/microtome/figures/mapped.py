"""What is asked of a result by the figures that draw it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
import xarray as xr

from microtome.stats.averaged import CHANGED

NOISE_FLOOR = "noise_floor"
"""The attribute of a metric that says how large the effects of rounding are."""

WHY_EXACT = "why_exact"
"""The variable that says why a cell of an approximate map is exact: 0, it is not."""

EXACT = "exact"


@runtime_checkable
class Mapped(Protocol):
    """A labelled result of a sweep; `microtome.Effects` is one."""

    @property
    def data(self) -> xr.Dataset:
        """Its metrics over ``prompt``, the stars and the parameters."""

    @property
    def provenance(self) -> Mapping[str, Any]:
        """The question among it."""

    def delta(self, metric: str) -> xr.DataArray:
        """The metric in each cell − the clean metric."""

    def baseline(self, metric: str) -> xr.DataArray:
        """What an effect is measured against."""


def cells_of(effects: Mapped, metric: str) -> xr.Dataset:
    """``clean``, ``edited`` and ``effect`` of a metric, and ``changed``, ``[prompt, *map]``.

    A cell that does not exist is NaN in all three; ``changed`` says where the edits changed
    something. Where a map was approximated, ``exact`` is 1 in cells computed exactly all the same.
    """
    # By hand: xarray takes three times as long to align what is over the same dimensions.
    effect, edited, baseline = effects.delta(metric), effects.data[metric], effects.baseline(metric)
    there = effect.notnull().values

    def alike(one: xr.DataArray) -> np.ndarray:
        own = [name for name in effect.dims if name in one.dims]
        new = tuple(slice(None) if name in own else None for name in effect.dims)
        return np.broadcast_to(one.transpose(*own).values[new], effect.shape)

    def of_cells(one: xr.DataArray) -> xr.Variable:
        return xr.Variable(effect.dims, np.where(there, alike(one), np.nan), one.attrs)

    changed = effects.data["values_changed"] != 0
    found = {
        "clean": of_cells(baseline),
        "edited": edited.variable,
        "effect": effect.variable,
        CHANGED: xr.Variable(effect.dims, alike(changed), changed.attrs),
    }
    if WHY_EXACT in effects.data:
        found[EXACT] = of_cells((effects.data[WHY_EXACT] > 0).astype(float))
    return xr.Dataset(found, {**baseline.coords, **edited.coords})
