"""The map as it is shown: what a click on it means, where it is cut, what is said beside it."""

from __future__ import annotations

import numpy as np
import pytest

import microtome as mt
from microtome.frontends.lab.desk import Desk
from microtome.frontends.lab.drawing import cell_at, drawn, edit_at, in_words
from microtome.frontends.lab.jobs import Jobs
from microtome.frontends.lab.panels import Context

GIFT = mt.Prompt(
    "When Sam and Sally went to the park, Sam gave a gift to", target=" Sally", contrast=" Sam"
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
    drawing = drawn(effects, "logit_diff", edit, {}, ())
    assert drawing.cut.dims == ("layer", "head")
    z = np.asarray(drawing.figure.data[0].z)
    for x, y in ((0, 0), (6, 1), (7, 5)):
        cell = cell_at(effects, "logit_diff", edit, drawing.cut, x, y)
        assert cell == f"zero L{y}.z.h{x}@-1"
        alone = mt.sweep(nano, GIFT, cell, metrics="logit_diff", progress=False)
        assert z[y, x] == pytest.approx(float(alone.delta("logit_diff").values[0]), abs=1e-4)


@pytest.mark.parametrize(("x", "y"), [(-1, 0), (8, 0), (0, 6), (0, -1)])
def test_a_click_beside_the_map_names_nothing(maps, x, y):
    edit = "zero L*.z.h*@-1"
    drawing = drawn(maps(edit), "logit_diff", edit, {}, ())
    assert cell_at(maps(edit), "logit_diff", edit, drawing.cut, x, y) is None


def test_three_dimensions_are_cut_through_the_strongest_or_where_one_says(maps):
    edit = "zero L*.z.h*@*"
    effects = maps(edit)
    delta = effects.delta("logit_diff")
    strongest = int(np.unravel_index(np.abs(delta.values[0]).argmax(), delta.shape[1:])[2])
    first = drawn(effects, "logit_diff", edit, {}, ())
    assert (first.cut.dims, dict(first.cut.picked)) == (("layer", "head"), {"pos": strongest})
    assert dict(first.cut.sizes) == {"layer": 6, "head": 8, "pos": 14}
    other = drawn(effects, "logit_diff", edit, {"pos": 4}, ())
    np.testing.assert_allclose(other.figure.data[0].z, delta.sel(pos=4).values[0])
    assert cell_at(effects, "logit_diff", edit, other.cut, 2, 3) == "zero L3.z.h2@4"
    by_head = drawn(effects, "logit_diff", edit, {"head": 1}, ())
    assert by_head.cut.dims == ("layer", "pos")
    np.testing.assert_allclose(by_head.figure.data[0].z, delta.sel(head=1).values[0])


def test_a_cut_that_is_not_there_is_not_used(maps):
    edit = "zero L*.z.h*@*"
    plain = drawn(maps(edit), "logit_diff", edit, {}, ())
    for at in ({"pos": 99}, {"pos": -1}, {"neuron": 3}):
        assert drawn(maps(edit), "logit_diff", edit, at, ()).cut.picked == plain.cut.picked


def test_a_map_over_one_dimension_is_a_curve_and_its_points_are_cells(maps):
    edit = "zero L*.resid_post@-1"
    drawing = drawn(maps(edit), "logit_diff", edit, {}, ())
    assert drawing.cut.dims == ("layer",)
    assert cell_at(maps(edit), "logit_diff", edit, drawing.cut, 2, 0) == "zero L2.resid_post@-1"


def test_a_single_cell_is_a_number(maps):
    edit = "zero L1.z.h6@-1"
    drawing = drawn(maps(edit), "logit_diff", edit, {}, ())
    assert drawing.figure is None
    assert float(drawing.alone) == pytest.approx(
        float(maps(edit).delta("logit_diff").values[0]), rel=1e-3
    )


def test_chosen_cells_are_framed_where_they_are(maps):
    edit = "zero L*.z.h*@-1"
    chosen = ("zero L1.z.h6@-1", "zero L4.z.h5@-1", "zero L0.k.h0")
    drawing = drawn(maps(edit), "logit_diff", edit, {}, chosen)
    frames = [tuple(one[at] for at in ("x0", "x1", "y0", "y1")) for one in drawing.shapes]
    assert frames == [(5.5, 6.5, 0.5, 1.5), (4.5, 5.5, 3.5, 4.5)]
    assert drawing.framed == ((6, 1), (5, 4))
    assert drawing.shape == (6, 8)


def test_a_chosen_point_of_a_curve_is_marked(maps):
    edit = "zero L*.resid_post@-1"
    drawing = drawn(maps(edit), "logit_diff", edit, {}, ("zero L2.resid_post@-1",))
    assert (drawing.framed, drawing.shape) == (((2, 0),), (1, 6))
    zero, frame = drawing.shapes
    assert [zero] == [one.to_plotly_json() for one in drawing.figure.layout.shapes]
    assert (frame["x0"], frame["x1"], frame["yref"]) == (1.5, 2.5, "y domain")
    assert drawn(maps(edit), "logit_diff", edit, {}, ()).shapes == (zero,)


def test_the_strongest_cells_are_the_tables(maps):
    edit = "zero L*.z.h*@-1"
    drawing = drawn(maps(edit), "logit_diff", edit, {}, ())
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
    drawing = drawn(effects, "logit_diff", edit, {}, ())
    assert in_words(drawing, words["en"]) is drawing.figure
    figure = in_words(drawing, words["vi"])
    assert (figure.layout.yaxis.title.text, figure.layout.xaxis.title.text) == ("tầng", "đầu")
    names = [trace.name for trace in figure.data if trace.name]
    assert names == [f"không lớn hơn ngưỡng nhiễu, {drawing.noise}"]
    assert "tác động" in figure.data[0].colorbar.title.text
    assert drawing.figure.layout.yaxis.title.text == "layer"
