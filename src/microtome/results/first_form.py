"""What a store of format 1 says of a chunk that is not there: lost, or never written.

Format 1 wrote no chunk of nothing but fill values: NaN for numbers, zero, False or "" for anything
else. So a chunk may be missing where what else is known of its cells agrees: receipts, clean values
and the texts of tokens. What agrees with nothing else in the store has to have one chunk at least.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import xarray as xr

from microtome.errors import EffectsError
from microtome.results import codecs

CHANGED, NORM = "values_changed", "change_norm"
CLEAN, SCREEN = "clean_", "screen_clean_"
TOKEN, TOKEN_ID = "_token", "token id"


def check(data: xr.Dataset, files: Mapping[str, bytes]) -> None:
    """Raise where a chunk is missing and cannot have been nothing but fill values.

    Args:
        data: all that was decoded, under the names of the store.
        files: the store, by names relative to it.

    Raises:
        EffectsError: a chunk was lost; the message names its file.
    """
    for name in map(str, data.variables):
        array = codecs.array_form(name, files[f"{name}/.zarray"])
        there = {file for file in files if file.startswith(f"{name}/") and "/." not in file}
        if len(there) == math.prod(array.grid):
            continue
        for file, region in _missing(array, there):
            part = data.isel(dict(zip(data[name].dims, region, strict=True)))
            if not _agrees(data, part, name, alone=not there):
                raise EffectsError(f"{file} is missing, and what it held is not absent")


def _missing(array: codecs.ArrayForm, there: set[str]) -> Iterator[tuple[str, tuple[slice, ...]]]:
    """The files of the chunks that are not there, and the part of the array that each is."""
    for at in np.ndindex(array.grid):
        file = f"{array.name}/{'.'.join(map(str, at)) or '0'}"
        if file not in there:
            sizes = zip(at, array.chunks, strict=True)
            yield file, tuple(slice(n * size, (n + 1) * size) for n, size in sizes)


def _agrees(data: xr.Dataset, part: xr.Dataset, name: str, alone: bool) -> bool:
    """Whether a variable may be nothing but fill values in a part of the data.

    ``alone`` says that no chunk of it is there at all.
    """
    variable = part[name]
    if name in data.dims:  # labels differ, and none is NaN
        return data.sizes[name] == 1 and variable.dtype.kind == "i"
    if name in (CHANGED, NORM):
        return all(_is_absent(part[one]) for one in _of_cells(part))
    if variable.dtype.kind == "f" and name.startswith((CLEAN, SCREEN)):
        measured = name.removeprefix(SCREEN).removeprefix(CLEAN)
        return _is_absent(part[measured])
    if variable.dtype.kind == "f" and CLEAN + name in data:
        return bool((part[CHANGED].isnull() | part[CLEAN + name].isnull()).all())
    if name + TOKEN in data:
        return _is_token_zero(data, part, name)
    if name.endswith(TOKEN) and name.removesuffix(TOKEN) in data.data_vars:
        return bool((part[name.removesuffix(TOKEN)] == -1).all())
    return not alone


def _of_cells(part: xr.Dataset) -> list[str]:
    """The receipts, and what was measured of each cell."""
    measured = [one.removeprefix(CLEAN) for one in map(str, part) if one.startswith(CLEAN)]
    return [CHANGED, NORM, *(one for one in measured if not one.endswith(TOKEN))]


def _is_absent(values: xr.DataArray) -> bool:
    """Whether none is there: NaN, and -1 for the id of a token."""
    absent = values == -1 if values.attrs.get("unit") == TOKEN_ID else values.isnull()
    return bool(absent.all())


def _is_token_zero(data: xr.Dataset, part: xr.Dataset, name: str) -> bool:
    """Whether all ids may be 0: their tokens have one text, which no other id has elsewhere."""
    texts = np.unique(part[name + TOKEN].to_numpy())
    if len(texts) != 1:
        return False
    twin = name.removeprefix(CLEAN) if name.startswith(CLEAN) else CLEAN + name
    ids = [data[one].where(data[one + TOKEN] == texts[0], 0) for one in (name, twin)]
    return not any(bool(one.any()) for one in ids)
