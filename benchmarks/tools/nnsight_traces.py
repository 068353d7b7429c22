"""nnsight: a loop of traces, and several invokes in one trace.

`.input` of the output projections and `.output` of the blocks are assigned to, as its documentation
does. Both run under `torch.no_grad`, without which it records gradients.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.models import Subject, block_of, reader_of
from benchmarks.questions import Cell, Question
from benchmarks.tools.tool import Tool, chunks


class NnsightLoop(Tool):
    """One trace for each cell."""

    name = "nnsight, a loop"
    package = "nnsight"
    how = "`TransformersModel`; for each cell a `trace` that assigns to a module's input or output"

    def __init__(self, subject: Subject) -> None:
        from nnsight import TransformersModel

        self.model = TransformersModel(subject.twin(), tokenizer=subject.tokenizer)
        self.donors: dict[int, Tensor] = {}

    @torch.no_grad()
    def prepare(self, question: Question) -> None:
        """The donor's values at the site, layer by layer."""
        import nnsight

        site, model = question.map.site, self.model
        self.donors = {}
        if question.map.operation == "zero":
            return
        layers = sorted({cell.layer for cell in question.cells})
        with model.trace(question.donors):
            kept = nnsight.save({})
            for layer in layers:
                if site == "resid_post":
                    kept[layer] = block_of(model, question.shape, layer).output.clone()
                else:
                    kept[layer] = reader_of(model, question.shape, site, layer).input.clone()
        self.donors = dict(kept)

    @torch.no_grad()
    def values(self, question: Question, cells: Sequence[Cell]) -> Tensor:
        """Trace by trace."""
        found = []
        for cell in cells:
            new, at = self._edit(question, cell)
            site, shape = question.map.site, question.shape
            if site == "resid_post":
                block = block_of(self.model, shape, cell.layer)
                with self.model.trace(question.tokens):
                    block.output[at] = new
                    logits = self.model.output.logits.save()
            else:
                module = reader_of(self.model, shape, site, cell.layer)
                with self.model.trace(question.tokens):
                    module.input[at] = new
                    logits = self.model.output.logits.save()
            found.append(question.logit_diff(logits))
        return torch.stack(found)

    def _edit(self, question: Question, cell: Cell) -> tuple[Tensor | float, tuple[slice, ...]]:
        at = (slice(None), cell.positions, question.map.columns(question.shape, cell))
        return (self.donors[cell.layer][at] if self.donors else 0.0), at


class NnsightInvokes(NnsightLoop):
    """Sixteen cells of a layer as invokes of one trace."""

    name = "nnsight, invokes"
    how = "one `trace` with an `invoke` for each of 16 cells of a layer, which it runs as a batch"
    batched = True

    @torch.no_grad()
    def prepare(self, question: Question) -> None:
        """As the loop."""
        next(chunks(question, question.cells))  # says why where the prompts fill the batch
        super().prepare(question)

    @torch.no_grad()
    def values(self, question: Question, cells: Sequence[Cell]) -> Tensor:
        """Trace by trace, in the order of the cells."""
        import nnsight

        found: dict[Cell, Tensor] = {}
        for group in chunks(question, cells):
            site, shape, layer = question.map.site, question.shape, group[0].layer
            edits = [self._edit(question, cell) for cell in group]
            tokens, model = question.tokens, self.model
            if site == "resid_post":
                block = block_of(model, shape, layer)
                with model.trace() as tracer:
                    logits = nnsight.save([])
                    for new, at in edits:
                        with tracer.invoke(tokens):
                            block.output[at] = new
                            logits.append(model.output.logits)
            else:
                module = reader_of(model, shape, site, layer)
                with model.trace() as tracer:
                    logits = nnsight.save([])
                    for new, at in edits:
                        with tracer.invoke(tokens):
                            module.input[at] = new
                            logits.append(model.output.logits)
            for cell, own in zip(group, logits, strict=True):
                found[cell] = question.logit_diff(own)
        return torch.stack([found[cell] for cell in cells])
