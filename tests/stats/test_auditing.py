"""Audits: bounds that hold as often as they say, and estimates of the whole map."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as distributions

from microtome.errors import StatisticsError
from microtome.stats import auditing


def test_half_are_the_strongest_and_half_one_of_each_stratum():
    values = np.array([3.0, -9.0, 0.5, np.nan, 1.0, 2.0, -4.0, 0.1, 0.2, 0.3])
    drawn = auditing.draw(values, np.zeros(10, dtype=int), 6, np.random.default_rng(0))
    assert drawn.strongest.tolist() == [3, 1, 6]
    assert drawn.strata.tolist() in ([2, 3, 2], [2, 2, 3], [3, 2, 2])
    in_order = [7, 8, 9, 2, 4, 5, 0]
    edges = np.cumsum([0, *drawn.strata])
    for number, cell in enumerate(drawn.sample):
        assert cell in in_order[edges[number] : edges[number + 1]]
    assert drawn.weights.sum() == 10


def test_strata_are_of_groups_first():
    values, groups = np.linspace(1, 0, 40), np.arange(40) % 2
    drawn = auditing.draw(values, groups, 8, np.random.default_rng(1))
    assert groups[drawn.sample].tolist() == [0, 0, 1, 1]


def test_a_small_map_is_all_exact():
    drawn = auditing.draw(np.arange(5.0), np.zeros(5, dtype=int), 64, np.random.default_rng(0))
    assert sorted(drawn.cells) == [0, 1, 2, 3, 4]
    assert auditing.bound(drawn, np.arange(5.0), np.arange(5.0)) is None


def test_nothing_to_audit_is_refused():
    with pytest.raises(StatisticsError, match="at least one cell"):
        auditing.draw(np.empty(0), np.empty(0, dtype=int), 8, np.random.default_rng(0))


def by_brute_force(strata, cells):
    """The largest chance to draw none of so many cells, over all ways to spread them."""

    def spread(left, some):
        if len(left) == 1:
            yield [some] if some <= left[0] else [left[0] + 1]
            return
        for own in range(min(some, left[0]) + 1):
            for others in spread(left[1:], some - own):
                yield [own, *others]

    ways = (
        way
        for way in spread(strata, cells)
        if all(a <= b for a, b in zip(way, strata, strict=True))
    )
    return max(math.prod(1 - a / b for a, b in zip(way, strata, strict=True)) for way in ways)


@pytest.mark.parametrize("strata", [[4, 5, 5], [7, 7], [3, 3, 3, 4], [12]])
def test_the_most_that_may_be_above_is_that_of_the_worst_spread(strata):
    for confidence in (0.5, 0.8, 0.95):
        wanted = next(
            m
            for m in range(sum(strata) + 1)
            if m == sum(strata) or by_brute_force(strata, m + 1) <= 1 - confidence + 1e-12
        )
        assert auditing.most_above(np.array(strata), confidence) == wanted


def test_of_many_cells_it_is_the_limit_of_wilks():
    share = auditing.most_above(np.full(59, 10_000)) / 590_000
    assert share == pytest.approx(1 - 0.05 ** (1 / 59), abs=1e-5)


def populations(cells, chance):
    exact = chance.standard_normal(cells) ** 3
    yield "good", exact + 0.2 * chance.standard_normal(cells), exact
    yield "none", chance.standard_normal(cells), exact
    yield "misses", np.where(chance.random(cells) < 0.6, exact, 0.0), exact
    yield "ties", chance.standard_normal(cells), chance.integers(0, 3, cells).astype(float)


@pytest.mark.parametrize("cells", [90, 700])
def test_bounds_and_intervals_hold_as_often_as_they_say(cells):
    """Of 200 audits of each map: a bound that held 95 times in 100 would fail once in 10,000."""
    chance, groups = np.random.default_rng(cells), np.arange(cells) * 12 // cells
    rounds = 200
    most = distributions.binom.ppf(1 - 1e-4, rounds, 0.05)
    for name, approximate, exact in populations(cells, chance):
        wrong, lost, off = 0, 0, 0
        for _ in range(rounds):
            drawn = auditing.draw(approximate, groups, 64, chance)
            own = drawn.cells
            found = auditing.bound(drawn, approximate[own], exact[own])
            others = np.setdiff1d(np.arange(cells), own)
            allowed = found.share * found.cells + 1e-9
            wrong += (np.abs(exact[others]) > found.effect).sum() > allowed
            off += (np.abs(exact - approximate)[others] > found.miss).sum() > allowed
            recall = auditing.recall(drawn, exact[own], 20)
            strong = np.abs(exact) >= recall.effect
            share = strong[drawn.strongest].sum() / strong.sum()
            lost += not recall.low - 1e-12 <= share <= recall.high + 1e-12
        assert max(wrong, lost, off) <= most, name


def test_estimates_of_a_map_come_near_the_whole_map():
    chance, cells = np.random.default_rng(3), 2_000
    exact = chance.standard_normal(cells)
    approximate = exact + 0.5 * chance.standard_normal(cells)
    whole = auditing.agreement(approximate, exact, np.ones(cells))
    assert whole.pearson == pytest.approx(np.corrcoef(approximate, exact)[0, 1], abs=1e-12)
    rank = distributions.spearmanr(approximate, exact).statistic
    assert whole.spearman == pytest.approx(rank, abs=1e-12)
    assert whole.signs == (np.sign(approximate) == np.sign(exact)).mean()
    each = []
    for _ in range(50):
        drawn = auditing.draw(approximate, np.zeros(cells, dtype=int), 200, chance)
        own = drawn.cells
        found = auditing.agreement(approximate[own], exact[own], drawn.weights)
        each.append([found.pearson, found.spearman, found.signs])
    wanted = [whole.pearson, whole.spearman, whole.signs]
    assert np.abs(np.mean(each, axis=0) - wanted).max() < 0.02


def test_ties_have_their_mean_rank():
    one, two = np.array([1.0, 1, 2, 3]), np.array([2.0, 2, 5, 4])
    found = auditing.agreement(one, two, np.ones(4))
    assert found.spearman == pytest.approx(distributions.spearmanr(one, two).statistic)


def test_the_largest_miss_is_named_and_what_is_no_number_is_the_largest():
    exact, approximate = np.array([1.0, 5.0, 2.0]), np.array([1.0, 2.0, 2.5])
    found = auditing.agreement(approximate, exact, np.ones(3))
    assert (found.miss, found.worst) == (3.0, 1)
    broken = auditing.agreement(np.array([1.0, 2.0, np.nan]), exact, np.ones(3))
    assert (broken.miss, broken.worst) == (np.inf, 2)


def test_a_constant_map_has_no_correlation():
    found = auditing.agreement(np.zeros(3), np.array([0.0, 0, 0]), np.ones(3))
    assert (found.pearson, found.spearman, found.signs) == (None, None, None)


def test_an_audit_of_one_cell_draws_it_and_knows_next_to_nothing():
    values, chance = np.linspace(1, 0, 40), np.random.default_rng(2)
    drawn = auditing.draw(values, np.zeros(40, dtype=int), 1, chance)
    assert (len(drawn.strongest), drawn.strata.tolist()) == (0, [40])
    found = auditing.bound(drawn, values[drawn.cells], values[drawn.cells])
    assert found.cells == 39
    assert found.share > 0.9
    assert auditing.recall(drawn, values[drawn.cells], 20) is None


def test_what_has_no_effect_is_not_looked_for():
    """Of a threshold of 0 every cell would be strong, and nearly all of them missed."""
    drawn = auditing.Drawn(np.array([0, 1, 2]), np.array([3, 4]), np.array([50, 50]))
    for nothing in (np.zeros(5), np.full(5, np.nan)):
        assert auditing.recall(drawn, nothing, 20) is None
    found = auditing.recall(drawn, np.array([3.0, 0, 0, 0, 0]), 20)
    assert (found.k, found.effect, found.share) == (1, 3.0, 1.0)


def test_of_strata_of_one_and_two_cells_the_fewest_are_counted():
    """All that were found may be in strata of one cell."""
    strata = np.array([1] * 15 + [2] * 5)
    low, high = auditing.how_many(strata, 10)
    side = distributions.beta.ppf([0.025, 0.975], [10, 11], [11, 10])
    assert low == pytest.approx(max(10, 20 * side[0]))
    assert high == pytest.approx(min(25 - 10, 40 * side[1]))
    low, _ = auditing.how_many(np.array([100] * 10 + [101] * 10), 10)
    assert low == pytest.approx(2000 * side[0])


def test_of_none_that_were_found_there_may_be_so_many():
    """Clopper and Pearson in closed form: 1 − 0.025^(1/n), as if all strata were as the largest."""
    strata = np.array([20] * 9 + [40])
    found = auditing.how_many(strata, 0)
    assert found == (0.0, pytest.approx(min(210, (1 - 0.025**0.1) * 400)))
    assert auditing.how_many(np.full(10, 1), 10) == (10.0, 10.0)  # all were looked at


def test_an_effect_that_one_side_does_not_see_has_another_sign():
    zero, one = np.array([0.0, 1.0, 0.0]), np.array([1.0, 1.0, 0.0])
    for sides in ((zero, one), (one, zero)):
        assert auditing.agreement(*sides, np.ones(3)).signs == 0.5
