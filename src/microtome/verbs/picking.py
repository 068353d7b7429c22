"""Variables of a reading by name."""

from __future__ import annotations

import xarray as xr

from microtome.errors import EffectsError, there_are


def picked(data: xr.Dataset, name: str) -> xr.DataArray:
    """A variable of numbers.

    Raises:
        EffectsError: there is none of this name.
    """
    known = [str(key) for key, array in data.items() if array.dtype.kind == "f"]
    if name not in known:
        raise EffectsError(f"There is no {name!r} here; {there_are(name, known)}")
    return data[name]
