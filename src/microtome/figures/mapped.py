"""What is asked of a result by the figures that draw it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import xarray as xr


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
