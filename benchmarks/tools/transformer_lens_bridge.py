"""TransformerLens as its documentation does it: `patching` to patch, `run_with_hooks` to zero.

`TransformerBridge.boot_transformers` is what its documentation names for new work, and in version 4
HookedTransformer is gone. Weights stay as Hugging Face has them: compatibility mode is off.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from benchmarks.models import Subject
from benchmarks.questions import Cell, Question
from benchmarks.tools.tool import Tool

NAMES = {"z": "z", "mlp_post": "post", "resid_post": "resid_post"}


class TransformerLens(Tool):
    """One forward pass of the bridge for each cell."""

    name = "TransformerLens"
    package = "transformer-lens"
    how = (
        "`TransformerBridge.boot_transformers`; patches by `patching.generic_activation_patch` "
        "with the library's own setters, after one `run_with_cache` of the donor; zeros by "
        "`run_with_hooks`, as in its ablation demos; several prompts as one batch"
    )

    def __init__(self, subject: Subject) -> None:
        from transformer_lens.model_bridge import TransformerBridge

        # Handing it the model in memory (hf_model=) fails for a model that was made from a
        # configuration: KeyError 'name_or_path'. So it loads its own copy.
        with tempfile.TemporaryDirectory() as directory:
            subject.original.save_pretrained(directory)
            subject.tokenizer.save_pretrained(directory)
            self.bridge = TransformerBridge.boot_transformers(directory, device=subject.device)
        self.cache: Any = None

    @torch.no_grad()
    def prepare(self, question: Question) -> None:
        """The donor's activations at the site."""
        from transformer_lens.utilities import get_act_name

        names = [get_act_name(NAMES[question.map.site], cell.layer) for cell in question.cells]
        if question.map.operation == "patch":
            _, self.cache = self.bridge.run_with_cache(
                question.donors, names_filter=sorted(set(names))
            )

    @torch.no_grad()
    def values(self, question: Question, cells: Sequence[Cell]) -> Tensor:
        """Cell by cell."""
        if question.map.operation == "patch":
            return self._patched(question, cells)
        return torch.stack([self._zeroed(question, cell) for cell in cells])

    def _patched(self, question: Question, cells: Sequence[Cell]) -> Tensor:
        from transformer_lens import patching

        setter: Callable[..., Any] = patching.layer_pos_patch_setter
        rows: dict[str, list[Any]] = {
            "layer": [cell.layer for cell in cells],
            "pos": [cell.position for cell in cells],
        }
        if question.map.site == "z":
            setter = patching.layer_pos_head_vector_patch_setter
            rows["head"] = [cell.unit for cell in cells]
        result = patching.generic_activation_patch(
            self.bridge,
            question.tokens,
            self.cache,
            question.logit_diff,
            setter,
            NAMES[question.map.site],
            index_df=pd.DataFrame(rows),
            reduce="none",
        )
        values: Tensor = result.values
        return values

    def _zeroed(self, question: Question, cell: Cell) -> Tensor:
        from transformer_lens.utilities import get_act_name

        def hook(activation: Tensor, hook: Any) -> Tensor:
            activation[:, cell.positions, cell.unit] = 0.0  # [batch, pos, head or neuron, …]
            return activation

        name = get_act_name(NAMES[question.map.site], cell.layer)
        logits = self.bridge.run_with_hooks(
            question.tokens, return_type="logits", fwd_hooks=[(name, hook)]
        )
        return question.logit_diff(logits)
