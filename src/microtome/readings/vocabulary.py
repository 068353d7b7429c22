"""A head on the vocabulary: what it writes where it looks at a token, and which tokens it looks at.

A token is stood for by a state of a text of that token alone. Written is what the head's values and
W_O make of it, read as the lens reads a head's output; looked at is where queries of the one fit
keys of the other, as the projections give them, before norms of queries and keys and before any
rotary embedding.

After the OV and QK circuits of Elhage et al., "A mathematical framework for transformer circuits"
(2021); the copying score after Wang et al., "Interpretability in the wild" (2022).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from microtome.model.anatomy import Anatomy
from microtome.readings.lens import unembedded


@dataclass(frozen=True, eq=False)
class Best:
    """Of each of some tokens, the best of others, and its own place among them.

    Attributes:
        ids: ``[token, k]``, the best first.
        rank: ``[token]``, its own; 1 is the best.
    """

    ids: Int[Tensor, "token k"]
    rank: Int[Tensor, " token"]


def written(
    hf: PreTrainedModel,
    anatomy: Anatomy,
    layer: int,
    head: int,
    states: Float[Tensor, "token d_model"],
    tokens: Int[Tensor, " token"],
    k: int,
    at_once: int,
) -> Best:
    """What a head writes where it looks at each of some tokens, among the whole vocabulary.

    Args:
        hf, anatomy: the model, in a session.
        layer, head: which.
        states: what stands for the tokens.
        tokens: their ids.
        k: how many of the best.
        at_once: how many states are unembedded at a time.
    """
    values = _projected(hf, anatomy, layer, head, "v", states)
    values = anatomy.family.values(values, hf.config)
    added = values @ anatomy.out_matrix(hf, layer, values)[head]
    parts = []
    for rows, own in zip(torch.split(added, at_once), torch.split(tokens, at_once), strict=True):
        parts.append(_best(unembedded(hf, anatomy, rows), own, k))
    return Best(torch.cat([one.ids for one in parts]), torch.cat([one.rank for one in parts]))


def looked_at(
    hf: PreTrainedModel,
    anatomy: Anatomy,
    layer: int,
    head: int,
    states: Float[Tensor, "token d_model"],
    k: int,
) -> Best:
    """Which of some tokens fit each one's query best; ``ids`` are their places among these."""
    queries = _projected(hf, anatomy, layer, head, "q", states)
    keys = _projected(hf, anatomy, layer, head, "k", states)
    places = torch.arange(len(states), device=states.device)
    return _best(queries @ keys.T, places, k)


def _projected(
    hf: PreTrainedModel, anatomy: Anatomy, layer: int, head: int, site: str, states: Tensor
) -> Float[Tensor, "token d_head"]:
    whole = anatomy.projected(hf, layer, site, anatomy.normed(hf, layer, states[:, None]))
    own = head * whole.shape[2] // anatomy.dims.n_heads
    return whole[:, 0, own]


def _best(scores: Float[Tensor, "token n"], own: Int[Tensor, " token"], k: int) -> Best:
    best = scores.topk(min(k, scores.shape[-1])).indices
    mine = scores.gather(1, own[:, None])
    return Best(best, (scores > mine).sum(-1) + 1)
