"""Estimates with intervals, on scipy: what claims about trends and differences are judged by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval, its p value (of being 0) and how many values it rests on."""

    value: float
    low: float
    high: float
    p: float
    n: int

    @property
    def covers_zero(self) -> bool:
        """Whether 0 is inside the interval."""
        return self.low <= 0 <= self.high

    def __str__(self) -> str:
        return f"{self.value:.3g} (95 % interval {self.low:.3g} … {self.high:.3g}, n = {self.n})"


def trend(x: ArrayLike, y: ArrayLike) -> Estimate:
    """The slope of y over x by least squares, with its t interval.

    >>> trend([0, 1, 2, 3], [1, 3, 5, 7]).value
    2.0
    """
    xs, ys = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    fit = stats.linregress(xs, ys)
    margin = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(xs) - 2)) * float(fit.stderr)
    slope = float(fit.slope)
    return Estimate(slope, slope - margin, slope + margin, float(fit.pvalue), len(xs))


def mean(values: ArrayLike) -> Estimate:
    """The mean of some values, with its t interval and the p value of a t test against 0.

    >>> mean([1.0, 2.0, 3.0]).value
    2.0
    """
    sample = np.asarray(values, dtype=float).ravel()
    result = stats.ttest_1samp(sample, 0.0)
    interval = result.confidence_interval(CONFIDENCE)
    return Estimate(
        float(sample.mean()),
        float(interval.low),
        float(interval.high),
        float(result.pvalue),
        sample.size,
    )


def correlation(x: ArrayLike, y: ArrayLike) -> Estimate:
    """Pearson's r, with its interval by Fisher's transformation.

    >>> correlation([0, 1, 2, 3], [0, 2, 4, 6]).value
    1.0
    """
    xs, ys = (np.asarray(a, dtype=float).ravel() for a in (x, y))
    result = stats.pearsonr(xs, ys)
    interval = result.confidence_interval(CONFIDENCE)
    r = float(result.statistic)
    return Estimate(r, float(interval.low), float(interval.high), float(result.pvalue), xs.size)


def groups_differ(groups: ArrayLike) -> float:
    """p value that the rows of ``[group, member]`` are drawn from one distribution.

    Kruskal and Wallis's test on ranks, so that a few large values do not decide.
    """
    return float(stats.kruskal(*np.asarray(groups, dtype=float)).pvalue)


def larger(a: ArrayLike, b: ArrayLike) -> float:
    """p value of Mann and Whitney's test that values of a are not larger than those of b."""
    first, second = (np.asarray(x, dtype=float).ravel() for x in (a, b))
    return float(stats.mannwhitneyu(first, second, alternative="greater").pvalue)
