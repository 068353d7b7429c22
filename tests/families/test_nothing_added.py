"""Where all heads add nothing before a norm, it is the norm of nothing, not of rounding."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import microtome as mt
from oracles import families as by_hand

NORMED = ("gemma2", "gemma3_text", "olmo2")
PROMPT = mt.Prompt(
    "The cat sat on the mat, and",
    donor="The dog sat on the cat, and",
    target=" cat",
    contrast=" dog",
)


@pytest.fixture(scope="module", params=NORMED)
def models(request, tokenizer):
    """A family in bfloat16, and the same weights in float64."""
    half = by_hand.make(request.param, len(tokenizer)).to(torch.bfloat16)
    wide = copy.deepcopy(half).double()
    return [mt.load(hf, tokenizer=tokenizer) for hf in (half, wide)]


@pytest.mark.parametrize("engine", ["walk", "reference"])
@pytest.mark.parametrize(
    "edit",
    [
        "zero L*.head_out@2:",
        "zero L0.z -> final_in",
        "zero L0.head_out -> L*.mlp_in@-1",
        "zero L0.z => L*.q_in.h*",
    ],
)
def test_what_all_heads_leave_is_no_rounding_blown_up(models, edit, engine):
    half, right = (
        mt.sweep(one, PROMPT, edit, metrics="logit", engine=engine, verify=0) for one in models
    )
    gap = abs(half.delta("logit") - right.delta("logit")).max()
    assert float(gap) < 0.35  # of a bfloat16 model; of blown-up rounding it is 0.5 to 6


def test_heads_that_add_nothing_are_as_heads_of_nothing(models):
    _, model = models
    added, given = (
        mt.sweep(model, PROMPT, f"zero L*.{site}@:", metrics="logit", verify=0).delta("logit")
        for site in ("head_out", "z")
    )
    assert np.allclose(added.values, given.values, rtol=0, atol=1e-9)
