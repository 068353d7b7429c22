"""An edit put together by clicking, and which choices there are on a model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import microtome as mt
from microtome.errors import EditError
from microtome.frontends.lab import choosing
from microtome.frontends.lab.choosing import Composed
from microtome.language.sites import SITES

EDITS = (
    "zero L*.z.h*@-1",
    "scale(0.6) L2.resid_post",
    'patch L*.resid_post@"a ) b"',
    "zero L*.pattern.h*@-1,:",
    'noise(std=1.0, how="add") L:.mlp_post.n::2@{0,-1}',
    "zero embed@*",
    "zero logits",
)


@given(st.sampled_from(EDITS), st.sampled_from([*SITES]))
def test_wherever_a_click_leads_there_is_an_edit(text, name):
    made = choosing.with_site(text, name)
    assert mt.edit(made).address.site.name == name
    assert str(mt.edit(made)).split(" ", 1)[1] == made.removeprefix(
        Composed.of(text).operation + " "
    )


def test_back_at_the_first_site_the_edit_is_the_first():
    there = choosing.with_site(EDITS[0], "resid_post")
    assert choosing.with_site(there, "z") == EDITS[0]


@pytest.mark.parametrize("text", EDITS)
def test_another_operation_leaves_the_place(text):
    for name in ("zero", "scale", "mean"):
        made = choosing.with_operation(text, name)
        assert mt.edit(made).name == name
        assert mt.edit(made).address == mt.edit(text).address


def test_a_knockout_does_not_leave_attention():
    there = "knockout L*.pattern.h*@-1,*"
    assert choosing.with_site(there, "z") == "zero L*.z.h*@-1"
    assert choosing.with_site("zero L*.z.h*@2", "pattern") == "zero L*.pattern.h*@2,:"


def test_a_token_may_be_a_word_or_a_role_or_a_number():
    for value in ("3", "-1", "*", ":", "subject", '"of"', "{1,4}", "1:3"):
        made = choosing.with_position(EDITS[0], value)
        assert choosing.position_of(made) == value
        mt.edit(made)


def test_an_edge_is_typed_and_stays():
    edge = "zero L0.head_out.h1 -> L3.q_in.h2"
    assert Composed.of(edge).address is None
    assert choosing.with_axis(edge, "layer", "*") == choosing.with_position(edge, "1") == edge
    assert choosing.axes_of(edge, None, 3) == ()
    assert choosing.with_site(edge, "z") == "zero L*.z.h*@last"


@pytest.mark.parametrize(
    ("edit", "axis"), [("zero L*.mlp_out@-1", "head"), ("zero embed@-1", "layer")]
)
def test_an_axis_that_an_edit_has_not_changes_nothing(edit, axis):
    """Such as that of a list which is there a moment longer."""
    assert choosing.with_axis(edit, axis, "3") == edit


def test_what_is_no_edit_is_known(nano):
    assert not choosing.is_readable("ablate everything")
    assert not choosing.is_readable("")
    assert choosing.is_readable(EDITS[1])
    with pytest.raises(EditError):
        Composed.of("ablate everything")


def test_axes_are_those_of_the_address_with_what_there_is_on_the_model(nano):
    axes = choosing.axes_of("zero L*.z.h*@-1", nano.anatomy.dims, 5)
    assert [(one.axis, one.now) for one in axes] == [("layer", "*"), ("head", "*"), ("pos", "-1")]
    assert axes[1].values == ("*", ":", *map(str, range(8)))
    assert axes[2].values == ("*", ":", "-1", *map(str, range(5)))
    pair = choosing.axes_of("zero L*.pattern.h*@-1,:", nano.anatomy.dims, 5)
    assert [one.axis for one in pair] == ["layer", "head", "q_pos", "k_pos"]


def test_what_is_selected_is_always_among_what_can_be(nano):
    axes = choosing.axes_of("zero L1:3.mlp_post.n7@{0,2}", nano.anatomy.dims, 5)
    assert all(one.now in one.values for one in axes)
    neurons = next(one for one in axes if one.axis == "neuron")
    assert neurons.values == ("*", ":", "7")  # hundreds are not listed


def test_sites_that_a_model_lacks_are_there_with_the_reason(nano):
    found = {one.value: one.lacks for one in choosing.sites(nano.anatomy.dims)}
    assert list(found) == list(SITES)
    assert found["z"] == ""
    assert "no two heads share one" in found["k_head"]


def test_what_cannot_be_done_says_what_it_needs():
    site = SITES["z"]
    found = {one.value: one.lacks for one in choosing.operations(site, has_donor=False)}
    assert (found["patch"], found["knockout"], found["zero"]) == ("donor", "pattern", "")
    found = {one.value: one.lacks for one in choosing.operations(SITES["pattern"], has_donor=True)}
    assert not any(found.values())


def test_what_cannot_be_measured_says_what_it_needs():
    found = {one.value: one.lacks for one in choosing.metrics(True, False)}
    assert (found["prob"], found["logit_diff"], found["kl"]) == ("", "both", "")
    assert "top1" not in found  # a token id has no difference
    found = {one.value: one.lacks for one in choosing.metrics(False, False)}
    assert (found["prob"], found["kl"]) == ("target", "")


@pytest.mark.parametrize("name", choosing.OPERATIONS)
def test_every_operation_that_is_offered_runs(name, nano):
    """As it is written, on the site that it is for; else it is no choice."""
    site = "L*.pattern.h*@-1,*" if name == "knockout" else "L*.z.h*@-1"
    prompt = mt.Prompt("Berlin is the capital of", donor="Paris is the capital of")
    edit = choosing.with_operation(f"zero {site}", name)
    effects = mt.sweep(nano, prompt, edit, metrics="kl", progress=False)
    assert effects.n_cells >= 48
