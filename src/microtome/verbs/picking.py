"""Variables of a reading by name."""

from __future__ import annotations

import xarray as xr

from microtome.errors import EffectsError, did_you_mean, listing


def picked(data: xr.Dataset, name: str) -> xr.DataArray:
    """A variable of numbers.

    Raises:
        EffectsError: there is none of this name.
    """
    known = [str(key) for key, array in data.items() if array.dtype.kind == "f"]
    if name not in known:
        raise EffectsError(
            f"There is no {name!r} here; there are: {listing(known)}.{did_you_mean(name, known)}"
        )
    return data[name]
