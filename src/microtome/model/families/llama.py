"""Llama and its many relations: norms before, rotary attention with grouped heads, a gated MLP."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from transformers import PretrainedConfig

from microtome.language.sites import Dimensions
from microtome.model.families.configs import clipped, gated, soft_capped
from microtome.model.families.family import Family, family
from microtome.model.families.taps import Tap, fused, put_times, split, stacked, times

_kind = partial(
    family,
    dimensions=gated,
    blocks="model.layers",
    qkv=split("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    out_proj="self_attn.o_proj",
    reads="input_layernorm",
    middle="post_attention_layernorm",
    mlp="mlp",
    down_proj="mlp.down_proj",
    final=("model.norm",),
    inner="norms",
)

LLAMA = _kind("llama")
MISTRAL = _kind("mistral")
QWEN2 = _kind("qwen2")
QWEN3 = _kind("qwen3")
OLMO = _kind("olmo", values=clipped)
GEMMA = _kind("gemma")
PHI3 = _kind("phi3", qkv=fused("self_attn.qkv_proj", stacked))


def _granite_fits(row: Family, config: PretrainedConfig) -> Family:
    """What attention and MLP give is multiplied by a number before it is added."""
    factor: float = config.residual_multiplier
    if factor == 1:
        return row

    def scaled(tap: Tap) -> Tap:
        return replace(tap, view=times(factor), put=put_times(factor))

    return row.tapped(**{name: scaled(row.taps[name]) for name in ("attn_out", "mlp_out")})


GRANITE = _kind(
    "granite",
    fits=_granite_fits,
    logits=lambda logits, config: logits / config.logits_scaling,
)

# -------------------------------------------------------------------------- norms after as well

_normed = partial(
    _kind, attn_norm="post_attention_layernorm", mlp_norm="post_feedforward_layernorm"
)
GEMMA2 = _normed("gemma2", middle="pre_feedforward_layernorm", logits=soft_capped)
GEMMA3 = _normed("gemma3_text", middle="pre_feedforward_layernorm", logits=soft_capped)

# No norms before: attention and the MLP read the residual stream itself.
OLMO2 = _normed(
    "olmo2",
    reads=None,
    middle="mlp",
    joint={"q": "self_attn.q_norm", "k": "self_attn.k_norm"},
)

# --------------------------------------------------------------------------- mixtures of experts


def _mixtral_sizes(config: PretrainedConfig) -> Dimensions:
    return replace(gated(config), experts=config.num_experts_per_tok)


def _qwen3_moe_sizes(config: PretrainedConfig) -> Dimensions:
    d_mlp = config.moe_intermediate_size
    return replace(gated(config), d_mlp=d_mlp, experts=config.num_experts_per_tok)


MIXTRAL = _kind("mixtral", dimensions=_mixtral_sizes, down_proj=None)
QWEN3_MOE = _kind("qwen3_moe", dimensions=_qwen3_moe_sizes, down_proj=None)
