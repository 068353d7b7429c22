"""Statistics in one pass are those of all prompts at once."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from microtome.errors import StatisticsError
from microtome.stats import max_statistic
from microtome.stats.running import COLUMNS, Running, signs

CELLS = xr.DataArray(np.zeros((2, 3)), {"layer": [0, 1]}, ("layer", "head"))


@pytest.fixture
def sample():
    """``[prompt, cell]``: with cells that are absent, that changed nothing, and that never did."""
    random = np.random.default_rng(3)
    clean = np.repeat(random.normal(size=(40, 1)), 6, axis=1)
    edited = clean + random.normal(size=(40, 6)) + [0.0, 0.1, 0.5, -2.0, 0.0, 0.0]
    changed = random.integers(0, 4, size=(40, 6)).astype(float)
    changed[:, 4] = 0
    still = changed == 0  # where nothing changed there is rounding, and no evidence
    edited[still] = clean[still] + 1e-3 * random.normal(size=still.sum())
    edited[random.random((40, 6)) < 0.1] = np.nan
    edited[:, 5] = np.nan
    return edited, clean, changed


def of(sample, cut=(), **how):
    edited, clean, changed = sample
    found = Running.empty(edited.shape[1], **how)
    for part in np.split(np.arange(len(edited)), cut):
        found = found.added(edited[part], clean[part], changed[part])
    return found


def evidence(sample):
    edited, clean, changed = sample
    return np.where(changed != 0, edited - clean, np.nan)


def test_means_intervals_and_statistics_are_those_of_all_at_once(sample):
    found, effects = of(sample).tested(CELLS), evidence(sample)
    whole = max_statistic(xr.DataArray(effects.reshape(40, 2, 3), dims=("prompt", "layer", "head")))
    for name in ("low", "high", "statistic", "n"):
        np.testing.assert_allclose(getattr(found, name), getattr(whole, name), rtol=1e-12)
    # The mean of a cell that did nothing in any prompt is 0 here, of one that is nowhere NaN.
    np.testing.assert_allclose(found.value.values[0], whole.value.values[0], rtol=1e-12)
    np.testing.assert_array_equal(found.value.values[1, 1:], [0.0, np.nan])


def test_p_is_that_of_the_same_flips_made_one_by_one(sample):
    found = of(sample, flips=200, seed=5).tested(CELLS)
    effects = evidence(sample)
    x = np.nan_to_num(effects)
    scale = np.sqrt((x**2).sum(0))
    tested = (~np.isnan(effects)).sum(0) >= 2
    flips = np.stack([signs(5, prompt, 200) for prompt in range(40)], axis=1)
    largest = [np.abs((flip @ x)[tested] / scale[tested]).max() for flip in flips]
    observed = np.abs(x.sum(0)) / np.where(scale == 0, 1, scale)
    largest.append(observed[tested].max())
    wanted = [(np.array(largest) >= one - 1e-12).mean() for one in observed]
    np.testing.assert_allclose(found.p.values.ravel()[tested], np.array(wanted)[tested])
    assert np.isnan(found.p.values.ravel()[~tested]).all()
    assert (found.flips, found.exact) == (201, False)


def test_sums_of_the_metric_are_over_the_same_prompts(sample):
    found, (edited, clean, changed) = of(sample), sample
    there, told = ~np.isnan(edited), ~np.isnan(evidence(sample))
    np.testing.assert_allclose(found.edited, np.where(told, edited, 0).sum(0), rtol=1e-12)
    np.testing.assert_allclose(found.clean, np.where(told, clean, 0).sum(0), rtol=1e-12)
    still = there & (changed == 0)
    np.testing.assert_array_equal(found.unchanged, still.sum(0))
    np.testing.assert_allclose(found.clean_unchanged, np.where(still, clean, 0).sum(0), rtol=1e-12)


def test_signs_are_one_up_or_down_as_often_and_each_prompts_own():
    drawn = np.stack([signs(seed, prompt, 1_000) for seed in (0, 1) for prompt in (3, 4)])
    assert np.unique(drawn).tolist() == [-1.0, 1.0]
    assert np.abs(drawn.mean(axis=1)).max() < 0.1
    assert np.abs(np.corrcoef(drawn) - np.eye(4)).max() < 0.1


def test_what_is_added_to_stays_as_it_was(sample):
    before = of([part[:17] for part in sample])
    columns = {name: getattr(before, name).copy() for name in (*COLUMNS, "flipped")}
    before.added(*(part[17:] for part in sample))
    for name, own in columns.items():
        np.testing.assert_array_equal(getattr(before, name), own)


@pytest.mark.parametrize("seed", range(12))
def test_a_flip_that_gives_as_much_counts_whatever_its_rounding(seed):
    """Of three effects above 0 just the flips of all, or of none, give as much as was seen."""
    x = np.random.default_rng(seed).random((3, 1)) + 0.1
    found = of((x, np.zeros_like(x), np.ones_like(x)), flips=200)
    drawn = np.stack([signs(0, prompt, 200) for prompt in range(3)])
    as_much = (np.abs(drawn.sum(0)) == 3).sum()
    p = found.tested(xr.DataArray(np.zeros(1), dims="cell")).p.item()
    assert p == (1 + as_much) / 201


@pytest.mark.parametrize("cut", [(1,), (13, 14), tuple(range(1, 40))])
def test_it_does_not_matter_how_many_come_at_once(sample, cut):
    whole, parts = of(sample), of(sample, cut)
    for name in (*COLUMNS, "flipped"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))


def test_parts_are_put_together(sample):
    first = of([part[:17] for part in sample])
    second = of([part[17:] for part in sample], first=17)
    whole, both = of(sample), first.merged(second)
    for name in (*COLUMNS, "flipped"):
        np.testing.assert_allclose(
            getattr(both, name), getattr(whole, name), rtol=1e-12, atol=1e-12
        )
    assert (both.first, both.prompts) == (0, 40)


def test_a_cell_that_one_prompt_alone_says_anything_of_has_its_effect(sample):
    edited, clean, changed = (part.copy() for part in sample)
    changed[:, 0], changed[20, 0] = 0, 1
    first, second = (
        of([part[own] for part in (edited, clean, changed)], first=own.start)
        for own in (slice(0, 17), slice(17, 40))
    )
    both = first.merged(second)
    assert (first.n[0], both.n[0]) == (0, 1)
    assert both.mean[0] == edited[20, 0] - clean[20, 0] != 0


@pytest.mark.parametrize("how", [{"first": 3}, {"first": 40, "seed": 1}, {"first": 40, "flips": 7}])
def test_parts_that_do_not_follow_each_other_are_refused(sample, how):
    with pytest.raises(StatisticsError, match="prompts that follow each other"):
        of(sample).merged(of(sample, **how))


def test_a_cell_with_an_infinite_effect_has_no_test_and_keeps_the_others(sample):
    edited, clean, changed = (part.copy() for part in sample)
    edited[3, 0], changed[3, 0] = -np.inf, 1
    found, without = of((edited, clean, changed)).tested(CELLS), of(sample).tested(CELLS)
    assert found.value.values[0, 0] == -np.inf
    assert np.isnan([one.values[0, 0] for one in (found.low, found.high, found.p)]).all()
    np.testing.assert_array_equal(found.value.values[0, 1:], without.value.values[0, 1:])
    edited[4, 0], changed[4, 0] = np.inf, 1  # infinities of both signs have no mean
    assert np.isnan(of((edited, clean, changed)).value[0])


def test_infinities_of_both_signs_in_two_parts_have_no_mean_either(sample):
    edited, clean, changed = (part.copy() for part in sample)
    edited[3, 0], edited[20, 0], changed[:, 0] = -np.inf, np.inf, 1
    first = of([part[:17] for part in (edited, clean, changed)])
    both = first.merged(of([part[17:] for part in (edited, clean, changed)], first=17))
    assert np.isnan(both.value[0])


def test_one_prompt_is_no_sample(sample):
    with pytest.raises(StatisticsError, match="at least 2 prompts in a cell; here are 1, and 1"):
        of([part[:1] for part in sample]).tested(CELLS)


def test_numbers_that_are_far_from_zero_keep_their_spread():
    far = 1e9 + np.array([[0.0], [1.0], [2.0], [3.0]])
    found = of((far, np.zeros_like(far), np.ones_like(far)))
    np.testing.assert_allclose(found.m2, [5.0], rtol=1e-9)


def test_equal_effects_have_no_interval_here_either():
    edited = np.full((7, 6), 0.3) + np.arange(7)[:, None]  # of which the clean values are taken
    found = of((edited, np.arange(7.0)[:, None] + np.zeros(6), np.ones((7, 6))), cut=[3])
    assert found.m2.any(), "there is rounding"
    assert np.isnan(found.tested(CELLS).low).all()
