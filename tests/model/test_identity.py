"""Hashes are of what ran: they change when it does, and are not computed again when it does not."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

import microtome as mt
from conftest import BERLIN
from microtome.model import identity, loaded


@pytest.fixture
def model(make_gpt2, tokenizer):
    return mt.load(make_gpt2(), tokenizer=tokenizer)


@pytest.fixture
def hashed(monkeypatch):
    """How often whole weights were hashed."""
    calls = []

    def count(hf):
        calls.append(hf)
        return identity.weight_hash(hf)

    monkeypatch.setattr(loaded, "weight_hash", count)
    return calls


def halved_behind_its_back(hf):
    hf.lm_head.weight.data.mul_(0.5)


def halved(hf):
    with torch.no_grad():
        hf.transformer.h[1].attn.c_proj.weight.mul_(0.5)


def one_number(hf):
    with torch.no_grad():
        hf.transformer.h[1].attn.c_proj.weight[3, 5] += 1


def replaced(hf):
    old = hf.transformer.ln_f.bias
    hf.transformer.ln_f.bias = torch.nn.Parameter(old.detach() + 1)


def loaded_over(hf):
    hf.load_state_dict({name: weight + 1 for name, weight in hf.state_dict().items()})


def cast(hf):
    hf.to(torch.float64)


CHANGES = [halved_behind_its_back, halved, one_number, replaced, loaded_over, cast]


@pytest.mark.parametrize("change", CHANGES)
def test_weights_that_change_have_another_hash(model, change):
    before = model.weight_hash
    change(model.hf)
    assert model.weight_hash != before
    assert model.weight_hash == identity.weight_hash(model.hf)


@pytest.mark.parametrize("shape", [(576, 1536), (1536, 576), (64, 64), (1, 7), (300, 128, 96)])
def test_no_row_or_column_changes_behind_its_back(shape):
    """Such as a neuron that is silenced by ``weight.data[:, 17] = 0``."""
    numbered = torch.arange(math.prod(shape)).view(shape)
    seen = identity._some(numbered)
    for part in (seen // shape[-1], seen % shape[-1]):
        assert part.unique().tolist() == [*range(int(part.max()) + 1)]
    assert int(seen.max()) // shape[-1] == math.prod(shape[:-1]) - 1


@pytest.mark.parametrize("shape", [(128, 64), (131, 64), (400, 6)])
def test_of_more_rows_than_samples_every_column_is_seen(monkeypatch, shape):
    """A vocabulary of 262,144 tokens has a row for each sample: all of them in the first column."""
    monkeypatch.setattr(identity, "SAMPLES", 128)
    seen = identity._some(torch.arange(math.prod(shape)).view(shape))
    assert (seen % shape[-1]).unique().tolist() == [*range(shape[-1])]
    assert len(seen) <= 129


def test_a_neuron_that_is_changed_behind_its_back_is_seen():
    down = torch.nn.Linear(1536, 576)
    sign = identity.weights_sign(down)
    for column in (1, 17, 1535):
        down.weight.data[:, column] += 1
        before, sign = sign, identity.weights_sign(down)
        assert sign != before


def test_weights_that_stay_are_hashed_once(hashed, model):
    first = model.weight_hash
    model.run(BERLIN, edits="zero L1.z")
    mt.sweep(model, BERLIN, "zero L*.z.h*", metrics="kl")
    assert model.weight_hash == first
    assert len(hashed) == 1


def test_weights_that_come_back_have_their_hash_back(model):
    before = model.weight_hash
    model.hf.lm_head.weight.data.mul_(0.5)
    model.hf.lm_head.weight.data.mul_(2)
    assert model.weight_hash == before


def test_a_copy_has_the_same_hash(model):
    assert mt.load(copy.deepcopy(model.hf), tokenizer=model.tokenizer).weight_hash == (
        model.weight_hash
    )


def test_a_copy_of_a_model_is_its_own(model):
    other, before, logits = copy.deepcopy(model), model.weight_hash, model.run("Berlin is").logits
    assert other.weight_hash == before
    # Weights that lie elsewhere may be rounded otherwise.
    torch.testing.assert_close(other.run("Berlin is").logits, logits)
    other.hf.lm_head.weight.data.mul_(0.5)
    assert other.weight_hash != before
    assert float((other.run("Berlin is").logits - logits).abs().max()) > 1e-2
    assert model.weight_hash == before
    assert torch.equal(model.run("Berlin is").logits, logits)


def test_weights_made_in_inference_mode_are_seen_too(make_gpt2, tokenizer):
    with torch.inference_mode():
        hf = make_gpt2()
    model = mt.load(hf, tokenizer=tokenizer)
    before = model.weight_hash
    with torch.inference_mode():
        hf.lm_head.weight.mul_(0.5)
    assert model.weight_hash != before


# ----------------------------------------------------------------------------------------- buffers


def rotary(tokenizer, kind="default"):
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, bos_token_id=0, eos_token_id=0, max_position_embeddings=8,
        rope_parameters={"rope_type": kind, "rope_theta": 1e4, "factor": 2.0},
    )  # fmt: skip
    return mt.load(LlamaForCausalLM(config).eval(), tokenizer=tokenizer)


def test_rotary_frequencies_are_hashed_beside_the_weights(tokenizer):
    model = rotary(tokenizer)
    weights, buffers = model.weight_hash, model.buffer_hash
    model.hf.model.rotary_emb.inv_freq.mul_(0.5)
    assert model.buffer_hash != buffers
    assert model.weight_hash == weights


def test_frequencies_that_a_long_text_changes_are_not(tokenizer):
    model = rotary(tokenizer, "dynamic")
    buffers, own = model.buffer_hash, model.hf.model.rotary_emb.inv_freq.clone()
    with torch.no_grad():
        model.hf(torch.arange(20)[None])
    assert not torch.equal(model.hf.model.rotary_emb.inv_freq, own)
    assert model.buffer_hash == buffers


# --------------------------------------------------------------------------------------- tokenizer


def other(tokenizer):
    return copy.deepcopy(tokenizer)


def test_a_tokenizers_hash_is_of_what_makes_tokens(tokenizer):
    first = identity.tokenizer_hash(tokenizer)
    assert identity.tokenizer_hash(other(tokenizer)) == first
    padded = other(tokenizer)
    padded.pad_token = padded.eos_token
    with_pad = identity.tokenizer_hash(padded)
    padded(["a", "b c"], padding=True, truncation=True, max_length=2)
    assert identity.tokenizer_hash(padded) == with_pad != first
    for change in (
        lambda made: made.add_tokens(["zzz"]),
        lambda made: made.add_special_tokens({"bos_token": "<s>"}),
        lambda made: setattr(made, "bos_token", made.eos_token),
    ):
        changed = other(tokenizer)
        change(changed)
        assert identity.tokenizer_hash(changed) != first
    # The same special token, and now every text begins with it.
    before = identity.tokenizer_hash(changed), identity.tokenizer_sign(changed)
    changed.add_bos_token = True
    assert changed("a")["input_ids"][0] == changed.bos_token_id
    assert identity.tokenizer_hash(changed) != before[0]
    assert identity.tokenizer_sign(changed) != before[1]


def test_a_tokenizer_that_is_changed_is_hashed_again(make_gpt2, tokenizer):
    made = other(tokenizer)
    hf = make_gpt2()
    hf.resize_token_embeddings(len(made) + 1, mean_resizing=False)
    model = mt.load(hf, tokenizer=made)
    first = model.tokenizer_hash
    assert model.tokenizer_hash is first
    made.add_tokens(["zzz"])
    assert model.tokenizer_hash != first


def test_a_real_tokenizer_read_twice_has_one_hash(gpt2_tokenizer, real_models):
    again = AutoTokenizer.from_pretrained(real_models / "gpt2-tokenizer")
    assert identity.tokenizer_hash(again) == identity.tokenizer_hash(gpt2_tokenizer)
