"""Estimates with intervals, on scipy: what claims about trends and differences are judged by.

NaN means absent: what is absent in the data takes no part, and is absent in the result. A test
that the data cannot decide, for want of values or of spread, has no p value and says why.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy import typing as npt
from numpy.typing import ArrayLike
from scipy import stats

from microtome.errors import StatisticsError, did_you_mean, listing

Array = npt.NDArray[np.float64]

CONFIDENCE = 0.95
LEVEL = 0.05
"""A p value below this counts as significant, unless told otherwise."""


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


# ------------------------------------------------------------------------------ bootstrap


@dataclass(frozen=True)
class Interval:
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
    def covers_zero(self) -> bool:
        """Whether 0 is inside the interval; without an interval nothing shows that it is not."""
        return self.why != "" or self.low <= 0 <= self.high

    def __str__(self) -> str:
        if self.why:
            return f"{self.value:.3g} (no interval: {self.why}, n = {self.n})"
        return (
            f"{self.value:.3g} (95 % interval {self.low:.3g} … {self.high:.3g}, {self.method}, "
            f"n = {self.n})"
        )


def bootstrap(
    values: ArrayLike,
    statistic: Callable[..., Any] = np.mean,
    *,
    method: Literal["BCa", "percentile", "basic"] = "BCa",
    resamples: int = 9999,
    seed: int = 0,
) -> Interval:
    """A statistic of one value per prompt, with its interval by resampling the prompts.

    Efron, "Better bootstrap confidence intervals" (1987), for BCa; `scipy.stats.bootstrap`.

    Args:
        values: one value a prompt; NaN is absent.
        statistic: of an array, such as `numpy.mean` or `numpy.median`.
        method: ``"BCa"`` corrects for bias and skew; ``"percentile"`` and ``"basic"`` do not.
        resamples: how many.
        seed: of the resampling.

    >>> bootstrap([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).value
    3.5
    >>> print(bootstrap([1.0, 1.0, 1.0]))
    1 (no interval: all values are equal, n = 3)
    """
    sample = _present(values)
    label = f"{method} bootstrap"
    none = Interval(np.nan, np.nan, np.nan, sample.size, label)
    if not sample.size:
        return replace(none, why="there are no values")
    none = replace(none, value=float(statistic(sample)))
    if sample.size < 2:
        return replace(none, why="there is one value only")
    if np.ptp(sample) == 0:
        return replace(none, why="all values are equal")
    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        # What BCa cannot do for these values comes back as NaN, and is said in `why`.
        warnings.simplefilter("ignore", category=stats.DegenerateDataWarning)
        found = stats.bootstrap(
            (sample,),
            statistic,
            n_resamples=resamples,
            confidence_level=CONFIDENCE,
            method=method,
            rng=np.random.default_rng(seed),
        ).confidence_interval
    low, high = float(found.low), float(found.high)
    if np.isnan(low) or np.isnan(high):
        return replace(none, why=f"{method} is not defined for these values")
    return replace(none, low=low, high=high)


# --------------------------------------------------------------------------- paired samples


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


def paired_t(a: ArrayLike, b: ArrayLike) -> Difference:
    """Student's paired t test: is the mean of a − b zero?

    Args:
        a: one value a pair, in any shape; NaN is absent, and its pair with it.
        b: the others, in the same shape.

    Raises:
        StatisticsError: the samples do not pair up.

    >>> print(paired_t([3.0, 5.0, 4.0, 6.0], [1.0, 2.0, 3.0, 4.0]))
    paired t-test: mean difference 2 (95 % interval 0.701 … 3.3), p = 0.016, uncorrected, n = 4
    >>> print(paired_t([1.0, 2.0], [1.0, 2.0]))
    paired t-test: cannot be judged, all differences are 0 (n = 2)
    """
    differences = _differences(a, b)
    name, measure = "paired t-test", "mean difference"
    if why := _undecided(differences):
        return Difference(name, measure, *_nothing(differences), why=why)
    estimate = mean(differences)
    return Difference(
        name, measure, estimate.value, estimate.low, estimate.high, estimate.p, estimate.n
    )


def wilcoxon(a: ArrayLike, b: ArrayLike) -> Difference:
    """Wilcoxon's signed-rank test: is the distribution of a − b symmetric about zero?

    The estimate is Hodges and Lehmann's, the median of the means of any two differences; the
    interval is the one that belongs to the test (Hollander, Wolfe & Chicken, "Nonparametric
    statistical methods", chapter 3). Pairs without a difference do not count in p.

    Args:
        a: one value a pair, in any shape; NaN is absent, and its pair with it.
        b: the others, in the same shape.

    Raises:
        StatisticsError: the samples do not pair up.

    >>> result = wilcoxon([1.1, 2.3, 3.2, 4.4, 5.6, 6.9], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    >>> result.p, result.n
    (0.03125, 6)
    """
    name, measure = "Wilcoxon signed-rank test", "median difference (Hodges–Lehmann)"
    differences = _differences(a, b)
    few = int(np.count_nonzero(differences))
    if few < 6:
        # The smallest p of all is 2 / 2^n, so "not significant" would say nothing.
        why = f"with {few} differences other than 0 no p below {LEVEL} is possible"
        return Difference(name, measure, *_nothing(differences), why=why)
    first, second = np.triu_indices(differences.size)
    walsh = np.sort((differences[first] + differences[second]) / 2)
    cut = _signed_rank_cut(differences.size)
    return Difference(
        name,
        measure,
        float(np.median(walsh)),
        float(walsh[cut - 1]),
        float(walsh[-cut]),
        float(stats.wilcoxon(differences).pvalue),
        differences.size,
    )


def _nothing(differences: Array) -> tuple[float, float, float, float, int]:
    value = float(differences.mean()) if differences.size else np.nan
    return value, np.nan, np.nan, np.nan, differences.size


def _undecided(differences: Array) -> str:
    """Why a t test cannot judge these, or nothing."""
    if differences.size < 2:
        return f"{'one pair is' if differences.size else 'no pairs are'} too few"
    # Spread that is a rounding error's is none.
    if np.ptp(differences) <= 1e-12 * np.abs(differences).max():
        return f"all differences are {differences[0]:.3g}"
    return ""


def _signed_rank_cut(n: int) -> int:
    """Which of the ordered Walsh averages, counted from 1, begins the 95 % interval.

    The largest c with P(W < c) ≤ 2.5 %, where W is the sum of a random subset of the ranks 1 … n.
    """
    tail = (1 - CONFIDENCE) / 2
    if n > 60:  # where the normal distribution is as good
        middle, spread = n * (n + 1) / 4, np.sqrt(n * (n + 1) * (2 * n + 1) / 24)
        return int(middle + stats.norm.ppf(tail) * spread)
    ways = np.array([1.0])  # ways[w]: subsets of the ranks so far with sum w
    for rank in range(1, n + 1):
        ways = np.pad(ways, (0, rank)) + np.pad(ways, (rank, 0))
    return int(np.searchsorted(np.cumsum(ways) / 2.0**n, tail, side="right"))


def _differences(a: ArrayLike, b: ArrayLike) -> Array:
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if first.shape != second.shape:
        raise StatisticsError(
            f"Paired samples have one value each per pair, and these are {list(first.shape)} and "
            f"{list(second.shape)}."
        )
    return _present(_finite(first) - _finite(second))


def _present(values: ArrayLike) -> Array:
    array = _finite(np.asarray(values, dtype=float)).ravel()
    return array[~np.isnan(array)]


def _finite(values: Array) -> Array:
    if np.isinf(values).any():
        raise StatisticsError(
            f"{int(np.isinf(values).sum())} of the {values.size} values are infinite, which has "
            "no mean and no rank among others: leave them out as NaN, or look where they are from."
        )
    return values


# --------------------------------------------------------------------- corrections for many


def bonferroni(p: ArrayLike) -> Array:
    """p values times their number: controls the chance of any false positive.

    Args:
        p: in any shape; NaN is absent and stays it.

    Returns:
        Adjusted p values in the same shape, at most 1.

    >>> bonferroni([0.01, 0.5, float("nan")]).tolist()
    [0.02, 1.0, nan]
    """
    return _adjusted(p, lambda present: np.minimum(1, present * present.size))


def holm(p: ArrayLike) -> Array:
    """Holm's step-down adjustment: as safe as Bonferroni's and never less powerful (1979).

    >>> holm([0.01, 0.03, float("nan")]).tolist()
    [0.02, 0.03, nan]
    """

    def step_down(present: Array) -> Array:
        order = np.argsort(present)
        steps = np.arange(present.size, 0, -1) * present[order]
        adjusted = np.empty_like(present)
        adjusted[order] = np.minimum(1, np.maximum.accumulate(steps))
        return adjusted

    return _adjusted(p, step_down)


def benjamini_hochberg(p: ArrayLike) -> Array:
    """Benjamini and Hochberg's adjustment: controls the share of false positives among all (1995).

    >>> benjamini_hochberg([0.01, 0.02, float("nan")]).tolist()
    [0.02, 0.02, nan]
    """
    return _adjusted(p, lambda present: np.asarray(stats.false_discovery_control(present)))


def _adjusted(p: ArrayLike, rule: Callable[[Array], Array]) -> Array:
    found = np.array(p, dtype=float)
    present = ~np.isnan(found)
    if ((found[present] < 0) | (found[present] > 1)).any():
        raise StatisticsError("p values are between 0 and 1, and some of these are not.")
    if present.any():
        found[present] = rule(found[present])
    return found


CORRECTIONS: Mapping[str, tuple[str, Callable[[ArrayLike], Array]]] = MappingProxyType(
    {
        "bonferroni": ("Bonferroni", bonferroni),
        "holm": ("Holm", holm),
        "benjamini-hochberg": ("Benjamini–Hochberg", benjamini_hochberg),
    }
)
"""Name → the name as printed, and the adjustment of p values."""


def corrected(
    differences: Iterable[Difference], correction: str = "holm"
) -> tuple[Difference, ...]:
    """Differences that are looked at together, with p corrected for their number.

    Those that cannot be judged are no tests and do not count.

    Args:
        differences: uncorrected.
        correction: ``"bonferroni"``, ``"holm"`` or ``"benjamini-hochberg"``.

    Raises:
        StatisticsError: there is no such correction, or one was made already.

    >>> several = [paired_t([3.0, 5.0, 4.0, 6.0], [1.0, 2.0, 3.0, 4.0])] * 2
    >>> corrected(several, "bonferroni")[0].correction
    'Bonferroni over 2 tests'
    """
    given = tuple(differences)
    if correction not in CORRECTIONS:
        hint = did_you_mean(correction, CORRECTIONS)
        raise StatisticsError(
            f"No correction is called {correction!r}; there are: {listing(CORRECTIONS)}.{hint}"
        )
    for one in given:
        if one.correction != "uncorrected":
            raise StatisticsError(f"These p values are corrected already ({one.correction}).")
    label, adjust = CORRECTIONS[correction]
    tests = sum(one.judged for one in given)
    said = f"{label} over {tests} test{'' if tests == 1 else 's'}"
    ps = adjust([one.p for one in given])
    return tuple(
        replace(one, p=float(p), correction=said) for one, p in zip(given, ps, strict=True)
    )


# ------------------------------------------------------------------------- maps over prompts


@dataclass(frozen=True, eq=False)
class MapTest:
    """Which cells of a map over many prompts differ from zero.

    Attributes:
        value: mean effect of each cell over the prompts, ``[*map]``, in the effects' own unit.
        low: lower end of each cell's own 95 % t interval, which no correction widens; NaN without
            spread.
        high: upper end.
        p: two-sided, corrected for all cells of the map (family-wise); NaN in absent cells.
        statistic: abs(Σ x) / √(Σ x²) over prompts, 0 … √n; NaN in absent cells.
        n: prompts in which the cell is not absent.
        prompts: how many there are.
        flips: how many ways of flipping signs the p values rest on, the data as they are included.
        exact: those are all ways there are.
    """

    value: xr.DataArray
    low: xr.DataArray
    high: xr.DataArray
    p: xr.DataArray
    statistic: xr.DataArray
    n: xr.DataArray
    prompts: int
    flips: int
    exact: bool

    @property
    def least_p(self) -> float:
        """The smallest p value that this many prompts and flips can give."""
        return 1 / self.flips

    @property
    def judged(self) -> bool:
        """Whether any cell could have been significant."""
        return self.least_p < LEVEL

    def significant(self, level: float = LEVEL) -> xr.DataArray:
        """Cells whose p is below a level, ``[*map]`` of booleans; absent cells are not."""
        return (self.p < level).rename("significant")

    def __str__(self) -> str:
        name = f"max-statistic sign-flip test, n = {self.prompts} prompts"
        if not self.judged:
            return f"{name}: cannot be judged, no p below {self.least_p:.2g} is possible"
        cells = int(self.p.notnull().sum())
        drawn = "sign flips, all there are" if self.exact else "random sign flips"
        return (
            f"{name}: {int(self.significant().sum())} of {cells} cells differ from 0 at p < "
            f"{LEVEL}, family-wise over {cells} cells ({self.flips} {drawn}); {self._strongest()}"
        )

    def _strongest(self) -> str:
        """The cell with the largest statistic, in words: several may share the smallest p."""
        at = int(np.nanargmax(self.statistic.values))
        best = dict(zip(self.p.dims, np.unravel_index(at, self.p.shape), strict=True))
        where = ", ".join(f"{dim} {self.p[dim].values[index]}" for dim, index in best.items())
        value, low, high, p = (
            float(one.isel(best)) for one in (self.value, self.low, self.high, self.p)
        )
        return (
            f"the strongest is {where or 'the only cell'}: mean {value:.3g} (95 % interval "
            f"{low:.3g} … {high:.3g}, uncorrected), p = {p:.2g}"
        )


def max_statistic(
    effects: xr.DataArray | ArrayLike, *, permutations: int = 10_000, seed: int = 0
) -> MapTest:
    r"""Which cells of a map have an effect over prompts, corrected for looking at all of them.

    If an edit does nothing in a cell, its effect is as likely to be positive as negative in each
    prompt. So the signs of whole prompts are flipped, all cells of a prompt together, which keeps
    the cells' dependence, and each cell is compared with the largest statistic of the whole map.
    The statistic is abs(Σ x) / √(Σ x²), the sum over prompts in units of its standard deviation
    under flipping, which for a given n orders maps as Student's t does. All 2ⁿ⁻¹ different flips
    are gone through where there are at most ``permutations``; else that many are drawn.

    Nichols & Holmes, "Nonparametric permutation tests for functional neuroimaging" (2002);
    Westfall & Young, "Resampling-based multiple testing" (1993); the p values of drawn flips
    after Phipson & Smyth (2010), never zero.

    Args:
        effects: ``[prompt, *map]``, such as ``effects.delta("logit_diff")``; the first axis of an
            array, the dimension ``prompt`` of a DataArray. NaN is absent.
        permutations: how many flips at most.
        seed: of the flips that are drawn.

    Raises:
        StatisticsError: there is no dimension ``prompt``, fewer than 2 prompts, or no cell that
            two of them have.

    >>> effects = [[1.0, -1.0], [1.2, 1.1], [0.9, -0.8], [1.1, 1.3], [1.0, -1.2], [0.8, 1.0]]
    >>> max_statistic(effects).p.values
    array([0.03125, 1.     ])
    """
    if permutations < 1:
        raise StatisticsError(f"permutations is at least 1, not {permutations}.")
    maps = _maps(effects)
    sample = _finite(maps.values.reshape(maps.sizes["prompt"], -1))  # prompt, cell
    n = (~np.isnan(sample)).sum(0)
    if len(sample) < 2 or not (n >= 2).any():
        raise StatisticsError(
            f"A map over prompts is tested with at least 2 prompts in a cell; here are "
            f"{len(sample)}, and {int(n.max(initial=0))} in the fullest cell."
        )
    units = _in_units_of_chance(sample[:, n >= 2])
    observed = np.abs(units.sum(0))
    p, flips, exact = _sign_flip_p(units, observed, permutations, seed)
    value, low, high = _cell_intervals(sample)

    def of_every_cell(tested: Array) -> Array:
        every = np.full(n.size, np.nan)
        every[n >= 2] = tested
        return every

    def labelled(values: npt.NDArray[Any], name: str) -> xr.DataArray:
        cell = maps.isel(prompt=0, drop=True)
        return xr.DataArray(values.reshape(cell.shape), cell.coords, cell.dims, name=name)

    return MapTest(
        value=labelled(value, "mean effect"),
        low=labelled(low, "low"),
        high=labelled(high, "high"),
        p=labelled(of_every_cell(p), "p"),
        statistic=labelled(of_every_cell(observed), "statistic"),
        n=labelled(n, "n"),
        prompts=len(sample),
        flips=flips,
        exact=exact,
    )


def _maps(effects: xr.DataArray | ArrayLike) -> xr.DataArray:
    """The effects with ``prompt`` as the first dimension, and no coordinate that depends on it."""
    if not isinstance(effects, xr.DataArray):
        array = np.asarray(effects, dtype=float)
        dims = ["prompt", *(f"axis_{n}" for n in range(1, array.ndim))]
        if array.ndim == 0:
            raise StatisticsError("A map over prompts has an axis of prompts; this is one number.")
        return xr.DataArray(array, dims=dims)
    if "prompt" not in effects.dims:
        raise StatisticsError(
            f"Maps over prompts have a dimension 'prompt'; these have {listing(effects.dims)}."
        )
    of_prompts = [name for name, coord in effects.coords.items() if "prompt" in coord.dims]
    return effects.drop_vars(of_prompts).transpose("prompt", ...).astype(float)


def _in_units_of_chance(sample: Array) -> Array:
    """``[prompt, cell]``, scaled so that a randomly flipped sum over prompts has variance 1."""
    filled = np.nan_to_num(sample)  # What is absent adds nothing to a sum.
    scale = np.sqrt((filled**2).sum(0))
    scale[scale == 0] = 1  # No effect in any prompt: the statistic is 0, and p is 1.
    units: Array = filled / scale
    return units


def _sign_flip_p(
    units: Array, observed: Array, permutations: int, seed: int
) -> tuple[Array, int, bool]:
    """Corrected p values of cells ``[prompt, cell]``, from how many flips, and whether all."""
    exact = len(units) <= 50 and 2 ** (len(units) - 1) <= permutations
    signs = _all_signs(len(units)) if exact else _drawn_signs(len(units), permutations, seed)
    largest = np.sort(np.concatenate([np.abs(s @ units).max(1) for s in signs]))
    # Equal statistics that were added up in another order differ by rounding.
    smaller = np.searchsorted(largest, observed * (1 - 1e-9), side="left")
    return (largest.size - smaller) / largest.size, largest.size, exact


_ROWS = 1024


def _all_signs(n: int) -> Iterator[Array]:
    """Every ``[flip, prompt]`` of ±1 up to the sign of all, which the statistic does not see."""
    for start in range(0, 2 ** (n - 1), _ROWS):
        codes = np.arange(start, min(start + _ROWS, 2 ** (n - 1)))
        yield (1 - 2 * ((codes[:, None] >> np.arange(n)) & 1)).astype(np.float64)


def _drawn_signs(n: int, permutations: int, seed: int) -> Iterator[Array]:
    """The data as they are, and random flips."""
    yield np.ones((1, n))
    generator = np.random.default_rng(seed)
    for start in range(0, permutations, _ROWS):
        rows = min(_ROWS, permutations - start)
        yield generator.choice([-1.0, 1.0], size=(rows, n))


def _cell_intervals(sample: Array) -> tuple[Array, Array, Array]:
    """Mean of each cell of ``[prompt, cell]`` with its own t interval."""
    present = ~np.isnan(sample)
    n = present.sum(0)
    total = np.where(present, sample, 0).sum(0)
    value = np.divide(total, n, out=np.full(n.shape, np.nan), where=n > 0)
    squares = np.where(present, (sample - value) ** 2, 0).sum(0)
    spread = np.full(n.shape, np.nan)
    np.divide(squares, n * (n - 1.0), out=spread, where=(n > 1) & (squares > 0))
    margin = stats.t.ppf((1 + CONFIDENCE) / 2, np.maximum(n - 1, 1)) * np.sqrt(spread)
    return value, value - margin, value + margin
