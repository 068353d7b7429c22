"""Intervals by resampling the prompts."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import scipy
import xarray as xr
from numpy.typing import ArrayLike

from microtome.errors import StatisticsError, there_are
from microtome.spoken import spoken
from microtome.stats.estimates import Within
from microtome.stats.samples import CONFIDENCE, PROMPT, Over, column, present, too_few

Method = Literal["BCa", "percentile", "basic"]

AT_ONCE = 2**20
"""How many values are drawn before the statistic is taken of them; as many again as indices."""


@dataclass(frozen=True)
class Interval(Within):
    """A statistic of some values with its 95 % interval by resampling.

    ``low`` and ``high`` are NaN, and ``why`` says why, where resampling gives no interval.
    """

    value: float
    low: float
    high: float
    n: int
    method: str
    why: str = ""

    @property
    def _beside(self) -> str:
        return f"{self.method}, "


@spoken
def bootstrap(
    values: xr.DataArray | ArrayLike,
    statistic: Callable[..., Any] = np.mean,
    *,
    method: Method = "BCa",
    resamples: int = 9999,
    seed: int = 0,
    over: Over = PROMPT,
) -> Interval:
    """A statistic of one value per prompt, with its interval by resampling the prompts.

    Efron, "Better bootstrap confidence intervals" (1987), for BCa; `scipy.stats.bootstrap`.

    Args:
        values: one value a prompt; NaN is absent.
        statistic: of an array, such as `numpy.mean` or `numpy.median`.
        method: ``"BCa"`` corrects for bias and skew; ``"percentile"`` and ``"basic"`` do not.
        resamples: how many.
        seed: of the resampling.
        over: of labelled values, the dimensions along which they are independent of each other.

    Returns:
        The statistic of the values themselves, which an interval of resamples need not hold: that
        of a skewed statistic may lie wholly on one side of it.

    Raises:
        StatisticsError: it is not clear what the sample is, or there is no such method.

    >>> bootstrap([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).value
    3.5
    >>> print(bootstrap([1.0, 1.0, 1.0]))
    1 (no interval: all values are equal, n = 3)
    """
    if method not in get_args(Method):
        known = there_are(method, get_args(Method))
        raise StatisticsError(f"No bootstrap is called {method!r}; {known}")
    if resamples < 1:
        raise StatisticsError(f"resamples is at least 1, not {resamples}.")
    sample = present(column(values, over))
    value = float(statistic(sample)) if sample.size else np.nan
    none = Interval(value, np.nan, np.nan, sample.size, f"{method} bootstrap")
    if why := too_few(sample):
        return replace(none, why=why)
    if not np.isfinite(value):
        return replace(none, why="the statistic of these values is no number")
    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        # What BCa cannot do for these values comes back as NaN, and is said in `why`.
        warnings.simplefilter("ignore", category=scipy.stats.DegenerateDataWarning)
        found = scipy.stats.bootstrap(
            (sample,),
            statistic,
            n_resamples=resamples,
            batch=max(1, AT_ONCE // sample.size),
            confidence_level=CONFIDENCE,
            method=method,
            rng=np.random.default_rng(seed),
        ).confidence_interval
    low, high = float(found.low), float(found.high)
    if np.isnan(low) or np.isnan(high):
        return replace(none, why=f"{method} is not defined for these values")
    return replace(none, low=low, high=high)
