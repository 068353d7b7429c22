"""Of a map of pairs half is computed, and the map is whole."""

from __future__ import annotations

import numpy as np
import pytest

import microtome as mt
from conftest import BERLIN, CAT, PARIS
from microtome.edits import as_edits
from microtome.plan.mirror import mirror

PROMPTS = [
    mt.Prompt(BERLIN, donor=PARIS, target=" Germany", contrast=" France"),
    mt.Prompt(CAT, donor="The dog sat", target=" on", contrast=" the"),
]


def pair(text: str) -> list[str]:
    return [text, f"{text} as other"]


METRICS = ["logit_diff", "norm(L2.resid_post@-1)"]


@pytest.mark.parametrize(
    ("edits", "cells"),
    [
        (pair("zero L*.z.h1"), 2 * 6),
        (pair("scale(0.5) L1.z.h*@-1"), 2 * 10),
        (pair("patch L1.z.h0@*"), 15 + 6),
        (["zero L*.resid_post as one", "zero L*.resid_post as two"], 2 * 6),
    ],
)
@pytest.mark.parametrize("engine", ["walk", "reference"])
def test_the_other_half_is_what_it_would_have_been(tiny64, edits, cells, engine, monkeypatch):
    """Against the same map with all of its cells computed."""
    half = mt.sweep(tiny64, PROMPTS, edits, metrics=METRICS, engine=engine)
    monkeypatch.setattr("microtome.plan.plan.mirror", lambda edits: {})
    whole = mt.sweep(tiny64, PROMPTS, edits, metrics=METRICS, engine=engine)
    assert half.provenance["predicted"]["cells"] == cells
    assert half.provenance["predicted"]["absent"] == whole.provenance["predicted"]["absent"]
    for name in (*METRICS, "values_changed", "change_norm"):
        ours, theirs = half.data[name].values, whole.data[name].values
        assert np.array_equal(np.isnan(ours), np.isnan(theirs))
        assert np.nanmax(np.abs(ours - theirs)) < 1e-9


def test_a_parameter_goes_along_with_both(tiny64):
    found = mt.sweep(
        tiny64, PROMPTS[0], pair("scale(2) L*.z.h*@-1"), metrics="logit_diff",
        over={"factor": [0.0, 0.5]},
    )  # fmt: skip
    values = found.data["logit_diff"].values[0].reshape(12, 12, 2)
    assert np.abs(values - values.transpose(1, 0, 2)).max() == 0
    assert found.provenance["predicted"]["cells"] == 2 * 78


@pytest.mark.parametrize(
    "edits",
    [
        ["zero L*.z.h*"],
        ["zero L*.z.h*", "zero L*.z.h*"],
        ["zero L*.z.h*", "scale(0) L*.z.h* as other"],
        ["zero L*.z.h*", "zero L*.z.h*@-1 as other"],
        ["zero L*.z.h*", "zero L*.z.h* as other", "zero L0.mlp_out"],
        ["scale(0.5) L*.z.h*", "scale(0.6) L*.z.h* as other"],
    ],
)
def test_what_is_no_pair_has_no_mirror(edits):
    assert mirror(as_edits(edits)) == {}


def test_stars_change_places():
    assert mirror(as_edits(pair("zero L*.z.h*"))) == {
        "layer": "other_layer", "head": "other_head", "other_layer": "layer", "other_head": "head",
    }  # fmt: skip
