"""Adapters of peft's own, and not stand-ins: an adapted model is mapped as it runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import microtome as mt
from conftest import BERLIN
from microtome.errors import LoadError, MicrotomeError
from oracles.families import make

peft = pytest.importorskip("peft", reason="peft is not installed")
# It asks for what transformers has given another name since.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated")

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
ADAPTERS = {
    "lora": lambda: peft.LoraConfig(r=2, target_modules=ATTENTION, init_lora_weights=False),
    "lora, of the head": lambda: peft.LoraConfig(
        r=2, target_modules=["q_proj", "down_proj", "lm_head"], init_lora_weights=False
    ),
    "lora, beside norms": lambda: peft.LoraConfig(
        r=2, target_modules=ATTENTION, modules_to_save=["norm"], init_lora_weights=False
    ),
    "dora": lambda: peft.LoraConfig(
        r=2, target_modules=["v_proj"], use_dora=True, init_lora_weights=False
    ),
    "ia3": lambda: peft.IA3Config(
        target_modules=["k_proj", "down_proj"],
        feedforward_modules=["down_proj"],
        init_ia3_weights=False,
    ),
    "vb-lora, whose layers share their vectors": lambda: peft.VBLoRAConfig(
        target_modules=ATTENTION, num_vectors=8, vector_length=4, topk=2, init_vector_bank_bound=1
    ),
}


def adapted_by(kind, tokenizer):
    torch.manual_seed(0)
    return peft.get_peft_model(make("llama", len(tokenizer)), ADAPTERS[kind]()).double().eval()


def heads_by_hand(adapted, ids, target: int) -> np.ndarray:
    """The target's logit without each head at the last token, ``[layer, head]``."""
    hf = adapted.get_base_model()
    n_heads, width = hf.config.num_attention_heads, hf.config.head_dim
    logits = []
    for layer in hf.model.layers:
        for head in range(n_heads):

            def silent(module, args, head=head):
                z = args[0].clone()
                z[:, -1, head * width : (head + 1) * width] = 0
                return (z,)

            handle = layer.self_attn.o_proj.register_forward_pre_hook(silent)
            with torch.no_grad():
                logits.append(float(adapted(input_ids=torch.tensor([ids])).logits[0, -1, target]))
            handle.remove()
    return np.reshape(logits, (-1, n_heads))


@pytest.mark.parametrize("kind", ADAPTERS)
def test_heads_of_an_adapted_model_are_those_of_hooks(kind, tokenizer):
    adapted = adapted_by(kind, tokenizer)
    model = mt.load(adapted, tokenizer=tokenizer)
    prompt = mt.Prompt(BERLIN, target=" Germany")
    [one] = model.encode(prompt)
    by_hand = heads_by_hand(adapted, one.tokens.ids, one.target)
    effects = mt.sweep(model, prompt, "zero L*.z.h*@-1", metrics="logit")
    np.testing.assert_allclose(effects.data["logit"][0], by_hand, atol=1e-6)
    shares = mt.attribute_logits(model, prompt)
    assert float(shares.total[0]) == pytest.approx(float(effects.data["clean_logit"][0]), abs=1e-6)
    with adapted.disable_adapter():
        assert abs(heads_by_hand(adapted, one.tokens.ids, one.target) - by_hand).max() > 0.01
        without = model.run(prompt, "zero L0.z.h0")
    with pytest.raises(MicrotomeError, match=r"another now .* \(its adapters\)"):
        without.top()


def test_a_tokens_direction_is_that_of_the_adapted_head(tokenizer):
    adapted = adapted_by("lora, of the head", tokenizer)
    hf = adapted.get_base_model()
    found = mt.steering.of_token(mt.load(adapted, tokenizer=tokenizer), 7)
    state = torch.zeros(1, 1, hf.config.hidden_size, dtype=torch.float64, requires_grad=True)
    [row] = torch.autograd.grad(hf.lm_head(state)[0, 0, 7], state)
    wanted = row[0, 0] * hf.model.norm.weight
    np.testing.assert_allclose(found[0], wanted.detach(), atol=1e-9)


@pytest.mark.skipif(not hasattr(peft, "LilyConfig"), reason="this peft has no Lily")
def test_an_adapter_that_mixes_positions_is_refused(tokenizer):
    config = peft.LilyConfig(r=2, target_modules=["q_proj"], init_weights=False)
    adapted = peft.get_peft_model(make("llama", len(tokenizer)), config).eval()
    hf = adapted.get_base_model()
    one, longer = torch.tensor([[5, 6]]), torch.tensor([[5, 6, 7]])
    with torch.no_grad():  # what is said of it is so
        assert (hf(longer).logits[:, :2] - hf(one).logits).abs().max() > 1e-5
    for given in (adapted, hf):
        with pytest.raises(LoadError, match=r"q_proj has a Lily adapter .*a token on later ones"):
            mt.load(given, tokenizer=tokenizer)


def test_adapters_that_the_wrapper_weighs_are_refused(tokenizer, tmp_path):
    adapter = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    peft.get_peft_model(make("llama", len(tokenizer)), adapter).save_pretrained(tmp_path)
    base = make("llama", len(tokenizer))
    base.config.use_cache = False
    config = peft.XLoraConfig(
        task_type="CAUSAL_LM",
        hidden_size=base.config.hidden_size,
        adapters={"0": str(tmp_path), "1": str(tmp_path)},
    )
    adapted = peft.get_peft_model(base, config).double().eval()
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():  # what is said of it is so: the model inside is not what runs
        assert (adapted(input_ids=ids).logits - base(ids).logits).abs().max() > 1e-5
    with pytest.raises(LoadError, match=r"has X-LoRA, whose adapters the wrapper weighs"):
        mt.load(adapted, tokenizer=tokenizer)


def test_a_folder_of_an_adapter_alone_is_refused(tokenizer, tmp_path):
    adapted_by("lora", tokenizer).save_pretrained(tmp_path)
    with pytest.raises(LoadError, match="adapter"):
        mt.load(tmp_path, tokenizer=tokenizer)
