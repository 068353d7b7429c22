"""What a map will take, before any of it is computed: the plan's own numbers."""

from __future__ import annotations

import pytest

import microtome as mt
from microtome.errors import AddressError, EditError, MicrotomeError
from microtome.frontends.lab.asked import Asked
from microtome.frontends.lab.costing import AT_ONCE, Cost, cost_of
from microtome.frontends.lab.desk import Desk
from microtome.frontends.lab.state import View

VIEW = View(
    model="nano",
    text="Berlin is the capital of",
    donor="Paris is the capital of",
    target=" Germany",
    edit="patch L*.z.h*@*",
)


@pytest.fixture
def desk(nano):
    return Desk(load=lambda name: nano)


def test_the_cost_is_that_of_the_plan(desk, nano):
    found = cost_of(desk, Asked.of(VIEW))
    plan = mt.Experiment(
        model="nano",
        prompts=[mt.Prompt(VIEW.text, donor=VIEW.donor, target=VIEW.target)],
        edits=[VIEW.edit],
        metrics=["prob"],
    ).plan(nano)
    assert found.cells == 6 * 8 * 5
    assert (found.passes, found.reference_passes) == (plan.cost.passes, plan.cost.reference_passes)
    assert found.units == len(plan.units)
    assert found.seconds == pytest.approx(desk.pace("nano", VIEW) * 5 * plan.cost.passes)


def test_what_is_small_begins_by_itself():
    assert Cost(1, 1.0, 1, AT_ONCE, 1).is_small
    assert not Cost(1, 1.0, 1, AT_ONCE * 1.01, 1).is_small


@pytest.mark.parametrize(
    ("edit", "kind"),
    [("zero L99.z", AddressError), ("patch L*.z.h*@9", MicrotomeError), ("zap L1.z", EditError)],
)
def test_what_cannot_be_made_is_said_before_anything_runs(desk, edit, kind):
    with pytest.raises(kind, match=r"^(?!edits\[)"):  # nothing here is called that
        cost_of(desk, Asked.of(View(**{**vars(VIEW), "edit": edit})))
