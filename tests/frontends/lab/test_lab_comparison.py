"""Two maps on one scale: the same numbers, their difference, and why there is none."""

from __future__ import annotations

import json

import numpy as np
import pytest

import microtome as mt
from conftest import BERLIN, CAT, PARIS
from microtome.errors import EffectsError, MetricError
from microtome.frontends.lab.answers.comparison import Side, compared
from microtome.frontends.lab.sides import other_of
from microtome.frontends.lab.state import Against, View

HERE = mt.Prompt(BERLIN, donor=PARIS, target=" Germany", contrast=" France")
THERE = mt.Prompt(PARIS, donor=BERLIN, target=" France", contrast=" Germany")


def swept(model, prompt, edit, metrics="logit_diff"):
    return mt.sweep(model, prompt, edit, metrics=metrics, progress=False)


def test_two_prompts_are_on_one_scale_with_their_difference(tiny64):
    maps = [swept(tiny64, prompt, "patch L*.z.h*@-1") for prompt in (HERE, THERE)]
    one, other = (each.delta("logit_diff").values[0] for each in maps)
    found = compared(Side("Berlin", maps[0]), Side("Paris", maps[1]), "logit_diff")
    limit = max(np.abs(one).max(), np.abs(other).max())
    assert found.limit == pytest.approx(limit, abs=1e-12)
    for figure, values in ((found.left, one), (found.right, other)):
        assert (figure.data[0].zmin, figure.data[0].zmax) == (-found.limit, found.limit)
        np.testing.assert_allclose(figure.data[0].z, values)
    np.testing.assert_allclose(found.difference.data[0].z, other - one)
    assert not found.why_not
    order = np.sort(np.abs(other - one), axis=None)[::-1]
    assert [abs(row.difference) for row in found.rows] == pytest.approx(order[:10].tolist())
    layer, head = np.unravel_index(np.abs(other - one).argmax(), one.shape)
    assert found.rows[0].where == f"layer {layer}, head {head}"
    assert (found.rows[0].left, found.rows[0].right) == (one[layer, head], other[layer, head])
    floors = [each.noise_floor("logit_diff") for each in maps]
    assert found.noise == sum(floors)


def test_a_long_name_stands_over_its_map_in_lines_that_half_a_page_has_room_for(tiny64):
    long = "When Mary and John went to the store, John gave a <b>drink</b> to"
    maps = [swept(tiny64, HERE, "zero L*.z.h*@-1")] * 2
    found = compared(Side(long, maps[0]), Side("other", maps[1]), "logit_diff")
    lines = found.left.layout.title.text.split("<br>")
    assert max(map(len, lines)) <= 36
    assert " ".join(lines) == long.replace("<", "&lt;").replace(">", "&gt;")


def test_two_edits_over_layers_are_two_curves_and_one(tiny64):
    maps = [swept(tiny64, HERE, f"{edit} L*.resid_post@-1") for edit in ("zero", "scale(0.5)")]
    found = compared(Side("zero", maps[0]), Side("half", maps[1]), "logit_diff")
    one, other = (each.delta("logit_diff").values[0] for each in maps)
    np.testing.assert_allclose(found.difference.data[0].y, other - one)
    assert tuple(found.left.layout.yaxis.range) == (-found.limit, found.limit)


def test_a_map_of_three_dimensions_is_cut_at_the_same_place(tiny64):
    maps = [swept(tiny64, prompt, "zero L*.z.h*@*") for prompt in (HERE, THERE)]
    found = compared(Side("one", maps[0]), Side("other", maps[1]), "logit_diff")
    one, other = (each.delta("logit_diff").values[0] for each in maps)
    place = np.unravel_index(np.abs(one).argmax(), one.shape)[2]
    np.testing.assert_allclose(found.left.data[0].z, one[..., place])
    np.testing.assert_allclose(found.right.data[0].z, other[..., place])
    np.testing.assert_allclose(found.difference.data[0].z, (other - one)[..., place])
    back = compared(Side("other", maps[1]), Side("one", maps[0]), "logit_diff")
    assert back.limit == found.limit == max(np.abs(one).max(), np.abs(other).max())


def test_the_place_is_the_lefts_whatever_is_strongest_on_the_right(tiny64):
    edits = ("zero L*.z.h*@*", "scale(-1) L*.z.h*@*")
    maps = [swept(tiny64, HERE, edit) for edit in edits]
    weak = maps[0].data.copy(deep=True)
    weak["logit_diff"] = weak["clean_logit_diff"] + 0 * weak["logit_diff"]
    weak["logit_diff"][0, 1, 2, 1] += 1e-3
    left = Side("one", mt.Effects(weak))
    found = compared(left, Side("other", maps[1]), "logit_diff")
    other = maps[1].delta("logit_diff").values[0]
    assert np.unravel_index(np.abs(other).argmax(), other.shape)[2] != 1
    np.testing.assert_allclose(found.right.data[0].z, other[..., 1])


@pytest.mark.parametrize(
    ("edit", "prompt", "says"),
    [
        ("zero L*.attn_out@-1", HERE, "over layer × head, the other over layer"),
        ("zero L2.z.h1", HERE, "the other over one cell"),
    ],
)
def test_other_axes_have_no_difference_and_say_why(tiny64, edit, prompt, says):
    maps = swept(tiny64, HERE, "zero L*.z.h*@-1"), swept(tiny64, prompt, edit)
    found = compared(Side("one", maps[0]), Side("other", maps[1]), "logit_diff")
    assert says in found.why_not
    assert found.difference is None
    assert not found.rows
    assert found.left is not None


def test_other_lengths_have_no_difference_by_position(tiny64):
    cat = mt.Prompt(CAT, target=" on", contrast=" mat")
    maps = [swept(tiny64, prompt, "zero L*.resid_post@*") for prompt in (HERE, cat)]
    found = compared(Side("one", maps[0]), Side("other", maps[1]), "logit_diff")
    assert "has 5 of pos, the other 3" in found.why_not


def test_two_models_compare_where_they_are_of_one_size(tiny64, nano, make_gpt2, tokenizer):
    other = mt.load(make_gpt2(seed=1), tokenizer=tokenizer)
    sides = [
        Side(name, swept(m, HERE, "zero L*.z.h*")) for name, m in (("a", tiny64), ("b", other))
    ]
    assert not compared(*sides, "logit_diff").why_not
    large = Side("nano", swept(nano, HERE, "zero L*.z.h*"))
    found = compared(sides[0], large, "logit_diff")
    assert "has 3 of layer, the other 6" in found.why_not
    assert found.right.data[0].zmax == found.limit


def test_maps_in_which_nothing_happens_have_a_scale_all_the_same(tiny64):
    both = [swept(tiny64, prompt, "scale(1) L*.z.h*") for prompt in (HERE, THERE)]
    found = compared(Side("one", both[0]), Side("other", both[1]), "logit_diff")
    assert found.limit == 1.0
    assert (found.left.data[0].zmin, found.left.data[0].zmax) == (-1.0, 1.0)


def test_the_other_side_is_no_comparison_and_has_no_roles_of_another_text():
    view = View(text="a b", roles=(("who", 1),), against=Against("prompt", "c"))
    assert (other_of(view).against, other_of(view).roles) == (None, ())
    edited = other_of(View(text="a b", roles=view.roles, against=Against("edit", "zero L0.z")))
    assert (edited.against, edited.roles) == (None, view.roles)


def test_single_cells_have_no_map_and_a_row(tiny64):
    maps = [swept(tiny64, HERE, f"{edit} L2.z.h1") for edit in ("zero", "patch")]
    found = compared(Side("one", maps[0]), Side("other", maps[1]), "logit_diff")
    assert (found.left, found.right, found.difference) == (None, None, None)
    [row] = found.rows
    assert row.difference == pytest.approx(
        maps[1].delta("logit_diff").item() - maps[0].delta("logit_diff").item(), abs=1e-12
    )


def test_cells_that_do_not_exist_are_in_no_row(tiny64):
    maps = [swept(tiny64, p, "patch L*.z.h* -> L*.mlp_in") for p in (HERE, THERE)]
    found = compared(Side("one", maps[0]), Side("other", maps[1]), "logit_diff")
    there = int(maps[0].delta("logit_diff").notnull().sum())
    assert len(found.rows) == min(10, there)
    assert not any(np.isnan(row.difference) for row in found.rows)


def test_names_are_no_markup_and_metrics_have_a_difference(tiny64):
    both = [swept(tiny64, p, "zero L*.z.h*", ["logit_diff", "top1"]) for p in (HERE, THERE)]
    sides = [Side(name, each) for name, each in zip(("<b>a", "<img src=x>"), both, strict=True)]
    found = compared(*sides, "logit_diff")
    for figure in (found.left, found.right, found.difference):
        shown = json.dumps(figure.to_plotly_json(), default=str)
        assert "<b>" not in shown
        assert "<img" not in shown
    with pytest.raises(MetricError, match="no difference"):
        compared(*sides, "top1")
    with pytest.raises(EffectsError, match="was not measured"):
        compared(*sides, "prob")
