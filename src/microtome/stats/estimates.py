"""Means, slopes and correlations with their intervals; tests of groups."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
import xarray as xr
from numpy.typing import ArrayLike

from microtome.errors import StatisticsError
from microtome.spoken import spoken
from microtome.stats.samples import (
    CONFIDENCE,
    PROMPT,
    Array,
    Over,
    alike,
    column,
    columns,
    present,
    too_few,
)


class Within:
    """What has a 95 % interval; NaN at both ends, and ``why``, where it has none."""

    value: float
    low: float
    high: float
    n: int
    why: str

    @property
    def covers_zero(self) -> bool:
        """Whether 0 is inside the interval; without an interval nothing shows that it is not."""
        return not (self.low > 0 or self.high < 0)

    @property
    def _beside(self) -> str:
        """What is said beside the interval."""
        return ""

    def __str__(self) -> str:
        if self.why:
            return f"{self.value:.3g} (no interval: {self.why}, n = {self.n})"
        interval = f"95 % interval {self.low:.3g} … {self.high:.3g}"
        return f"{self.value:.3g} ({interval}, {self._beside}n = {self.n})"


@dataclass(frozen=True)
class Estimate(Within):
    """A number with its 95 % interval, its p value (of being 0) and how many values it rests on.

    ``low``, ``high`` and ``p`` are NaN, and ``why`` says why, where the values do not give them.
    """

    value: float
    low: float
    high: float
    p: float
    n: int
    why: str = ""


def _bare(value: float, n: int, why: str) -> Estimate:
    """An estimate without an interval."""
    return Estimate(value, np.nan, np.nan, np.nan, n, why)


@spoken
def mean(values: xr.DataArray | ArrayLike, over: Over = PROMPT) -> Estimate:
    """The mean of some values, with its t interval and the p value of a t test against 0.

    Args:
        values: one value a prompt; NaN is absent. Labelled values may have no dimension but those
            in ``over``.
        over: the dimensions along which values are independent of each other.

    Raises:
        StatisticsError: it is not clear what the sample is.

    >>> mean([1.0, 2.0, 3.0]).value
    2.0
    >>> print(mean([2.0]))
    2 (no interval: there is one value only, n = 1)
    """
    sample = present(column(values, over))
    if why := too_few(sample):
        return _bare(float(sample.mean()) if sample.size else np.nan, sample.size, why)
    result = scipy.stats.ttest_1samp(sample, 0.0)
    interval = result.confidence_interval(CONFIDENCE)
    return Estimate(
        float(sample.mean()),
        float(interval.low),
        float(interval.high),
        float(result.pvalue),
        sample.size,
    )


@spoken
def trend(
    x: xr.DataArray | ArrayLike, y: xr.DataArray | ArrayLike, over: Over = PROMPT
) -> Estimate:
    """The slope of y over x by least squares, with its t interval.

    Args:
        x: one value a point; a point with NaN is absent.
        y: as many.
        over: of labelled values, the dimension along which points are independent of each other.

    Raises:
        StatisticsError: there are not as many of each, or it is not clear what the points are.

    >>> trend([0, 1, 2, 3], [1, 3, 5, 7]).value
    2.0
    """
    xs, ys = columns(x, y, over)
    n = xs.size
    if why := _one_sided(xs, ys):
        flat = n > 1 and not alike(xs)
        return _bare(0.0 if flat else np.nan, n, why)
    if n == 2:
        slope = float((ys[1] - ys[0]) / (xs[1] - xs[0]))
        return _bare(slope, n, "two points always lie on a line")
    fit = scipy.stats.linregress(xs, ys)
    margin = float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, n - 2)) * float(fit.stderr)
    slope = float(fit.slope)
    return Estimate(slope, slope - margin, slope + margin, float(fit.pvalue), n)


@spoken
def correlation(
    x: xr.DataArray | ArrayLike, y: xr.DataArray | ArrayLike, over: Over = PROMPT
) -> Estimate:
    """Pearson's r, with its interval by Fisher's transformation.

    Args:
        x: one value a point; a point with NaN is absent.
        y: as many.
        over: of labelled values, the dimension along which points are independent of each other.

    Raises:
        StatisticsError: there are not as many of each, or it is not clear what the points are.

    >>> correlation([0, 1, 2, 3], [0, 2, 4, 6]).value
    1.0
    >>> print(correlation([0, 1, 2, 3], [5, 5, 5, 5]))
    nan (no interval: all y are equal, n = 4)
    """
    xs, ys = columns(x, y, over)
    if why := _one_sided(xs, ys):
        return _bare(np.nan, xs.size, why)
    if xs.size < 4:
        r = float(np.corrcoef(xs, ys)[0, 1])
        return _bare(r, xs.size, "fewer than four points have no interval")
    result = scipy.stats.pearsonr(xs, ys)
    interval = result.confidence_interval(CONFIDENCE)
    r = float(result.statistic)
    return Estimate(r, float(interval.low), float(interval.high), float(result.pvalue), xs.size)


def _one_sided(xs: Array, ys: Array) -> str:
    """Why there is no line through some points, or nothing."""
    if xs.size < 2:
        return f"{'there is one point' if xs.size else 'there are no points'} only"
    if alike(xs):
        return "all x are equal"
    return "all y are equal" if alike(ys) else ""


@spoken
def share(k: int, n: int) -> Estimate:
    """k of n as a share, with Wilson's interval; no p, as there is no share to hold it against.

    Args:
        k: how many of them.
        n: of how many, independent of each other.

    Raises:
        StatisticsError: there are not so many.

    >>> print(share(9, 10))
    0.9 (95 % interval 0.596 … 0.982, n = 10)
    """
    if not 0 <= k <= n:
        raise StatisticsError(f"A share is of 0 to n of n, and {k} of {n} is none.")
    if not n:
        return _bare(np.nan, 0, "there are no values")
    interval = scipy.stats.binomtest(k, n).proportion_ci(CONFIDENCE, method="wilson")
    return Estimate(k / n, float(interval.low), float(interval.high), np.nan, n)


@spoken
def groups_differ(groups: Sequence[ArrayLike] | ArrayLike) -> float:
    """p value that the rows of ``[group, member]`` are drawn from one distribution.

    Kruskal and Wallis's test on ranks, so that a few large values do not decide. NaN is absent, and
    is the answer where fewer than two groups have a value, or where all values are equal.

    >>> groups_differ([[1.0, 1.0], [1.0, 1.0]])
    nan
    """
    if np.ndim(np.asarray(groups, dtype=object)) == 0:
        raise StatisticsError(f"Groups are rows of numbers, not {reprlib.repr(groups)}.")
    rows = [found for row in np.asarray(groups, dtype=object) if (found := present(row)).size]
    if len(rows) < 2 or alike(np.concatenate(rows)):
        return np.nan
    return float(scipy.stats.kruskal(*rows).pvalue)


@spoken
def larger(a: xr.DataArray | ArrayLike, b: xr.DataArray | ArrayLike, over: Over = PROMPT) -> float:
    """p value of Mann and Whitney's test that values of a are not larger than those of b.

    NaN is absent, and is the answer where a side has no value, or where all values are equal.

    Args:
        a: one value for each of some independent observations.
        b: one for each of others.
        over: of labelled values, the dimensions along which they are independent of each other.

    Raises:
        StatisticsError: it is not clear what the samples are.
    """
    first, second = present(column(a, over)), present(column(b, over))
    if not (first.size and second.size) or alike(np.concatenate([first, second])):
        return np.nan
    return float(scipy.stats.mannwhitneyu(first, second, alternative="greater").pvalue)
