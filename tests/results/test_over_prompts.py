"""Many prompts: one row per cell; what changed nothing is no evidence; roles for positions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas
import pytest
import scipy.stats
import torch
import xarray as xr

import effects_made_by_hand as by_hand
import microtome as mt
from conftest import BERLIN, CAT, PARIS
from microtome.engines.assembled import assemble
from microtome.errors import EffectsError, StatisticsError
from microtome.report.cells import comparable, told
from microtome.results import over_prompts

LONG = "When Mary and John went to the store, John gave a drink to"
PROMPTS = [
    mt.Prompt(BERLIN, target=" Germany", roles={"subject": "Berlin", "of": "of"}),
    mt.Prompt(PARIS, target=" France", roles={"subject": "Paris", "of": "of"}),
    mt.Prompt(CAT, target=" on", roles={"subject": "cat"}),
]


def many(effect: np.ndarray, changed: np.ndarray | None = None) -> mt.Effects:
    """A result with these effects on prob, ``[prompt, layer, head]``."""
    made = by_hand.effects_of({"prob": by_hand.CLEAN + effect}, ("layer", "head"))
    if changed is not None:
        made.data["values_changed"] = made.data["values_changed"] * changed
    return made


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape) / 100


class TestWhatChangedNothing:
    @pytest.mark.parametrize("engine", ["walk", "reference"])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_has_an_effect_of_exactly_0_in_every_type_on_both_engines(
        self, make_gpt2, tokenizer, engine, dtype
    ):
        model = mt.load(make_gpt2(dtype=dtype), tokenizer=tokenizer)
        edit = "scale(1) L*.resid_post@*"
        metrics = ["prob", "kl", "top1", "std(L*.resid_post@*)"]
        found = mt.sweep(
            model, PROMPTS[:2], edit, metrics=metrics, over={"factor": [1.0, 0.5]}, engine=engine,
            progress=False,
        )  # fmt: skip
        still = found.data.sel(factor=1.0)
        assert (still["values_changed"] == 0).all()
        for metric in metrics:
            clean = found.clean(metric)
            assert bool((still[metric] == clean).all()), metric
        assert float(abs(found.delta("prob").sel(factor=0.5)).max()) > 0

    def test_whatever_it_was_computed_as(self, tiny, monkeypatch):
        """A batch of many cells rounds otherwise; the noise floor tells of it, and no effect."""

        def rounded(plan, blocks):
            off = [
                replace(
                    one,
                    values={name: values + 1e-6 for name, values in one.values.items()},
                    inside={name: values + 1e-6 for name, values in one.inside.items()},
                    noise=dict.fromkeys(one.noise, 1e-6),
                )
                for one in blocks
            ]
            return assemble(plan, off)

        monkeypatch.setattr("microtome.verbs.answer.assemble", rounded)
        found = mt.sweep(
            tiny, PROMPTS[:2], "scale(1) L*.resid_post@-1", metrics=["prob", "std(L0.resid_post)"],
            over={"factor": [1.0, 0.5]}, progress=False,
        )  # fmt: skip
        for metric in found.metrics:
            still, other = (found.delta(metric).sel(factor=factor) for factor in (1.0, 0.5))
            assert (still.fillna(0) == 0).all()
            assert float(abs(other).max()) > 1e-7
            assert found.noise_floor(metric) == 1e-6

    def test_is_no_evidence(self):
        effect, changed = np.full((4, 1, 2), 0.2), np.ones((4, 1, 2))
        effect[2:, 0, 0], changed[2:, 0, 0] = 0, 0
        found = many(effect, changed)
        assert found.evidence("prob").notnull().sum("prompt").values.tolist() == [[2, 4]]
        table = found.table("prob").set_index(["layer", "head"])
        assert table.loc[(0, 0), ["effect", "n", "unchanged"]].tolist() == pytest.approx(
            [0.2, 2, 2]
        )
        assert found.over_prompts("prob").n.values.tolist() == [[2, 4]]

    def test_in_every_prompt_is_a_cell_of_effect_0_and_n_0_that_is_no_test(self):
        effect, changed = noise(8, 1, 2) + 0.2, np.ones((8, 1, 2))
        effect[:, 0, 0], changed[:, 0, 0] = 0, 0
        table = many(effect, changed).table("prob")
        assert table["n"].tolist() == [0, 8]
        assert table["effect"][0] == 0
        assert np.isnan(table["p"][0])
        said = " ".join(told(many(effect, changed), "prob", table))
        assert "In 1 of 2 cells the edits changed nothing in any prompt" in said
        assert "in some of the prompts" not in said

    def test_in_some_prompts_is_told_apart_from_in_none(self):
        effect, changed = noise(8, 1, 3) + 0.2, np.ones((8, 1, 3))
        for head, prompts in enumerate((8, 3)):
            effect[:prompts, 0, head], changed[:prompts, 0, head] = 0, 0
        effects = many(effect, changed)
        said = " ".join(told(effects, "prob", effects.table("prob")))
        assert "In 1 of 3 cells the edits changed nothing in any prompt" in said
        assert "In 1 cell the edits changed nothing in some of the prompts" in said

    def test_in_some_prompts_is_said_of_one_cell_and_of_several(self):
        effect, changed = noise(8, 1, 3), np.ones((8, 1, 3))
        changed[0, 0, 0] = effect[0, 0, 0] = 0
        one = many(effect, changed)
        assert told(one, "prob", one.table("prob"))[-1] == (
            "In 1 cell the edits changed nothing in some of the prompts; these are not among the "
            "cell's n, nor in its mean."
        )
        changed[0, 0, 1] = effect[0, 0, 1] = 0
        two = many(effect, changed)
        assert "the cells' n, nor in their means." in told(two, "prob", two.table("prob"))[-1]


class TestOneRowPerCell:
    def test_means_intervals_and_p_are_those_of_the_formulas(self):
        effect = noise(9, 2, 3) + 0.01
        table = many(effect).top(99, "prob")
        assert len(table) == 6
        assert "prompt" not in table
        for row in table.to_dict("records"):
            own = effect[:, row["layer"], row["head"]]
            test = scipy.stats.ttest_1samp(own, 0).confidence_interval(0.95)
            assert row["effect"] == pytest.approx(own.mean())
            assert (row["low"], row["high"]) == pytest.approx((test.low, test.high))
            assert row["edited"] - row["clean"] == pytest.approx(row["effect"])
        p = mt.stats.max_statistic(effect).p.values.ravel()
        np.testing.assert_allclose(np.sort(table["p"]), np.sort(p))

    def test_rows_are_ordered_by_the_size_of_the_effect_not_by_p(self):
        effect = noise(8, 1, 3)
        effect[:, 0, 1] += 0.6 * np.array([1, -1, 1, 1, -1, 1, 1, -1])
        effect[:, 0, 2] = 0.02 + noise(8) / 100
        top = many(effect).top(3, "prob")
        assert top["head"].tolist()[:2] == [1, 2]
        assert top["p"][1] < top["p"][0]
        said = " ".join(told(many(effect), "prob", many(effect).table("prob")))
        assert "The largest mean effect is at layer 0, head 1: +0.1" in said
        assert "the largest of them at layer 0, head 2: +0.02" in said

    @pytest.mark.parametrize(("strong", "says"), [(1, "1 of 3 effects differs"), (2, "differ ")])
    def test_one_effect_differs_and_several_differ(self, strong, says):
        effect = noise(8, 1, 3) / 10
        effect[:, 0, :strong] += 0.3
        said = " ".join(told(many(effect), "prob", many(effect).table("prob")))
        assert says in said
        assert f"{strong} of 3 effects" in said

    def test_each_prompt_has_rows_of_its_own_where_asked(self):
        effects = by_hand.heads(n_prompts=3)
        assert len(effects.top(999, "prob", over=None)) == 36
        assert set(effects.top(999, "prob", over=None)["prompt"]) == {0, 1, 2}
        with pytest.raises(EffectsError, match="'prompt', or None"):
            effects.top(3, "prob", over="head")

    def test_one_prompt_is_as_before(self):
        assert {"low", "p", "n"}.isdisjoint(by_hand.heads().top(3, "prob"))

    def test_an_infinite_effect_has_a_row_and_is_not_tested(self):
        effect = noise(8, 1, 3) + 0.1
        effect[2, 0, 1] = -np.inf
        effect[:2, 0, 2] = np.inf, -np.inf
        table = many(effect).top(3, "prob")
        assert table["effect"].tolist() == [-np.inf, pytest.approx(effect[:, 0, 0].mean())]
        assert np.isnan(table["p"][0])
        assert table["p"][1] < 0.05
        assert told(many(effect), "prob", table)[0].endswith("head 1: −inf (n = 8).")

    def test_too_few_prompts_to_judge_are_said_to_be(self):
        effects = by_hand.heads(n_prompts=3)
        said = " ".join(told(effects, "prob", effects.table("prob")))
        assert "With 3 prompts no p value below 0.25 is possible" in said
        assert "differ from 0 at" not in said

    def test_a_large_map_is_tested_with_fewer_flips(self, monkeypatch):
        effects = many(noise(20, 1, 2))
        assert over_prompts.tested(effects, "prob").flips == 10_001
        monkeypatch.setattr(over_prompts, "MOST_WORK", 5_000 * 40)
        assert over_prompts.tested(effects, "prob").flips == 5_001
        monkeypatch.setattr(over_prompts, "MOST_WORK", 1)
        assert over_prompts.tested(effects, "prob").flips == 1_001

    def test_nothing_significant_and_one_cell(self):
        effects = many(noise(8, 2, 2))
        said = " ".join(told(effects, "prob", effects.table("prob")))
        assert "No effect differs from 0 at p < 0.05 after correction for 4 cells." in said
        one = by_hand.effects_of({"prob": 0.7 + noise(8)}, ())
        said = " ".join(told(one, "prob", one.table("prob")))
        assert said.startswith("The largest mean effect is +0.2")
        assert "It differs from 0 at p < 0.05 by a sign-flip test (p = 0.0078)." in said

    def test_an_effect_below_the_noise_floor_is_not_called_significant(self):
        effects = many(np.full((8, 1, 2), 1e-7) + noise(8, 1, 2) / 1e6)
        effects.data["prob"].attrs["noise_floor"] = 1e-5
        table = effects.table("prob")
        assert (table["p"] < 0.05).all()
        assert not table["significant"].any()
        said = " ".join(told(effects, "prob", table))
        assert "No effect is above the noise floor." in said
        assert "No effect differs from 0" in said


@pytest.fixture(scope="module")
def uneven(tiny) -> mt.Effects:
    """Prompts of 5, 5 and 3 tokens at every position."""
    metrics = ["prob", "top1", "std(L*.resid_post@*)"]
    return mt.sweep(tiny, PROMPTS, "zero L*.attn_out@*", metrics=metrics, progress=False)


class TestLengths:
    def test_a_mean_over_positions_of_several_lengths_is_refused(self, uneven):
        for ask in (uneven.top, uneven.table, uneven.figure, uneven.over_prompts):
            with pytest.raises(
                (EffectsError, StatisticsError), match=r"3 to 5 tokens.*by_role\(\)"
            ):
                ask(metric="prob")
        with pytest.raises(StatisticsError, match="of different lengths"):
            mt.stats.max_statistic(uneven.delta("prob"))

    def test_one_prompt_or_one_position_is_drawn(self, uneven):
        assert uneven.figure("prob", prompt=2).data[0].z.shape == (3, 3)
        assert len(uneven.figure("prob", pos=0).data)

    def test_roles_take_the_place_of_positions(self, uneven):
        found = uneven.by_role()
        assert found.dims == ("prompt", "layer", "role")
        assert found.data["role"].values.tolist() == ["subject", "of", "last"]
        wanted = {"subject": [0, 0, 1], "of": [4, 4, None], "last": [4, 4, 2]}
        for role, places in wanted.items():
            for prompt, place in enumerate(places):
                own = found.delta("prob").sel(role=role, prompt=prompt).values
                if place is None:
                    assert np.isnan(own).all()
                    assert (found.data["top1"].sel(role=role, prompt=prompt) == -1).all()
                else:
                    there = uneven.delta("prob").sel(pos=place, prompt=prompt).values
                    np.testing.assert_array_equal(own, there)
        assert found.data["role_token"].sel(role="subject").values.tolist() == [
            "Berlin", "Paris", " cat",
        ]  # fmt: skip
        assert found.data["role_position"].sel(role="of").values.tolist() == [4, 4, -1]

    def test_units_and_noise_floors_stay(self, uneven):
        for name, one in uneven.by_role().data.data_vars.items():
            assert one.attrs == uneven.data[name].attrs
        assert "noise_floor" in uneven.by_role().data["prob"].attrs

    def test_metrics_inside_the_model_are_aligned_too(self, uneven):
        found = uneven.by_role()
        assert found.delta("std(L*.resid_post@*)").dims == (
            "prompt", "layer", "role", "at_layer", "at_role",
        )  # fmt: skip
        clean = found.clean("std(L*.resid_post@*)").sel(prompt=2, at_role="subject").values
        there = uneven.clean("std(L*.resid_post@*)").sel(prompt=2, at_pos=1).values
        np.testing.assert_array_equal(clean, there)

    def test_n_of_each_role_is_shown(self, uneven):
        found = uneven.by_role()
        table = found.table("prob")
        assert table.groupby("role")["n"].first().to_dict() == {"subject": 3, "of": 2, "last": 3}
        figure = found.figure("prob")
        assert list(figure.layout.xaxis.ticktext) == [
            "subject (n = 3)", "of ·of (n = 2)", "last (n = 3)",
        ]  # fmt: skip
        assert figure.layout.title.subtitle.text == "mean over 2–3 prompts"
        assert "n %{customdata[2]}" in figure.data[0].hovertemplate

    def test_attention_weights_have_roles_of_queries_and_of_keys(self, tiny):
        found = mt.sweep(tiny, PROMPTS, "zero L0.pattern.h0@*,*", metrics="prob", progress=False)
        assert found.by_role().dims == ("prompt", "q_role", "k_role")

    def test_a_role_at_the_end_of_every_prompt_is_the_last_token(self, tiny):
        prompts = [mt.Prompt(text, roles={"end": -1}) for text in (BERLIN, CAT)]
        found = mt.sweep(tiny, prompts, "zero L*.attn_out@*", metrics="kl", progress=False)
        assert found.by_role().data["role"].values.tolist() == ["end"]

    def test_a_prompt_without_cells_has_no_end_and_takes_none_from_the_others(self):
        prob = np.full((3, 3), 0.7)
        prob[1], prob[2, 2] = np.nan, np.nan
        tokens = [["The", " cat", " sat"], ["", "", ""], ["The", " dog", ""]]
        effects = by_hand.effects_of({"prob": prob}, ("pos",), tokens=tokens)
        ends = [["", "", "end"], ["", "", ""], ["", "end", ""]]
        data = effects.data.assign_coords(role=(("prompt", "pos"), ends))
        found = replace(effects, data=data).by_role()
        assert found.data["role"].values.tolist() == ["end"]
        assert found.data["role_position"].values.tolist() == [[2], [-1], [1]]

    def test_it_is_saved_and_opened(self, uneven, tmp_path):
        found = uneven.by_role()
        again = mt.open_effects(found.save(tmp_path / "e.zarr"))
        xr.testing.assert_identical(again.data, found.data)

    def test_what_is_over_no_positions_has_no_roles(self):
        with pytest.raises(EffectsError, match=r"needs a map over positions.*layer"):
            by_hand.heads(2).by_role()

    def test_a_position_is_named_by_its_token_where_all_prompts_have_the_same(self):
        prob = np.full((2, 3), 0.7)
        tokens = [["The", " cat", " sat"], ["The", " dog", " sat"]]
        table = by_hand.effects_of({"prob": prob}, ("pos",), tokens=tokens).table("prob")
        assert table["token"].tolist() == ["The", "", " sat"]

    def test_prompts_of_one_length_stay_as_they_are(self, tiny, uneven):
        found = mt.sweep(tiny, PROMPTS[:2], "zero L*.attn_out@*", metrics="prob", progress=False)
        assert comparable(found) is found
        assert comparable(uneven).dims == ("prompt", "layer", "role")
        ticks = list(found.figure("prob").layout.xaxis.ticktext)
        assert ticks == ["0 @subject", "1 ·is", "2 ·the", "3 ·capital", "4 ·of"]
        assert found.top(1, "prob")["token"].tolist() != [""]


class TestWhatElseIsKnownOfPrompts:
    def test_it_is_a_coordinate_by_which_they_are_grouped(self, tiny, tmp_path):
        path = tmp_path / "prompts.csv"
        path.write_text(
            "text,target,kind,layer,times\n"
            "Berlin is, Germany,city,a,1\nThe cat sat, on,beast,b,\nParis is, France,city,c,3\n"
        )
        prompts = mt.Prompts.read(path)
        assert dict(prompts[1].meta) == {"kind": "beast", "layer": "b"}
        found = mt.sweep(tiny, prompts, "zero L*.attn_out@-1", metrics="kl", progress=False)
        assert found.data["kind"].values.tolist() == ["city", "beast", "city"]
        assert found.data["prompt_layer"].values.tolist() == ["a", "b", "c"]
        assert found.data["times"].values.tolist() == ["1", "", "3"]
        groups = found.groups("kind")
        assert list(groups) == ["city", "beast"]
        assert groups["city"].data["prompt"].values.tolist() == [0, 2]
        np.testing.assert_array_equal(
            groups["beast"].delta("kl").values, found.delta("kl").values[1:2]
        )
        assert mt.open_effects(found.save(tmp_path / "e.zarr")).groups("kind").keys() == {
            "city", "beast",
        }  # fmt: skip
        with pytest.raises(EffectsError, match="Did you mean 'kind'"):
            found.groups("kinds")

    def test_those_without_a_number_are_a_group_and_not_lost(self, tiny):
        years = [1990, None, 2000, None]
        prompts = [mt.Prompt("Berlin is", meta={"year": y} if y else {}) for y in years]
        found = mt.sweep(tiny, prompts, "zero L0.attn_out", metrics="kl", progress=False)
        groups = [part.data["prompt"].values.tolist() for part in found.groups("year").values()]
        assert groups == [[0], [1, 3], [2]]

    def test_numbers_stay_numbers(self, tiny):
        prompts = [mt.Prompt("Berlin is", meta={"year": 1990}), mt.Prompt("Paris is")]
        found = mt.sweep(tiny, prompts, "zero L0.attn_out", metrics="kl", progress=False)
        np.testing.assert_array_equal(found.data["year"].values, [1990, np.nan])


def test_what_else_is_known_takes_no_name_that_a_result_has(tiny):
    """Two names never come to be one, and a column called role is no role of positions."""
    meta = {"text": "a", "prompt_text": "b", "role": "user", "id": 2**60 + 1}
    prompts = [mt.Prompt("Berlin is the", meta=meta), mt.Prompt("Paris is", meta={"id": 2**60})]
    found = mt.sweep(tiny, prompts, "zero L*.resid_post@*", metrics="kl", progress=False)
    known = {str(n): one.values.tolist() for n, one in found.data.coords.items()
             if str(n).startswith("prompt_") or n == "id"}  # fmt: skip
    assert known == {
        "prompt_text": ["a", ""],
        "prompt_prompt_text": ["b", ""],
        "prompt_role": ["user", ""],
        "id": [str(2**60 + 1), str(2**60)],
    }
    assert found.by_role().data["role"].values.tolist() == ["last"]


def test_an_effect_is_shown_on_a_narrow_screen():
    effects = many(noise(8, 2, 3) + 0.2, np.ones((8, 2, 3)))
    with pandas.option_context("display.width", 80, "display.max_columns", 0):
        for printed in (str(effects.top(3, "prob")), str(effects.table("prob"))):
            assert "..." in printed  # the middle is left out
            assert "effect" in printed
            assert "significant" in printed
