"""What is asked of a result by the figures that draw it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

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
    effect = effects.delta(metric)
    clean = effects.baseline(metric).broadcast_like(effect).where(effect.notnull())
    changed = (effects.data["values_changed"] != 0).broadcast_like(effect)
    edited = effects.data[metric]
    found = xr.Dataset({"clean": clean, "edited": edited, "effect": effect, CHANGED: changed})
    if WHY_EXACT in effects.data:
        found[EXACT] = (effects.data[WHY_EXACT] > 0).astype(float).where(effect.notnull())
    return found
