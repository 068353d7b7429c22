"""Relevance patching: what is conserved, and what forward stays the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import microtome as mt
from microtome.errors import MicrotomeError, SweepError
from microtome.passes.hooks import forward
from microtome.passes.relevance import relevance
from microtome.passes.session import session
from microtome.passes.trace import ids_of
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
            assert (forward(hf, anatomy, ids) - before).abs().max() < 1e-6


def test_what_acts_through_attention_weights_is_refused(tiny64):
    with pytest.raises(SweepError, match="takes attention weights as they are"):
        mt.sweep(tiny64, CAT, "zero L*.k.h*", metrics="logit", method="relp")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("bloom", "its activation function is none of transformers' own"),
        ("olmo", "cuts its values off"),
        ("mixtral", "mixtures of experts"),
    ],
)
def test_a_model_that_computes_what_no_rule_is_for_is_refused(tokenizer, name, why):
    model = mt.load(by_hand.make(name, len(tokenizer)), tokenizer=tokenizer)
    with pytest.raises(MicrotomeError, match=why):
        mt.sweep(model, CAT, "zero L*.z.h*", metrics="logit", method="relp")
