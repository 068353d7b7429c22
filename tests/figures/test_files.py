"""Figures as files: pictures without a browser, pages without a network."""

from __future__ import annotations

import re

import matplotlib as mpl
import numpy as np
import plotly.graph_objects as go
import pytest
import xarray as xr
from PIL import Image

import effects_made_by_hand as by_hand
from microtome import figures
from microtome.errors import EffectsError

TITLES = {"x_title": "x", "y_title": "y", "title": "costs $5 to $10 <in all> 日本"}
XY = ([0, 1, 2], [1.0, 3.0, 2.0])
ARRAY = xr.DataArray(np.eye(3), dims=("layer", "head"))
ALL = {
    "heatmap": lambda: figures.heatmap(by_hand.heads(), "prob"),
    "tokens": lambda: figures.heatmap(by_hand.positions(), "prob", head=0, prompt=0),
    "scatter": lambda: figures.scatter(by_hand.heads(), "prob"),
    "curve": lambda: figures.curve(by_hand.factors(), "prob", show="edited"),
    "lines": lambda: figures.curve(by_hand.heads(n_prompts=3), "prob", layer=0),
    "band": lambda: figures.curve(by_hand.heads(n_prompts=40), "prob", layer=0),
    "histogram": lambda: figures.histogram({"a": [1, 2], "b": [2]}, unit="nat", title="t"),
    "series": lambda: figures.series(
        {"a": XY}, **TITLES, y_error={"a": [0.1, 0.2, 0.3]}, levels={"clean": 2.0}
    ),
    "points": lambda: figures.points(*XY, "abc", **TITLES, identity=True, color=[1, 2, 3]),
    "many points": lambda: figures.points(
        np.arange(6000.0), np.arange(6000.0) % 70, ["a"] * 6000, **TITLES, identity=True
    ),
    "logarithmic": lambda: figures.series(
        {"a": ([0, 1, 2], [1, 30, 200])}, **TITLES, levels={"clean": 20.0}, log_y=True
    ),
    "matrix": lambda: figures.matrix(ARRAY, title="t", unit="share"),
}


@pytest.mark.parametrize("kind", ALL)
def test_every_kind_of_figure_becomes_a_picture_in_its_own_colors(kind, tmp_path):
    figure = ALL[kind]()
    path = figures.write_png(figure, tmp_path / "picture.png")
    with Image.open(path) as picture:
        assert picture.size == (1800, 2 * figure.layout.height)
        some = np.asarray(picture.convert("RGB"))[::2, ::2]
    pixels = some.reshape(-1, 3).astype(int)
    drawn = np.ptp(pixels, axis=1) > 60
    assert drawn.mean() > 0.0005, "there is something colored on the page"
    assert (pixels == 255).all(axis=1).mean() > 0.2, "on white"


def test_a_heatmap_has_the_colors_of_its_largest_effects(tmp_path):
    figures.write_png(ALL["heatmap"](), tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as picture:
        found = {color for _, color in picture.convert("RGB").getcolors(1 << 20)}
    assert tuple(bytes.fromhex("67001f")) in found


def test_pictures_leave_matplotlib_as_it_is(tmp_path):
    before = dict(mpl.rcParams)
    figures.write_png(ALL["points"](), tmp_path / "picture.png")
    assert dict(mpl.rcParams) == before


def test_a_trace_of_another_kind_is_refused_by_name(tmp_path):
    with pytest.raises(EffectsError, match=r"'pie' trace.*heatmap, scatter, scattergl, bar"):
        figures.write_png(go.Figure(go.Pie(values=[1])), tmp_path / "picture.png")


def test_save_writes_a_page_and_a_picture_that_need_no_network(tmp_path):
    page, picture = figures.save(ALL["heatmap"](), tmp_path / "figures", "map")
    assert (page.name, picture.name) == ("map.html", "map.png")
    text = page.read_text(encoding="utf-8")
    assert re.findall(r'(?:src|href)="([^"]*)"', text) == ["plotly.min.js"]
    assert (tmp_path / "figures" / "plotly.min.js").is_file()
    assert "sendChartToCloud" in text, "the button that uploads the data is taken away"
