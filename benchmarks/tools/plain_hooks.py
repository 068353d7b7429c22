"""Hooks written by hand on the Hugging Face model; nothing of microtome is used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from benchmarks.models import Subject, block_of, reader_of
from benchmarks.questions import Cell, Question
from benchmarks.tools.tool import Tool, chunks


class PlainHooks(Tool):
    """One forward pass for each cell."""

    name = "plain hooks"
    package = "transformers"
    how = (
        "a forward hook that overwrites the cell's values, and one forward pass of the Hugging "
        "Face model, for each cell"
    )

    def __init__(self, subject: Subject) -> None:
        self.model = subject.twin()
        self.donors: dict[int, Tensor] = {}

    @torch.no_grad()
    def prepare(self, question: Question) -> None:
        """The donor's values at the site, layer by layer."""
        self.donors = {}
        for layer in {cell.layer for cell in question.cells}:

            def keep(values: Tensor, layer: int = layer) -> Tensor:
                self.donors[layer] = values.clone()
                return values

            if question.map.operation == "patch":
                with hooked(self.model, question, layer, keep):
                    self.model(question.donors)

    @torch.no_grad()
    def values(self, question: Question, cells: Sequence[Cell]) -> Tensor:
        """Cell by cell."""
        found = []
        for cell in cells:
            at = (slice(None), cell.positions, question.map.columns(question.shape, cell))

            def overwrite(values: Tensor, at: tuple[slice, ...] = at, cell: Cell = cell) -> Tensor:
                edited = values.clone()
                edited[at] = self.donors[cell.layer][at] if self.donors else 0.0
                return edited

            with hooked(self.model, question, cell.layer, overwrite):
                found.append(question.logit_diff(self.model(question.tokens).logits))
        return torch.stack(found)


class PlainHooksBatched(PlainHooks):
    """Several cells of a layer in one forward pass, a row each, and no logits but the last."""

    name = "plain hooks, batched"
    how = (
        "the same with 16 cells of a layer in one forward pass, a row each, and the unembedding at "
        "the last position only (`logits_to_keep=1`): what a careful author would write"
    )
    batched = True

    @torch.no_grad()
    def prepare(self, question: Question) -> None:
        """As cell by cell."""
        next(chunks(question, question.cells))  # says why where the prompts fill the batch
        super().prepare(question)

    @torch.no_grad()
    def values(self, question: Question, cells: Sequence[Cell]) -> Tensor:
        """Batch by batch, in the order of the cells."""
        found: dict[Cell, Tensor] = {}
        prompts = len(question.tokens)
        for group in chunks(question, cells):
            layer = group[0].layer

            def overwrite(values: Tensor, group: list[Cell] = group, layer: int = layer) -> Tensor:
                edited = values.clone().view(len(group), prompts, *values.shape[1:])
                for row, cell in enumerate(group):
                    at = (
                        slice(None),
                        cell.positions,
                        question.map.columns(question.shape, cell),
                    )
                    edited[row][at] = self.donors[layer][at] if self.donors else 0.0
                return edited.flatten(0, 1)

            with hooked(self.model, question, layer, overwrite):
                tokens = question.tokens.repeat(len(group), 1)
                logits = self.model(tokens, logits_to_keep=1).logits
            for cell, own in zip(group, logits.split(prompts), strict=True):
                found[cell] = question.logit_diff(own)
        return torch.stack([found[cell] for cell in cells])


@contextmanager
def hooked(model: Any, question: Question, layer: int, change: Any) -> Iterator[None]:
    """A function of the values at a question's site, in place until the block ends."""
    site, shape = question.map.site, question.shape
    if site == "resid_post":
        block = block_of(model, shape, layer)
        handle = block.register_forward_hook(lambda _, inputs, output: change(output))
    else:
        module = reader_of(model, shape, site, layer)
        handle = module.register_forward_pre_hook(lambda _, inputs: (change(inputs[0]),))
    try:
        yield
    finally:
        handle.remove()
