"""AtP* against softmax by hand and detached layers; integrated gradients against completeness."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import microtome as mt
from microtome.errors import EditError, MetricError, SweepError

BERLIN = mt.Prompt(
    "Berlin is the capital of", donor="Paris is the capital of", target=" Germany", contrast=" is"
)
EXACT = 1e-9


def approximate(model, edit, method, prompt=BERLIN, metrics="logit_diff"):
    found = mt.sweep(model, prompt, edit, metrics=metrics, method=method, audit=1, verify=0)
    return found.approximate("logit_diff")


def by_hand(model, dropped=None):
    """Queries, keys, weights, z, and gradients at weights and z, per layer, by eager attention.

    Written out for GPT-2; what layer ``dropped`` adds is detached.
    """
    hf = model.hf
    ids = torch.tensor([model.tokenizer(BERLIN.text)["input_ids"]])
    target, contrast = (
        model.tokenizer(w)["input_ids"][0] for w in (BERLIN.target, BERLIN.contrast)
    )
    n, base = ids.shape[1], hf.transformer
    x = base.wte(ids) + base.wpe(torch.arange(n))
    mask = torch.full((n, n), -torch.inf, dtype=x.dtype).triu(1)
    seen = []
    for number, block in enumerate(base.h):
        qkv = block.attn.c_attn(block.ln_1(x)).view(n, 3, 4, -1).permute(1, 2, 0, 3)
        q, k, v = qkv
        weights = (q @ k.mT / q.shape[-1] ** 0.5 + mask).softmax(-1)
        z = (weights @ v).transpose(0, 1)
        weights.retain_grad()
        z.retain_grad()
        seen.append((q, k, weights, z))
        added = block.attn.c_proj(z.reshape(1, n, -1))
        # z and weights go on from what is not detached: their own gradients are wanted.
        added = added.detach() if number == dropped else added
        x = x + added
        more = block.mlp(block.ln_2(x))
        x = x + (more.detach() if number == dropped else more)
    logits = hf.lm_head(base.ln_f(x))[0, -1]
    (logits[target] - logits[contrast]).backward()
    hf.zero_grad(set_to_none=True)
    return seen, mask


def slope(values):
    return torch.zeros_like(values) if values.grad is None else values.grad


def test_of_a_changed_query_or_key_the_softmax_is_computed_again(tiny64):
    seen, mask = by_hand(tiny64)
    for site, edit in (("q", "scale(3) L*.q.h*@*"), ("k", "scale(3) L*.k.h*@*")):
        found = approximate(tiny64, edit, "atp_star(grad_drop=False)").sel(prompt=0)
        found = found.rename({"kv_head": "head"}) if site == "k" else found
        for layer, (q, k, weights, _) in enumerate(seen):
            for pos in range(5):
                for head in range(4):
                    query, key = q[head].detach().clone(), k[head].detach().clone()
                    (query if site == "q" else key)[pos] *= 3
                    after = (query @ key.T / key.shape[-1] ** 0.5 + mask).softmax(-1)
                    change = after - weights[head].detach()
                    wanted = float((change * weights.grad[head]).sum())
                    got = float(found.sel(layer=layer, head=head, pos=pos))
                    assert abs(wanted - got) < EXACT


def test_a_size_is_the_mean_over_ways_back_without_one_layer(tiny64):
    plain = approximate(tiny64, "zero L*.z.h*", "atp").values[0]
    found = approximate(tiny64, "zero L*.z.h*", "atp_star").values[0]
    total = np.zeros((3, 4))
    for dropped in range(3):
        seen, _ = by_hand(tiny64, dropped)
        for layer, (*_, z) in enumerate(seen):
            total[layer] += (-z.detach() * slope(z)).sum((0, 2)).abs().numpy()
    assert np.abs(np.abs(found) - total / 2).max() < EXACT
    assert (np.sign(found) == np.sign(plain)).all()


def test_of_the_stream_the_mean_is_over_all_layers(tiny64):
    """Behind the last layer none matters, so that what is left out makes no difference."""
    for edit in ("zero L2.resid_post@-1", "zero final_in@-1", "patch L2.resid_post.d*@-1"):
        gap = approximate(tiny64, edit, "atp_star") - approximate(tiny64, edit, "atp")
        assert np.abs(gap).max() < EXACT, edit


def test_without_either_it_is_attribution_patching(tiny64):
    neither = mt.AtPStar(qk_fix=False, grad_drop=False)
    for edit in ("patch L*.q.h*", "zero L*.mlp_post.n{0,1}@*"):
        gap = approximate(tiny64, edit, neither) - approximate(tiny64, edit, "atp")
        assert np.abs(gap).max() < EXACT


@pytest.mark.parametrize("edit", ["patch L*.q_in.h*@*", "scale(2) L*.k_in.h*@-1"])
def test_what_a_query_or_key_is_made_of_goes_through_the_softmax_too(tiny64, edit):
    """In the last layer its weights are all that is approximate."""
    exact = mt.sweep(tiny64, BERLIN, edit, metrics="logit_diff").delta("logit_diff").sel(layer=2)
    fixed, plain = (
        approximate(tiny64, edit, method).sel(layer=2)
        for method in ("atp_star(grad_drop=False)", "atp")
    )
    assert abs(fixed - exact).max() < 0.5 * abs(plain - exact).max()


@pytest.mark.parametrize("edit", ["patch L*.k.h*@*", "noise L*.k.h*@*"])
def test_cells_in_parts_are_the_same(tiny64, monkeypatch, edit):
    whole = approximate(tiny64, edit, "atp_star")
    monkeypatch.setattr("microtome.engines.approximate.weights.TOKENS", 11)
    monkeypatch.setattr("microtome.engines.approximate.stretch.VALUES", 70)
    assert np.abs(approximate(tiny64, edit, "atp_star") - whole).max() < EXACT


@pytest.mark.parametrize(
    "edit",
    [
        "zero L*.mlp_post.n*@*",
        "patch L*.z.h*",
        "patch L*.resid_post@*",
        "patch L*.k.h*",
        "patch embed@*",
    ],
)
def test_integrated_gradients_of_a_layer_add_up_to_what_editing_all_of_it_does(tiny64, edit):
    each = approximate(tiny64, edit, mt.IG(24))
    whole = edit.replace("@*", "").replace("n*", "n:").replace("h*", "h:")
    wanted = mt.sweep(tiny64, BERLIN, whole, metrics="logit_diff", verify=0).delta("logit_diff")
    summed = each.sum([d for d in each.dims if d not in wanted.dims])
    assert np.abs(summed - wanted).max() < 5e-3 * max(1, float(np.abs(wanted).max()))


def test_more_steps_come_nearer(tiny64):
    wanted = mt.sweep(tiny64, BERLIN, "zero L*.mlp_post", metrics="logit_diff").delta("logit_diff")
    gaps = [
        float(
            np.abs(
                approximate(tiny64, "zero L*.mlp_post.n*", mt.IG(n)).sum("neuron") - wanted
            ).max()
        )
        for n in (5, 10, 20)
    ]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[2] < gaps[0] / 8  # it is the midpoint rule: quadratic


def test_integrated_gradients_of_each_value_of_a_parameter_go_their_own_way(tiny64):
    both = mt.sweep(
        tiny64, BERLIN, "scale(0) L*.z.h*", metrics="logit_diff", method=mt.IG(4), audit=1,
        over={"factor": [0.0, 3.0]},
    ).approximate("logit_diff")  # fmt: skip
    for factor in (0.0, 3.0):
        alone = approximate(tiny64, f"scale({factor}) L*.z.h*", mt.IG(4))
        assert np.abs(both.sel(factor=factor) - alone).max() < EXACT


def test_gradient_norms_are_no_smaller_than_effects_of_first_order(tiny64):
    norms = approximate(tiny64, "zero L*.z.h*", "gradient_norms").values[0]
    seen, _ = by_hand(tiny64)
    wanted = [(z.norm(dim=(0, 2)) * z.grad.norm(dim=(0, 2))).detach().numpy() for *_, z in seen]
    assert np.abs(norms - wanted).max() < EXACT
    assert (norms >= np.abs(approximate(tiny64, "zero L*.z.h*", "atp").values[0]) - EXACT).all()


def test_what_they_cannot_do_is_refused(tiny64, make_gpt2, tokenizer):
    one = mt.load(make_gpt2(dtype=torch.float64, n_layer=1), tokenizer=tokenizer)
    with pytest.raises(SweepError, match="the model has one: use AtPStar"):
        approximate(one, "zero L*.z.h*", "atp_star")
    with pytest.raises(SweepError, match="take q, k, v, z or mlp_post"):
        approximate(tiny64, "zero L*.q_in.h*", "ig")
    with pytest.raises(SweepError, match="changes what others are about: take AtP"):
        approximate(tiny64, "knockout L*.pattern.h*@-1,*", "ig")
    with pytest.raises(SweepError, match="one step at least"):
        mt.IG(0)
    with pytest.raises(EditError, match="must be True or False"):
        mt.AtPStar(qk_fix=1)
    with pytest.raises(SweepError, match="use EAP"):
        approximate(tiny64, "zero L*.z.h* -> L*.mlp_in", "atp_star")


@pytest.mark.parametrize("method", ["gradient_norms", "atp_star"])
def test_sizes_of_answers_of_several_tokens_are_refused(tiny64, method):
    several = mt.Prompt("Berlin is the", target=" capital of Germany", contrast=" cat sat")
    with pytest.raises(MetricError, match="sizes do not add up"):
        approximate(tiny64, "zero L*.z.h*", method, several)
    plain = approximate(tiny64, "zero L*.z.h*", mt.AtPStar(grad_drop=False), several)
    assert np.isfinite(plain).all()


@pytest.mark.parametrize(
    ("edit", "method"),
    [
        ("zero L*.z.h*", "ig"),
        ("patch L*.z.h*", "atp(at='donor')"),
        ("patch L*.z.h* -> L*.mlp_in", "eap_ig"),
    ],
)
def test_a_product_of_probabilities_is_refused_where_gradients_are_elsewhere(tiny64, edit, method):
    """By itself times its logarithm's change it would be the slope in the prompt's own run."""
    several = mt.Prompt("Berlin is the", donor="Paris is the", target=" capital of Germany")
    with pytest.raises(MetricError, match="several tokens, a product"):
        mt.sweep(tiny64, several, edit, metrics="prob", method=method)
    for metric, prompt in (("logprob", several), ("prob", BERLIN)):
        found = mt.sweep(tiny64, prompt, edit, metrics=metric, method=method, audit=2)
        assert np.isfinite(found.approximate(metric)).any()
