"""Tests of maps over many prompts, corrected for looking at all of their cells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
import xarray as xr
from numpy import typing as npt
from numpy.typing import ArrayLike

from microtome.amounts import many
from microtome.errors import StatisticsError, listing
from microtome.spoken import spoken
from microtome.stats.aligned import why_apart
from microtome.stats.samples import CONFIDENCE, LEVEL, PROMPT, Array, finite, numbers_of, spread_out


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
        flips: how many ways of flipping signs the p values rest on, the data as they are included;
            prompts that have no effect in any cell are not flipped.
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
        name = f"max-statistic sign-flip test, n = {many(self.prompts, 'prompt')}"
        if not self.judged:
            return (
                f"{name}: cannot be judged, no p below {self.least_p:.2g} is possible; "
                f"{self.largest()}"
            )
        cells = int(self.p.notnull().sum())
        drawn = "sign flips, all there are" if self.exact else "random sign flips"
        return (
            f"{name}: {int(self.significant().sum())} of {many(cells, 'cell')} differ from 0 at "
            f"p < {LEVEL}, family-wise over {many(cells, 'cell')} ({self.flips} {drawn}); "
            f"{self.largest()}"
        )

    def largest(self) -> str:
        """The cell with the largest mean effect, in words; whether that differs from 0 or not."""
        at = int(np.nanargmax(np.abs(self.value.values)))
        best = dict(zip(self.p.dims, np.unravel_index(at, self.p.shape), strict=True))
        where = ", ".join(f"{dim} {self.p[dim].values[index]}" for dim, index in best.items())
        value, low, high, p, n = (
            float(one.isel(best)) for one in (self.value, self.low, self.high, self.p, self.n)
        )
        known = not np.isnan(low)
        interval = f"95 % interval {low:.3g} … {high:.3g}, uncorrected, " if known else ""
        judged = "" if np.isnan(p) or not self.judged else f", p = {p:.2g}"
        return (
            f"the largest mean effect is at {where or 'the only cell'}: {value:.3g} ({interval}"
            f"n = {n:.0f}){judged}"
        )


@spoken
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
        effects: ``[prompt, *map]``, such as ``effects.evidence("logit_diff")``; the first axis of
            an array, the dimension ``prompt`` of a DataArray. NaN is absent.
        permutations: how many flips at most.
        seed: of the flips that are drawn.

    Raises:
        StatisticsError: there is no dimension ``prompt``, fewer than 2 prompts, or no cell that
            two of them have; or there are positions, and prompts of different lengths, whose
            positions are not each other's.

    >>> effects = [[1.0, -1.0], [1.2, 1.1], [0.9, -0.8], [1.1, 1.3], [1.0, -1.2], [0.8, 1.0]]
    >>> max_statistic(effects).p.values
    array([0.03125, 1.     ])
    """
    if permutations < 1:
        raise StatisticsError(f"permutations is at least 1, not {permutations}.")
    maps = _maps(effects)
    if not maps.size:
        raise StatisticsError(f"A map has cells, and this one has the shape {list(maps.shape)}.")
    sample = finite(maps.values.reshape(maps.sizes[PROMPT], -1))  # prompt, cell
    n = (~np.isnan(sample)).sum(0)
    if len(sample) < 2 or not (n >= 2).any():
        raise StatisticsError(
            f"A map over prompts is tested with at least 2 prompts in a cell; here are "
            f"{len(sample)}, and {int(n.max(initial=0))} in the fullest cell."
        )
    units = _telling(_in_units_of_chance(sample[:, n >= 2]))
    observed = np.abs(units.sum(0))
    p, flips, exact = _sign_flip_p(units, observed, permutations, seed)
    value, low, high = _cell_intervals(sample)

    def of_every_cell(tested: Array) -> Array:
        every = np.full(n.size, np.nan)
        every[n >= 2] = tested
        return every

    def labelled(values: npt.NDArray[Any], name: str) -> xr.DataArray:
        cell = maps.isel({PROMPT: 0}, drop=True)
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
        array = numbers_of(effects)
        dims = [PROMPT, *(f"axis_{n}" for n in range(1, array.ndim))]
        if array.ndim == 0:
            raise StatisticsError("A map over prompts has an axis of prompts; this is one number.")
        return xr.DataArray(array, dims=dims)
    if PROMPT not in effects.dims:
        raise StatisticsError(
            f"Maps over prompts have a dimension 'prompt'; these have {listing(effects.dims)}."
        )
    if why := why_apart(effects):
        raise StatisticsError(why)
    of_prompts = [name for name, coord in effects.coords.items() if PROMPT in coord.dims]
    return effects.drop_vars(of_prompts).transpose(PROMPT, ...).astype(float)


def _in_units_of_chance(sample: Array) -> Array:
    """``[prompt, cell]``, scaled so that a randomly flipped sum over prompts has variance 1."""
    filled = np.nan_to_num(sample)  # What is absent adds nothing to a sum.
    scale = np.sqrt((filled**2).sum(0))
    scale[scale == 0] = 1  # No effect in any prompt: the statistic is 0, and p is 1.
    units: Array = filled / scale
    return units


def _telling(units: Array) -> Array:
    """Without prompts that have no effect in any cell: to flip those is no other way to flip."""
    telling: Array = units[(units != 0).any(axis=1)]
    return telling if len(telling) else units[:1]


def _sign_flip_p(
    units: Array, observed: Array, permutations: int, seed: int
) -> tuple[Array, int, bool]:
    """Corrected p values of cells ``[prompt, cell]``, from how many flips, and whether all."""
    exact = 2 ** (len(units) - 1) <= permutations
    signs = _all_signs(len(units)) if exact else _drawn_signs(len(units), permutations, seed)
    largest = np.sort(np.concatenate([_largest(each, units) for each in signs]))
    # Equal statistics that were added up in another order differ by rounding.
    smaller = np.searchsorted(largest, observed * (1 - 1e-9), side="left")
    return (largest.size - smaller) / largest.size, largest.size, exact


_ROWS, _CELLS = 1024, 4096
"""How many flips and cells are looked at in one product."""


def _largest(signs: Array, units: Array) -> Array:
    """The largest statistic of any cell, ``[flip]``."""
    parts = range(0, units.shape[1], _CELLS)
    sums = (np.abs(signs @ units[:, at : at + _CELLS]).max(1) for at in parts)
    found: Array = np.max(np.stack([*sums]), axis=0)
    return found


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
    apart = np.where(present, (sample - value) ** 2, 0).sum(0)
    there = (n > 1) & spread_out(apart, np.where(present, sample**2, 0).sum(0))
    spread = np.full(n.shape, np.nan)
    np.divide(apart, n * (n - 1.0), out=spread, where=there)
    margin = scipy.stats.t.ppf((1 + CONFIDENCE) / 2, np.maximum(n - 1, 1)) * np.sqrt(spread)
    return value, value - margin, value + margin
