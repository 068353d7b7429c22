"""Statistics: against closed forms, brute force over all sign flips, and simulated nulls."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from itertools import product

import numpy as np
import pytest
import scipy.stats
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from microtome import stats
from microtome.errors import StatisticsError

NAN = float("nan")
# Student (1908), table: additional hours of sleep of ten patients under two drugs.
FIRST = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SECOND = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


class TestPairedT:
    def test_students_own_example(self):
        result = stats.paired_t(SECOND, FIRST)
        assert result.value == pytest.approx(1.58)
        assert result.p == pytest.approx(0.002833, abs=1e-6)
        assert (result.low, result.high) == pytest.approx((0.7001, 2.4599), abs=1e-4)
        assert (result.n, result.judged, result.significant()) == (10, True, True)

    def test_it_is_scipys(self):
        a, b = noise(2, 30)
        expected = scipy.stats.ttest_rel(a, b)
        result = stats.paired_t(a, b)
        interval = expected.confidence_interval(0.95)
        assert result.p == pytest.approx(expected.pvalue)
        assert (result.low, result.high) == pytest.approx((interval.low, interval.high))

    def test_swapping_the_samples_turns_the_sign_only(self):
        there, back = stats.paired_t(FIRST, SECOND), stats.paired_t(SECOND, FIRST)
        assert there.p == back.p
        assert (there.value, there.low, there.high) == (-back.value, -back.high, -back.low)

    def test_a_pair_with_an_absent_value_is_absent(self):
        result = stats.paired_t([*SECOND, NAN, 1.0], [*FIRST, 0.0, NAN])
        assert result == stats.paired_t(SECOND, FIRST)

    @pytest.mark.parametrize(
        ("a", "b", "why"),
        [
            ([], [], "no pairs are too few"),
            ([NAN], [1.0], "no pairs are too few"),
            ([1.0], [2.0], "one pair is too few"),
            ([1.0, 2.0], [1.0, 2.0], "all differences are 0"),
            ([1.3, 2.3, 0.3], [1.0, 2.0, 0.0], "all differences are 0.3"),
        ],
    )
    def test_what_cannot_be_judged_says_why(self, a, b, why):
        result = stats.paired_t(a, b)
        assert np.isnan([result.p, result.low, result.high]).all()
        assert not result.judged
        assert not result.significant()
        assert f"cannot be judged, {why} (n = {result.n})" in str(result)

    def test_samples_that_do_not_pair_up_are_refused(self):
        with pytest.raises(StatisticsError, match=r"these are \[3\] and \[2\]"):
            stats.paired_t([1, 2, 3], [1, 2])
        with pytest.raises(StatisticsError, match="1 of the 2 values are infinite"):
            stats.paired_t([1, float("inf")], [1, 2])

    def test_p_is_uniform_where_there_is_no_effect(self):
        ps = [stats.paired_t(*noise(2, 12, seed=seed)).p for seed in range(300)]
        assert scipy.stats.kstest(ps, "uniform").pvalue > 0.01

    def test_the_interval_holds_the_truth_in_95_of_100(self):
        results = [stats.paired_t(noise(12, seed=s) + 1, np.zeros(12)) for s in range(400)]
        held = sum(r.low <= 1 <= r.high for r in results)
        assert 0.92 * 400 <= held <= 0.98 * 400

    def test_it_prints_as_a_sentence_and_is_frozen(self):
        result = stats.paired_t(SECOND, FIRST)
        assert str(result) == (
            "paired t-test: mean difference 1.58 (95 % interval 0.7 … 2.46), p = 0.0028, "
            "uncorrected, n = 10"
        )
        with pytest.raises(FrozenInstanceError):
            result.p = 0.5


CELLS = xr.DataArray(noise(8, 3, 4), dims=("prompt", "layer", "head"))
CUT = CELLS.isel(layer=1, head=2)


class TestWhatASampleIs:
    """A number for each prompt: cells, neurons and tokens of a run are not independent."""

    def test_labelled_values_are_taken_over_prompts(self):
        expected = stats.mean(CUT.values)
        assert stats.mean(CUT) == stats.mean(CUT.expand_dims("layer")) == expected
        assert expected.n == 8
        assert stats.bootstrap(CUT) == stats.bootstrap(CUT.values)
        assert stats.paired_t(CUT, CUT * 0) == stats.paired_t(CUT.values, np.zeros(8))

    @pytest.mark.parametrize(
        "ask",
        [
            stats.mean,
            stats.bootstrap,
            lambda x: stats.paired_t(x, x * 0),
            lambda x: stats.wilcoxon(x, x * 0),
            lambda x: stats.trend(x, x),
            lambda x: stats.correlation(x, x),
            lambda x: stats.larger(x, x),
        ],
    )
    def test_a_pooled_sample_of_cells_is_refused_by_every_statistic(self, ask):
        with pytest.raises(StatisticsError, match=r"12 samples, one for each layer × head.*over="):
            ask(CELLS)
        with pytest.raises(StatisticsError, match=r"\[8, 3, 4\].*not independent.*ravel"):
            ask(CELLS.values)
        neurons = CELLS.isel(prompt=0, layer=0).rename(head="vocab")
        with pytest.raises(StatisticsError, match=r"vocab \(4\).*say so: over='vocab'"):
            ask(neurons)

    def test_other_dimensions_are_taken_where_they_are_named(self):
        pooled = stats.mean(CELLS, over=("prompt", "layer", "head"))
        assert (pooled.n, pooled.value) == (96, pytest.approx(float(CELLS.mean())))
        assert stats.mean(CELLS.isel(prompt=0, layer=0), over="head").n == 4

    def test_pairs_are_of_the_same_prompts(self):
        one = xr.DataArray([1.0, 2.0, 3.0], {"prompt": [0, 1, 2]}, ["prompt"])
        with pytest.raises(StatisticsError, match="coordinates of 'prompt' in the same order"):
            stats.paired_t(one, one.assign_coords(prompt=[2, 1, 0]))


class TestEstimatesOfLittle:
    @pytest.mark.parametrize(
        ("values", "n", "why"),
        [
            ([], 0, "there are no values"),
            ([NAN], 0, "there are no values"),
            ([2.0, NAN], 1, "there is one value only"),
            ([1.3 - 1.0, 2.3 - 2.0, 0.3], 3, "all values are equal"),
        ],
    )
    def test_a_mean_without_spread_has_no_interval_and_no_p(self, values, n, why):
        found = stats.mean(values)
        assert np.isnan([found.low, found.high, found.p]).all()
        assert (found.n, found.why) == (n, why)
        assert found.covers_zero, "nothing shows that it does not"
        assert f"no interval: {why}, n = {n}" in str(found)

    def test_absent_values_take_no_part(self):
        assert stats.mean([1.0, NAN, 2.0, 4.0]) == stats.mean([1.0, 2.0, 4.0])
        assert stats.trend([0, 1, 2, NAN], [1, 3, 4, 9]) == stats.trend([0, 1, 2], [1, 3, 4])
        assert stats.larger([3, NAN, 4], [1, 2]) == stats.larger([3, 4], [1, 2])
        with pytest.raises(StatisticsError, match="infinite"):
            stats.mean([1.0, float("inf")])

    @pytest.mark.parametrize(
        ("x", "y", "slope", "why"),
        [
            ([], [], NAN, "there are no points"),
            ([1], [1], NAN, "one point"),
            ([1, 1, 1], [1, 2, 3], NAN, "all x are equal"),
            ([1, 2, 3], [2, 2, 2], 0.0, "all y are equal"),
            ([1, 3], [2, 6], 2.0, "two points always"),
        ],
    )
    def test_a_line_through_too_little(self, x, y, slope, why):
        found = stats.trend(x, y)
        assert found.value == slope or np.isnan([found.value, slope]).all()
        assert why in found.why
        assert np.isnan(found.p)
        assert np.isnan(stats.correlation(x, y).p)

    def test_groups_and_sides_that_cannot_be_told_apart(self):
        assert np.isnan(stats.groups_differ([[1.0, 1.0], [1.0, 1.0]]))
        assert np.isnan(stats.groups_differ([[1.0, 2.0], [NAN, NAN]]))
        assert stats.groups_differ([[1.0, 2.0, NAN], [5.0, 6.0]]) == stats.groups_differ(
            [[1.0, 2.0], [5.0, 6.0]]
        )
        assert np.isnan(stats.larger([], [1.0]))
        assert np.isnan(stats.larger([1.0], [1.0, 1.0]))

    def test_what_is_no_bootstrap_is_refused(self):
        with pytest.raises(StatisticsError, match="Did you mean 'percentile'"):
            stats.bootstrap([1.0, 2.0], method="percentil")
        with pytest.raises(StatisticsError, match="resamples is at least 1"):
            stats.bootstrap([1.0, 2.0], resamples=0)
        assert "is no number" in stats.bootstrap([1.0, 2.0, 3.0], lambda x, axis=-1: np.nan).why


def all_signed_ranks(differences: np.ndarray) -> float:
    """Two-sided p of the signed-rank test, by going through all signs."""
    ranks = scipy.stats.rankdata(np.abs(differences))
    middle = ranks.sum() / 2
    observed = abs(ranks[differences > 0].sum() - middle)
    every = [abs(ranks @ np.array(s) - middle) for s in product([0, 1], repeat=len(ranks))]
    return float(np.mean(np.array(every) >= observed - 1e-9))


class TestWilcoxon:
    @pytest.mark.parametrize("n", [6, 8, 11])
    def test_p_is_that_of_all_signs(self, n):
        for seed in range(5):
            differences = noise(n, seed=seed) + 0.4
            result = stats.wilcoxon(differences, np.zeros(n))
            assert result.p == pytest.approx(all_signed_ranks(differences))

    @pytest.mark.parametrize("n", [6, 10, 25, 60, 61, 100])
    def test_the_interval_is_what_the_test_does_not_reject(self, n):
        differences = noise(n, seed=n) + 0.5
        result = stats.wilcoxon(differences, np.zeros(n))
        inside, outside = 1e-6, -1e-6
        for end, inward in ((result.low, 1), (result.high, -1)):
            kept = scipy.stats.wilcoxon(differences - end - inward * inside, correction=False)
            cut = scipy.stats.wilcoxon(differences - end - inward * outside, correction=False)
            assert cut.pvalue <= 0.051
            assert kept.pvalue >= 0.049
        assert result.low < result.value < result.high

    def test_hodges_and_lehmanns_estimate_by_hand(self):
        # Means of two of 1, 2, 6, each also with itself: 1, 1.5, 2, 3.5, 4, 6.
        few = stats.wilcoxon([1.0, 2.0, 6.0] * 2, np.zeros(6))
        pairs = [(a + b) / 2 for i, a in enumerate([1, 2, 6] * 2) for b in ([1, 2, 6] * 2)[i:]]
        assert few.value == np.median(pairs)

    def test_an_outlier_does_not_decide(self):
        usual = stats.wilcoxon([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], np.zeros(7))
        extreme = stats.wilcoxon([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7e6], np.zeros(7))
        assert extreme.p == usual.p
        assert extreme.value < 7

    def test_both_verdicts(self):
        assert stats.wilcoxon(noise(30) + 1, np.zeros(30)).significant()
        assert not stats.wilcoxon(noise(30), noise(30, seed=1)).significant()

    @pytest.mark.parametrize("differences", [[0.0] * 9, [1.0] * 5, [], [1, 2, 3, 4, 5, 0, 0, 0]])
    def test_too_few_to_be_judged_says_so(self, differences):
        result = stats.wilcoxon(differences, np.zeros(len(differences)))
        assert np.isnan(result.p)
        assert not result.significant()
        assert "other than 0 no p below 0.05 is possible" in str(result)

    def test_ties_zeros_and_absent_values_are_taken(self):
        values = [1.0, 1.0, 2.0, 2.0, -1.0, 3.0, 0.0, NAN, 4.0, 5.0]
        result = stats.wilcoxon(values, np.zeros(10))
        assert result.n == 9
        kept = np.array([v for v in values if v == v and v != 0])
        assert result.p == pytest.approx(all_signed_ranks(kept))

    def test_six_equal_differences_have_the_least_p_that_six_can_have(self):
        assert stats.wilcoxon([2.0] * 6, np.zeros(6)).p == 2 / 2**6

    def test_more_pairs_than_can_be_compared_two_by_two_are_refused(self):
        with pytest.raises(StatisticsError, match=r"49,152 pairs are too many.*independent"):
            stats.wilcoxon(noise(49_152), np.zeros(49_152))


class TestBootstrap:
    def test_it_is_scipys(self):
        sample = noise(20) ** 2
        for method in ("BCa", "percentile"):
            expected = scipy.stats.bootstrap(
                (sample,), np.mean, method=method, n_resamples=999, rng=np.random.default_rng(7)
            ).confidence_interval
            found = stats.bootstrap(sample, method=method, resamples=999, seed=7)
            assert (found.low, found.high) == (expected.low, expected.high)

    def test_the_percentile_interval_is_the_quantiles_of_all_resamples(self):
        sample = np.array([0.0, 1.0, 5.0, 6.0])
        every = [np.mean(one) for one in product(sample, repeat=4)]
        found = stats.bootstrap(sample, method="percentile", resamples=20_000)
        assert (found.low, found.high) == pytest.approx(np.quantile(every, [0.025, 0.975]), abs=0.1)

    def test_the_same_seed_gives_the_same_interval(self):
        sample = noise(20)
        assert stats.bootstrap(sample) == stats.bootstrap(sample)
        assert stats.bootstrap(sample) != stats.bootstrap(sample, seed=1)

    def test_the_interval_holds_the_truth_about_as_often_as_it_says(self):
        held = 0
        for seed in range(200):
            found = stats.bootstrap(noise(40, seed=seed), resamples=400)
            held += found.low <= 0 <= found.high
        assert 0.89 * 200 <= held <= 0.99 * 200

    def test_both_verdicts(self):
        assert stats.bootstrap(noise(30)).covers_zero
        assert not stats.bootstrap(noise(30) + 1).covers_zero

    def test_other_statistics_and_absent_values(self):
        found = stats.bootstrap([3.0, NAN, 1.0, 2.0, 9.0, 4.0], np.median)
        assert (found.value, found.n) == (3.0, 5)
        assert str(found).startswith("3 (95 % interval 1 … ")
        assert str(found).endswith("BCa bootstrap, n = 5)")

    @pytest.mark.parametrize(
        ("values", "why"),
        [
            ([], "there are no values"),
            ([NAN, NAN], "there are no values"),
            ([2.0], "there is one value only"),
            ([1.0] * 64, "all values are equal"),
        ],
    )
    def test_no_interval_is_made_up(self, values, why):
        found = stats.bootstrap(values)
        assert np.isnan([found.low, found.high]).all()
        assert why in str(found)
        assert found.covers_zero

    def test_many_prompts_are_not_resampled_all_at_once(self, monkeypatch):
        """20,000 of them took 8 GB, 9,999 resamples and as many jackknife ones."""
        largest = []

        def average(values, axis=None):
            largest.append(np.size(values))
            return np.mean(values, axis=axis)

        sample = noise(400)
        whole = stats.bootstrap(sample, average, resamples=500)
        assert max(largest) == 500 * 400
        largest.clear()
        monkeypatch.setattr("microtome.stats.resampling.AT_ONCE", 2_000)
        assert stats.bootstrap(sample, average, resamples=500) == whole
        assert max(largest) == 2_000

    def test_what_bca_cannot_do_has_no_interval(self):
        # Every resample's median is the median: BCa has nothing to go by.
        found = stats.bootstrap([0.0, *[1.0] * 30], np.median)
        assert (found.value, found.why) == (1.0, "BCa is not defined for these values")


class TestCorrections:
    def test_by_hand(self):
        # Ordered: 0.005, 0.01, 0.03, 0.04.
        p = [0.01, 0.04, 0.03, 0.005]
        assert stats.bonferroni(p) == pytest.approx([0.04, 0.16, 0.12, 0.02])
        assert stats.holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
        assert stats.benjamini_hochberg(p) == pytest.approx([0.02, 0.04, 0.04, 0.02])

    def test_bh_rejects_what_the_papers_own_example_rejects(self):
        # Benjamini and Hochberg (1995), section 2.2: four rejections at 0.05, three by Bonferroni.
        p = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240,
             0.4262, 0.5719, 0.6528, 0.7590, 1.0]  # fmt: skip
        assert (stats.benjamini_hochberg(p) <= 0.05).sum() == 4
        assert (stats.bonferroni(p) <= 0.05).sum() == 3

    @given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
    def test_each_is_between_raw_and_bonferroni_and_keeps_the_order(self, p):
        raw, most = np.array(p), stats.bonferroni(p)
        order = np.argsort(raw, kind="stable")
        for adjust in (stats.holm, stats.benjamini_hochberg, stats.bonferroni):
            found = adjust(p)
            assert (found >= raw - 1e-12).all()
            assert (found <= most + 1e-12).all()
            assert (np.diff(found[order]) >= -1e-12).all()

    @given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.001, 0.5))
    def test_holm_rejects_step_by_step(self, p, level):
        rejected = set()
        for step, at in enumerate(np.argsort(p, kind="stable")):
            if p[at] * (len(p) - step) > level:
                break
            rejected.add(int(at))
        assert set(np.flatnonzero(stats.holm(p) <= level)) == rejected

    @pytest.mark.parametrize("adjust", [stats.bonferroni, stats.holm, stats.benjamini_hochberg])
    def test_absent_values_stay_absent_and_do_not_count(self, adjust):
        p = np.array([[0.01, NAN], [0.02, 0.03]])
        found = adjust(p)
        assert found.shape == (2, 2)
        assert np.isnan(found[0, 1])
        assert found[[0, 1, 1], [0, 0, 1]] == pytest.approx(adjust([0.01, 0.02, 0.03]))
        assert np.isnan(adjust([NAN, NAN])).all()
        assert adjust([]).shape == (0,)
        assert p[0, 0] == 0.01  # the argument is as it was

    def test_what_is_no_p_value_is_refused(self):
        with pytest.raises(StatisticsError, match="between 0 and 1"):
            stats.holm([0.5, 1.5])

    def test_differences_are_corrected_together_without_those_that_cannot_be_judged(self):
        tests = [
            stats.paired_t(SECOND, FIRST),
            stats.paired_t([1.0, 1.0], [1.0, 1.0]),
            stats.paired_t(noise(10), noise(10, seed=1)),
        ]
        one, none, other = stats.corrected(tests, "bonferroni")
        assert one.p == pytest.approx(2 * tests[0].p)
        assert other.p == pytest.approx(min(1, 2 * tests[2].p))
        assert not none.judged
        assert "Bonferroni over 2 tests" in str(one)
        assert (one.low, one.high) == (tests[0].low, tests[0].high)
        assert tests[0].correction == "uncorrected"

    def test_wrong_corrections_are_refused(self):
        tests = stats.corrected([stats.paired_t(SECOND, FIRST)])
        with pytest.raises(StatisticsError, match=r"corrected already \(Holm over 1 test\)"):
            stats.corrected(tests)
        with pytest.raises(StatisticsError, match="Did you mean 'bonferroni'"):
            stats.corrected([], "bonferoni")


def all_flips(effects: np.ndarray) -> np.ndarray:
    """Family-wise p per cell of ``[prompt, cell]``, by Student's t and all 2ⁿ flips."""

    def size(sample: np.ndarray) -> np.ndarray:
        return np.array(
            [abs(scipy.stats.ttest_1samp(x[~np.isnan(x)], 0).statistic) for x in sample.T]
        )

    observed = size(effects)
    every = [
        size(effects * np.array(signs)[:, None]).max()
        for signs in product([1, -1], repeat=len(effects))
    ]
    return np.array([np.mean(np.array(every) >= one * (1 - 1e-9)) for one in observed])


class TestMaxStatistic:
    @pytest.mark.parametrize("n", [2, 3, 6, 8])
    def test_few_prompts_are_all_sign_flips_of_students_t(self, n):
        effects = noise(n, 5, seed=n) + np.array([0, 0, 0.5, 1, 2])
        result = stats.max_statistic(effects)
        assert result.exact
        assert result.flips == 2 ** (n - 1)
        assert result.p.values == pytest.approx(all_flips(effects))

    def test_one_cell_is_the_permutation_test_of_scipy(self):
        values = noise(10) + 0.5
        expected = scipy.stats.permutation_test(
            (values, np.zeros(10)),
            lambda a, b: np.abs(np.mean(a - b)),
            permutation_type="samples",
            n_resamples=np.inf,
            alternative="greater",
        )
        assert float(stats.max_statistic(values).p) == pytest.approx(expected.pvalue)

    def test_drawn_flips_come_near_all_flips(self):
        effects = noise(12, 6) + np.array([0, 0, 0, 0.4, 0.7, 1])
        every = stats.max_statistic(effects, permutations=2**11)
        drawn = stats.max_statistic(effects, permutations=2**11 - 1)
        assert every.exact
        assert not drawn.exact
        assert drawn.flips == 2**11  # the data as they are count too
        assert drawn.p.values == pytest.approx(every.p.values, abs=0.04)

    def test_the_same_seed_gives_the_same_p(self):
        effects = noise(20, 4)
        one, two = (stats.max_statistic(effects, permutations=500) for _ in range(2))
        assert (one.p == two.p).all()
        other = stats.max_statistic(effects, permutations=500, seed=1)
        assert (one.p != other.p).any()

    def test_false_alarms_anywhere_on_the_map_are_five_in_a_hundred(self):
        alarms = 0
        for seed in range(400):
            cells = noise(10, 20, seed=seed) + noise(10, 1, seed=seed + 10_000)  # correlated
            alarms += bool((stats.max_statistic(cells, permutations=512).p <= 0.05).any())
        assert 0.025 * 400 <= alarms <= 0.08 * 400
        naive = sum(
            bool((scipy.stats.ttest_1samp(noise(10, 20, seed=s), 0).pvalue <= 0.05).any())
            for s in range(100)
        )
        assert naive > 40  # what goes wrong without

    def test_p_is_uniform_where_there_is_no_effect(self):
        ps = [float(stats.max_statistic(noise(12, seed=s)).p) for s in range(300)]
        assert scipy.stats.kstest(ps, "uniform").pvalue > 0.01

    def test_an_effect_is_found_where_it_is_and_nowhere_else(self):
        effects = noise(24, 6, 8, seed=3)
        effects[:, 4, 2] += 2
        found = stats.max_statistic(effects, permutations=2000)
        assert found.judged
        assert [tuple(at) for at in np.argwhere(found.significant().values)] == [(4, 2)]

    def test_scaling_a_cell_changes_nothing_about_it(self):
        effects = noise(8, 3)
        scaled = effects * [1, 1000, 0.001]
        assert (stats.max_statistic(effects).p == stats.max_statistic(scaled).p).all()

    def test_the_largest_effect_is_named_and_not_the_smallest_p(self):
        effects = noise(8, 2) / 1000
        effects[:, 0] += np.array([9.0, -3, 9, 9, -3, 9, 9, -3])
        effects[:, 1] += 1
        found = stats.max_statistic(effects)
        assert found.significant().values.tolist() == [False, True]
        assert "1 of 2 cells differ from 0" in str(found)
        assert "the largest mean effect is at axis_1 0: 4.5 (95 % interval" in str(found)

    def test_many_cells_are_looked_at_in_parts(self, monkeypatch):
        effects = noise(6, 50)
        whole = stats.max_statistic(effects)
        monkeypatch.setattr("microtome.stats.maps._CELLS", 7)
        np.testing.assert_array_equal(stats.max_statistic(effects).p, whole.p)

    def test_labels_go_through(self):
        data = xr.DataArray(
            noise(2, 8, 3),
            dims=("layer", "prompt", "head"),
            coords={
                "layer": [4, 7],
                "head": [0, 1, 2],
                "prompt": range(8),
                "token": (("prompt", "head"), np.full((8, 3), "a")),
            },
        )
        data.loc[{"layer": 7, "head": 1}] = 3 + noise(8) / 10
        before = data.copy()
        found = stats.max_statistic(data)
        assert found.p.dims == ("layer", "head")
        assert set(found.p.coords) == {"layer", "head"}  # a token of one prompt labels no cell
        assert bool(found.significant().sel(layer=7, head=1))
        assert "the largest mean effect is at layer 7, head 1: 3" in str(found)
        assert "family-wise over 6 cells (128 sign flips, all there are)" in str(found)
        xr.testing.assert_identical(data, before)

    def test_mean_and_interval_are_each_cells_own(self):
        effects = noise(9, 4)
        effects[[0, 3], [1, 2]] = NAN
        found = stats.max_statistic(effects)
        for cell in range(4):
            own = effects[:, cell][~np.isnan(effects[:, cell])]
            expected = scipy.stats.ttest_1samp(own, 0).confidence_interval(0.95)
            assert float(found.value[cell]) == pytest.approx(own.mean())
            assert float(found.low[cell]) == pytest.approx(expected.low)
            assert float(found.high[cell]) == pytest.approx(expected.high)
            # Both order maps alike: Student's t is a function of the statistic and n.
            z, t = float(found.statistic[cell]), scipy.stats.ttest_1samp(own, 0).statistic
            assert z * np.sqrt((len(own) - 1) / (len(own) - z**2)) == pytest.approx(abs(t))
        assert found.n.values.tolist() == [9, 8, 8, 9]

    @pytest.mark.parametrize("value", [0.1, 1e8 + 0.1, -1e-30])
    def test_a_cell_of_equal_effects_has_no_interval(self, value):
        """Their mean is off by rounding, which is no spread: an interval of no width says much."""
        effects = np.column_stack([np.full(7, value), noise(7) * value])
        found = stats.max_statistic(effects)
        assert np.isnan([found.low[0], found.high[0]]).all()
        assert found.low[1] < found.value[1] < found.high[1]
        assert stats.mean(effects[:, 0]).why == "all values are equal"

    def test_an_absent_cell_is_absent_and_counts_for_nothing(self):
        effects = noise(8, 3)
        wider = np.column_stack([effects[:, :1], np.full(8, NAN), effects[:, 1:]])
        wider = np.column_stack([wider, [1.0, *[NAN] * 7]])
        found, without = stats.max_statistic(wider), stats.max_statistic(effects)
        assert np.isnan(found.p.values[[1, 4]]).all()
        assert np.isnan(found.value.values[1])
        assert (found.p.values[[0, 2, 3]] == without.p.values).all()
        assert not found.significant().values[[1, 4]].any()
        assert "of 3 cells" in str(found)

    def test_a_cell_that_no_edit_reached_has_p_one(self):
        effects = np.column_stack([noise(8), np.zeros(8)])
        found = stats.max_statistic(effects)
        assert float(found.p[1]) == 1
        assert float(found.value[1]) == 0
        assert float(found.p[0]) == float(stats.max_statistic(effects[:, :1]).p[0])

    def test_the_same_effect_in_every_prompt_is_the_strongest_there_can_be(self):
        found = stats.max_statistic(np.full((6, 2), 0.1))
        assert found.p.values.tolist() == [1 / 32, 1 / 32]

    def test_prompts_without_an_effect_do_not_make_few_others_enough(self):
        """To flip what is absent, or nothing, is no other way to flip."""
        effects = np.full((12, 3), np.nan)
        effects[:3] = 1 + np.arange(9).reshape(3, 3) / 10
        effects[5:8] = 0.0
        found = stats.max_statistic(effects)
        assert (found.flips, found.least_p, found.judged) == (4, 0.25, False)
        assert found.p.values == pytest.approx(stats.max_statistic(effects[:3]).p.values)
        assert "cannot be judged, no p below 0.25 is possible" in str(found)

    def test_five_prompts_cannot_be_judged_and_six_can(self):
        five, six = (stats.max_statistic(np.ones((n, 2))) for n in (5, 6))
        assert not five.judged
        assert "cannot be judged, no p below 0.062 is possible" in str(five)
        assert six.judged
        assert six.significant().all()

    @pytest.mark.parametrize(
        ("effects", "message"),
        [
            (np.ones((1, 3)), "here are 1, and 1 in the fullest cell"),
            (np.array([[1, NAN], [NAN, 1]]), "here are 2, and 1 in the fullest cell"),
            (np.array(1.0), "this is one number"),
            (np.array([[1.0], [np.inf]]), "infinite"),
            (xr.DataArray(np.ones((3, 2)), dims=("layer", "head")), "these have layer, head"),
        ],
    )
    def test_what_is_no_map_over_prompts_is_refused(self, effects, message):
        with pytest.raises(StatisticsError, match=message):
            stats.max_statistic(effects)
        with pytest.raises(StatisticsError, match="at least 1, not 0"):
            stats.max_statistic(noise(4, 4), permutations=0)
