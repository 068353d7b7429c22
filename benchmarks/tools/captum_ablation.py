"""captum's `LayerFeatureAblation`: features of a layer replaced by a baseline, in batches.

It fits all maps here: a ``layer_mask`` makes each cell a feature, ``layer_baselines`` are zeros or
the donor's activations, and the attribution is the clean logit difference minus the ablated one. It
knows no features to leave alone: what no cell covers becomes one feature more, and is ablated too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from benchmarks.models import Subject, block_of, reader_of
from benchmarks.questions import Cell, Question
from benchmarks.tools.plain_hooks import hooked
from benchmarks.tools.tool import BATCH, Tool


class Captum(Tool):
    """One `attribute` call for each layer."""

    name = "captum"
    package = "captum"
    how = (
        "`LayerFeatureAblation`, one `attribute` for each layer with `perturbations_per_eval=16` "
        "(1 for 64 prompts): a feature of the `layer_mask` for each cell, the donor's activations "
        "or zeros as `layer_baselines`"
    )
    batched = True

    def __init__(self, subject: Subject) -> None:
        import captum.attr

        self.ablation = captum.attr.LayerFeatureAblation
        self.model = subject.twin()
        self.donors: dict[int, Tensor] = {}
        self.clean: Tensor

    @torch.no_grad()
    def prepare(self, question: Question) -> None:
        """The clean logit difference, and the donor's values at the site."""
        self.clean = question.logit_diff(self.model(question.tokens).logits)
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
        """Layer by layer, in the order of the cells."""
        found: dict[Cell, Tensor] = {}
        for layer in dict.fromkeys(cell.layer for cell in cells):
            own = [cell for cell in cells if cell.layer == layer]
            site, shape = question.map.site, question.shape
            if site == "resid_post":
                module = block_of(self.model, shape, layer)
            else:
                module = reader_of(self.model, shape, site, layer)
            attributed = self.ablation(self._logit_diff(question), module).attribute(
                question.tokens,
                layer_baselines=self.donors.get(layer),
                layer_mask=self._mask(question, own),
                attribute_to_layer_input=site != "resid_post",
                perturbations_per_eval=max(1, BATCH // len(question.prompts)),
            )
            for cell in own:
                columns = question.map.columns(question.shape, cell)
                effect = attributed[:, cell.positions, columns][:, 0, 0]
                found[cell] = self.clean - effect
        return torch.stack([found[cell] for cell in cells])

    def passes(self, question: Question, cells: Sequence[Cell]) -> int:
        """Per layer: its cells, what they do not cover, and two clean passes of captum's own."""
        total = 0
        for layer in {cell.layer for cell in cells}:
            mask = self._mask(question, [cell for cell in cells if cell.layer == layer])
            total += int(mask.max()) + 1 + 2
        return total

    def _mask(self, question: Question, cells: Sequence[Cell]) -> Tensor:
        shape = question.shape
        width = shape.neurons if question.map.site == "mlp_post" else shape.width
        mask = torch.full((1, question.tokens.shape[1], width), -1, device=question.tokens.device)
        for feature, cell in enumerate(cells):
            mask[:, cell.positions, question.map.columns(shape, cell)] = feature
        mask[mask < 0] = len(cells)
        return mask

    def _logit_diff(self, question: Question) -> Callable[[Tensor], Tensor]:
        prompts = len(question.prompts)

        def forward(tokens: Tensor) -> Tensor:
            """[perturbation × prompt]: captum repeats the prompts for each perturbation."""
            logits = self.model(tokens).logits
            return torch.cat([question.logit_diff(own) for own in logits.split(prompts)])

        return forward
