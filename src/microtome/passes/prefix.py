"""Attention of many cells to one shared prefix.

All cells of a prompt in a batch start at the same position, so what comes before is one set of
keys and values, the clean run's. It is not copied for every cell: the queries of all cells meet it
in one matrix product, and their own keys in another; one softmax goes over both. Where several
query heads share a key head, they are further rows of the same products.

Transformers looks attention functions up by name, so the session has a block look up another name,
and the module itself stays as it is. Families whose attention is not looked up get the prefix as a
cache (`PrefixCache`), copied for every cell.

Where batches that start at several positions go through a block side by side, as one row of tokens,
each meets its own prefix (`SideBySide`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from microtome.amounts import many
from microtome.errors import SweepError
from microtome.passes.attention import BY_MASK, IGNORED, InTheOpen, watcher, window
from microtome.passes.segments import Segment
from microtome.passes.session import opened


class SharedPrefix:
    """An attention function that knows the keys and values before a block's own positions.

    There may be none. The cells of a batch are as many for each prompt, prompt by prompt. With
    ``upcast`` the softmax is taken in float32, if the model chose attention without a fused kernel
    for itself: its own function does so, whatever its type. Without ``softcaps`` scores are not
    capped, whatever the model asks for: a fused kernel, if it chose that, knows no caps. Nor is
    there a window besides the mask's without ``windows``.
    """

    softcaps = windows = True

    def __init__(
        self,
        keys: Float[Tensor, "prompt kv_head prefix d_head"],
        values: Float[Tensor, "prompt kv_head prefix d_value"],
        upcast: bool = False,
    ) -> None:
        self.keys, self.values, self.upcast = keys, values, upcast
        self.calls = 0

    def suit(self, own_choice: str | None) -> None:
        """Do as the attention does that the model chose for itself."""
        self.upcast = self.upcast and own_choice == "eager"
        self.softcaps = own_choice != "sdpa"
        self.windows = own_choice not in BY_MASK

    def __call__(
        self,
        module: nn.Module,
        query: Float[Tensor, "cell head own d_head"],
        key: Float[Tensor, "cell kv_head own d_head"],
        value: Float[Tensor, "cell kv_head own d_value"],
        attention_mask: Tensor | None = None,
        scaling: float | None = None,
        softcap: float | None = None,
        sliding_window: int | None = None,
        **others: Any,
    ) -> tuple[Float[Tensor, "cell own head d_value"], None]:
        """Causal attention over the prefix and a cell's own positions.

        The mask has a row for each own position, and a column for each position from the first on.
        """
        self._check(others, module)
        self.calls += 1
        softcap = softcap if self.softcaps else None
        before, width = self.keys.shape[2:]
        own, kind = query.shape[2], query.dtype
        scaling = width**-0.5 if scaling is None else scaling
        narrow = sliding_window if self.windows and attention_mask is None else None
        if narrow is not None and narrow < before + own:
            attention_mask = window(own, before + own, narrow, query.device)
        upcast = self.upcast and kind == torch.float64
        watched = watcher(module)
        rounding = Rounding.of(kind, plain=self.softcaps or watched is not None)
        own_way = softcap is not None or upcast or watched is not None or rounding is Rounding.PLAIN
        if before == 0 and not own_way:
            return _fused(query, key, value, attention_mask, scaling), None
        inner = kind if rounding is Rounding.NONE else torch.float32
        rows = self._rows(query.to(inner))
        if rounding is Rounding.NONE:
            rows = rows * scaling
        key, value = self._by_prompt(key.to(inner)), self._by_prompt(value.to(inner))
        scores = rounding.scaled(self._scores(rows, key), scaling, kind)
        if softcap is not None:
            scores = (scores / softcap).tanh_().mul_(softcap)
        _mask(scores, attention_mask)
        if watched is None:
            weights, shares = rounding.weights(scores, kind, upcast)
        else:
            weights, shares = _shown(watched, scores, kind, upcast), None
        # Values may be of another width than queries and keys.
        mixed = self._mixed(weights, shares, value).view(*scores.shape[:5], -1)
        mixed = mixed.permute(0, 2, 4, 1, 3, 5)
        return mixed.reshape(len(query), own, query.shape[1], -1).to(kind), None

    def _by_prompt(
        self, x: Float[Tensor, "all kv_head own d_head"]
    ) -> Float[Tensor, "prompt kv_head cell own d_head"]:
        prompts = len(self.keys)
        return x.view(prompts, len(x) // prompts, *x.shape[1:]).transpose(1, 2)

    def _rows(
        self, query: Float[Tensor, "all head own d_head"]
    ) -> Float[Tensor, "prompt kv_head cell rows d_head"]:
        """The heads of a group are rows of their own, as if the cell had so many more positions."""
        (prompts, kv_heads), width = self.keys.shape[:2], query.shape[3]
        return query.reshape(prompts, len(query) // prompts, kv_heads, -1, width).transpose(1, 2)

    def _scores(
        self,
        rows: Float[Tensor, "prompt kv_head cell rows d_head"],
        key: Float[Tensor, "prompt kv_head cell own d_head"],
    ) -> Float[Tensor, "prompt kv_head cell group own seen"]:
        """Of the prefix, and of a cell's own positions behind it."""
        before, own = self.keys.shape[2], key.shape[3]
        shape = *rows.shape[:3], rows.shape[3] // own, own
        scores = rows.new_empty(*shape, before + own)
        shared = torch.matmul(rows.flatten(2, 3), self.keys.to(rows.dtype).transpose(2, 3))
        scores[..., :before] = shared.view(*shape, before)
        scores[..., before:] = _own_scores(rows, key).view(*shape, own)
        return scores

    def _mixed(
        self,
        weights: Float[Tensor, "prompt kv_head cell group own seen"],
        shares: Float[Tensor, "prompt kv_head cell group own 1"] | None,
        value: Float[Tensor, "prompt kv_head cell own d_head"],
    ) -> Float[Tensor, "prompt kv_head cell rows d_head"]:
        """The values that weights share out; these are still to be divided by ``shares``."""
        before, each = self.keys.shape[2], weights.flatten(3, 4)
        from_prefix = torch.matmul(each[..., :before].flatten(2, 3), self.values.to(each.dtype))
        from_own = _own_values(each[..., before:], value)
        mixed = from_prefix.view(from_own.shape) + from_own
        return mixed if shares is None else mixed / shares.flatten(3, 4)

    @staticmethod
    def _check(others: dict[str, Any], module: nn.Module) -> None:
        for name, value in others.items():
            if name not in IGNORED and value is not None and value is not False:
                raise SweepError(
                    f"{type(module).__name__} calls its attention with {name}, which the walk does "
                    "not know. Use engine='reference'."
                )


@dataclass(frozen=True, eq=False)
class Part:
    """Some rows of a row of tokens: what came before them, and what masks them."""

    segment: Segment
    prefix: SharedPrefix
    mask: Tensor | None


class SideBySide:
    """An attention function for a row of tokens in which each part has a prefix of its own."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts, self.calls = parts, 0

    def suit(self, own_choice: str | None) -> None:
        """Do as the attention does that the model chose for itself."""
        for part in self.parts:
            part.prefix.suit(own_choice)

    def __call__(
        self,
        module: nn.Module,
        query: Float[Tensor, "1 head all d_head"],
        key: Float[Tensor, "1 kv_head all d_head"],
        value: Float[Tensor, "1 kv_head all d_value"],
        attention_mask: None = None,
        **others: Any,
    ) -> tuple[Float[Tensor, "1 all head d_value"], None]:
        """The attention of each part to its prefix and itself."""
        self.calls += 1
        given, found = (query, key, value), []
        for part in self.parts:
            q, k, v = (part.segment.of(x.transpose(1, 2)).transpose(1, 2) for x in given)
            mixed, _ = part.prefix(module, q, k, v, part.mask, **others)
            found.append(mixed.flatten(0, 1))
        return torch.cat(found)[None], None


def _fused(
    query: Float[Tensor, "cell head own d_head"],
    key: Float[Tensor, "cell kv_head own d_head"],
    value: Float[Tensor, "cell kv_head own d_value"],
    mask: Tensor | None,
    scaling: float,
) -> Float[Tensor, "cell own head d_value"]:
    """Attention of cells to themselves alone."""
    mixed = nn.functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        is_causal=mask is None,
        scale=scaling,
        enable_gqa=query.shape[1] > key.shape[1],
    )
    return mixed.transpose(1, 2)


def _shown(
    watched: InTheOpen,
    scores: Float[Tensor, "prompt kv_head cell group own seen"],
    kind: torch.dtype,
    upcast: bool,
) -> Float[Tensor, "prompt kv_head cell group own seen"]:
    """Attention weights to go on with, of what looks at them, head by head."""
    unrounded = scores.softmax(-1, dtype=torch.float32 if upcast else None)
    by_cell = unrounded.transpose(1, 2)
    prompts, cells, kv_heads, group, own, seen = by_cell.shape
    whole = by_cell.reshape(prompts * cells, kv_heads * group, own, seen)
    return watched.shown(whole, kind).view(by_cell.shape).transpose(1, 2).to(scores.dtype)


def _mask(scores: Float[Tensor, "*cells own seen"], mask: Tensor | None) -> None:
    """Take out what a position does not see: by a mask, or all that comes later."""
    own, seen = scores.shape[-2:]
    if mask is None:
        if own > 1:
            later = torch.ones(own, own, dtype=torch.bool, device=scores.device).triu(1)
            scores[..., seen - own :].masked_fill_(later, float("-inf"))
        return
    mask = mask.view(own, seen)  # the same for every row and head
    if mask.dtype == torch.bool:
        scores.masked_fill_(~mask, float("-inf"))
    else:
        scores += mask


class Rounding(Enum):
    """Where attention rounds in half precision: as the model's own does, and nowhere else.

    Inside all is float32. A fused kernel rounds the weights before they share out the values, and
    before they are divided by their sum; attention without one rounds the scores, and the weights
    after that. What a model computes is rounded alike then, so that a cell that changes nothing
    mostly is the clean run to the bit. In float32 and float64 nothing is rounded on the way.
    """

    NONE = "none"
    FUSED = "fused"
    PLAIN = "plain"

    @classmethod
    def of(cls, dtype: torch.dtype, plain: bool) -> Rounding:
        """Of a type, with a fused kernel or without one."""
        if dtype not in (torch.bfloat16, torch.float16):
            return cls.NONE
        return cls.PLAIN if plain else cls.FUSED

    def scaled(
        self, scores: Float[Tensor, "*cells seen"], scaling: float, kind: torch.dtype
    ) -> Float[Tensor, "*cells seen"]:
        """Scores, which are of a query that was multiplied already where nothing is rounded."""
        match self:
            case Rounding.NONE:
                return scores
            case Rounding.FUSED:
                return scores.mul_(scaling)
            case Rounding.PLAIN:
                return (scores.to(kind) * scaling).to(scores.dtype)

    def weights(
        self, scores: Float[Tensor, "*cells seen"], kind: torch.dtype, upcast: bool
    ) -> tuple[Float[Tensor, "*cells seen"], Float[Tensor, "*cells 1"] | None]:
        """Attention weights, and the sums that they are still to be divided by, where there are."""
        match self:
            case Rounding.NONE:
                inner = torch.float32 if upcast else scores.dtype
                return scores.softmax(-1, dtype=inner).to(scores.dtype), None
            case Rounding.FUSED:
                raised = (scores - scores.amax(-1, keepdim=True)).exp_()
                return raised.to(kind).to(scores.dtype), raised.sum(-1, keepdim=True)
            case Rounding.PLAIN:
                return scores.softmax(-1).to(kind).to(scores.dtype), None


def _own_scores(
    query: Float[Tensor, "*cells rows d_head"], key: Float[Tensor, "*cells own d_head"]
) -> Float[Tensor, "*cells rows own"]:
    if key.shape[-2] == 1:  # a product per cell and head would be slower than its single number
        return (query * key).sum(-1, keepdim=True)
    return query @ key.transpose(-1, -2)


def _own_values(
    weights: Float[Tensor, "*cells rows own"], value: Float[Tensor, "*cells own d_head"]
) -> Float[Tensor, "*cells rows d_head"]:
    return weights * value if value.shape[-2] == 1 else weights @ value


@contextmanager
def attending_to(hf: PreTrainedModel, prefix: SharedPrefix | SideBySide) -> Iterator[None]:
    """Within this block the model's attention goes through this prefix: one block's, not more.

    For the session that is open in this thread, which must be one on this model.

    Raises:
        SweepError: it did not.
        MicrotomeError: there is no such session.
    """
    own = opened(hf)
    prefix.suit(own.own_attention())
    with own.block():
        own.resume_after(prefix)
        yield
    if prefix.calls != 1:
        raise SweepError(
            f"A block of {type(hf).__name__} looked its attention up "
            f"{many(prefix.calls, 'time')} instead "
            "of once, so the walk cannot give it what came before. Use engine='reference'."
        )


class PrefixCache(DynamicCache):  # type: ignore[misc]
    """A cache of one layer that holds what came before, for every prompt once.

    It answers with keys and values of each cell, the prefix in front; nothing is kept.
    """

    def __init__(
        self,
        keys: Float[Tensor, "prompt kv_head prefix d_head"],
        values: Float[Tensor, "prompt kv_head prefix d_value"],
    ) -> None:
        super().__init__()
        self.keys, self.values = keys, values

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Keys and values of the cells, with the prefix in front."""
        return _behind(self.keys, key_states), _behind(self.values, value_states)


def _behind(
    prefix: Float[Tensor, "prompt kv_head prefix d_head"],
    own: Float[Tensor, "cell kv_head own d_head"],
) -> Float[Tensor, "cell kv_head seen d_head"]:
    each = prefix.repeat_interleave(len(own) // len(prefix), dim=0)
    return torch.cat([each, own], dim=2)
