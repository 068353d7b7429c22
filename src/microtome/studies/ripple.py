"""A ripple: what an edit changes in how alike tokens are, tested layer by layer.

Similarities are of all pairs of tokens, and each pair's change is one sample.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import stats as scipy_stats

from microtome import stats


def pairs_of(cosines: xr.DataArray) -> xr.DataArray:
    """Each pair of different tokens once: ``[…, at_pos, at_other]`` → ``[…, pair]``.

    Pairs that a prompt does not have are left out.
    """
    first, second = np.triu_indices(cosines.sizes["at_pos"], 1)
    chosen = cosines.isel(
        at_pos=xr.DataArray(first, dims="pair"), at_other=xr.DataArray(second, dims="pair")
    )
    return chosen.transpose(..., "pair").dropna("pair", how="all")


def downstream(values: xr.DataArray) -> xr.DataArray:
    """Values over ``layer`` and ``at_layer`` with NaN in the layers before the edit."""
    return values.where(values["at_layer"] >= values["layer"])


def ripple(change: xr.DataArray) -> xr.Dataset:
    """Paired t tests of one head's changes ``[at_layer, pair]``, layer by layer.

    Returns:
        Over ``at_layer``: the mean change ``value`` with its 95 % interval ``low`` and ``high``,
        ``n`` pairs, the ``p`` of a paired t test, ``bonferroni``: p times the number of all
        layers, and ``fdr``: Benjamini and Hochberg's adjustment over the tests that there are.
    """
    tests = [stats.paired_t(row, np.zeros_like(row)) for row in change.values]
    p = np.array([test.p for test in tests])
    columns = {name: [getattr(t, name) for t in tests] for name in ("value", "low", "high", "n")}
    corrected = {"p": p, "bonferroni": _bonferroni(p), "fdr": stats.benjamini_hochberg(p)}
    layers = change["at_layer"].values
    return xr.Dataset(
        {name: ("at_layer", values) for name, values in {**columns, **corrected}.items()},
        {"at_layer": layers},
    )


def _bonferroni(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """p times the number of layers along the last axis, as published: 0.05 / layers.

    The layers before the edit count, though nothing is tested there: that is on the safe side.
    """
    adjusted: NDArray[np.float64] = np.minimum(1, p * p.shape[-1])
    return adjusted


def significant(change: xr.DataArray) -> xr.DataArray:
    """Which heads' changes ``[layer, head, at_layer, pair]`` are significant, by layer.

    0 or 1 over ``layer``, ``head``, ``at_layer``, with Bonferroni's correction over the layers;
    NaN in the layers before a head.
    """
    values = change.values
    with np.errstate(invalid="ignore", divide="ignore"):  # no spread, no test
        p = np.asarray(scipy_stats.ttest_1samp(values, 0.0, axis=-1).pvalue)
    passed = (_bonferroni(p) < stats.LEVEL).astype(float)
    return downstream(change.isel(pair=0, drop=True).copy(data=passed))
