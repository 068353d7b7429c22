"""Paired samples: how far they differ, and tests against no difference."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import scipy
import xarray as xr
from numpy.typing import ArrayLike

from microtome.errors import StatisticsError
from microtome.spoken import spoken
from microtome.stats.estimates import mean
from microtome.stats.samples import CONFIDENCE, LEVEL, PROMPT, Array, Over, alike, columns

MOST_EXACT = 60
"""More pairs than this are judged by the normal distribution, which is as good there."""
MOST_PAIRS = 10_000


@dataclass(frozen=True)
class Difference:
    """How far paired samples differ, and a test against no difference.

    Attributes:
        method: the test.
        measure: what ``value`` is.
        value: the difference, first − second, in the samples' own unit.
        low: lower end of its 95 % interval, which no correction widens.
        high: upper end.
        p: two-sided; NaN where it cannot be judged.
        n: pairs of which neither value is absent.
        correction: what was done to p for the sake of other tests.
        why: why it cannot be judged, or nothing.
    """

    method: str
    measure: str
    value: float
    low: float
    high: float
    p: float
    n: int
    correction: str = "uncorrected"
    why: str = ""

    @property
    def judged(self) -> bool:
        """Whether there is a p value."""
        return not self.why

    def significant(self, level: float = LEVEL) -> bool:
        """Whether p is below a level. What cannot be judged is not."""
        return self.judged and self.p < level

    def __str__(self) -> str:
        if not self.judged:
            return f"{self.method}: cannot be judged, {self.why} (n = {self.n})"
        return (
            f"{self.method}: {self.measure} {self.value:.3g} (95 % interval {self.low:.3g} … "
            f"{self.high:.3g}), p = {self.p:.2g}, {self.correction}, n = {self.n}"
        )


@spoken
def paired_t(
    a: xr.DataArray | ArrayLike, b: xr.DataArray | ArrayLike, over: Over = PROMPT
) -> Difference:
    """Student's paired t test: is the mean of a − b zero?

    Args:
        a: one value a pair; NaN is absent, and its pair with it.
        b: the others, in the same order.
        over: of labelled values, the dimensions along which pairs are independent of each other.

    Raises:
        StatisticsError: the samples do not pair up, or it is not clear what they are.

    >>> print(paired_t([3.0, 5.0, 4.0, 6.0], [1.0, 2.0, 3.0, 4.0]))
    paired t-test: mean difference 2 (95 % interval 0.701 … 3.3), p = 0.016, uncorrected, n = 4
    >>> print(paired_t([1.0, 2.0], [1.0, 2.0]))
    paired t-test: cannot be judged, all differences are 0 (n = 2)
    """
    differences = _differences(a, b, over)
    name, measure = "paired t-test", "mean difference"
    if why := _undecided(differences):
        return Difference(name, measure, *_nothing(differences), why=why)
    estimate = mean(differences)
    return Difference(
        name, measure, estimate.value, estimate.low, estimate.high, estimate.p, estimate.n
    )


@spoken
def wilcoxon(
    a: xr.DataArray | ArrayLike, b: xr.DataArray | ArrayLike, over: Over = PROMPT
) -> Difference:
    """Wilcoxon's signed-rank test: is the distribution of a − b symmetric about zero?

    The estimate is Hodges and Lehmann's, the median of the means of any two differences; the
    interval is the one that belongs to the test (Hollander, Wolfe & Chicken, "Nonparametric
    statistical methods", chapter 3). Pairs without a difference do not count in p.

    Args:
        a: one value a pair; NaN is absent, and its pair with it.
        b: the others, in the same order.
        over: of labelled values, the dimensions along which pairs are independent of each other.

    Raises:
        StatisticsError: the samples do not pair up, or it is not clear what they are.

    >>> result = wilcoxon([1.1, 2.3, 3.2, 4.4, 5.6, 6.9], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    >>> result.p, result.n
    (0.03125, 6)
    """
    name, measure = "Wilcoxon signed-rank test", "median difference (Hodges–Lehmann)"
    differences = _differences(a, b, over)
    few = int(np.count_nonzero(differences))
    if few < 6:
        # The smallest p of all is 2 / 2^n, so "not significant" would say nothing.
        why = f"with {few} differences other than 0 no p below {LEVEL} is possible"
        return Difference(name, measure, *_nothing(differences), why=why)
    if differences.size > MOST_PAIRS:
        raise StatisticsError(
            f"{differences.size:,} pairs are too many for Wilcoxon's test, which looks at any two "
            f"of them, and at most {MOST_PAIRS:,} are taken. Are they independent of each other, "
            "as prompts are, and tokens and neurons of one run are not? Then paired_t judges as "
            "well."
        )
    first, second = np.triu_indices(differences.size)
    walsh = np.sort((differences[first] + differences[second]) / 2)
    cut = _signed_rank_cut(differences.size)
    return Difference(
        name,
        measure,
        float(np.median(walsh)),
        float(walsh[cut - 1]),
        float(walsh[-cut]),
        _signed_rank_p(differences),
        differences.size,
    )


def _nothing(differences: Array) -> tuple[float, float, float, float, int]:
    value = float(differences.mean()) if differences.size else np.nan
    return value, np.nan, np.nan, np.nan, differences.size


def _undecided(differences: Array) -> str:
    """Why a t test cannot judge these, or nothing."""
    if differences.size < 2:
        return f"{'one pair is' if differences.size else 'no pairs are'} too few"
    if alike(differences):
        return f"all differences are {differences[0]:.3g}"
    return ""


def _signed_rank_p(differences: Array) -> float:
    """Two-sided p of the signed-rank test; exact, with ties too, where the normal is not near."""
    own = differences[differences != 0]
    if own.size > MOST_EXACT:
        return float(scipy.stats.wilcoxon(own).pvalue)
    ranks = np.rint(2 * scipy.stats.rankdata(np.abs(own))).astype(int)  # ties have halves of ranks
    ways = _ways(ranks.tolist())
    positive = int(ranks[own > 0].sum())
    tail = min(ways[: positive + 1].sum(), ways[positive:].sum())
    return float(min(1, 2 * tail / 2.0**own.size))


def _ways(ranks: Iterable[int]) -> Array:
    """How many subsets of some ranks have each sum, ``[sum]``."""
    ways = np.array([1.0])
    for rank in ranks:
        ways = np.pad(ways, (0, rank)) + np.pad(ways, (rank, 0))
    return ways


def _signed_rank_cut(n: int) -> int:
    """Which of the ordered Walsh averages, counted from 1, begins the 95 % interval.

    The largest c with P(W < c) ≤ 2.5 %, where W is the sum of a random subset of the ranks 1 … n.
    """
    tail = (1 - CONFIDENCE) / 2
    if n > MOST_EXACT:
        middle, spread = n * (n + 1) / 4, np.sqrt(n * (n + 1) * (2 * n + 1) / 24)
        return int(middle + scipy.stats.norm.ppf(tail) * spread)
    ways = _ways(range(1, n + 1))
    return int(np.searchsorted(np.cumsum(ways) / 2.0**n, tail, side="right"))


def _differences(
    a: xr.DataArray | ArrayLike, b: xr.DataArray | ArrayLike, over: Over = PROMPT
) -> Array:
    first, second = columns(a, b, over)
    return first - second
