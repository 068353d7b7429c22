"""Cases that attribution patching is known to miss, planted: the audit says so, AtP* finds them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import microtome as mt

BERLIN = mt.Prompt(
    "Berlin is the capital of", donor="Paris is the capital of", target=" Germany", contrast=" is"
)


@pytest.fixture(scope="module")
def saturated(make_gpt2, tokenizer):
    """A model whose queries and keys are so large that each token attends to one."""
    hf = make_gpt2(dtype=torch.float64)
    with torch.no_grad():
        for block in hf.transformer.h:
            block.attn.c_attn.weight[:, :64] *= 12
            block.attn.c_attn.bias[:64] *= 12
    return mt.load(hf, tokenizer=tokenizer)


def test_a_saturated_softmax_is_flat_to_attribution_patching_and_not_to_its_star(saturated):
    edit = "scale(-1) L*.q.h*@{1,2,3,-1}"
    found = {
        method: mt.sweep(saturated, BERLIN, edit, metrics="logit_diff", method=method, audit=64)
        for method in ("atp", "atp_star(grad_drop=False)")
    }
    plain, star = (one.approximate("logit_diff").values.ravel() for one in found.values())
    exact = found["atp"].delta("logit_diff").values.ravel()  # all of so few cells
    missed = (np.abs(exact) > 0.15) & (np.abs(plain) < 0.01 * np.abs(exact))
    assert missed.sum() > 3
    seen = np.abs(star - exact)[missed] < 0.5 * np.abs(exact[missed])
    assert seen.mean() >= 0.5
    audits = [one.audit() for one in found.values()]
    assert audits[0]["miss"] >= np.abs(exact[missed]).max() * 0.99
    assert audits[1]["pearson"] > audits[0]["pearson"] + 0.3


def test_two_ways_that_cancel_are_nothing_to_attribution_patching_and_something_to_its_star(tiny64):
    """A direction in which what a head does by itself and by later layers is equal and opposite."""
    units = [f"add(1) L0.z.h0.d{n}@-1" for n in range(2)]
    slopes = {}
    for method in ("atp", mt.AtPStar()):
        asked = {"metrics": "logit_diff", "method": method, "audit": 1, "verify": 0}
        each = [mt.sweep(tiny64, BERLIN, unit, **asked) for unit in units]
        slopes[str(method)] = np.array(
            [float(one.approximate("logit_diff").squeeze()) for one in each]
        )
    one, two = slopes["atp"]
    vector = 3 * np.array([two, -one]) / np.hypot(one, two)  # across the gradient
    edit = mt.add("L0.z.h0.d{0,1}@-1", vector)
    plain, star = (
        mt.sweep(tiny64, BERLIN, edit, metrics="logit_diff", method=method)
        for method in ("atp", mt.AtPStar())
    )
    exact = abs(float(plain.delta("logit_diff").squeeze()))
    assert exact > 0.05
    assert abs(float(plain.approximate("logit_diff").squeeze())) < 1e-9
    assert abs(float(star.approximate("logit_diff").squeeze())) > 0.5 * exact
    assert plain.audit()["miss"] == pytest.approx(exact)
