"""Blocks whose attention and MLP read the same input, or do so where the configuration says it."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from transformers import PretrainedConfig

from microtome.language.sites import Dimensions
from microtome.model.families.configs import gated, since, sizes_by_n
from microtome.model.families.family import Family, family
from microtome.model.families.taps import Tap, fused, grouped, interleaved, put_grouped, split


def sequential(row: Family, middle: str) -> Family:
    """A parallel row as a sequential one: a module reads the residual stream in between."""
    taps: dict[str, Tap] = {}
    for name, tap in row.taps.items():
        taps[name] = tap
        if name == "attn_out":
            module = f"{row.blocks}.{{layer}}.{middle}"
            taps["resid_mid"] = Tap(module, "input", in_place=True)
    taps["mlp_in"] = replace(taps["resid_mid"], in_place=False)
    lacks = tuple(pair for pair in row.lacks if pair[0] != "resid_mid")
    return replace(row, taps=MappingProxyType(taps), lacks=lacks, mlp_reads=None)


def _by_parallel_residual(row: Family, config: PretrainedConfig) -> Family:
    parallel: bool = config.use_parallel_residual
    return row if parallel else sequential(row, "post_attention_layernorm")


GPT_NEOX = family(
    "gpt_neox",
    blocks="gpt_neox.layers",
    qkv=fused("attention.query_key_value", interleaved),
    out_proj="attention.dense",
    reads="input_layernorm",
    middle=None,
    mlp_reader="post_attention_layernorm",
    mlp="mlp",
    down_proj="mlp.dense_4h_to_h",
    final=("gpt_neox.final_layer_norm",),
    fits=_by_parallel_residual,
)
STABLELM = family(
    "stablelm",
    dimensions=gated,
    blocks="model.layers",
    qkv=split("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    out_proj="self_attn.o_proj",
    reads="input_layernorm",
    middle=None,
    mlp="mlp",
    down_proj="mlp.down_proj",
    final=("model.norm",),
    fits=_by_parallel_residual,
)
PHI = family(
    "phi",
    blocks="model.layers",
    qkv=split("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    out_proj="self_attn.dense",
    reads="input_layernorm",
    middle=None,
    mlp="mlp",
    down_proj="mlp.fc2",
    final=("model.final_layernorm",),
)
COHERE = family(
    "cohere",
    dimensions=gated,
    blocks="model.layers",
    qkv=split("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    out_proj="self_attn.o_proj",
    reads="input_layernorm",
    middle=None,
    mlp="mlp",
    down_proj="mlp.down_proj",
    final=("model.norm",),
    logits=lambda logits, config: logits * config.logit_scale,
    inner="norms",
)


def _gptj_fits(row: Family, config: PretrainedConfig) -> Family:
    """It looks its attention up from 5.24 on; before, its dropout gives the weights."""
    if since("5.24"):
        return row
    weights = Tap(f"{row.attention}.attn_dropout", "output")
    return replace(
        row.tapped(pattern=weights),
        looks_up=False,
        dimensions=lambda config: replace(sizes_by_n(config), copies_prefix=True),
    )


GPTJ = family(
    "gptj",
    dimensions=sizes_by_n,
    blocks="transformer.h",
    qkv=split("attn.q_proj", "attn.k_proj", "attn.v_proj"),
    out_proj="attn.out_proj",
    reads="ln_1",
    middle=None,
    mlp="mlp",
    down_proj="mlp.fc_out",
    final=("transformer.ln_f",),
    fits=_gptj_fits,
    upcast="scores",
    inner="attention",
)


def _falcon_sizes(config: PretrainedConfig) -> Dimensions:
    if config.new_decoder_architecture:
        n_kv_heads = config.num_kv_heads
    else:
        n_kv_heads = 1 if config.multi_query else config.num_attention_heads
    return Dimensions(
        n_layers=config.num_hidden_layers,
        n_heads=config.num_attention_heads,
        n_kv_heads=n_kv_heads,
        d_model=config.hidden_size,
        d_head=config.hidden_size // config.num_attention_heads,
        d_mlp=config.ffn_hidden_size,
        d_vocab=config.vocab_size,
        copies_prefix=True,
    )


def _falcon_fits(row: Family, config: PretrainedConfig) -> Family:
    if config.new_decoder_architecture or config.parallel_attn:
        return _falcon_norms(row, config)
    return sequential(row, "post_attention_layernorm")


def _falcon_norms(row: Family, config: PretrainedConfig) -> Family:
    """Its newer blocks have two norms side by side, unless they are told to have one."""
    norms = config.num_ln_in_parallel_attn
    if norms == 2 or (norms is None and config.new_decoder_architecture):
        return row.read_by("ln_attn", "ln_mlp")
    return row


# One order for all three of its layouts: all queries in one group, or one head in each.
_FALCON_QKV = fused("self_attention.query_key_value", grouped)
FALCON = family(
    "falcon",
    dimensions=_falcon_sizes,
    blocks="transformer.h",
    qkv={**_FALCON_QKV, "q": replace(_FALCON_QKV["q"], put=put_grouped)},
    out_proj="self_attention.dense",
    reads="input_layernorm",
    middle=None,
    mlp="mlp",
    down_proj="mlp.dense_4h_to_h",
    final=("transformer.ln_f",),
    fits=_falcon_fits,
    looks_up=False,
)
