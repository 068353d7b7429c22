"""Corrections of p values for the number of tests that are looked at together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import scipy
from numpy.typing import ArrayLike

from microtome.errors import StatisticsError, there_are
from microtome.spoken import spoken
from microtome.stats.paired import Difference
from microtome.stats.samples import Array, numbers_of


@spoken
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


@spoken
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


@spoken
def benjamini_hochberg(p: ArrayLike) -> Array:
    """Benjamini and Hochberg's adjustment: controls the share of false positives among all (1995).

    >>> benjamini_hochberg([0.01, 0.02, float("nan")]).tolist()
    [0.02, 0.02, nan]
    """
    return _adjusted(p, lambda present: np.asarray(scipy.stats.false_discovery_control(present)))


def _adjusted(p: ArrayLike, rule: Callable[[Array], Array]) -> Array:
    found = numbers_of(p).copy()
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


@spoken
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

    >>> from microtome.stats import paired_t
    >>> several = [paired_t([3.0, 5.0, 4.0, 6.0], [1.0, 2.0, 3.0, 4.0])] * 2
    >>> corrected(several, "bonferroni")[0].correction
    'Bonferroni over 2 tests'
    """
    given = tuple(differences)
    if correction not in CORRECTIONS:
        known = there_are(correction, CORRECTIONS)
        raise StatisticsError(f"No correction is called {correction!r}; {known}")
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
