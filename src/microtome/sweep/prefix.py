"""Attention of many cells to one shared prefix.

All cells of a prompt in a batch start at the same position, so what comes before is one set of
keys and values, the clean run's. It is not copied for every cell: the queries of all cells meet it
in one matrix product, and their own keys in another; one softmax goes over both.

Transformers looks attention functions up by name, so the module itself stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

NAME = "microtome_shared_prefix"


class SharedPrefix:
    """An attention function that knows the keys and values before a block's own positions.

    There may be none. The cells of a batch are as many for each prompt, prompt by prompt.
    """

    def __init__(
        self,
        keys: Float[Tensor, "prompt head prefix d_head"],
        values: Float[Tensor, "prompt head prefix d_head"],
    ) -> None:
        self.keys, self.values = keys, values

    def __call__(
        self,
        module: nn.Module,
        query: Float[Tensor, "cell head own d_head"],
        key: Float[Tensor, "cell head own d_head"],
        value: Float[Tensor, "cell head own d_head"],
        attention_mask: Tensor | None = None,
        scaling: float = 1.0,
        **_: Any,
    ) -> tuple[Float[Tensor, "cell own head d_head"], None]:
        """Causal attention over the prefix and a cell's own positions."""
        prompts, heads, before, width = self.keys.shape
        if before == 0:
            mixed = nn.functional.scaled_dot_product_attention(
                query, key, value, is_causal=True, scale=scaling
            )
            return mixed.transpose(1, 2), None
        cells, own = query.shape[0] // prompts, query.shape[2]

        def by_prompt(x: Tensor) -> Float[Tensor, "prompt head cell own d_head"]:
            return x.view(prompts, cells, *x.shape[1:]).transpose(1, 2)

        query, key, value = by_prompt(query * scaling), by_prompt(key), by_prompt(value)
        scores = query.new_empty(prompts, heads, cells, own, before + own)
        shared = torch.matmul(query.flatten(2, 3), self.keys.transpose(2, 3))
        scores[..., :before] = shared.view(prompts, heads, cells, own, before)
        scores[..., before:] = _own_scores(query, key)
        weights = scores.softmax(-1)
        from_prefix = torch.matmul(weights[..., :before].flatten(2, 3), self.values)
        from_own = _own_values(weights[..., before:], value)
        mixed = from_prefix.view(prompts, heads, cells, own, width) + from_own
        return mixed.permute(0, 2, 3, 1, 4).flatten(0, 1), None


def _own_scores(
    query: Float[Tensor, "*cells own d_head"], key: Float[Tensor, "*cells own d_head"]
) -> Float[Tensor, "*cells own own"]:
    own = query.shape[-2]
    if own == 1:  # a product per cell and head would be slower than its single number
        return (query * key).sum(-1, keepdim=True)
    later = query.new_ones(own, own).triu(1).bool()
    return (query @ key.transpose(-1, -2)).masked_fill(later, float("-inf"))


def _own_values(
    weights: Float[Tensor, "*cells own own"], value: Float[Tensor, "*cells own d_head"]
) -> Float[Tensor, "*cells own d_head"]:
    return weights * value if value.shape[-2] == 1 else weights @ value


@contextmanager
def attending_to(hf: PreTrainedModel, prefix: SharedPrefix) -> Iterator[None]:
    """Within this block the model's attention goes through this prefix: one block's, not more."""
    own_choice = hf.config._attn_implementation
    AttentionInterface.register(NAME, prefix)
    hf.config._attn_implementation = NAME
    try:
        yield
    finally:
        hf.config._attn_implementation = own_choice
