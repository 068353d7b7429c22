"""What an audit of an approximate map says of the cells that it did not look at.

Some cells of a population are computed exactly: those that the approximation holds strongest, and
of the rest one drawn at random from each of n strata of equal size. Nothing is assumed of how
values are distributed, or of how good the approximation is.

**The bound.** Let m cells of the rest have values above some number. The chance that none of them
is drawn is the product of (1 − m_s / N_s) over the strata; for given m it is largest where they are
spread evenly, (1 − m / N)^n. So with confidence 95 % at most m cells of the rest are above the
largest value drawn, where m is the smallest number for which that product, with m + 1, is 5 % or
less. It is the one-sided tolerance limit of Wilks 1941 (Ann. Math. Stat. 12:91), of a finite
population in strata.

**How many are above a number.** Of how many that were drawn are above it: the interval of Clopper
and Pearson 1934. Draws from strata are no wider spread than from one population (Hoeffding 1956,
Ann. Math. Stat. 27:713), so the interval covers at least as often as it says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy

from microtome.errors import StatisticsError
from microtome.stats.samples import Array

Indices = np.ndarray[Any, np.dtype[np.int64]]

CONFIDENCE = 0.95


@dataclass(frozen=True, eq=False)
class Drawn:
    """Which of a population's cells are computed exactly.

    Attributes:
        strongest: those that the approximation holds strongest, the strongest first; and what is
            computed exactly for another reason, behind them.
        sample: one of each stratum of the rest.
        strata: how many cells each stratum has, ``[sample]``.
    """

    strongest: Indices
    sample: Indices
    strata: Indices

    @property
    def cells(self) -> Indices:
        """All of them, the strongest first."""
        return np.concatenate([self.strongest, self.sample])

    @property
    def weights(self) -> Array:
        """How many cells of the population each stands for."""
        return np.concatenate([np.ones(len(self.strongest)), self.strata.astype(float)])


NONE: Indices = np.empty(0, dtype=np.int64)
"""No cells."""


def strongest_first(values: Array, known: Indices = NONE) -> Indices:
    """The cells by the size of their values, what is no number first, without some of them."""
    size = np.where(np.isnan(values), np.inf, np.abs(values))
    order = np.argsort(-size, kind="stable")
    found: Indices = order[~np.isin(order, known)] if len(known) else order
    return found


def draw(
    values: Array,
    groups: Indices,
    some: int,
    chance: np.random.Generator,
    known: Indices = NONE,
    top: int | None = None,
) -> Drawn:
    """Choose cells for an audit: half of them the strongest, half at random, and one at least.

    Strata are of the rest in order: by group, and within it by size.

    Args:
        values: what the approximation says, ``[cell]``; what is no number is strongest.
        groups: such as layers, ``[cell]``.
        some: how many to choose; of fewer cells, all.
        chance: where random numbers come from.
        known: cells that are computed exactly besides, which are not chosen again.
        top: how many of them are the strongest; half, unless given.

    Raises:
        StatisticsError: there is no cell, or none is to be chosen.
    """
    if some < 1 or not len(values):
        raise StatisticsError("An audit needs at least one cell to look at, and one to choose.")
    size = np.where(np.isnan(values), np.inf, np.abs(values))
    order = strongest_first(values, known)
    top = some // 2 if top is None else top
    top = len(order) if some >= len(order) else top
    rest = order[top:]
    rest = rest[np.lexsort((size[rest], groups[rest]))]
    edges = np.linspace(0, len(rest), min(some - top, len(rest)) + 1).round().astype(np.int64)
    strata = np.diff(edges)
    at = edges[:-1] + chance.integers(0, strata) if len(strata) else edges[:0]
    return Drawn(np.concatenate([order[:top], known]), rest[at], strata)


def most_above(strata: Indices, confidence: float = CONFIDENCE) -> int:
    """How many cells of the strata may be above all that was drawn, one of each, at most.

    >>> most_above(np.full(59, 100))  # 95 % of 5,900 cells are below the largest of 59
    292
    """
    total = int(strata.sum())
    low, high = 0, total
    while low < high:
        middle = (low + high) // 2
        if _missed(strata, middle + 1) <= np.log1p(-confidence):
            high = middle
        else:
            low = middle + 1
    return low


def _missed(strata: Indices, cells: int) -> float:
    """The logarithm of the largest chance that none of so many cells is drawn."""
    left, n = int(strata.sum()) - cells, len(strata)
    if left < n:  # some stratum has no other cell
        return -np.inf
    each, more = divmod(left, n)
    whole = (n - more) * np.log(each) + more * np.log(each + 1)
    return float(whole - np.log(strata).sum())


def how_many(strata: Indices, found: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The interval of how many cells of the strata are such, where so many that were drawn are."""
    n, total = len(strata), float(strata.sum())
    if not n:
        return 0.0, 0.0
    side = (1 - confidence) / 2
    low = 0.0 if not found else float(scipy.stats.beta.ppf(side, found, n - found + 1))
    high = 1.0 if found == n else float(scipy.stats.beta.ppf(1 - side, found + 1, n - found))
    least, most = (float(one) * n for one in (strata.min(), strata.max()))
    return max(float(found), low * least), min(total - (n - found), high * most)


@dataclass(frozen=True)
class Bound:
    """What may be among the cells that were not computed exactly.

    With ``confidence``, no more than ``share`` of these ``cells`` have an exact effect above
    ``effect``, in size; nor are more of them off by more than ``miss``.

    Attributes:
        cells: how many cells were not computed exactly.
        share: of these, 0 to 1.
        effect: the largest exact effect that was drawn, in the metric's unit.
        miss: the largest difference between an approximate and an exact effect that was drawn.
        confidence: 0 to 1.
    """

    cells: int
    share: float
    effect: float
    miss: float
    confidence: float = CONFIDENCE


@dataclass(frozen=True)
class Recall:
    """How many of the strongest cells are where the approximation says.

    The strongest cells are those with an exact effect of at least ``effect``, in size: of the ``k``
    whose exact effects are largest among those that the approximation holds strongest, the least.
    How many more there are elsewhere is estimated from the sample. In a refined map the cells that
    were refined count with those that it holds strongest, and so do earlier samples.

    Attributes:
        k: how many.
        effect: what counts as strong, in the metric's unit.
        share: the estimate, 0 to 1; ``low`` and ``high`` its interval: of 95 %, or where a map was
            refined until a bound was low enough, of the confidence of its last look.
    """

    k: int
    effect: float
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Agreement:
    """How approximate effects compare with exact ones, estimated for the whole map.

    None where there are fewer than two cells, or one side is constant.

    Attributes:
        pearson: correlation.
        spearman: rank correlation.
        signs: the share of cells whose effects have the same sign, of those that are not 0.
        miss: the largest difference among the cells computed exactly.
        worst: which of these that is, by its place among them.
    """

    pearson: float | None
    spearman: float | None
    signs: float | None
    miss: float
    worst: int


def agreement(approximate: Array, exact: Array, weights: Array) -> Agreement:
    """How well effects agree, of cells of which each stands for so many, ``[cell]``."""
    finite = np.isfinite(approximate) & np.isfinite(exact)
    off = np.where(finite, np.abs(exact - approximate), np.inf)
    off = np.where(np.isinf(exact) & (exact == approximate), 0.0, off)
    one, two, own = approximate[finite], exact[finite], weights[finite]
    signed = (one != 0) | (two != 0)
    same = np.sign(one) == np.sign(two)
    counted = own[signed].sum()
    return Agreement(
        pearson=_correlation(one, two, own),
        spearman=_correlation(_ranks(one, own), _ranks(two, own), own),
        signs=float(own[signed & same].sum() / counted) if counted else None,
        miss=float(off.max(initial=0.0)),
        worst=int(off.argmax()) if len(off) else 0,
    )


def _correlation(one: Array, two: Array, weights: Array) -> float | None:
    """Weighted."""
    if len(one) < 2 or np.ptp(one) == 0 or np.ptp(two) == 0:
        return None
    a = one - np.average(one, weights=weights)
    b = two - np.average(two, weights=weights)
    a, b = a / np.abs(a).max(), b / np.abs(b).max()
    spread = np.sqrt((weights * a * a).sum() * (weights * b * b).sum())
    return float(np.clip((weights * a * b).sum() / spread, -1, 1))


def _ranks(values: Array, weights: Array) -> Array:
    """Ranks in a population of which each value stands for so many; ties have their mean."""
    kinds, which = np.unique(values, return_inverse=True)
    each = np.bincount(which, weights=weights, minlength=len(kinds))
    ends = np.cumsum(each)
    ranks: Array = (ends - each / 2)[which]
    return ranks


def spent(turn: int) -> float:
    """The confidence of one of many looks, of which all hold together with 95 %.

    A look after which one may stop, or look again, is a chance to be wrong: each is given half of
    what is left of the 5 %.

    >>> spent(0), spent(1)
    (0.975, 0.9875)
    """
    return 1 - (1 - CONFIDENCE) * 0.5 ** (turn + 1)


def bound(
    drawn: Drawn, approximate: Array, exact: Array, confidence: float = CONFIDENCE
) -> Bound | None:
    """What may be among the other cells; None where there are none.

    Args:
        drawn: which cells were computed exactly.
        approximate, exact: their effects, in the order of `Drawn.cells`.
        confidence: of this look, where there may be others.
    """
    others = int(drawn.strata.sum()) - len(drawn.sample)
    if not others:
        return None
    sample = slice(len(drawn.strongest), None)
    off = np.abs(exact[sample] - approximate[sample])
    share = min(1.0, most_above(drawn.strata, confidence) / others)
    largest = np.abs(exact[sample]).max()
    return Bound(others, share, float(largest), float(np.where(np.isnan(off), np.inf, off).max()))


def recall(drawn: Drawn, exact: Array, k: int, confidence: float = CONFIDENCE) -> Recall | None:
    """How many of the strongest cells are in ``drawn.strongest``.

    None where none of these has an effect: of nothing, all cells would be the strongest.
    """
    top = np.abs(exact[: len(drawn.strongest)])
    top = np.sort(top[top > 0])[::-1]
    k = min(k, len(top))
    if k < 1:
        return None
    effect = float(top[k - 1])
    inside = int((top >= effect).sum())
    beyond = np.abs(exact[len(drawn.strongest) :]) >= effect
    missed = float(drawn.strata[beyond].sum())
    low, high = how_many(drawn.strata, int(beyond.sum()), confidence)
    return Recall(
        inside,
        effect,
        inside / (inside + missed),
        inside / (inside + high),
        inside / (inside + low),
    )
