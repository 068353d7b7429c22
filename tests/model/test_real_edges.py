"""Edges of a real language model: against hooks written by hand, and every cell on both paths."""

from __future__ import annotations

import pytest
import torch

import microtome as mt

GIFT = mt.Prompt(
    "When Mary and John went to the store, John gave a drink to",
    donor="When Mary and John went to the store, Mary gave a drink to",
    target=" Mary",
    contrast=" John",
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def change(smollm2):
    """What head 10.3 adds in the donor's run, less what it adds in the text's, by hand."""
    hf = smollm2.hf
    output = hf.model.layers[10].self_attn.o_proj
    size = hf.config.hidden_size // hf.config.num_attention_heads
    own, seen = slice(3 * size, 4 * size), []
    handle = output.register_forward_pre_hook(lambda module, args: seen.append(args[0][0, :, own]))
    try:
        with torch.no_grad():
            for text in (GIFT.text, GIFT.donor):
                hf(torch.tensor([smollm2.encode(mt.Prompt(text))[0].tokens.ids]))
            return (seen[1] - seen[0]) @ output.weight[:, own].T
    finally:
        handle.remove()


@pytest.mark.parametrize("reader", ["L12.mlp_in", "final_in"])
def test_an_edge_is_a_hook_before_the_readers_norm(smollm2, change, reader):
    hf, ids = smollm2.hf, torch.tensor([smollm2.encode(GIFT)[0].tokens.ids])
    norm = hf.model.norm if reader == "final_in" else hf.model.layers[12].post_attention_layernorm
    clean = smollm2.run(GIFT).logits[0, -1]
    found = smollm2.run(GIFT, edits=[f"patch L10.z.h3 -> {reader}"]).logits[0, -1]
    handle = norm.register_forward_pre_hook(lambda module, args: (args[0] + change,))
    try:
        with torch.no_grad():
            wanted = hf(ids).logits[0, -1]
    finally:
        handle.remove()
    assert float((found - wanted).abs().max()) < 2e-4
    assert float((wanted - clean).abs().max()) > 2e-3


def test_every_cell_of_edges_into_shared_values_is_as_on_the_reference_path(smollm2):
    """Nine heads that share three values, each told of one head of another layer."""
    edit = "patch L20.z.h0 -> L22.v_in.h*"
    effects = mt.sweep(smollm2, GIFT, edit, metrics=["logit_diff"], verify="all")
    assert effects.provenance["verification"]["cells"] == 9
    assert float(abs(effects.delta("logit_diff")).max()) > 1e-3
