"""pyvene, as its tutorials do it: an `IntervenableModel` for each layer, called for each cell.

From "Intervening on subcomponents" (heads at a position: the unit ``h.pos``), "Causal tracing"
(hidden states: a call for each position), and "pyvene 101" (zeros; single neurons as subspaces).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.models import Subject
from benchmarks.questions import Cell, Question
from benchmarks.tools.tool import Tool

COMPONENTS = {
    "z": "head_attention_value_output",
    "mlp_post": "mlp_activation",
    "resid_post": "block_output",
}


class Pyvene(Tool):
    """An interchange intervention for each cell: pyvene runs donor and prompt each time."""

    name = "pyvene"
    package = "pyvene"
    how = (
        "an `IntervenableModel` for each layer and a call for each cell, as its tutorials do; a "
        "patch passes the donor as the source, which it runs again for every cell"
    )

    def __init__(self, subject: Subject) -> None:
        import pyvene

        self.pyvene = pyvene
        self.model = subject.twin()

    def prepare(self, question: Question) -> None:
        """Nothing: sources are run with each cell."""

    @torch.no_grad()
    def values(self, question: Question, cells: Sequence[Cell]) -> Tensor:
        """Layer by layer, cell by cell."""
        found: dict[Cell, Tensor] = {}
        for layer in dict.fromkeys(cell.layer for cell in cells):
            intervenable = self._intervenable(question, layer)
            for cell in (cell for cell in cells if cell.layer == layer):
                found[cell] = question.logit_diff(self._run(intervenable, question, cell))
        return torch.stack([found[cell] for cell in cells])

    def _intervenable(self, question: Question, layer: int) -> Any:
        pv = self.pyvene
        unit = "pos" if question.map.site != "z" else "h.pos"
        if question.map.position == "all":
            unit = "h"
        zero = question.map.operation == "zero"
        config = pv.IntervenableConfig(
            model_type=type(self.model),
            representations=[
                pv.RepresentationConfig(layer, COMPONENTS[question.map.site], unit, 1)
            ],
            intervention_types=pv.ZeroIntervention if zero else pv.VanillaIntervention,
        )
        intervenable = pv.IntervenableModel(config, self.model)
        intervenable.set_device(str(question.tokens.device))
        return intervenable

    def _run(self, intervenable: Any, question: Question, cell: Cell) -> Tensor:
        """Locations are [intervention, prompt, unit]; ``h.pos`` has a level for heads first."""
        prompts = len(question.tokens)
        at = [[cell.position]] * prompts
        unit = [[cell.unit]] * prompts
        where: list[Any] = [at]
        if question.map.site == "z":
            where = [unit] if cell.position is None else [[unit, at]]
        base = {"input_ids": question.tokens}
        if question.map.operation == "patch":
            source = [{"input_ids": question.donors}]
            _, output = intervenable(base, source, {"sources->base": (where, where)})
        elif question.map.site == "mlp_post":
            _, output = intervenable(base, None, {"base": where}, subspaces=[unit])
        else:
            _, output = intervenable(base, None, {"base": where})
        logits: Tensor = output.logits
        return logits
