"""What two parts do together beyond what each does alone."""

from __future__ import annotations

import numpy as np
import pytest

import microtome as mt
from conftest import BERLIN, PARIS
from microtome.circuits import interaction
from microtome.errors import CircuitError

PROMPT = mt.Prompt(BERLIN, target=" Germany", contrast=" France")
DONOR = mt.Prompt(BERLIN, donor=PARIS, target=" Germany", contrast=" France")
PAIRS = ["zero L*.z.h*", "zero L*.z.h* as other"]


@pytest.fixture(scope="module")
def effects(tiny64):
    return mt.sweep(tiny64, PROMPT, PAIRS, metrics=["logit_diff", "loss"])


def test_it_is_the_joint_effect_less_the_two(tiny64, effects):
    """By runs with two edits, one, and none."""
    found = interaction(effects)
    assert found.dims == ("prompt", "layer", "head", "other_layer", "other_head")

    def value(*edits: str) -> float:
        logits = tiny64.run(PROMPT, edits=list(edits)).logits[0, -1]
        [one] = tiny64.encode(PROMPT)
        return float(logits[one.target] - logits[one.contrast])

    for own, other in (("L0.z.h1", "L2.z.h3"), ("L1.z.h0", "L1.z.h2")):
        expected = (
            value(f"zero {own}", f"zero {other}") - value(f"zero {own}") - value(f"zero {other}")
        )
        where = {
            "layer": int(own[1]), "head": int(own[-1]),
            "other_layer": int(other[1]), "other_head": int(other[-1]),
        }  # fmt: skip
        assert float(found.sel(where)[0]) == pytest.approx(expected + value(), abs=1e-9)


def test_it_is_symmetric_and_nothing_with_itself(effects):
    square = interaction(effects).values[0].reshape(12, 12)
    assert np.abs(square - square.T).max() == 0
    assert np.abs(np.diag(square)).max() == 0
    assert np.abs(square).max() > 1e-3


def test_the_metric_is_the_one_asked_for(effects):
    assert "loss" in interaction(effects, "loss").attrs["about"]
    assert not np.allclose(interaction(effects, "loss"), interaction(effects))


def test_heads_of_one_layer(tiny64):
    effects = mt.sweep(tiny64, PROMPT, ["zero L1.z.h*", "zero L1.z.h* as b"], metrics="logit_diff")
    assert interaction(effects).dims == ("prompt", "head", "b_head")


def test_a_map_without_pairs_has_none(tiny64):
    effects = mt.sweep(tiny64, PROMPT, "zero L*.z.h*", metrics="logit_diff")
    with pytest.raises(CircuitError, match="this map has layer, head"):
        interaction(effects)


def test_an_edit_that_adds_up_needs_the_singles(tiny64):
    half = "scale(0.5) L1.z.h*"
    effects = mt.sweep(tiny64, PROMPT, [half, f"{half} as b"], metrics="logit_diff")
    with pytest.raises(CircuitError, match="not the same as made once"):
        interaction(effects)
    alone = mt.sweep(tiny64, PROMPT, half, metrics="logit_diff")
    found = interaction(effects, singles=alone)[0].values
    joint, single = effects.delta("logit_diff")[0].values, alone.delta("logit_diff")[0].values
    assert found[0, 1] == pytest.approx(joint[0, 1] - single[0] - single[1])
    assert found[2, 2] == 0
    other = mt.sweep(tiny64, PROMPT, "scale(0.5) L*.z.h*", metrics="logit_diff")
    with pytest.raises(CircuitError, match="sweep the same edit, once"):
        interaction(effects, singles=other)


@pytest.mark.parametrize(
    "edits",
    [
        ["zero L1.z.h*", "patch L1.z.h* as b"],
        ["zero L1.z.h*@-1", "zero L2.z.h*@-1 as b"],
        ["zero L0.mlp_out", "zero L1.z.h*", "zero L1.z.h* as b"],
    ],
)
def test_the_diagonal_of_what_is_not_one_edit_twice_is_no_single_effect(tiny64, edits):
    effects = mt.sweep(tiny64, DONOR, edits, metrics="logit_diff")
    with pytest.raises(CircuitError, match=r"one edit that is made twice.*this sweep makes"):
        interaction(effects)


def test_an_edge_cut_twice_is_cut_more_than_once(tiny64):
    """Both cells of an edge take the clean share away: the diagonal has no single effects."""
    edge, two = "zero L0.z.h* as a -> final_in", "zero L0.z.h* as b -> final_in"
    effects = mt.sweep(tiny64, PROMPT, [edge, two], metrics="logit_diff")
    with pytest.raises(CircuitError, match="not the same as made once"):
        interaction(effects)
    alone = mt.sweep(tiny64, PROMPT, edge, metrics="logit_diff")
    found = interaction(effects, singles=alone).sel(a_head=0, b_head=2)
    joint, one, other = (
        mt.sweep(tiny64, PROMPT, f"zero L0.z.h{heads} -> final_in", metrics="logit_diff")
        for heads in ("{0,2}", "0", "2")
    )
    each = [float(run.delta("logit_diff")[0]) for run in (joint, one, other)]
    assert float(found[0]) == pytest.approx(each[0] - each[1] - each[2], abs=1e-9)
    assert float(interaction(effects, singles=alone)[0, 1, 1]) == 0


def test_of_a_part_that_is_not_there_nothing_is_known_with_itself_either(tiny64):
    """A shorter prompt lacks positions: NaN, and not 0, on the diagonal too."""
    short = mt.Prompt("Berlin is", target=" Germany", contrast=" France")
    pairs = ["zero L1.z@*", "zero L1.z@* as other"]
    found = interaction(mt.sweep(tiny64, [PROMPT, short], pairs, metrics="logit_diff"))
    whole, part = (np.diagonal(found.values[row]) for row in (0, 1))
    assert (whole == 0).all()
    assert (part[:2] == 0).all()
    assert np.isnan(part[2:]).all()
