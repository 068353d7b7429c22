"""Weights that are made at every call are right; layers that torch packs are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.ao.quantization import quantize_dynamic
from torch.nn import utils
from torch.nn.utils import parametrizations, prune

import microtome as mt
from conftest import BERLIN
from microtome.errors import LoadError
from oracles import families as by_hand

PROMPT = mt.Prompt(BERLIN, target=" Germany", contrast=" France")
MADE = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "pruned": lambda part: prune.l1_unstructured(part, "weight", amount=0.3),
    "weight_norm, old": utils.weight_norm,
    "spectral_norm, old": utils.spectral_norm,
}


def _parts(hf) -> list[nn.Module]:
    block = hf.model.layers[1]
    return [block.self_attn.q_proj, block.self_attn.o_proj, block.mlp.down_proj]


def _by_hand(hf, ids, target, contrast, layer, head):
    """A head zeroed at the last token."""
    size = hf.config.head_dim

    def cut(module, args):
        z = args[0].clone()
        z[:, -1, head * size : (head + 1) * size] = 0
        return (z,)

    handle = hf.model.layers[layer].self_attn.o_proj.register_forward_pre_hook(cut)
    with torch.no_grad():
        logits = hf(input_ids=torch.tensor([ids])).logits[0, -1]
    handle.remove()
    return float(logits[target] - logits[contrast])


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch, which has newer names for some
@pytest.mark.parametrize("kind", MADE)
def test_weights_that_are_made_at_every_call_are_mapped_as_by_hooks(tokenizer, kind):
    torch.manual_seed(0)
    hf = by_hand.make("llama", len(tokenizer))
    for part in _parts(hf):
        MADE[kind](part)
    model = mt.load(hf.double().eval(), tokenizer=tokenizer)
    assert model.whole is None
    found = mt.sweep(model, PROMPT, "zero L*.z.h*@-1", metrics="logit_diff", progress=False)
    [one] = model.encode(PROMPT)
    values = found.data["logit_diff"].isel(prompt=0)
    wanted = [
        [
            _by_hand(model.hf, one.tokens.ids, one.target, one.contrast, layer, head)
            for head in range(values.sizes["head"])
        ]
        for layer in range(values.sizes["layer"])
    ]
    np.testing.assert_allclose(values, wanted, rtol=0, atol=1e-9)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("dtype", [torch.qint8, torch.float16])
@pytest.mark.parametrize("whole", [True, False])
def test_layers_that_torch_has_quantised_are_refused_by_name(tokenizer, dtype, whole):
    hf = by_hand.make("llama", len(tokenizer)).float()
    if whole:
        hf = quantize_dynamic(hf, {nn.Linear}, dtype=dtype)
    else:
        hf.model.layers[0].mlp = quantize_dynamic(hf.model.layers[0].mlp, {nn.Linear}, dtype=dtype)
    words = r"layers that torch has quantised \(torch\.ao\.nn\.quantized\.dynamic.*quantize_dynamic"
    with pytest.raises(LoadError, match=words):
        mt.load(hf.eval(), tokenizer=tokenizer)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_so_are_those_that_it_quantises_in_a_loaded_model(tokenizer):
    hf = by_hand.make("llama", len(tokenizer)).float().eval()
    model = mt.load(hf, tokenizer=tokenizer)
    quantize_dynamic(hf.model, {nn.Linear}, dtype=torch.qint8, inplace=True)
    for ask in (model.run, lambda text: mt.sweep(model, text, "zero L*.z.h0", metrics="top1")):
        with pytest.raises(LoadError, match="layers that torch has quantised"):
            ask("The cat")
