"""Operations of a forward pass and of its blocks: the matrix products, from the shapes alone."""

from __future__ import annotations

from microtome.language.sites import Dimensions


def flops_of_block(dims: Dimensions, tokens: int, seen: int) -> float:
    """Operations of one block on so many tokens, each of which attends to ``seen`` positions.

    The matrix products, with 2 for a multiply-add.
    """
    width = dims.n_heads * dims.d_head
    kv_width = dims.n_kv_heads * dims.d_head
    mlp = dims.experts * dims.mlp_matrices * dims.d_mlp
    weights = dims.d_model * (2 * width + 2 * kv_width + mlp)
    return 2.0 * tokens * (weights + 2 * seen * width)


def flops_of_reading(dims: Dimensions) -> float:
    """Operations of one projection of one token, from the stream to heads or back."""
    return 2.0 * dims.d_model * dims.n_heads * dims.d_head


def flops_of_pass(dims: Dimensions, tokens: int) -> float:
    """Operations of one full forward pass, the unembedding included."""
    unembedding = 2.0 * tokens * dims.d_model * dims.d_vocab
    return flops_of_blocks(dims, tokens) + unembedding


def flops_of_blocks(dims: Dimensions, tokens: int) -> float:
    """Operations of one forward pass without the unembedding."""
    return dims.n_layers * flops_of_block(dims, tokens, tokens)
