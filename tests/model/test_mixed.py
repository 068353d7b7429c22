"""Models of several types: the residual stream is of that of the blocks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PhiConfig, PhiForCausalLM

import microtome as mt
from microtome.model.anatomy import Anatomy
from microtome.model.placement import is_plain

PROMPT = mt.Prompt("Berlin is the capital of", target=" Germany", contrast=" France")


def llama(tokenizer, kind=LlamaForCausalLM, config=LlamaConfig):
    torch.manual_seed(0)
    made = config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=3,
        num_attention_heads=4, bos_token_id=0, eos_token_id=0, initializer_range=0.3,
        tie_word_embeddings=False,
    )  # fmt: skip
    return kind(made).eval()


class Cast(nn.Linear):
    """An unembedding that takes what it gets into its own type, as users' code does."""

    def forward(self, x):
        return super().forward(x.to(self.weight.dtype))


def fine_end(hf):
    """Norm and head in float32 over blocks in bfloat16."""
    hf.to(torch.bfloat16)
    hf.model.norm.float()
    hf.lm_head.float()
    return hf


def coarse_head(hf):
    """A head in bfloat16 over blocks in float32."""
    hf.lm_head.__class__ = Cast
    hf.lm_head.to(torch.bfloat16)
    return hf


def coarse_head_behind_a_hook(hf):
    hf.lm_head.to(torch.bfloat16)
    hf.lm_head.register_forward_pre_hook(lambda module, args: (args[0].to(torch.bfloat16),))
    return hf


MIXED = {
    fine_end: (torch.bfloat16, torch.float32),
    coarse_head: (torch.float32, torch.bfloat16),
    coarse_head_behind_a_hook: (torch.float32, torch.bfloat16),
}


@pytest.mark.parametrize("mix", MIXED)
def test_a_run_without_edits_is_the_models_own_bit_for_bit(tokenizer, mix):
    hf = mix(llama(tokenizer))
    stream, head = MIXED[mix]
    model = mt.load(hf, tokenizer=tokenizer)
    assert (model.dtype, set(model.dtypes)) == (stream, {torch.float32, torch.bfloat16})
    assert model.dtypes[0] == torch.bfloat16
    assert model.itemsize == 4
    with torch.no_grad():
        bare = hf(torch.tensor([tokenizer(PROMPT.text)["input_ids"]])).logits
    run = model.run(PROMPT, keep=["L*.resid_post"])
    assert torch.equal(run.logits, bare)
    assert bare.dtype == head


@pytest.mark.parametrize("mix", MIXED)
@pytest.mark.parametrize("metrics", ["logit_diff", "kl"])
def test_the_walk_is_the_reference_path(tokenizer, mix, metrics):
    """Users' own classes and hooks, of which nobody knows what they do by position, do not walk."""
    model = mt.load(mix(llama(tokenizer)), tokenizer=tokenizer)
    walk, slow = (
        mt.sweep(model, PROMPT, "zero L*.z.h*@-1", metrics=metrics, engine=engine, verify=0)
        for engine in ("auto", "reference")
    )
    engine = "walk" if mix is fine_end else "reference"
    assert walk.provenance["engine"]["name"] == engine
    off = np.abs(walk.data[metrics] - slow.data[metrics]).max()
    # Of logits in bfloat16 one rounding is up to 2**-8 of them, whose differences are read.
    size = float(model.run(PROMPT).logits.float().abs().max())
    assert off <= 16 * 2**-8 * max(1.0, size)


def test_the_walks_stream_is_of_the_blocks_type(tokenizer, monkeypatch):
    """Were it of the head's, blocks would compute in another type than in the model."""
    hf, seen = fine_end(llama(tokenizer)), set()
    model = mt.load(hf, tokenizer=tokenizer)
    own = Anatomy.resume

    def noted(self, hf, layer, x, arguments):
        seen.add(x.dtype)
        return own(self, hf, layer, x, arguments)

    monkeypatch.setattr(Anatomy, "resume", noted)
    mt.sweep(model, PROMPT, "zero L*.z.h*@-1", metrics="kl", engine="walk", verify=0)
    assert seen == {torch.bfloat16}


def test_hooks_on_a_head_count_wherever_it_is_read(make_gpt2, tokenizer):
    """The few columns that a metric needs are not read past what a user made of the head."""
    hf = make_gpt2(dtype=torch.float64)
    assert is_plain(hf.lm_head)
    hf.lm_head.register_forward_hook(lambda module, args, out: out * 2)
    assert not is_plain(hf.lm_head)
    model = mt.load(hf, tokenizer=tokenizer)
    walk, slow = (
        mt.sweep(model, PROMPT, "zero L*.z.h*@-1", metrics="logit_diff", engine=engine)
        for engine in ("auto", "reference")
    )
    np.testing.assert_allclose(walk.data["logit_diff"], slow.data["logit_diff"], atol=1e-9)


def test_an_output_bias_of_minus_infinity_loads_and_is_measured(tokenizer):
    hf = llama(tokenizer, PhiForCausalLM, PhiConfig)
    with torch.no_grad():
        hf.lm_head.bias[-4:] = -math.inf
    model = mt.load(hf, tokenizer=tokenizer)
    effects = mt.sweep(model, PROMPT, "zero L*.z.h*@-1", metrics="kl", engine="reference")
    assert (effects.data["kl"] > 0).all()
    run = model.run(PROMPT, edits="zero L1.z.h1")
    assert (run.logits[..., -4:] == -math.inf).all()
    assert run.logits[..., :-4].isfinite().all()
