"""How nano starts: positions apart from words, and two heads already looking for repeats.

A model as small as this, trained as shortly as this on two processor cores, does not find by
itself what larger models find early in their training: the **induction circuit** (Olsson et al.
2022, arXiv:2209.11895). One head looks one token back and notes which token it saw there; a later
head looks for the place where the noted token is the present one, so that what followed it then
can be foreseen now. Here the two heads *start out* looking at these places. All the rest is
learned, and nothing holds the two to it afterwards.

The residual stream starts in three parts: positions, notes, words.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from transformers import GPT2LMHeadModel

FASTEST, SLOWEST = 2.5, 0.02
"""Radians a token of the fastest and the slowest wave that a position is written in."""


def wire(model: GPT2LMHeadModel) -> None:
    """Write the start into a fresh model of at least two layers and four heads, in place."""
    config = model.config
    width, d_head = config.n_embd, config.n_embd // config.n_head
    if config.n_head < 4 or config.n_layer < 2:
        raise ValueError(
            f"The start needs 2 layers and 4 heads, not {config.n_layer} and {config.n_head}."
        )
    n_positions = max(width // 4, d_head)
    positions = slice(0, n_positions)
    notes = slice(n_positions, n_positions + d_head)
    tokens = slice(n_positions + d_head, width)
    frequencies = FASTEST * torch.exp(
        -torch.linspace(0, 1, n_positions // 2) * math.log(FASTEST / SLOWEST)
    )
    with torch.no_grad():
        embedding = model.transformer.wte.weight
        embedding[:, : tokens.start] = 0
        embedding *= math.sqrt(width / (width - tokens.start))
        model.transformer.wpe.weight.zero_()
        model.transformer.wpe.weight[:, positions] = 0.2 * waves(config.n_positions, frequencies)
        look_back(model, frequencies, notes, tokens)
        find_repeat(model, notes, tokens)


def waves(positions: int, frequencies: Tensor) -> Tensor:
    """Sine and cosine of each position at each frequency, ``[position, 2 × frequency]``.

    “One token back” is the same rotation at every position (Vaswani et al. 2017, section 3.5).
    """
    angles = torch.arange(positions)[:, None] * frequencies
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def look_back(model: GPT2LMHeadModel, frequencies: Tensor, notes: slice, tokens: slice) -> None:
    """Head 0 of block 0 attends to the token before, and writes a sketch of it into the notes."""
    attention = model.transformer.h[0].attn
    width, d_head = model.config.n_embd, notes.stop - notes.start
    chosen = torch.linspace(0, len(frequencies) - 1, d_head // 2).round().long()
    query, key = torch.zeros(width, d_head), torch.zeros(width, d_head)
    for pair, wave in enumerate(chosen.tolist()):
        sine, cosine = 2 * wave, 2 * wave + 1
        turn = float(frequencies[wave])  # a key is turned on by one token, so that it meets p + 1
        query[sine, 2 * pair] = query[cosine, 2 * pair + 1] = 1.5
        key[sine, 2 * pair] = key[cosine, 2 * pair + 1] = 1.5 * math.cos(turn)
        key[cosine, 2 * pair] = 1.5 * math.sin(turn)
        key[sine, 2 * pair + 1] = -1.5 * math.sin(turn)
    value = torch.zeros(width, d_head)
    value[tokens] = sketch(model)
    set_head(model, 0, query, key, value)
    attention.c_proj.weight[:d_head] = 0
    attention.c_proj.weight[:d_head, notes] = 0.3 * torch.eye(d_head)


def find_repeat(model: GPT2LMHeadModel, notes: slice, tokens: slice) -> None:
    """Head 0 of block 1 attends to where the token before was this one, and copies from there."""
    attention = model.transformer.h[1].attn
    width, d_head = model.config.n_embd, notes.stop - notes.start
    query, key, value = (torch.zeros(width, d_head) for _ in range(3))
    query[tokens] = 1.5 * sketch(model)
    key[notes] = torch.eye(d_head)
    copied, _ = torch.linalg.qr(torch.randn(tokens.stop - tokens.start, d_head))
    value[tokens] = copied
    set_head(model, 1, query, key, value)
    attention.c_proj.weight[:d_head] = 0
    attention.c_proj.weight[:d_head, tokens] = 0.5 * copied.T


def sketch(model: GPT2LMHeadModel) -> Tensor:
    """A fixed projection of words to the width of a head, ``[words, d_head]``."""
    d_head = model.config.n_embd // model.config.n_head
    words = model.config.n_embd - max(model.config.n_embd // 4, d_head) - d_head
    generator = torch.Generator().manual_seed(0)
    projection: Tensor = torch.linalg.qr(torch.randn(words, d_head, generator=generator))[0]
    return projection


def set_head(model: GPT2LMHeadModel, layer: int, query: Tensor, key: Tensor, value: Tensor) -> None:
    """Write head 0's columns of a block's fused projection."""
    width, d_head = query.shape
    weight = model.transformer.h[layer].attn.c_attn.weight
    for number, columns in enumerate((query, key, value)):
        weight[:, number * width : number * width + d_head] = columns
