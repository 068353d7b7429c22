"""Histogram, series, points and matrix."""

from __future__ import annotations

import numpy as np
import plotly.io as pio
import pytest
import xarray as xr

from microtome import figures
from microtome.errors import EffectsError

TITLES = {"x_title": "layer", "y_title": "norm", "title": "Norms"}


def test_histograms_share_their_bins_and_count_every_finite_value():
    named = {"zero": [0.0, 0.1, np.nan], "mean": [1.0, 1.0, 1.0, 0.5]}
    figure = figures.histogram(named, unit="probability", title="Effects", bins=10)
    zero, mean = figure.data
    np.testing.assert_array_equal(zero.x, mean.x)
    assert (sum(zero.y), sum(mean.y)) == (2, 4)
    assert mean.y[-1] == 3, "the largest value is in the last bin"
    assert figure.layout.barmode == "overlay"


def test_a_histogram_says_what_it_counts():
    for given, counted in (({}, "cells"), ({"counted": "neurons"}, "neurons")):
        figure = figures.histogram({"a": [1.0, 2.0]}, unit="nat", title="", **given)
        assert figure.layout.yaxis.title.text == counted
        assert counted in figure.data[0].hovertemplate


def test_a_histogram_of_nothing_is_refused():
    with pytest.raises(EffectsError, match="needs values"):
        figures.histogram({"zero": [np.nan]}, unit="nat", title="")


def test_series_keep_their_points_error_bars_and_levels():
    figure = figures.series(
        {"mlp": ([0, 1], [2.0, 3.0]), "attn": ([0, 1], [1.0, 1.5])},
        **TITLES,
        y_error={"attn": [[0.1, 0.2], [0.3, 0.4]]},
        levels={"clean": 2.5},
    )
    mlp, attn = figure.data
    assert (list(mlp.y), list(attn.y)) == ([2, 3], [1, 1.5])
    assert (list(attn.error_y.array), list(attn.error_y.arrayminus)) == ([0.1, 0.2], [0.3, 0.4])
    assert mlp.error_y.array is None
    assert [shape.y0 for shape in figure.layout.shapes] == [2.5]
    assert [note.text for note in figure.layout.annotations] == ["clean"]


@pytest.mark.parametrize(
    ("named", "y_error", "message"),
    [
        ({"a": ([0, 1], [1.0])}, None, r"'a' has x of shape \[2\] and y of \[1\]"),
        ({"a": ([0], [1.0])}, {"b": [1.0]}, "no series called 'b'"),
    ],
)
def test_series_that_do_not_fit_together_are_refused(named, y_error, message):
    with pytest.raises(EffectsError, match=message):
        figures.series(named, **TITLES, y_error=y_error)


def test_points_have_labels_an_identity_line_and_others():
    figure = figures.points(
        [0.0, 1.0], [0.0, 2.0], ["L0 h0", "L0 <h1>"], **TITLES,
        identity=True, lines={"trend": ([0, 1], [0, 2])}, color=[0, 1], color_title="layer",
    )  # fmt: skip
    identity, dots, trend = figure.data
    assert list(identity.x) == list(identity.y) == [0, 2]
    assert list(dots.text) == ["L0 h0", "L0 &lt;h1&gt;"]
    assert list(dots.marker.color) == [0, 1]
    assert (list(trend.x), list(trend.y)) == ([0, 1], [0, 2])


def test_points_need_as_many_labels():
    with pytest.raises(EffectsError, match="'x': 2, 'y': 2, 'labels': 1"):
        figures.points([0, 1], [0, 1], ["only one"], **TITLES)


def test_a_matrix_runs_from_zero_in_one_hue_or_both_ways_in_two():
    array = xr.DataArray([[0.25, 0.5], [0.75, np.nan]], dims=("layer", "part"),
                         coords={"part": ["key", "value"]})  # fmt: skip
    [plain] = figures.matrix(array, title="Share", unit="share").data
    assert (plain.zmin, plain.zmax) == (0, 0.75)
    figure = figures.matrix(array - 0.5, title="Share", unit="share", diverging=True)
    [both] = figure.data
    assert (both.zmin, both.zmax) == (-0.25, 0.25)
    assert list(figure.layout.xaxis.ticktext) == ["key", "value"]
    with pytest.raises(EffectsError, match="two dimensions; given: layer"):
        figures.matrix(array[:, 0], title="", unit="")


def test_drawing_leaves_plotly_as_it_is():
    before = pio.templates.default, list(pio.templates)
    figures.matrix(xr.DataArray(np.eye(2), dims=("a", "b")), title="", unit="")
    assert (pio.templates.default, list(pio.templates)) == before


def test_a_logarithmic_axis_counts_in_1_2_5():
    made = figures.series({"a": ([1, 7, 48], [3, 2, 1])}, **TITLES, log_x=True)
    assert list(made.layout.xaxis.ticktext) == ["1", "2", "5", "10", "20"]


@pytest.mark.parametrize(
    ("y", "kind"), [([1, 5, 9], None), ([1, 30, 200], "log"), ([0, 30, 200], None)]
)
def test_y_is_logarithmic_where_values_span_a_decade(y, kind):
    made = figures.series({"a": ([0, 1, 2], y)}, **TITLES, log_y=True)
    assert made.layout.yaxis.type == kind


def test_a_level_on_a_logarithmic_axis_stands_at_its_line():
    made = figures.series(
        {"a": ([0, 1], [1, 200])}, **TITLES, levels={"clean run": 20.0}, log_y=True
    )
    [line], [note] = made.layout.shapes, made.layout.annotations
    assert line.y0 == line.y1 == 20.0
    assert 10**note.y == pytest.approx(20.0)
    assert note.xanchor == "left", "beside the figure, where it covers nothing"


def test_many_points_are_drawn_small():
    made = figures.points(range(6000), range(6000), ["a"] * 6000, **TITLES)
    assert made.data[0].type == "scattergl"
    assert made.data[0].marker.size < 7


def test_an_error_bar_of_a_length_below_0_is_refused():
    """Quartiles need not lie around their mean; drawn as bars they cannot be."""
    with pytest.raises(EffectsError, match=r"has the length -0\.5.*is a band"):
        figures.series({"a": ([0], [1.0])}, **TITLES, y_error={"a": [[0.1], [-0.5]]})


def test_a_band_is_drawn_between_its_edges():
    figure = figures.series(
        {"mean": ([0, 1], [2.0, 3.0])}, **TITLES, bands={"half": ([0.0, 0.0], [1.0, 1.5])}
    )
    low, high, mean = figure.data
    assert (list(low.y), list(high.y), high.fill) == ([0, 0], [1, 1.5], "tonexty")
    assert mean.name == "mean"
    assert figure.layout.showlegend


@pytest.mark.parametrize(
    ("second", "wider"),
    [
        ([1.0, 2.0, 9.0], True),
        ([1.0, 5.0, 3.0], False),
        ([np.nan, 2.0, 3.0], True),
        ([4.0, 2.0, 9.0], False),
    ],
    ids=["begins alike", "touches twice", "ends alike", "crosses"],
)
def test_a_line_under_another_is_wider_so_that_both_are_seen(second, wider):
    named = {"a": ([0, 1, 2], [1.0, 2.0, 3.0]), "b": ([0, 1, 2], second)}
    first, other = figures.series(named, **TITLES).data
    assert (first.line.width > other.line.width) is wider


@pytest.mark.parametrize(
    ("ranks", "log", "labels"),
    [
        ([1, 2, 1], False, ["1", "2"]),
        ([1, 1, 1], False, ["1"]),
        ([3, 40], False, ["3", "5", "10", "15", "20", "25", "30", "35", "40"]),
        ([1, 20_000], True, ["1", "2", "5", "10", "20", "50", "100", "200", "500", "1000", "2000",
                             "5000", "10,000", "20,000"]),
    ],
)  # fmt: skip
def test_what_counts_has_ticks_at_whole_numbers_alone(ranks, log, labels):
    xy = (list(range(len(ranks))), ranks)
    axis = figures.series({"rank": xy}, **TITLES, log_y=log, whole=True).layout.yaxis
    assert list(axis.ticktext) == labels
