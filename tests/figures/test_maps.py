"""Heatmap, scatter and curve: the numbers in the traces are those of the result."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import effects_made_by_hand as by_hand
from microtome import figures
from microtome.errors import EffectsError
from microtome.figures.png import png_of


def test_a_heatmap_shows_the_effect_of_every_cell_under_its_layer_and_head():
    effects = by_hand.heads()
    figure = figures.heatmap(effects, "prob")
    [trace] = figure.data
    expected = (np.arange(12).reshape(3, 4) - 5) / 100
    np.testing.assert_allclose(trace.z, expected)
    assert list(trace.x) == [0, 1, 2, 3]
    assert list(trace.y) == [0, 1, 2]
    assert figure.layout.xaxis.title.text == "head"
    assert figure.layout.yaxis.title.text == "layer"
    assert figure.layout.yaxis.autorange == "reversed", "layer 0 is at the top"


def test_marks_in_the_first_and_last_cells_ask_for_no_room_beside_them():
    figure = figures.heatmap(by_hand.heads(), "prob")
    for axis, cells in ((figure.layout.xaxis, 4), (figure.layout.yaxis, 3)):
        ends = axis.autorangeoptions
        assert (ends.clipmin, ends.clipmax) == (-0.5, cells - 0.5)


def test_a_title_is_as_far_from_the_top_of_a_tall_figure_as_of_a_low_one():
    title = figures.heatmap(by_hand.heads(), "prob").layout.template.layout.title
    assert (title.y, title.yref, title.yanchor) == (1, "container", "top")
    assert title.pad.t == 14


def test_what_all_figures_share_is_given_at_once_and_not_changed_afterwards(monkeypatch):
    """To change what is there takes plotly five times as long as to be given it."""
    for name in ("update_layout", "update_xaxes", "update_yaxes"):
        monkeypatch.setattr(figures.style.go.Figure, name, None)
    made = figures.style.figure("a title " * 20, "a note", "head", "layer")
    assert made.layout.xaxis.title.text == "head"
    assert made.layout.margin.t > figures.style.LIGHT.layout.margin.t


def test_colors_are_symmetric_about_zero_and_red_is_positive():
    [trace] = figures.heatmap(by_hand.heads(), "prob").data
    assert (trace.zmin, trace.zmid, trace.zmax) == (pytest.approx(-0.06), 0, pytest.approx(0.06))
    (_, lowest), (_, highest) = trace.colorscale[0], trace.colorscale[-1]
    blue, red = (tuple(bytes.fromhex(color[1:])) for color in (lowest, highest))
    assert blue[2] > blue[0]
    assert red[0] > red[2]


def test_a_map_without_any_effect_is_drawn_in_the_middle_color():
    flat = by_hand.effects_of({"prob": np.full((1, 2, 2), by_hand.CLEAN)}, ("layer", "head"))
    [trace] = figures.heatmap(flat, "prob").data
    assert trace.zmin == -trace.zmax != 0


def test_hovering_a_heatmap_says_where_and_clean_edited_and_effect():
    [trace] = figures.heatmap(by_hand.heads(), "prob").data
    for part in ("layer %{y}", "head %{x}", "clean %{customdata[0]", "edited %{customdata[1]",
                 "effect %{z"):  # fmt: skip
        assert part in trace.hovertemplate
    np.testing.assert_allclose(trace.customdata[..., 0], 0.5)
    np.testing.assert_allclose(trace.customdata[2, 3], [0.5, 0.56, 1])


def test_a_cell_that_does_not_exist_is_a_gap_in_a_visible_color():
    figure = figures.heatmap(by_hand.positions(), "prob", head=0, prompt=0)
    assert not np.isnan(figure.data[0].z).any()
    values = np.full((1, 2, 2), 0.6)
    values[0, 1, 0] = np.nan
    figure = figures.heatmap(by_hand.effects_of({"prob": values}, ("layer", "head")), "prob")
    np.testing.assert_array_equal(np.isnan(figure.data[0].z), [[False, False], [True, False]])
    assert figure.data[0].hoverongaps is False
    middle = figure.data[0].colorscale[5][1]
    assert figure.layout.plot_bgcolor not in (None, "white", "#ffffff", middle)


def test_positions_show_their_tokens_with_visible_white_space_and_no_markup():
    figure = figures.heatmap(by_hand.positions(), "prob", head=0, prompt=0)
    assert list(figure.layout.xaxis.ticktext) == ["0 The", "1 ·&lt;b&gt;cat", "2 ↵"]
    assert "pos 1 ·&lt;b&gt;cat" in figure.data[0].text[0][1]


def test_positions_that_hold_different_tokens_in_several_prompts_show_numbers():
    tokens = [["The", " cat", " sat"], ["The", " dog", " sat"]]
    values = np.full((2, 2, 3), 0.6)
    same = by_hand.effects_of({"prob": values}, ("layer", "pos"), tokens=tokens)
    figure = figures.heatmap(same, "prob")
    assert list(figure.layout.xaxis.ticktext) == ["0 The", "1", "2 ·sat"]


@pytest.mark.parametrize("kind", ["heatmap", "curve", "scatter"])
def test_positions_of_prompts_of_several_lengths_are_not_averaged(kind):
    at = {"head": 0, **({"layer": 0} if kind == "curve" else {})}
    with pytest.raises(EffectsError, match=r"2 to 3 tokens.*effects.by_role\(\); pick a prompt"):
        getattr(figures, kind)(by_hand.positions(), "prob", **at)


def test_a_mean_leaves_out_prompts_in_which_nothing_changed_and_says_n():
    effects = by_hand.heads(n_prompts=4)
    effects.data["values_changed"][1:, 0, 0] = 0
    effects.data["values_changed"][:, 0, 1] = 0
    effects.data["prob"][:, 0, 1] = by_hand.CLEAN
    figure = figures.heatmap(effects, "prob")
    assert figure.data[0].z[0, 0] == pytest.approx(-0.05)
    assert figure.data[0].z[0, 1] == 0
    np.testing.assert_array_equal(figure.data[0].customdata[0, :, 2], [1, 0, 4, 4])
    assert figure.layout.title.subtitle.text == "mean over 1–4 prompts"


def test_a_shorter_prompt_has_only_its_own_positions():
    [trace] = figures.heatmap(by_hand.positions(), "prob", head=0, prompt=1).data
    np.testing.assert_allclose(trace.z, [[0, 0.1], [0, 0.1]])


def test_several_prompts_are_averaged_and_the_figure_says_so():
    effects = by_hand.heads(n_prompts=3)
    figure = figures.heatmap(effects, "prob")
    expected = (np.arange(12).reshape(3, 4) - 5) / 100 * np.mean([1, 1 / 2, 1 / 3])
    np.testing.assert_allclose(figure.data[0].z, expected)
    assert figure.layout.title.subtitle.text == "mean over 3 prompts"


def test_one_prompt_can_be_picked():
    figure = figures.heatmap(by_hand.heads(n_prompts=3), "prob", prompt=-1)
    np.testing.assert_allclose(figure.data[0].z[2, 3], 0.06 / 3)
    assert figure.layout.title.subtitle.text == "prompt 2: prompt number 2"


def test_the_title_names_the_edit_and_the_metric_unless_one_is_given():
    assert figures.heatmap(by_hand.heads(), "prob").layout.title.text == (
        "Effect of zero L*.z.h*@-1 on prob"
    )
    assert figures.heatmap(by_hand.heads(), "prob", title="mine").layout.title.text == "mine"


def test_a_scatter_has_every_head_in_the_order_of_layers():
    figure = figures.scatter(by_hand.heads(), "prob")
    [trace] = figure.data
    np.testing.assert_allclose(trace.y, (np.arange(12) - 5) / 100)
    np.testing.assert_array_equal(np.round(trace.x), np.repeat([0, 1, 2], 4))
    assert (np.diff(trace.x) > 0).all(), "no two heads share a place"
    np.testing.assert_array_equal(trace.marker.color, np.repeat([0, 1, 2], 4))
    assert trace.text[7] == "layer 1<br>head 3"
    [zero] = figure.layout.shapes
    assert (zero.y0, zero.y1) == (0, 0)


def test_a_curve_over_decades_has_a_logarithmic_axis():
    figure = figures.curve(by_hand.factors(), "prob")
    assert figure.layout.xaxis.type == "log"
    np.testing.assert_allclose(figure.data[0].x, [0.1, 0.6, 10])
    np.testing.assert_allclose(figure.data[0].y, [0, 0.1, 0.2])


@pytest.mark.parametrize("values", [(0.5, 1.0, 2.0), (-1.0, 0.0, 100.0)])
def test_a_curve_over_less_or_through_zero_has_a_linear_axis(values):
    assert figures.curve(by_hand.factors(values), "prob").layout.xaxis.type == "linear"


def test_a_parameter_of_words_is_drawn_by_name():
    figure = figures.curve(by_hand.factors(["replace", "add"]), "prob")
    assert list(figure.layout.xaxis.ticktext) == ["replace", "add"]


def test_edited_values_come_with_the_clean_value_dashed():
    figure = figures.curve(by_hand.factors(), "prob", show="edited")
    edited, clean = figure.data
    np.testing.assert_allclose(edited.y, [0.5, 0.6, 0.7])
    np.testing.assert_allclose(clean.y, [0.5, 0.5, 0.5])
    assert clean.line.dash == "dash"


def test_a_curve_of_several_prompts_is_their_mean_over_a_thin_line_each():
    figure = figures.curve(by_hand.heads(n_prompts=2), "prob", layer=2)
    first, second, mean = figure.data
    np.testing.assert_allclose(first.y, [0.03, 0.04, 0.05, 0.06])
    np.testing.assert_allclose(mean.y, (np.array(first.y) + np.array(second.y)) / 2)
    assert first.line.width < mean.line.width


def test_a_curve_of_many_prompts_is_their_mean_over_a_band_of_the_middle_half():
    effects = by_hand.heads(n_prompts=40)
    low, high, mean = figures.curve(effects, "prob", layer=2).data
    sizes = 0.06 / np.arange(1, 41)
    np.testing.assert_allclose(low.y[3], np.quantile(sizes, 0.25))
    np.testing.assert_allclose(high.y[3], np.quantile(sizes, 0.75))
    np.testing.assert_allclose(mean.y[3], sizes.mean())
    assert high.fill == "tonexty"


def test_the_map_is_a_heatmap_over_two_dimensions_and_a_curve_over_one():
    effects = by_hand.heads()
    assert effects.figure("prob").data[0].type == "heatmap"
    assert effects.figure("prob", layer=1).data[0].type == "scatter"
    np.testing.assert_allclose(effects.figure("prob", layer=1).data[0].y, [-0.01, 0, 0.01, 0.02])


def test_a_dimension_of_length_one_is_left_out_where_there_are_too_many():
    one = by_hand.effects_of(
        {"prob": np.full((1, 2, 2, 1), 0.7)}, ("layer", "head", "factor"), coords={"factor": [0.6]}
    )
    figure = one.figure("prob")
    assert figure.data[0].z.shape == (2, 2)
    assert figure.layout.title.subtitle.text == "factor 0.6"


def test_a_negative_coordinate_counts_from_the_end_where_coordinates_count():
    effects = by_hand.heads()
    np.testing.assert_allclose(
        effects.figure("prob", layer=-1).data[0].y, effects.figure("prob", layer=2).data[0].y
    )


@pytest.mark.parametrize(
    ("effects", "at", "message"),
    [
        (by_hand.positions, {}, r"layer \(2\), head \(2\), pos \(3\).*pos=-1"),
        (by_hand.heads, {"layer": 0, "head": 0}, "none is left"),
        (by_hand.heads, {"heads": 0}, "no dimension 'heads'.*layer, head.*mean 'head'"),
        (by_hand.heads, {"head": 4}, "head=4 is not there; head has 0 … 3"),
        (by_hand.heads, {"head": -5}, "head=-5 is not there"),
        (by_hand.heads, {"head": True}, "head=True is not there"),
        (by_hand.factors, {"factor": -1}, "factor=-1 is not there; factor has 0.1, 0.6, 10.0"),
        (by_hand.positions, {"pos": -1, "layer": 0}, "different lengths: pick a prompt"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_what_there_is(effects, at, message):
    with pytest.raises(EffectsError, match=f"(?s){message}"):
        effects().figure("prob", **at)


def test_from_the_end_of_one_prompt_is_its_own_end():
    [trace] = by_hand.positions().figure("prob", prompt=1, pos=-1).data
    np.testing.assert_allclose(trace.z, 0.1)


@pytest.mark.parametrize("draw", [figures.heatmap, figures.scatter])
def test_a_token_id_has_no_map(draw):
    with pytest.raises(EffectsError, match="token id"):
        draw(by_hand.heads(), "top1")


def test_each_kind_says_how_many_dimensions_it_draws():
    with pytest.raises(EffectsError, match=r"A curve draws 1 dimension.*head=3"):
        figures.curve(by_hand.heads(), "prob")
    with pytest.raises(EffectsError, match=r"A heatmap draws 2 dimensions.*Pick fewer"):
        figures.heatmap(by_hand.heads(), "prob", layer=1)
    with pytest.raises(EffectsError, match=r"A heatmap draws 2 dimensions.*Star more"):
        figures.heatmap(by_hand.factors(), "prob")
    with pytest.raises(EffectsError, match="'effect' or 'edited', not 'both'"):
        figures.curve(by_hand.factors(), "prob", show="both")


def test_ranks_have_no_ticks_between_whole_numbers_and_are_written_in_full():
    values = np.array([[1.0, 1.2, 11880.0]])
    ranks = by_hand.effects_of({"rank": values}, ("layer",))
    figure = figures.curve(ranks, "rank", show="edited")
    ticks = figure.layout.yaxis.tickvals
    assert all(tick == int(tick) for tick in ticks)
    assert "10,000" in figure.layout.yaxis.ticktext
    assert ":,.6~r}" in figure.data[0].hovertemplate
    two = by_hand.effects_of({"rank": values[..., None]}, ("layer", "head"))
    bar = figures.heatmap(two, "rank").data[0].colorbar
    assert "10,000" in bar.ticktext
    assert png_of(figures.heatmap(two, "rank"))
    few = by_hand.effects_of({"rank": values[:, :2]}, ("layer",))
    assert figures.curve(few, "rank", show="edited").layout.yaxis.tickvals == (0, 1, 2)


def test_no_change_is_the_pale_middle_of_a_matrix_that_is_told_which_value_that_is():
    cosines = xr.DataArray([[1.0, 0.4], [0.9, 1.0]], dims=("at_layer", "head"))
    [trace] = figures.matrix(cosines, title="", unit="cosine", neutral=1.0).data
    assert (trace.zmin, trace.zmid, trace.zmax) == pytest.approx((0.4, 1, 1.6))
    assert trace.meta == "diverging"
    [flat] = figures.matrix(cosines * 0 + 1, title="", unit="cosine", neutral=1.0).data
    assert flat.zmin < flat.zmid == 1 < flat.zmax
