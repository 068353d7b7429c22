"""Activations of a run, and what is read off them: as arrays with the names of their axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from microtome.language.addresses import Address
from microtome.language.selectors import Index
from microtome.language.sites import POSITIONS, Dimensions
from microtome.model.anatomy import Anatomy
from microtome.passes.hooks import Visit
from microtome.passes.trace import reader
from microtome.prompts.encoding import Encoded
from microtome.prompts.resolve import regions


def readers(
    address: Address, anatomy: Anatomy, encoded: Encoded, keep: Callable[[Tensor], None]
) -> list[Visit]:
    """Visits that hand a copy of what an address names, ``[1, *region]``, layer by layer."""
    return [
        reader(region, keep) for region in regions(address.together(), anatomy.dims, encoded.tokens)
    ]


def labelled(
    address: Address,
    dims: Dimensions,
    encoded: Sequence[Encoded],
    values: Sequence[Sequence[Tensor]],
    axes: Sequence[str] | None = None,
) -> xr.DataArray:
    """Values at what an address names, as one array with named axes.

    Args:
        address: its stars are taken together.
        dims: the model's.
        encoded: the prompts.
        values: per prompt and layer ``[1, *axes]``.
        axes: of the values; the site's own unless given. Those that the site does not have have no
            coordinates.

    Returns:
        ``[prompt, (layer,) *axes]``, NaN where a shorter prompt has no such position. Without
        ``layer`` where the address names one layer, or its site is in none.
    """
    own = address.site.axes
    axes = own if axes is None else axes
    found = [regions(address.together(), dims, one.tokens) for one in encoded]
    full = padded([numpy_of(torch.cat(list(layers))) for layers in values])
    beside: dict[str, Any] = {
        "prompt": range(len(encoded)),
        "text": ("prompt", [one.tokens.text for one in encoded]),
    }
    for place, axis in enumerate(axes, 2):
        if axis not in own:
            continue
        number = own.index(axis)
        chosen = {layers[0].indices[number] for layers in found}
        if len(chosen) == 1:  # else positions that differ from prompt to prompt
            beside[axis] = list(chosen.pop())
        if axis in POSITIONS:
            pieces = np.full((len(encoded), full.shape[place]), "", dtype=object)
            for row, (one, layers) in enumerate(zip(encoded, found, strict=True)):
                names = [one.tokens.pieces[position] for position in layers[0].indices[number]]
                pieces[row, : len(names)] = names
            name = "token" if axis == "pos" else f"{axis}_token"
            beside[name] = (("prompt", axis), pieces)
    several = address.layers is not None and not isinstance(address.layers, Index)
    if several:
        beside["layer"] = [region.layer for region in found[0]]
    elif address.layers is not None:
        beside["layer"] = found[0][0].layer
    over = ("prompt", *(("layer",) if several else ()), *axes)
    return xr.DataArray(full if several else full[:, 0], beside, over, name=str(address))


def numpy_of(x: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[Any]]:
    """Values as numpy has them, which knows no type of 16 bits but its own."""
    x = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    return x.cpu().numpy()


def padded(
    arrays: Sequence[np.ndarray[tuple[int, ...], np.dtype[Any]]],
) -> np.ndarray[tuple[int, ...], np.dtype[Any]]:
    """Arrays of several sizes as one, NaN where there is nothing."""
    longest = tuple(max(sizes) for sizes in zip(*(a.shape for a in arrays), strict=True))
    full = np.full((len(arrays), *longest), np.nan, dtype=arrays[0].dtype)
    for number, array in enumerate(arrays):
        where: tuple[int | slice, ...] = (number, *(slice(size) for size in array.shape))
        full[where] = array
    return full
