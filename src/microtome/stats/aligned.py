"""Whether the positions of several prompts are each other's, so that a mean over prompts is one."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy import typing as npt

from microtome.amounts import many
from microtome.stats.samples import PROMPT


def positional(data: xr.DataArray | xr.Dataset) -> tuple[str, ...]:
    """The dimensions that count tokens.

    >>> positional(xr.DataArray(np.zeros((1, 2, 3)), dims=("prompt", "layer", "q_pos")))
    ('q_pos',)
    """
    return tuple(str(name) for name in data.dims if _counts_tokens(data, str(name)))


def tokens_of(data: xr.DataArray | xr.Dataset, name: str) -> xr.DataArray | None:
    """The tokens beside a dimension, ``[prompt, position]``; None where they are not there."""
    beside = "token" if name == "pos" else f"{name}_token"
    found = data.coords.get(beside)
    return found if found is not None and found.dims == (PROMPT, name) else None


def lengths(data: xr.DataArray | xr.Dataset, name: str) -> npt.NDArray[np.int64]:
    """How many positions each prompt has along a dimension that counts tokens, ``[prompt]``."""
    size = data.sizes[name]
    tokens = tokens_of(data, name)
    there = np.zeros((data.sizes[PROMPT], size), dtype=bool)
    if tokens is not None:
        there |= tokens.values.astype(str) != ""
    cells = data if isinstance(data, xr.DataArray) else data.get("values_changed")
    if cells is not None and name in cells.dims:
        known = cells.notnull()
        there |= known.any([d for d in known.dims if d not in (PROMPT, name)]).values
    numbers = np.arange(1, size + 1)
    found: npt.NDArray[np.int64] = np.where(there, numbers, 0).max(axis=1, initial=0)
    return found


def why_apart(data: xr.DataArray) -> str:
    """Why positions of these prompts are not to be taken together, or nothing.

    >>> why_apart(xr.DataArray([[1.0, 2.0], [3.0, 4.0]], dims=("prompt", "pos")))
    ''
    """
    if data.sizes.get(PROMPT, 1) < 2:
        return ""
    for name in positional(data):
        own = lengths(data, name)
        own = own[own > 0]  # A prompt without any cell here takes no part.
        if own.size and own.min() != own.max():
            return (
                f"The prompts are of different lengths, {own.min()} to "
                f"{many(own.max(), 'token')}, so "
                f"that {name} 3 of one is not {name} 3 of another, and over prompts they would be "
                "mixed. Align them by their roles with effects.by_role(); pick a prompt, "
                f"prompt=0; or pick a position that is the same in all, {name}=0."
            )
    return ""


def _counts_tokens(data: xr.DataArray | xr.Dataset, name: str) -> bool:
    if name == PROMPT or name.endswith("role"):  # roles have tokens too, and are aligned
        return False
    return name.endswith("pos") or tokens_of(data, name) is not None
