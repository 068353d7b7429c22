"""Encoders with a masked-language head: every position sees all others.

BERT, RoBERTa and DistilBERT are post-norm: the residual stream is normed after every sum, so
``resid_mid`` is the norm of ``resid_pre + attn_out`` and ``resid_post`` that of
``resid_mid + mlp_out``; ``attn_out`` and ``mlp_out`` are what is added, before the norm. Between
the last block and the unembedding stands a transformation with a norm of its own.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from transformers import PretrainedConfig
from transformers.activations import gelu

from microtome.language.sites import Dimensions
from microtome.model.families.configs import gated, refuse, sizes
from microtome.model.families.family import Family, family
from microtome.model.families.taps import fused, split, stacked


def _fits(row: Family, config: PretrainedConfig) -> Family:
    if config.is_decoder:
        raise refuse(config, "is_decoder", "its attention is causal, and the row is an encoder's")
    return _whole_mlp(row, config)


def _whole_mlp(row: Family, config: PretrainedConfig) -> Family:
    if config.chunk_size_feed_forward:
        why = "its MLP runs several times in a block, on a few positions each"
        raise refuse(config, "chunk_size_feed_forward", why)
    return row


def _bert_sizes(config: PretrainedConfig) -> Dimensions:
    return replace(sizes(config), n_positions=config.max_position_embeddings)


_bert = partial(
    family,
    dimensions=_bert_sizes,
    qkv=split("attention.self.query", "attention.self.key", "attention.self.value"),
    attention="attention.self",
    out_proj="attention.output.dense",
    middle=None,
    mlp_reader="intermediate",
    mlp="output.dense",
    down_proj="output.dense",
    mid_norm="attention.output.LayerNorm",
    post_norm="output.LayerNorm",
    causal=False,
    upcast="",
    fits=_fits,
)
BERT = _bert("bert", blocks="bert.encoder.layer", final=("cls.predictions.transform",))


def _roberta_sizes(config: PretrainedConfig) -> Dimensions:
    """Positions are counted from the one after the padding token's id."""
    longest = config.max_position_embeddings - config.pad_token_id - 1
    return replace(sizes(config), n_positions=longest)


ROBERTA = _bert(
    "roberta",
    dimensions=_roberta_sizes,
    blocks="roberta.encoder.layer",
    final=("lm_head.dense", gelu, "lm_head.layer_norm"),
)


def _distilbert_sizes(config: PretrainedConfig) -> Dimensions:
    return Dimensions(
        n_layers=config.n_layers,
        n_heads=config.n_heads,
        n_kv_heads=config.n_heads,
        d_model=config.dim,
        d_head=config.dim // config.n_heads,
        d_mlp=config.hidden_dim,
        d_vocab=config.vocab_size,
        n_positions=config.max_position_embeddings,
    )


DISTILBERT = family(
    "distilbert",
    dimensions=_distilbert_sizes,
    blocks="distilbert.transformer.layer",
    qkv=split("attention.q_lin", "attention.k_lin", "attention.v_lin"),
    out_proj="attention.out_lin",
    middle=None,
    mlp_reader="ffn",
    mlp="ffn",
    down_proj="ffn.lin2",
    mid_norm="sa_layer_norm",
    post_norm="output_layer_norm",
    final=("vocab_transform", "activation", "vocab_layer_norm"),
    causal=False,
    upcast="",
    fits=_whole_mlp,
)


def _modernbert_reaches(config: PretrainedConfig) -> tuple[int | None, ...]:
    """Its window is counted to one side, the token itself left out."""
    reach = config.local_attention // 2
    kinds = getattr(config, "layer_types", None)
    if kinds is None:  # before transformers named them
        every = config.global_attn_every_n_layers
        return tuple(reach if layer % every else None for layer in range(config.num_hidden_layers))
    return tuple(reach if "sliding" in kind else None for kind in kinds)


# Norms before, a gated MLP, rotary positions: a Llama's block in which positions see both ways.
MODERNBERT = family(
    "modernbert",
    dimensions=gated,
    blocks="model.layers",
    qkv=fused("attn.Wqkv", stacked),
    out_proj="attn.Wo",
    reads="attn_norm",
    middle="mlp_norm",
    mlp="mlp",
    down_proj="mlp.Wo",
    final=("model.final_norm", "head"),
    causal=False,
    inner="attention",
    reaches=_modernbert_reaches,
)
