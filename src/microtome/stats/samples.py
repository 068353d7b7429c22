"""What counts as a sample: one value for each independent observation, which is a prompt."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy import typing as npt
from numpy.typing import ArrayLike

from microtome.errors import StatisticsError, listing

Array = npt.NDArray[np.float64]

CONFIDENCE = 0.95
LEVEL = 0.05
"""A p value below this counts as significant, unless told otherwise."""

PROMPT = "prompt"
Over = str | Sequence[str]
"""The dimension, or dimensions, along which values are independent of each other."""

EQUAL = "all values are equal"

ROUNDING = 1e-12
"""Values that are no farther apart than this share of their size differ by rounding alone."""


def numbers_of(values: xr.DataArray | ArrayLike) -> Array:
    """Values as an array of numbers.

    Raises:
        StatisticsError: they are none.
    """
    try:
        return np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        raise StatisticsError(
            f"A statistic is of numbers, in a list or an array, not of {reprlib.repr(values)}."
        ) from None


def column(values: xr.DataArray | ArrayLike, over: Over = PROMPT) -> Array:
    """The values of a sample, ``[n]``; absent ones are NaN.

    Args:
        values: labelled, with no other dimensions of more than one coordinate than those named; or
            any array with one axis of more than one value.
        over: which of the dimensions the sample is drawn along.

    Raises:
        StatisticsError: it is not clear what the sample is, or a value is infinite.

    >>> column([1, 2, float("nan")])
    array([ 1.,  2., nan])
    """
    if isinstance(values, xr.DataArray):
        _check_dims(values, (over,) if isinstance(over, str) else tuple(over))
    array = numbers_of(values)
    if not isinstance(values, xr.DataArray) and sum(size > 1 for size in array.shape) > 1:
        raise StatisticsError(
            f"A sample has one value for each prompt, and this array is {list(array.shape)}: its "
            f"{array.size:,} numbers are not independent of each other, so that n would be too "
            "large. Take the mean of all axes but one first; test a map cell by cell with "
            "mt.stats.max_statistic; or, where each number is an observation of its own, give "
            "array.ravel()."
        )
    return finite(array).ravel()


def columns(
    a: xr.DataArray | ArrayLike, b: xr.DataArray | ArrayLike, over: Over = PROMPT
) -> tuple[Array, Array]:
    """The pairs of two samples, without those of which a value is absent.

    Raises:
        StatisticsError: as `column`; or the samples do not pair up.
    """
    first, second = column(a, over), column(b, over)
    if first.shape != second.shape:
        raise StatisticsError(
            f"Paired samples have one value each per pair, and these are {list(np.shape(a))} and "
            f"{list(np.shape(b))}."
        )
    if isinstance(a, xr.DataArray) and isinstance(b, xr.DataArray):
        names = (over,) if isinstance(over, str) else tuple(over)
        for name in names:
            if not np.array_equal(a[name].values, b[name].values) or a.dims != b.dims:
                raise StatisticsError(
                    f"Paired samples have the same coordinates of {name!r} in the same order, and "
                    "these have not: the pairs would be of different ones."
                )
    there = ~(np.isnan(first) | np.isnan(second))
    return first[there], second[there]


def _check_dims(values: xr.DataArray, named: tuple[str, ...]) -> None:
    sizes = {str(name): size for name, size in values.sizes.items()}
    have = listing(f"{name} ({size:,})" for name, size in sizes.items()) or "none"
    if lacking := [name for name in named if name not in sizes]:
        say = f"over={next(iter(sizes))!r}" if len(sizes) == 1 else f"over={tuple(sizes)!r}"
        advice = f" If you mean that they are, say so: {say}." if sizes else ""
        raise StatisticsError(
            f"A sample is taken over {listing(map(repr, lacking))}, which these values do not have;"
            f" their dimensions: {have}. Cells, neurons and tokens of one run are not independent "
            f"of each other, so that n would be too large.{advice}"
        )
    rest = {name: size for name, size in sizes.items() if name not in named and size > 1}
    if rest:
        raise StatisticsError(
            f"Over {listing(map(repr, named))} these values are {math.prod(rest.values()):,} "
            f"samples, one for each {' × '.join(rest)}; their dimensions: {have}. Test them cell "
            "by cell, corrected for their number, with effects.over_prompts(metric) or "
            "mt.stats.max_statistic; pick one with .sel(…); take .mean of the other dimensions "
            "first; or name all of them in over=, where cells are observations of their own."
        )


def present(values: ArrayLike) -> Array:
    """Those that are not NaN, in one row."""
    array = finite(numbers_of(values)).ravel()
    return array[~np.isnan(array)]


def finite(values: Array) -> Array:
    """The same values.

    Raises:
        StatisticsError: one is infinite.
    """
    if np.isinf(values).any():
        raise StatisticsError(
            f"{int(np.isinf(values).sum())} of the {values.size} values are infinite, which has "
            "no mean and no rank among others: leave them out as NaN, or look where they are from."
        )
    return values


def alike(values: Array) -> bool:
    """Whether values have no spread but that of rounding."""
    return bool(np.ptp(values) <= ROUNDING * np.abs(values).max())


def spread_out(apart: Array, squares: Array) -> npt.NDArray[np.bool_]:
    """The same of many samples at once: whether each has a spread.

    Args:
        apart: the sum of the squares of their distances from the mean, ``[cell]``.
        squares: the sum of their squares, ``[cell]``.

    >>> spread_out(np.array([1e-33, 1e-3]), np.array([0.03, 0.03])).tolist()
    [False, True]
    """
    found: npt.NDArray[np.bool_] = apart > ROUNDING**2 * squares
    return found


def too_few(values: Array) -> str:
    """Why these values have no spread to judge by, or nothing."""
    if not values.size:
        return "there are no values"
    if values.size < 2:
        return "there is one value only"
    return EQUAL if alike(values) else ""
