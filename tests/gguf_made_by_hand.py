"""Tiny Llamas as GGUF files, written with the format's own package as by llama.cpp."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

HEADS, KV_HEADS = 4, 2
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
Change = Callable[[gguf.GGUFWriter], None]


def tiny_llama(vocabulary: int) -> LlamaForCausalLM:
    """Two layers, four query heads on two key heads, untied, d_model 32."""
    hf = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=HEADS,
            num_key_value_heads=KV_HEADS,
            max_position_embeddings=64,
            rms_norm_eps=1e-5,
            tie_word_embeddings=False,
        )
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in sorted(hf.named_parameters()):
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.2 + ("norm" in name))
    assert sum(weight.numel() for weight in hf.parameters()) < 60_000
    return hf.eval()


def write(
    path: Path,
    hf: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    packing: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    change: Change = lambda _: None,
    architecture: str = "llama",
    layers: int = 2,
) -> Path:
    """A file of a model, its matrices packed; ``change`` may add what a file should not have."""
    writer = gguf.GGUFWriter(path, architecture)
    config = hf.config
    writer.add_block_count(layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    writer.add_rope_dimension_count(config.hidden_size // HEADS)
    writer.add_vocab_size(config.vocab_size)
    _tokens(writer, tokenizer, config.vocab_size)
    change(writer)
    for name, weight in hf.state_dict().items():
        array = weight.numpy()
        if "q_proj" in name or "k_proj" in name:
            array = _rotated(array, HEADS if "q_proj" in name else KV_HEADS)
        packed = array.ndim == 2 and packing != gguf.GGMLQuantizationType.F32
        if packed:
            writer.add_tensor(_named(name), gguf.quantize(array, packing), raw_dtype=packing)
        else:
            writer.add_tensor(_named(name), array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def unpacked(hf: LlamaForCausalLM, packing: gguf.GGMLQuantizationType) -> dict[str, torch.Tensor]:
    """The weights that are left after packing and unpacking."""
    found = {}
    for name, weight in hf.state_dict().items():
        if weight.ndim == 2:
            again = gguf.dequantize(gguf.quantize(weight.numpy(), packing), packing)
            found[name] = torch.from_numpy(again)
        else:
            found[name] = weight
    return found


def _named(name: str) -> str:
    if not name.startswith("model.layers."):
        whole = {
            "model.embed_tokens": "token_embd",
            "model.norm": "output_norm",
            "lm_head": "output",
        }
        return f"{whole[name.removesuffix('.weight')]}.weight"
    _, _, layer, *path, _ = name.split(".")
    return f"blk.{layer}.{NAMES['.'.join(path)]}.weight"


def _rotated(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows in the order of llama.cpp's rotary embedding, which pairs neighbours."""
    pairs = weight.reshape(heads, 2, -1, weight.shape[1])
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(weight.shape))


def _tokens(writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerFast, size: int) -> None:
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    by_id = {number: token for token, number in model["vocab"].items()}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([by_id[number] for number in range(size)])
    special = tokenizer.eos_token_id
    kinds = (gguf.TokenType.CONTROL, gguf.TokenType.NORMAL)
    writer.add_token_types([kinds[number != special] for number in range(size)])
    writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
    writer.add_bos_token_id(special)
    writer.add_eos_token_id(special)
