"""GPT-2 and those that came soon after: a norm, attention, a norm, an MLP of two matrices."""

from __future__ import annotations

from dataclasses import replace

from transformers import PretrainedConfig

from microtome.language.sites import Dimensions
from microtome.model.families.configs import refuse, sizes_by_n
from microtome.model.families.family import Family, family
from microtome.model.families.taps import fused, interleaved, split, stacked


def _gpt2_fits(row: Family, config: PretrainedConfig) -> Family:
    """Scores that are scaled otherwise are scaled by its own attention function, up to 5.3.

    So that function is called, as for families whose attention is not looked up.
    """
    if config.scale_attn_weights and not config.scale_attn_by_inverse_layer_idx:
        return row
    return replace(
        row,
        looks_up=False,
        dimensions=lambda config: replace(sizes_by_n(config), copies_prefix=True),
    )


GPT2 = family(
    "gpt2",
    fits=_gpt2_fits,
    dimensions=sizes_by_n,
    blocks="transformer.h",
    qkv=fused("attn.c_attn", stacked),
    out_proj="attn.c_proj",
    reads="ln_1",
    middle="ln_2",
    mlp="mlp",
    down_proj="mlp.c_proj",
    final=("transformer.ln_f",),
    upcast="",
)


def _gpt_neo_sizes(config: PretrainedConfig) -> Dimensions:
    return Dimensions(
        n_layers=config.num_layers,
        n_heads=config.num_heads,
        n_kv_heads=config.num_heads,
        d_model=config.hidden_size,
        d_head=config.hidden_size // config.num_heads,
        d_mlp=config.intermediate_size or 4 * config.hidden_size,
        d_vocab=config.vocab_size,
        n_positions=config.max_position_embeddings,
        copies_prefix=True,
    )


def _gpt_neo_reaches(config: PretrainedConfig) -> tuple[int | None, ...]:
    kinds = config.attention_layers
    return tuple(config.window_size - 1 if kind == "local" else None for kind in kinds)


GPT_NEO = family(
    "gpt_neo",
    dimensions=_gpt_neo_sizes,
    blocks="transformer.h",
    qkv=split("attn.attention.q_proj", "attn.attention.k_proj", "attn.attention.v_proj"),
    out_proj="attn.attention.out_proj",
    weights="attn.attention.attn_dropout",
    reads="ln_1",
    middle="ln_2",
    mlp="mlp",
    down_proj="mlp.c_proj",
    final=("transformer.ln_f",),
    looks_up=False,
    inner="attention",
    reaches=_gpt_neo_reaches,
)


def _opt_sizes(config: PretrainedConfig) -> Dimensions:
    return Dimensions(
        n_layers=config.num_hidden_layers,
        n_heads=config.num_attention_heads,
        n_kv_heads=config.num_attention_heads,
        d_model=config.hidden_size,
        d_head=config.hidden_size // config.num_attention_heads,
        d_mlp=config.ffn_dim,
        d_vocab=config.vocab_size,
        n_positions=config.max_position_embeddings,
    )


def _opt_fits(row: Family, config: PretrainedConfig) -> Family:
    if not config.do_layer_norm_before:
        why = "its norms stand in the residual stream itself (OPT 350M alone is made so)"
        raise refuse(config, "do_layer_norm_before", why)
    if config.word_embed_proj_dim != config.hidden_size:
        raise refuse(config, "word_embed_proj_dim", "a projection follows the final norm")
    if config._remove_final_layer_norm:
        raise refuse(config, "_remove_final_layer_norm", "it has no final norm")
    return row


OPT = family(
    "opt",
    dimensions=_opt_sizes,
    blocks="model.decoder.layers",
    qkv=split("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    out_proj="self_attn.out_proj",
    reads="self_attn_layer_norm",
    middle="final_layer_norm",
    mlp="fc2",
    down_proj="fc2",
    final=("model.decoder.final_layer_norm",),
    fits=_opt_fits,
)
# Behind attention the block has batch and positions as one axis.
_FLAT = ("resid_mid", "mlp_in", "mlp_post", "mlp_out")
OPT = OPT.tapped(**{name: replace(OPT.taps[name], flat=True) for name in _FLAT})


def _bloom_sizes(config: PretrainedConfig) -> Dimensions:
    return Dimensions(
        n_layers=config.n_layer,
        n_heads=config.n_head,
        n_kv_heads=config.n_head,
        d_model=config.hidden_size,
        d_head=config.hidden_size // config.n_head,
        d_mlp=4 * config.hidden_size,
        d_vocab=config.vocab_size,
        copies_prefix=True,
    )


def _bloom_fits(row: Family, config: PretrainedConfig) -> Family:
    if config.apply_residual_connection_post_layernorm:
        why = "the residual stream starts again from each norm"
        raise refuse(config, "apply_residual_connection_post_layernorm", why)
    return row


# Attention and MLP add the residual stream themselves, so what they add is their projections'.
BLOOM = family(
    "bloom",
    dimensions=_bloom_sizes,
    blocks="transformer.h",
    qkv=fused("self_attention.query_key_value", interleaved),
    out_proj="self_attention.dense",
    weights="self_attention.attention_dropout",
    reads="input_layernorm",
    middle="post_attention_layernorm",
    mlp="mlp.dense_4h_to_h",
    down_proj="mlp.dense_4h_to_h",
    final=("transformer.ln_f",),
    fits=_bloom_fits,
    looks_up=False,
    inner="attention",
)
