"""Statistics of maps over prompts in one pass: what a map over any number of them is known by.

A prompt is added and forgotten: mean and spread after Welford, "Note on a method for calculating
corrected sums of squares and products" (1962), put together after Chan, Golub & LeVeque, "Updating
formulae and a pairwise algorithm for computing sample variances" (1979). The null of the largest
statistic (`max_statistic`) takes one pass too: what a flip of signs does to a cell is known by the
flipped sum, and each prompt's signs by its number, so that they need not be kept.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
import scipy
import xarray as xr

from microtome.errors import StatisticsError
from microtome.stats.maps import MapTest
from microtome.stats.samples import CONFIDENCE, Array, spread_out

FLIPS = (99, 1_000)
"""How many flips a map is tested with: the fewest, on the largest maps, and the most."""

FLIPPED = 2**26
"""Bytes of the flipped sums, about."""


def flips_of(cells: int) -> int:
    """How many flips a map of so many cells is tested with.

    >>> flips_of(144), flips_of(36_864)
    (1000, 227)
    """
    return int(np.clip(FLIPPED // (8 * max(cells, 1)), *FLIPS))


@dataclass(frozen=True, eq=False)
class Running:
    """What is known of the effects of a map's cells over some prompts, one after another.

    Evidence is a prompt in which a cell's edits changed something, and its effect is finite.

    Attributes:
        first: the number of the first prompt.
        prompts: how many there were.
        seed: of the signs.
        n: prompts that are evidence, ``[cell]``.
        mean: of their effects, ``[cell]``.
        told: prompts in which the edits changed something, ``[cell]``.
        m2: the sum of the squares of their distances from the mean, ``[cell]``.
        squares: the sum of their squares, ``[cell]``.
        infinite: the sum of the effects that are not finite, ``[cell]``; 0 where there are none.
        edited, clean: sums of the metric over evidence and what is infinite, with the edits and
            without, ``[cell]``.
        unchanged: prompts in which the cell exists and its edits changed nothing, ``[cell]``.
        clean_unchanged: the sum of the clean metric over these, ``[cell]``.
        flipped: the sums of effects with each flip's signs, ``[flip, cell]``.
    """

    first: int
    prompts: int
    seed: int
    n: Array
    mean: Array
    told: Array
    m2: Array
    squares: Array
    infinite: Array
    edited: Array
    clean: Array
    unchanged: Array
    clean_unchanged: Array
    flipped: Array

    @classmethod
    def empty(cls, cells: int, *, first: int = 0, seed: int = 0, flips: int | None = None) -> Self:
        """Of no prompts yet; the next one has the number ``first``."""
        flips = flips_of(cells) if flips is None else flips
        columns = {name: np.zeros(cells) for name in COLUMNS}
        return cls(first, 0, seed, **columns, flipped=np.zeros((flips, cells)))

    def added(self, edited: Array, clean: Array, changed: Array) -> Self:
        """The same with more prompts.

        Args:
            edited: the metric with the edits, ``[prompt, cell]``; NaN where a cell is absent.
            clean: the same without.
            changed: whether the edits changed anything, ``[prompt, cell]``.
        """
        own = replace(self, **{name: getattr(self, name).copy() for name in (*COLUMNS, "flipped")})
        for number, rows in enumerate(zip(edited, clean, changed, strict=True)):
            own._add(self.first + self.prompts + number, *rows)
        return replace(own, prompts=self.prompts + len(edited))

    def _add(self, number: int, edited: Array, clean: Array, changed: Array) -> None:
        with np.errstate(invalid="ignore"):  # of two infinities
            effect = edited - clean
        there = ~np.isnan(effect)
        told, still = there & (changed != 0), there & (changed == 0)
        evidence = told & np.isfinite(effect)
        x = np.where(evidence, effect, 0.0)
        self.told[:] += told
        self.n[:] += evidence
        apart = np.where(evidence, x - self.mean, 0.0)
        self.mean[:] += apart / np.maximum(self.n, 1)
        self.m2[:] += np.where(evidence, apart * (x - self.mean), 0.0)
        self.squares[:] += x * x
        with np.errstate(invalid="ignore"):
            self.infinite[:] += np.where(told & ~evidence, effect, 0.0)
            self.edited[:] += np.where(told, edited, 0.0)
            self.clean[:] += np.where(told, clean, 0.0)
            self.clean_unchanged[:] += np.where(still, clean, 0.0)
        self.unchanged[:] += still
        self.flipped[:] += signs(self.seed, number, len(self.flipped))[:, None] * x

    def merged(self, other: Self) -> Self:
        """Of these prompts and of those that come right after them; equal but for rounding.

        Raises:
            StatisticsError: the others are not the next ones, of other cells, or of another seed.
        """
        mine, theirs = (self.seed, *self.flipped.shape), (other.seed, *other.flipped.shape)
        if mine != theirs or other.first != self.first + self.prompts:
            raise StatisticsError(
                f"These are of prompts {self.first} to {self.first + self.prompts}, seed and flips "
                f"and cells {mine}, and the others from {other.first} on, {theirs}: what is put "
                "together is one map over prompts that follow each other, flipped with one seed. "
                "Give the others the number of their first prompt (first=)."
            )
        n = self.n + other.n
        share = np.divide(other.n, n, out=np.zeros_like(n), where=n > 0)
        apart = other.mean - self.mean
        names = (*COLUMNS, "flipped")
        with np.errstate(invalid="ignore"):  # of two infinities
            sums = {name: getattr(self, name) + getattr(other, name) for name in names}
        sums["mean"] = self.mean + apart * share
        sums["m2"] = self.m2 + other.m2 + apart**2 * self.n * share
        return replace(self, prompts=self.prompts + other.prompts, **sums)

    def tested(self, cells: xr.DataArray) -> MapTest:
        """Every cell's mean, interval and p value corrected for all cells, as `max_statistic` has
        them, with flips that are drawn.

        A cell with an infinite effect has that for its mean, and no interval and no p.

        Args:
            cells: an array of the map's shape, for its dimensions and coordinates.

        Raises:
            StatisticsError: no cell has two prompts.
        """
        known = (self.n >= 2) & (self.infinite == 0)
        if not known.any():
            raise StatisticsError(
                f"A map over prompts is tested with at least 2 prompts in a cell; here are "
                f"{self.prompts}, and {int(self.n.max(initial=0))} in the fullest cell."
            )
        scale = np.sqrt(self.squares)
        scale[scale == 0] = 1  # no effect in any prompt: the statistic is 0, and p is 1
        observed = np.where(known, np.abs(self.n * self.mean) / scale, np.nan)
        null = np.abs(self.flipped[:, known] / scale[known]).max(axis=1)
        largest = np.sort(np.append(null, np.nanmax(observed)))
        # Equal statistics that were added up in another order differ by rounding.
        smaller = np.searchsorted(largest, observed * (1 - 1e-9), side="left")
        p = np.where(known, (largest.size - smaller) / largest.size, np.nan)
        margin = self._margin()

        def labelled(values: Array, name: str) -> xr.DataArray:
            return xr.DataArray(values.reshape(cells.shape), cells.coords, cells.dims, name=name)

        value = self.value
        return MapTest(
            value=labelled(value, "mean effect"),
            low=labelled(value - margin, "low"),
            high=labelled(value + margin, "high"),
            p=labelled(p, "p"),
            statistic=labelled(observed, "statistic"),
            n=labelled(self.n, "n"),
            prompts=self.prompts,
            flips=largest.size,
            exact=False,
        )

    @property
    def value(self) -> Array:
        """The mean effect of each cell; NaN where it exists in no prompt, 0 where it did nothing in
        any."""
        none = np.where(self.unchanged > 0, 0.0, np.nan)
        finite = np.where(self.n > 0, self.mean, none)
        return np.where(self.infinite == 0, finite, self.infinite)

    def _margin(self) -> Array:
        spread = np.full(self.n.shape, np.nan)
        there = (self.n > 1) & spread_out(self.m2, self.squares) & (self.infinite == 0)
        np.divide(self.m2, self.n * (self.n - 1.0), out=spread, where=there)
        t = scipy.stats.t.ppf((1 + CONFIDENCE) / 2, np.maximum(self.n - 1, 1))
        np.multiply(np.sqrt(spread), t, out=spread)
        return spread


COLUMNS = tuple(
    field.name
    for field in fields(Running)
    if field.name not in ("first", "prompts", "seed", "flipped")
)
"""What a `Running` has of every cell, by name."""


def signs(seed: int, prompt: int, flips: int) -> Array:
    """±1 for each flip: what it does to a prompt of this number, whoever asks.

    >>> signs(0, 7, 3).tolist() == signs(0, 7, 3).tolist()
    True
    """
    drawn = np.random.default_rng([seed % 2**64, prompt]).integers(0, 2, size=flips)
    found: Array = drawn.astype(np.float64) * 2.0 - 1.0
    return found
