"""Small GPT-2s wired by hand, whose circuits are known.

The residual stream is cut into slots. A token that has a name is a one in the slot ``token``, a
position one in ``pos``. Heads read slots and write into others; the unembedding reads ``out``.
MLPs write nothing, there are no norms, and attention is so sharp that it looks at one place.

| model | what it does |
|---|---|
| `induction` | ``… A B … A`` → B: head 0.0 copies the token before, head 1.1 finds it |
| `backup` | says the name that it read: head 0.0 does, and 1.0 if 0.0 has not; 0.1 is a decoy |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn
from transformers import GPT2LMHeadModel

SHARP = 60.0
"""Scores of attention where it looks, 0 elsewhere: what is left for the others is below 1e-20."""
LENGTH, HEADS, D_HEAD = 8, 2, 16
D_MODEL = HEADS * D_HEAD


@dataclass(frozen=True)
class Head:
    """One head: each part is a matrix between slots, ``(slot, slot of the head) → factor``."""

    q: Sequence[tuple[str, torch.Tensor]]
    k: Sequence[tuple[str, torch.Tensor]]
    v: Sequence[tuple[str, torch.Tensor]]
    out: tuple[str, float]


@dataclass(frozen=True)
class Wiring:
    """What a model is made of.

    Attributes:
        names: ids of the tokens that have a one in the slot ``token``.
        slots: where each slot begins, and how wide it is.
        heads: by layer and head.
    """

    names: Sequence[int]
    slots: Mapping[str, tuple[int, int]]
    heads: Mapping[tuple[int, int], Head] = field(default_factory=dict)

    def at(self, slot: str) -> slice:
        first, width = self.slots[slot]
        return slice(first, first + width)

    def wire(self, hf: GPT2LMHeadModel) -> None:
        """Make this of a model of two layers with two heads of 16."""
        with torch.no_grad():
            for weight in hf.parameters():
                weight.zero_()
            for number, token in enumerate(self.names):
                hf.transformer.wte.weight[token, self.at("token").start + number] = 1
                hf.lm_head.weight[token, self.at("out").start + number] = 1
            hf.transformer.wpe.weight[:LENGTH, self.at("pos")] = torch.eye(LENGTH).double()
            for (layer, head), own in self.heads.items():
                self._wire(hf.transformer.h[layer].attn, head, own)
        for block in hf.transformer.h:
            block.ln_1, block.ln_2 = nn.Identity().eval(), nn.Identity().eval()
        hf.transformer.ln_f = nn.Identity().eval()

    def _wire(self, attention: nn.Module, head: int, own: Head) -> None:
        for part, name in enumerate(("q", "k", "v")):
            columns = slice(part * D_MODEL + head * D_HEAD, part * D_MODEL + (head + 1) * D_HEAD)
            for slot, matrix in getattr(own, name):
                rows, width = self.at(slot), matrix.shape[1]
                to = slice(columns.start, columns.start + width)
                attention.c_attn.weight[rows, to] += matrix.double()
        slot, factor = own.out
        width = self.slots[slot][1]
        rows = slice(head * D_HEAD, head * D_HEAD + width)
        attention.c_proj.weight[rows, self.at(slot)] += factor * torch.eye(width).double()


def one(width: int, factor: float = 1.0) -> torch.Tensor:
    return factor * torch.eye(width)


def look(width: int) -> torch.Tensor:
    """Of queries: times what makes a match sharp, the square root that attention divides by in."""
    return one(width, SHARP * D_HEAD**0.5)


def before() -> torch.Tensor:
    """Of queries over positions: each looks for the one before it."""
    return SHARP * D_HEAD**0.5 * torch.diag(torch.ones(LENGTH - 1), -1)


INDUCTION = {"token": (0, 6), "pos": (6, 8), "prev": (14, 6), "out": (20, 6), "noise": (26, 6)}


def induction(hf: GPT2LMHeadModel, names: Sequence[int]) -> None:
    """``… A B … A`` → B. Head 0.1 copies what it reads into a slot that nobody reads: a decoy."""
    heads = {
        (0, 0): Head(
            q=[("pos", before())], k=[("pos", one(LENGTH))], v=[("token", one(6))],
            out=("prev", 1.0),
        ),
        (0, 1): Head(
            q=[("pos", before())], k=[("pos", one(LENGTH))], v=[("token", one(6, 9.0))],
            out=("noise", 1.0),
        ),
        (1, 1): Head(
            q=[("token", look(6))], k=[("prev", one(6))], v=[("token", one(6))], out=("out", 4.0)
        ),
    }  # fmt: skip
    Wiring(names, INDUCTION, heads).wire(hf)


BACKUP = {"token": (0, 6), "pos": (6, 8), "out": (14, 6), "noise": (20, 6), "spare": (26, 6)}
SOURCE, REST = 1, 0
"""The position of the name that is to be said, and of a token without a name."""


def backup(hf: GPT2LMHeadModel, names: Sequence[int]) -> None:
    """Says the name at the second token. Head 1.0 does so where no name is in ``out`` yet."""
    everywhere = torch.zeros(LENGTH, LENGTH)
    everywhere[:, SOURCE] = SHARP * D_HEAD**0.5
    source = [("pos", everywhere)]
    taken = torch.zeros(6, LENGTH)
    taken[:, REST] = 3 * SHARP * D_HEAD**0.5  # a name in `out`: look at the token without one
    heads = {
        (0, 0): Head(q=source, k=[("pos", one(LENGTH))], v=[("token", one(6))], out=("out", 4.0)),
        (0, 1): Head(
            q=source, k=[("pos", one(LENGTH))], v=[("token", one(6, 9.0))], out=("noise", 1.0)
        ),
        (1, 0): Head(
            q=[*source, ("out", taken)], k=[("pos", one(LENGTH))], v=[("token", one(6))],
            out=("out", 4.0),
        ),
    }  # fmt: skip
    Wiring(names, BACKUP, heads).wire(hf)
