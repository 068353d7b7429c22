"""What is asked: shapes of models, maps, their cells, and the prompts."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

import microtome as mt

TOKENS = 15


@dataclass(frozen=True)
class Shape:
    """The sizes of a model.

    Attributes:
        kv_heads: as many as heads, unless given.
        mlp: neurons of one layer; four times the width, unless given.
        family: whose code it runs. Llama's MLP is gated: three matrices instead of two.
        trained: its weights are read from a directory of its name instead of drawn at random.
    """

    name: str
    layers: int
    heads: int
    width: int
    vocabulary: int = 50257
    kv_heads: int | None = None
    mlp: int | None = None
    family: Literal["gpt2", "llama"] = "gpt2"
    trained: bool = False

    @property
    def neurons(self) -> int:
        """Of one layer."""
        return self.mlp or 4 * self.width

    @property
    def d_head(self) -> int:
        """Coordinates of one head's output."""
        return self.width // self.heads


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("tiny", 2, 4, 64, 1024),
        Shape("small", 12, 12, 768),
        Shape("medium", 24, 16, 1024),
        Shape("large", 36, 20, 1280),
        Shape("stories260K", 5, 8, 64, 512, kv_heads=4, mlp=172, family="llama", trained=True),
    )
}


@dataclass(frozen=True, order=True)
class Cell:
    """One point of a map, on every prompt: ``position`` None is all positions together."""

    layer: int
    unit: int | None
    position: int | None

    @property
    def positions(self) -> slice:
        """Where along the tokens."""
        return slice(None) if self.position is None else slice(self.position, self.position + 1)


@dataclass(frozen=True)
class Map:
    """A kind of question.

    Attributes:
        key: its letter.
        operation: what is done to a cell.
        site: where, in microtome's words: ``z`` is the input of attention's output projection,
            ``mlp_post`` the input of the MLP's, ``resid_post`` the output of a block.
        position: all positions in one cell, the last one, or each in a cell of its own.
        layer: every layer, or the middle one alone.
        prompts: how many are asked.
    """

    key: str
    title: str
    operation: Literal["zero", "patch"]
    site: Literal["z", "mlp_post", "resid_post"]
    position: Literal["all", "last", "each"]
    layer: Literal["every", "middle"] = "every"
    prompts: int = 1

    def edit(self, shape: Shape) -> str:
        """The same, as microtome reads it."""
        layer = "*" if self.layer == "every" else shape.layers // 2
        unit = {"z": ".h*", "mlp_post": ".n*", "resid_post": ""}[self.site]
        position = {"all": "", "last": "@-1", "each": "@*"}[self.position]
        return f"{self.operation} L{layer}.{self.site}{unit}{position}"

    def cells(self, shape: Shape, tokens: int = TOKENS) -> list[Cell]:
        """Its cells, layer by layer; each is asked on all prompts."""
        layers = range(shape.layers) if self.layer == "every" else [shape.layers // 2]
        units: dict[str, Sequence[int | None]] = {
            "z": range(shape.heads),
            "mlp_post": range(shape.neurons),
            "resid_post": [None],
        }
        at: dict[str, Sequence[int | None]] = {
            "all": [None],
            "last": [tokens - 1],
            "each": range(tokens),
        }
        return [
            Cell(layer, unit, position)
            for layer in layers
            for unit in units[self.site]
            for position in at[self.position]
        ]

    def columns(self, shape: Shape, cell: Cell) -> slice:
        """The coordinates of the site that a cell edits."""
        if cell.unit is None:
            return slice(None)
        size = shape.d_head if self.site == "z" else 1
        return slice(cell.unit * size, (cell.unit + 1) * size)


MAPS = {
    map_.key: map_
    for map_ in (
        Map("a", "heads zeroed, all positions", "zero", "z", "all"),
        Map("b", "heads patched at the last token", "patch", "z", "last"),
        Map("c", "head × position patches", "patch", "z", "each"),
        Map("d", "hidden states, layer × position", "patch", "resid_post", "each"),
        Map("e", "neurons of the middle layer, last token", "zero", "mlp_post", "last", "middle"),
        Map("f", "64 prompts × heads at the last token", "patch", "z", "last", prompts=64),
        Map("g", "every neuron, last token", "zero", "mlp_post", "last"),
    )
}
USUAL = "abcdef"
"""(g) is for a GPU."""


@dataclass(frozen=True)
class Question:
    """A map asked of a model's shape, on prompts; tensors are [prompt, token] and [prompt]."""

    map: Map
    shape: Shape
    prompts: tuple[mt.Prompt, ...]
    tokens: Tensor
    donors: Tensor
    targets: Tensor
    contrasts: Tensor

    @property
    def cells(self) -> list[Cell]:
        """All of them, each on every prompt."""
        return self.map.cells(self.shape, self.tokens.shape[1])

    def logit_diff(self, logits: Tensor) -> Tensor:
        """[…, prompt, token, vocabulary] → [prompt]: target − contrast, after the last token."""
        last = logits[:, -1]
        rows = torch.arange(len(last), device=last.device)
        return last[rows, self.targets] - last[rows, self.contrasts]


def ask(map_: Map, shape: Shape, device: str = "cpu", tokens: int = TOKENS) -> Question:
    """The question, with prompts of random words and donors of as many others."""
    chance = random.Random(0)
    drawn = [
        [chance.randrange(1, shape.vocabulary) for _ in range(2 * tokens + 2)]
        for _ in range(map_.prompts)
    ]
    prompts = tuple(
        mt.Prompt(
            words(ids[:tokens]),
            donor=words(ids[tokens : 2 * tokens]),
            target=words(ids[-2:-1]),
            contrast=words(ids[-1:]),
        )
        for ids in drawn
    )
    ids = torch.tensor(drawn, device=device)
    return Question(
        map_,
        shape,
        prompts,
        ids[:, :tokens],
        ids[:, tokens : 2 * tokens],
        ids[:, -2],
        ids[:, -1],
    )


def words(ids: list[int]) -> str:
    """Text that the random tokenizer reads as these ids."""
    return "".join(f" w{i}" for i in ids)


@dataclass(frozen=True)
class Sample:
    """The cells on which tools are timed that would take too long on the whole map.

    Attributes:
        singles: for tools that run cell by cell.
        batches: for tools that run many cells of a layer at once; the singles are among them.
    """

    singles: list[Cell]
    batches: list[Cell]


def sample(question: Question, singles: int, batches: int, stretches: int = 3) -> Sample:
    """Cells of a few layers spread over the model, and spread within these layers."""
    groups: dict[int, list[Cell]] = {}
    for cell in question.cells:
        groups.setdefault(cell.layer, []).append(cell)
    layers = sorted({_middle(n, stretches, len(groups)) for n in range(stretches)})
    chosen = [list(groups.values())[n] for n in layers]
    prompts = len(question.prompts)
    own = max(1, round(singles / len(chosen) / prompts))
    many = max(own, round(batches / len(chosen) / prompts))
    wide = [_spread(group, many) for group in chosen]
    return Sample(
        [cell for group in wide for cell in _spread(group, own)],
        [cell for group in wide for cell in group],
    )


def _spread(cells: list[Cell], n: int) -> list[Cell]:
    n = min(n, len(cells))
    chance = random.Random(0)  # a regular step would meet the same heads or positions each time
    ends = [k * len(cells) // n for k in range(n + 1)]
    return [cells[chance.randrange(*stretch)] for stretch in itertools.pairwise(ends)]


def _middle(part: int, parts: int, length: int) -> int:
    return int((part + 0.5) * length / parts)
