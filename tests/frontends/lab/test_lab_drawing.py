"""The map as it is shown: what a click on it means, where it is cut, what is said beside it."""

from __future__ import annotations

import numpy as np
import pytest

import microtome as mt
from microtome.frontends.lab.desk import Desk
from microtome.frontends.lab.drawing import Grid, drawn, edit_at, in_words
from microtome.frontends.lab.jobs import Jobs
from microtome.frontends.lab.panels import Context

GIFT = mt.Prompt(
    "When Sam and Sally went to the park, Sam gave a gift to", target=" Sally", contrast=" Sam"
)


def cell_at(grid: Grid, x: int, y: int) -> str:
    """What a page reads off: the parts of the text, with numbers between them."""
    along = {"rows": grid.rows[y:], "columns": grid.columns[x:]}
    numbers = [str(along[axis][0]) for axis in grid.axes]
    return "".join(
        f"{part}{number}" for part, number in zip(grid.parts, [*numbers, ""], strict=True)
    )


@pytest.fixture(scope="module")
def maps(nano):
    """Edit → its map, each made once."""
    made = {}

    def of(edit: str, metric: str = "logit_diff"):
        if (edit, metric) not in made:
            made[edit, metric] = mt.sweep(nano, GIFT, edit, metrics=metric, progress=False)
        return made[edit, metric]

    return of


def test_a_click_names_the_cell_whose_effect_is_drawn_there(maps, nano):
    edit = "zero L*.z.h*@-1"
    effects = maps(edit)
    drawing = drawn(effects, "logit_diff", edit, {})
    assert drawing.cut.dims == ("layer", "head")
    z = np.asarray(drawing.figure.data[0].z)
    for x, y in ((0, 0), (6, 1), (7, 5)):
        cell = cell_at(drawing.grid, x, y)
        assert cell == f"zero L{y}.z.h{x}@-1"
        alone = mt.sweep(nano, GIFT, cell, metrics="logit_diff", progress=False)
        assert z[y, x] == pytest.approx(float(alone.delta("logit_diff").values[0]), abs=1e-4)


def test_three_dimensions_are_cut_through_the_strongest_or_where_one_says(maps):
    edit = "zero L*.z.h*@*"
    effects = maps(edit)
    delta = effects.delta("logit_diff")
    strongest = int(np.unravel_index(np.abs(delta.values[0]).argmax(), delta.shape[1:])[2])
    first = drawn(effects, "logit_diff", edit, {})
    assert (first.cut.dims, dict(first.cut.picked)) == (("layer", "head"), {"pos": strongest})
    assert dict(first.cut.sizes) == {"layer": 6, "head": 8, "pos": 14}
    other = drawn(effects, "logit_diff", edit, {"pos": 4})
    np.testing.assert_allclose(other.figure.data[0].z, delta.sel(pos=4).values[0])
    assert cell_at(other.grid, 2, 3) == "zero L3.z.h2@4"
    by_head = drawn(effects, "logit_diff", edit, {"head": 1})
    assert by_head.cut.dims == ("layer", "pos")
    np.testing.assert_allclose(by_head.figure.data[0].z, delta.sel(head=1).values[0])


def test_a_cut_that_is_not_there_is_not_used(maps):
    edit = "zero L*.z.h*@*"
    plain = drawn(maps(edit), "logit_diff", edit, {})
    for at in ({"pos": 99}, {"pos": -1}, {"neuron": 3}):
        assert drawn(maps(edit), "logit_diff", edit, at).cut.picked == plain.cut.picked


def test_a_map_over_one_dimension_is_a_curve_and_its_points_are_cells(maps):
    edit = "zero L*.resid_post@-1"
    drawing = drawn(maps(edit), "logit_diff", edit, {})
    assert drawing.cut.dims == ("layer",)
    assert cell_at(drawing.grid, 2, 0) == "zero L2.resid_post@-1"


def test_a_single_cell_is_a_number(maps):
    edit = "zero L1.z.h6@-1"
    drawing = drawn(maps(edit), "logit_diff", edit, {})
    assert drawing.figure is None
    assert float(drawing.alone) == pytest.approx(
        float(maps(edit).delta("logit_diff").values[0]), rel=1e-3
    )


def test_a_frame_is_around_the_first_cell_and_the_figure_has_none(maps):
    map_, curve = "zero L*.z.h*@-1", "zero L*.resid_post@-1"
    one, other = (drawn(maps(edit), "logit_diff", edit, {}) for edit in (map_, curve))
    corners = [one.grid.frame[at] for at in ("x0", "x1", "y0", "y1")]
    assert (corners, one.grid.shapes) == ([-0.5, 0.5, -0.5, 0.5], ())
    assert (other.grid.rows, other.grid.columns) == ((), (0, 1, 2, 3, 4, 5))
    assert (other.grid.frame["x0"], other.grid.frame["yref"]) == (-0.5, "y domain")
    assert [*other.grid.shapes] == [one.to_plotly_json() for one in other.figure.layout.shapes]


@pytest.mark.parametrize("edit", ["zero L*.z.h1 -> L*.mlp_in", "zero L2.pattern.h1@*,*"])
def test_the_text_of_a_cell_is_that_of_its_edit(maps, edit):
    """Where rows come first in the text, or columns; of an edge, of attention."""
    grid = drawn(maps(edit), "logit_diff", edit, {}).grid
    dims = drawn(maps(edit), "logit_diff", edit, {}).cut.dims
    for x, column in enumerate(grid.columns):
        for y, row in enumerate(grid.rows):
            assert cell_at(grid, x, y) == edit_at(edit, dict(zip(dims, (row, column), strict=True)))


def test_the_strongest_cells_are_the_tables(maps):
    edit = "zero L*.z.h*@-1"
    drawing = drawn(maps(edit), "logit_diff", edit, {})
    top = maps(edit).top(3, "logit_diff")
    for one, (_, row) in zip(drawing.strongest, top.iterrows(), strict=False):
        assert one.edit == f"zero L{row.layer}.z.h{row['head']}@-1"
        assert one.where == one.edit.removeprefix("zero ")
        assert float(one.effect.replace("−", "-")) == pytest.approx(row.effect, rel=1e-3)
    assert drawing.noise == f"{maps(edit).noise_floor('logit_diff'):.2g}"


def test_numbers_go_in_the_place_of_stars():
    assert edit_at("scale(0.5) L*.resid_post@*", {"layer": 2, "pos": 1}) == (
        "scale(0.5) L2.resid_post@1"
    )


def test_a_map_speaks_the_language_of_its_page(nano):
    desk = Desk()
    words = {lang: Context(desk, Jobs(desk)).words(lang) for lang in ("en", "vi")}
    prompt = mt.Prompt(GIFT.text, donor="When Sam and Sally went to the park, Sally gave a gift to",
                       target=" Sally", contrast=" Sam")  # fmt: skip
    edit = "patch L*.z.h*@-1"
    effects = mt.sweep(nano, prompt, edit, metrics="logit_diff", progress=False)
    drawing = drawn(effects, "logit_diff", edit, {})
    assert in_words(drawing, words["en"]) is drawing.figure
    figure = in_words(drawing, words["vi"])
    assert (figure.layout.yaxis.title.text, figure.layout.xaxis.title.text) == ("tầng", "đầu")
    names = [trace.name for trace in figure.data if trace.name]
    assert names == [f"không lớn hơn ngưỡng nhiễu, {drawing.noise}"]
    assert "tác động" in figure.data[0].colorbar.title.text
    assert drawing.figure.layout.yaxis.title.text == "layer"
