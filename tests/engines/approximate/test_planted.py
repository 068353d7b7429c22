"""Cases that attribution patching is known to miss, planted: the audit says so, AtP* finds them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import microtome as mt
from oracles import families

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


@pytest.mark.parametrize("family", ["llama", "olmo2"])
def test_where_keys_are_grouped_and_where_what_heads_add_is_normed_it_is_flat_too(
    family, tokenizer
):
    """The keys of one layer, in which each token attends to one: their gradient says nothing."""
    hf = families.make(family, len(tokenizer))
    attention = hf.model.layers[-1].self_attn
    with torch.no_grad():
        for name in ("q", "k"):
            norm = getattr(attention, f"{name}_norm", None)
            weights = (norm or getattr(attention, f"{name}_proj")).parameters()
            for weight in weights:
                weight *= 12
    model, asked = mt.load(hf, tokenizer=tokenizer), {"metrics": "logit_diff", "verify": 0}
    plain, star = (
        mt.sweep(model, BERLIN, "patch L2.k.h*@*", method=method, **asked)
        for method in ("atp", "atp_star(grad_drop=False)")
    )
    exact = plain.delta("logit_diff").values  # all of so few cells
    gaps = [np.abs(one.approximate("logit_diff").values - exact) for one in (plain, star)]
    errors = [gap.sum() / np.abs(exact).sum() for gap in gaps]
    assert np.abs(exact).max() > 0.2
    assert errors[0] > 0.95
    assert errors[1] < 0.6
    for one, gap in zip((plain, star), gaps, strict=True):
        assert one.audit()["miss"] == pytest.approx(gap.max())


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_two_ways_that_cancel_are_nothing_to_attribution_patching_and_something_to_its_star(
    family, of_family
):
    """A direction in which what a head does by itself and by later layers is equal and opposite."""
    model = of_family(family)
    units = [f"add(1) L0.z.h0.d{n}@-1" for n in range(2)]
    slopes = {}
    for method in ("atp", mt.AtPStar()):
        asked = {"metrics": "logit_diff", "method": method, "audit": 1, "verify": 0}
        each = [mt.sweep(model, BERLIN, unit, **asked) for unit in units]
        slopes[str(method)] = np.array(
            [float(one.approximate("logit_diff").squeeze()) for one in each]
        )
    one, two = slopes["atp"]
    vector = 3 * np.array([two, -one]) / np.hypot(one, two)  # across the gradient
    edit = mt.add("L0.z.h0.d{0,1}@-1", vector)
    plain, star = (
        mt.sweep(model, BERLIN, edit, metrics="logit_diff", method=method)
        for method in ("atp", mt.AtPStar())
    )
    exact = abs(float(plain.delta("logit_diff").squeeze()))
    assert exact > 0.01
    assert abs(float(plain.approximate("logit_diff").squeeze())) < 1e-9
    assert abs(float(star.approximate("logit_diff").squeeze())) > 0.3 * exact
    assert plain.audit()["miss"] == pytest.approx(exact)
