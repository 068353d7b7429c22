"""Patches start where their donor differs, two stars may range over one thing: as the oracle."""

from __future__ import annotations

import numpy as np
import pytest

import microtome as mt

TEXT = "When Mary and John went to the store, John gave a drink to"
DONOR = "When Mary and John went to the store, Mary gave a drink to"
PROMPT = mt.Prompt(TEXT, donor=DONOR, target=" Mary", contrast=" John", roles={"second": 9})
SAME = mt.Prompt(TEXT, donor=TEXT, target=" Mary", contrast=" John", roles={"second": 9})


def both(model, prompts, edits):
    return [
        mt.sweep(model, prompts, edits, metrics=["logit_diff", "kl@3"], engine=engine, verify=0)
        for engine in ("walk", "reference")
    ]


@pytest.mark.parametrize(
    "edits",
    [
        "patch L*.z.h*",
        "patch L*.resid_post@*",
        "patch L*.resid_post@{2,second}",
        "patch L1.pattern.h1@*,*",
        ["patch L*.z.h1@*", "patch L2.resid_post@-1"],
        ["patch L*.z.h1@*", "zero L0.mlp_out@1"],
        "patch embed@*",
    ],
)
def test_patches_are_those_of_the_reference_path(tiny64, edits):
    walk, reference = both(tiny64, [PROMPT, SAME], edits)
    for metric in walk.metrics:
        gap = abs(walk.data[metric] - reference.data[metric])
        assert float(gap.max()) < 1e-9
        assert bool((walk.data[metric].isnull() == reference.data[metric].isnull()).all())
    real = reference.data["change_norm"].values > 1e-9  # the rest is rounding
    changed = (walk.data["values_changed"].values, reference.data["values_changed"].values)
    np.testing.assert_array_equal(changed[0][real], changed[1][real])
    assert real.any()
    np.testing.assert_allclose(walk.data["change_norm"], reference.data["change_norm"], atol=1e-9)
    unchanged = walk.delta("logit_diff").sel(prompt=1)
    if edits != ["patch L*.z.h1@*", "zero L0.mlp_out@1"]:
        assert float(abs(unchanged).max()) == 0, "its own donor changes nothing, exactly"


def test_pairs_of_heads_are_one_question(tiny64):
    edits = ["zero L*.z.h*@-1", "zero L*.z.h*@-1 as other"]
    walk, reference = both(tiny64, PROMPT, edits)
    assert walk.dims == ("prompt", "layer", "head", "other_layer", "other_head")
    assert float(abs(walk.data["logit_diff"] - reference.data["logit_diff"]).max()) < 1e-9
    effect = walk.delta("logit_diff").isel(prompt=0).values
    np.testing.assert_allclose(effect, effect.transpose(2, 3, 0, 1), atol=1e-9)


def test_positions_of_a_named_star_carry_their_tokens(tiny64):
    edits = ["zero L0.resid_post@*", "zero L1.resid_post@* as other"]
    effects = mt.sweep(tiny64, "The cat sat", edits, metrics="kl")
    assert effects.data["other_pos_token"].values.tolist() == [["The", " cat", " sat"]]
    assert effects.data["token"].values.tolist() == [["The", " cat", " sat"]]
