"""Units: every cell once, whatever the budget; and where patches begin to make a difference."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import microtome as mt
from microtome.edits import as_edits
from microtome.errors import AddressError
from microtome.language.sites import Dimensions
from microtome.plan import units
from microtome.plan.memory.budget import Budget
from microtome.plan.plan import make_plan
from microtome.plan.question import ask
from microtome.prompts.encoding import Encoded
from microtome.prompts.tokens import Tokens

DIMS = Dimensions(4, 3, 3, 6, 2, 24, 99)


def encoded(text: str, donor: str | None = None) -> Encoded:
    """A prompt whose tokens are letters."""

    def tokens(letters: str) -> Tokens:
        starts = tuple((n, n + 1) for n in range(len(letters)))
        return Tokens(letters, tuple(map(ord, letters)), tuple(letters), starts)

    other = None if donor is None else tokens(donor)
    return Encoded(mt.Prompt(text, donor=donor), tokens(text), other, 0, 1)


def planned(edits, prompts, budget: Budget = Budget()):
    return make_plan(ask(DIMS, prompts, as_edits(edits)), budget=budget)


@settings(max_examples=40)
@given(
    st.lists(st.integers(2, 6), min_size=1, max_size=6),
    st.sampled_from([1e3, 2e8, 5e9]),
    st.sampled_from(["zero L*.z.h*@*", "zero L*.mlp_post.n*", "zero L1.z"]),
)
def test_every_cell_is_in_one_unit(lengths, work, edit):
    before, units.WORK = units.WORK, work
    try:
        plan = planned(edit, [encoded("abcdefgh"[:n]) for n in lengths])
    finally:
        units.WORK = before
    found = np.concatenate([plan.numbers(unit) for unit in plan.units])
    assert sorted(found.tolist()) == list(range(len(plan.cells)))
    assert [unit.number for unit in plan.units] == list(range(len(plan.units)))
    for unit in plan.units:
        assert len({lengths[prompt] for prompt in unit.prompts}) == 1


def test_units_do_not_depend_on_the_budget_and_pickle(monkeypatch):
    monkeypatch.setattr(units, "WORK", 2e9)
    monkeypatch.setattr(units, "PASSES", 0)
    prompts = [encoded("abcde"), encoded("abc"), encoded("edcba")]
    wide, tight = (
        planned("zero L*.z.h*@*", prompts, Budget(memory=memory)).units
        for memory in (2**31, 40_000)
    )
    assert wide == tight
    assert len(wide) > 3, "a unit holds no more than some of a prompt's cells here"
    assert pickle.loads(pickle.dumps(wide)) == wide


def test_a_patch_starts_where_the_donor_differs():
    cells = planned("patch L*.resid_post@*", [encoded("abcdef", "abcxef")]).cells
    positions = cells.points[:, cells.stars.index("pos") + 1]
    np.testing.assert_array_equal(cells.still, positions < 3)
    np.testing.assert_array_equal(cells.position[~cells.still], positions[~cells.still])
    whole = planned("patch L*.z.h*", [encoded("abcdef", "abcxef")]).cells
    assert set(whole.position.tolist()) == {3}
    assert [one.indices[0] for one in whole.moving(0)] == [(3, 4, 5)]


@pytest.mark.parametrize(
    ("edits", "donor"),
    [
        (["patch L0.z.h0@1:", "zero L1.z.h0@1"], "abcxef"),  # the other edit begins earlier
        ("patch L0.z.h0@1", "xbcdef"),
    ],
)
def test_what_may_differ_earlier_starts_there(edits, donor):
    assert planned(edits, [encoded("abcdef", donor)]).cells.position.tolist() == [1]


def test_a_donor_that_is_the_prompt_changes_nothing():
    plan = planned("patch L*.z.h*", [encoded("abc", "abc")])
    assert plan.cells.still.all()
    assert plan.cost.token_blocks == 0


def test_stars_with_a_name_of_their_own_are_axes_of_their_own():
    plan = planned(["zero L*.z.h*", "scale(0) L*.z.h* as other"], [encoded("abc")])
    names = [axis.name for axis in plan.axes]
    assert names == ["prompt", "layer", "head", "other_layer", "other_head"]
    assert len(plan.cells) == (4 * 3) ** 2
    assert [str(e) for e in plan.cells[-1].edits] == ["zero L3.z.h2", "scale(0) L3.z.h2"]
    assert [str(e) for e in plan.cells[1].edits] == ["zero L0.z.h0", "scale(0) L0.z.h1"]


@pytest.mark.parametrize("name", ["at", "clean", "screen"])
def test_a_star_is_not_named_as_something_else_is(name):
    with pytest.raises(AddressError, match="begins names of results' own"):
        planned(f"zero L*.z.h* as {name}", [encoded("abc")])
