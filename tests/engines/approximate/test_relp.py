"""Relevance patching: what is conserved, and what forward stays the same."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from torch import nn

import microtome as mt
from microtome.errors import MicrotomeError, SweepError
from microtome.passes import backward
from microtome.passes.hooks import forward
from microtome.passes.relevance import relevance
from microtome.passes.session import session
from microtome.passes.trace import ids_of
from microtome.plan.approximation import Passes
from microtome.verbs.asking import asking
from oracles import families as by_hand

CAT = mt.Prompt("The cat sat on the mat, and", target=" cat", contrast=" dog")
NAMES = ("gpt2", "gpt_neox", "llama, tied", "qwen3", "gemma2", "phi", "opt", "roberta")


@pytest.fixture(params=NAMES)
def model(request, tokenizer):
    """A model without biases."""
    hf = by_hand.make(request.param, len(tokenizer))
    with torch.no_grad():
        for name, weight in hf.named_parameters():
            if name.endswith("bias"):
                weight.zero_()
    return mt.load(hf, tokenizer=tokenizer)


def test_the_streams_relevances_add_up_to_the_logit(model):
    """A zeroed value's effect is minus its relevance, and the stream's are the logit together."""
    if model.anatomy.dims.shapes_logits:
        return  # a soft cap is no rule's
    found = mt.sweep(
        model, CAT, "zero L*.resid_pre@*", metrics="logit", method=mt.RelP(), audit=1, verify=0
    )
    logit = float(found.clean("logit")[0])
    total = -found.approximate("logit").sum("pos").values[0]
    exact = 1e-5 if model.anatomy.family.inner else 1e-9
    assert np.abs(total - logit).max() < exact * max(1, abs(logit))


def test_forward_it_is_the_model(model):
    hf, anatomy = model.hf, model.anatomy
    ids = ids_of([model.encode(CAT)[0].tokens], hf)
    with session(hf, anatomy):
        before = forward(hf, anatomy, ids)
        with relevance(hf, anatomy):
            assert forward(hf, anatomy, ids).equal(before)


def test_what_acts_through_attention_weights_is_refused(tiny64):
    with pytest.raises(SweepError, match="takes attention weights as they are"):
        mt.sweep(tiny64, CAT, "zero L*.k.h*", metrics="logit", method="relp")
    with pytest.raises(SweepError, match="of what an edit changes at a site"):
        mt.sweep(tiny64, CAT, "zero L0.mlp_out -> L1.mlp_in", metrics="logit", method="relp")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("bloom", "its activation function is none of transformers' own"),
        ("olmo", "cuts its values off"),
        ("mixtral", "mixtures of experts"),
    ],
)
def test_a_model_that_computes_what_no_rule_is_for_is_refused(of_family, name, why):
    model = of_family(name)
    with pytest.raises(MicrotomeError, match=why):
        mt.sweep(model, CAT, "zero L*.z.h*", metrics="logit", method="relp")


def by_the_rules(hf, ids, target, contrast):
    """GPT-2 with LRP's rules written out: z and neurons of each layer, with the gradient there."""
    base, n = hf.transformer, ids.shape[1]
    seen = []

    def normed(norm, x):
        centred = x - x.mean(-1, keepdim=True)
        scale = (centred.square().mean(-1, keepdim=True) + norm.eps).rsqrt().detach()
        return centred * scale * norm.weight + norm.bias

    x = base.wte(ids) + base.wpe(torch.arange(n))
    for block in base.h:
        q, k, v = block.attn.c_attn(normed(block.ln_1, x)).view(n, 3, 4, -1).permute(1, 2, 0, 3)
        scores = q @ k.mT / q.shape[-1] ** 0.5
        mask = torch.full((n, n), -torch.inf, dtype=x.dtype).triu(1)
        z = ((scores + mask).softmax(-1).detach() @ v).transpose(0, 1)
        z.retain_grad()
        x = x + block.attn.c_proj(z.reshape(1, n, -1))
        before = block.mlp.c_fc(normed(block.ln_2, x))
        neurons = before * (block.mlp.act(before) / before).detach()
        neurons.retain_grad()
        seen.append((z, neurons))
        x = x + block.mlp.c_proj(neurons)
    logits = hf.lm_head(normed(base.ln_f, x))[0, -1]
    (logits[target] - logits[contrast]).backward()
    hf.zero_grad(set_to_none=True)
    return seen


def approximate(model, edit, prompt=CAT):
    found = mt.sweep(
        model, prompt, edit, metrics="logit_diff", method="relp", audit=1, verify=0
    ).approximate("logit_diff")
    return found.values[0]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_an_effect_is_the_change_times_the_gradient_by_the_rules(make_gpt2, tokenizer, attention):
    """With biases, which take their part and are none's."""
    hf = make_gpt2(dtype=torch.float64)
    with torch.no_grad():
        for number, (name, weight) in enumerate(hf.named_parameters()):
            if name.endswith("bias"):
                weight.copy_(torch.linspace(-0.3, 0.5, len(weight)).roll(number))
    hf.set_attn_implementation(attention)
    model = mt.load(hf, tokenizer=tokenizer)
    [one] = model.encode(CAT)
    seen = by_the_rules(hf, torch.tensor([one.tokens.ids]), one.target, one.contrast)
    heads, neurons = (approximate(model, f"zero L*.{site}*") for site in ("z.h", "mlp_post.n"))
    for layer, (z, own) in enumerate(seen):
        assert np.abs(heads[layer] + (z * z.grad).sum((0, 2)).detach().numpy()).max() < 1e-9
        assert np.abs(neurons[layer] + (own * own.grad)[0].sum(0).detach().numpy()).max() < 1e-9


def test_each_factor_of_a_gated_neuron_has_half(tokenizer):
    """The input of the last MLP by hand: through the gate and through what it is multiplied by."""
    hf = by_hand.make("llama, tied", len(tokenizer))
    model = mt.load(hf, tokenizer=tokenizer)
    [one] = model.encode(CAT)
    own = model.run(CAT, keep=["L-1.mlp_in", "final_in"])
    last, norm = hf.model.layers[-1], hf.model.norm
    x = torch.tensor(own["L-1.mlp_in"].values[0, -1]).requires_grad_()

    def normed(norm, x):
        return x * (x.square().mean() + norm.variance_epsilon).rsqrt().detach() * norm.weight

    read = normed(last.post_attention_layernorm, x)
    gate, up = last.mlp.gate_proj(read), last.mlp.up_proj(read)
    opened = gate * (last.mlp.act_fn(gate) / gate).detach()
    shared = (opened * up.detach() + opened.detach() * up) / 2
    stream = x + last.mlp.down_proj(shared)
    final = torch.tensor(own["final_in"].values[0, -1])
    scale = (final.square().mean() + norm.variance_epsilon).rsqrt()
    logits = hf.lm_head(stream * scale * norm.weight)
    (logits[one.target] - logits[one.contrast]).backward()
    hf.zero_grad(set_to_none=True)
    whole = approximate(model, "zero L-1.resid_mid.d*@-1")
    wanted = -(x * x.grad).detach().numpy()
    assert np.abs(whole.ravel() - wanted).max() < 1e-6  # its norms are in float32 inside


def test_an_activation_of_nothing_has_no_relevance_and_is_a_number(make_gpt2, tokenizer):
    hf = make_gpt2(dtype=torch.float64)
    with torch.no_grad():
        for block in hf.transformer.h:
            block.mlp.c_fc.weight[:, 0] = 0
            block.mlp.c_fc.bias[0] = 0
    model = mt.load(hf, tokenizer=tokenizer)
    for edit in ("add(1) L*.mlp_post.n0", "zero L*.resid_pre@*", "zero L*.mlp_in@*"):
        assert np.isfinite(approximate(model, edit)).all(), edit


def test_the_model_is_run_once(tiny64, monkeypatch):
    calls, own = [], backward.call_body
    monkeypatch.setattr(backward, "call_body", lambda *a, **k: (calls.append(1), own(*a, **k))[1])
    approximate(tiny64, "zero L*.z.h*")
    assert len(calls) == 1
    question = asking(tiny64, CAT, "zero L*.z.h*", metrics=["logit_diff", "prob"])
    assert mt.RelP().passes(question) == Passes(1, 2)


def test_the_rules_are_this_threads_alone(tiny64):
    """Another thread's gradient of a norm, a softmax and an activation is its own."""
    hf, anatomy = tiny64.hf, tiny64.anatomy
    x = torch.linspace(-1, 2, 8, dtype=torch.float64)

    def slopes():
        found = []
        for act in (
            lambda v: nn.functional.layer_norm(v, (8,)),
            lambda v: torch.softmax(v, -1),
            nn.functional.gelu,
            torch.rsqrt,
        ):
            one = (x.abs() + 0.1).requires_grad_()
            (act(one) * x).sum().backward()
            found.append(one.grad)
        return found

    wanted, other = slopes(), []
    with session(hf, anatomy), relevance(hf, anatomy):
        thread = threading.Thread(target=lambda: other.extend(slopes()))
        thread.start()
        thread.join()
        frozen = nn.functional.layer_norm((own := x.clone().requires_grad_()), (8,))
        (frozen * x).sum().backward()
    assert all(torch.equal(a, b) for a, b in zip(other, wanted, strict=True))
    free = x.clone().requires_grad_()
    (nn.functional.layer_norm(free, (8,)) * x).sum().backward()
    assert (own.grad - free.grad).abs().max() > 1e-3
