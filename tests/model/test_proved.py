"""What a model's modules say of themselves after it was loaded, and the walk takes for granted."""

import copy
import pickle

import numpy as np
import pytest
import torch

import microtome as mt
from conftest import BERLIN
from microtome.errors import ArchitectureError, MicrotomeError, SweepError
from microtome.model.proved import said_by, why_not_as_proved
from oracles import families

EDIT = "zero L*.z.h*@*"
LONG = " ".join([BERLIN] * 8)


def both_agree(model, prompt=BERLIN, edit=EDIT):
    """The engine that takes it, once its numbers are held to the reference path's."""
    found, wanted = (
        mt.sweep(model, prompt, edit, metrics="kl", engine=engine, verify=0)
        for engine in ("auto", "reference")
    )
    np.testing.assert_allclose(found.data["kl"], wanted.data["kl"], rtol=0, atol=1e-9)
    return found.provenance["engine"]["name"]


@pytest.fixture
def llama(tokenizer):
    return mt.load(families.make("llama", len(tokenizer)), tokenizer=tokenizer)


@pytest.mark.parametrize(
    ("name", "value"), [("is_causal", False), ("sliding_window", 3), ("scaling", 0.9)]
)
def test_a_setting_of_attention_that_was_changed_has_the_model_run_whole(llama, name, value):
    assert both_agree(llama) == "walk"
    for layer in llama.hf.model.layers:
        setattr(layer.self_attn, name, value)
    assert both_agree(llama) == "reference"
    with pytest.raises(SweepError, match=rf"proved, model\.layers\.0\.self_attn\.{name}.*load\("):
        mt.sweep(llama, BERLIN, EDIT, metrics="kl", engine="walk")


def test_why_it_runs_whole_is_a_sentence(llama):
    llama.hf.model.layers[1].self_attn.scaling = 0.9
    found = mt.sweep(llama, BERLIN, EDIT, metrics="kl", verify=0)
    said = found.provenance["engine"]["why"]
    assert "per cell, since after it was loaded, and proved, model.layers.1.self_attn" in said
    with pytest.raises(MicrotomeError, match=r"parts, and after it was.*or load the model anew\."):
        mt.attribute_logits(llama, mt.Prompt(BERLIN, target=" the"), "logit")


def test_what_is_changed_back_walks_again_and_what_is_proved_anew(llama):
    norm = llama.hf.model.layers[1].input_layernorm
    before, norm.variance_epsilon = norm.variance_epsilon, 0.5
    assert both_agree(llama) == "reference"
    assert both_agree(mt.load(llama, tokenizer=copy.copy(llama.tokenizer))) == "reference"
    assert both_agree(mt.load(llama.hf, tokenizer=llama.tokenizer)) == "walk"
    norm.variance_epsilon = before
    assert both_agree(llama) == "walk"


def test_a_configuration_that_was_changed(of_family, tokenizer):
    model = mt.load(copy.deepcopy(of_family("gemma2").hf), tokenizer=tokenizer)
    model.hf.config.final_logit_softcapping = 0.5
    assert "config.final_logit_softcapping" in str(model.whole)
    assert both_agree(model) == "reference"


def test_a_width_that_no_mask_has_is_none(tokenizer):
    """As in the model itself, where a mask is all that a fused kernel, or none, is given."""
    hf = families.make("qwen2", len(tokenizer))
    ids = torch.tensor([tokenizer(LONG)["input_ids"]])
    with torch.no_grad():
        wanted = hf(ids).logits
        for layer in hf.model.layers:
            layer.self_attn.sliding_window = 24  # longer than what the probe reads
        assert torch.equal(hf(ids).logits, wanted)
    assert ids.shape[1] > 30
    model = mt.load(hf, tokenizer=tokenizer)
    assert both_agree(model, LONG, "zero L*.z.h*@-1") == "walk"
    shown = model.run(LONG, keep="L0.pattern")
    assert float((shown.logits - wanted).abs().max()) < 1e-9


@pytest.mark.parametrize("name", ["bloom", "gpt2"])
@pytest.mark.parametrize("inner", ["", "attention"])
def test_a_module_that_was_put_in_two_places(tokenizer, name, inner):
    model = mt.load(families.make(name, len(tokenizer)), tokenizer=tokenizer)
    blocks = model.hf.get_submodule(model.anatomy.family.blocks)
    if inner:
        path = model.anatomy.family.attention.rpartition(".")[2]
        setattr(blocks[1], path, getattr(blocks[0], path))
    else:
        blocks[1] = blocks[0]
    for act in (
        lambda: model.run(BERLIN, "zero L0.z.h0"),
        lambda: model.generate(BERLIN, "zero L0.z.h0", steps=2),
        lambda: mt.sweep(model, BERLIN, EDIT, metrics="kl"),
    ):
        with pytest.raises(ArchitectureError, match=r"are one module.*Give each layer its own"):
            act()


def test_what_decides_nothing_may_change(tiny64):
    hf = copy.deepcopy(tiny64.hf)
    before = said_by(hf)
    hf.config.pad_token_id, hf.config.use_cache = 3, False
    hf.to = hf.cuda = lambda *args: hf  # as accelerate does, where it spreads a model
    assert why_not_as_proved(before, hf) is None
    hf.transformer.h[0].attn.mine = 1
    assert "transformer.h.0.attn.mine changed, so" in str(why_not_as_proved(before, hf))
    assert pickle.loads(pickle.dumps(before)) == before


def test_what_a_hook_leaves_on_a_module_is_no_setting(tiny64):
    """A tuple of tensors, as a block gives it, is not to be compared by `==`."""
    hf = copy.deepcopy(tiny64.hf)
    attention = hf.transformer.h[0].attn
    attention.register_forward_hook(
        mt.watching(lambda module, given, made: setattr(module, "made", (made[0], (made[0],))))
    )
    model = mt.load(hf, tokenizer=tiny64.tokenizer)
    for text in (BERLIN, LONG[:30]):
        model.run(text)
        assert model.whole is None
    assert both_agree(model) == "walk"
    attention.kept = (1, (2.0, "a"))
    assert "transformer.h.0.attn.kept changed" in str(model.whole)
