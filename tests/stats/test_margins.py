"""Statistics at their edges: ties, rounding, and what counts as a sample of prompts."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import scipy.stats
import xarray as xr

from microtome import stats
from microtome.errors import StatisticsError
from microtome.stats.aligned import lengths, positional, why_apart

NAN = float("nan")


def test_wilcoxons_p_is_exact_with_ties_too():
    """Of more than a dozen pairs with ties scipy's own p is the normal distribution's."""
    differences = np.array(
        [1.0, -1.0, 2.0, 2.0, 2.0, -3.0, 4.0, 4.0, 5.0, -5.0, 5.0, 6.0, 6.0, -2.0, 7.0]
    )
    ranks = scipy.stats.rankdata(abs(differences))
    observed = abs((ranks * np.sign(differences)).sum())
    flips = np.array([*product([-1, 1], repeat=differences.size)])
    wanted = float((abs(flips @ ranks) >= observed - 1e-9).mean())
    assert stats.wilcoxon(differences, np.zeros(differences.size)).p == pytest.approx(wanted)


def test_rounding_gives_no_p_below_the_least_that_there_is():
    """The data as they are are one of the flips, in whatever order they are added up."""
    for seed in range(60):
        effects = np.random.default_rng(seed).normal(size=(9, 5)) + 1.5
        found = stats.max_statistic(effects)
        assert float(found.p.min()) >= found.least_p == 1 / 256


def test_a_cell_without_spread_has_no_interval():
    found = stats.max_statistic([[2.0, 1.0], [2.0, 3.0], [2.0, 2.5]])
    assert found.value.values.tolist() == pytest.approx([2.0, 6.5 / 3])
    assert np.isnan([found.low.values[0], found.high.values[0]]).all()
    assert found.low.values[1] < found.high.values[1]


def test_pairs_over_two_dimensions_are_in_the_same_order():
    a = xr.DataArray(np.arange(4.0).reshape(2, 2), {"prompt": [0, 1], "seed": [0, 1]})
    over = ("prompt", "seed")
    assert stats.paired_t(a**2, a, over).n == 4
    with pytest.raises(StatisticsError, match="same coordinates of 'prompt' in the same order"):
        stats.paired_t(a.T, a, over)


@pytest.mark.parametrize(("k", "n"), [(-1, 3), (4, 3)])
def test_more_than_all_are_no_share(k, n):
    with pytest.raises(StatisticsError, match=f"{k} of {n} is none"):
        stats.share(k, n)


def test_a_share_is_wilsons_and_of_nothing_there_is_none():
    found = stats.share(7, 20)
    p, z = 0.35, scipy.stats.norm.ppf(0.975)
    middle = (p + z**2 / 40) / (1 + z**2 / 20)
    half = z / (1 + z**2 / 20) * np.sqrt(p * (1 - p) / 20 + z**2 / 1600)
    assert (found.value, found.n) == (p, 20)
    assert (found.low, found.high) == pytest.approx((middle - half, middle + half))
    assert stats.share(0, 0).why == "there are no values"


class TestAlignment:
    def test_a_prompt_without_any_cell_takes_no_part(self):
        values = xr.DataArray([[1.0, 2.0], [NAN, NAN], [3.0, 4.0]], dims=("prompt", "pos"))
        assert why_apart(values) == ""
        values[1, 0] = 5.0
        assert "of different lengths, 1 to 2" in why_apart(values)

    def test_a_token_counts_though_no_cell_is_there(self):
        """A cell at the last token may not exist, as where a donor has no such word."""
        values = xr.DataArray(
            [[1.0, NAN], [3.0, 4.0]],
            {"token": (("prompt", "pos"), [["a", "b"], ["a", "c"]])},
            ("prompt", "pos"),
        )
        assert lengths(values, "pos").tolist() == [2, 2]
        assert why_apart(values) == ""

    def test_what_has_tokens_beside_it_counts_them_whatever_it_is_called(self):
        tokens = (("prompt", "there"), [["a", "b"]])
        assert positional(xr.DataArray(np.zeros((1, 2)), dims=("prompt", "there"))) == ()
        assert positional(
            xr.DataArray(np.zeros((1, 2)), {"there_token": tokens}, ("prompt", "there"))
        ) == ("there",)
