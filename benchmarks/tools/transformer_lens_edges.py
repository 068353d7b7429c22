"""Edges in TransformerLens: path patching by its own hooks on what heads and MLPs read.

It has no function for it. With its switches for split inputs and for heads' results on, a writer's
change is added at ``hook_q_input`` (or ``k``, ``v``), at ``hook_mlp_in``, or at the end: a pass for
each edge.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.models import Subject
from benchmarks.questions import Shape
from benchmarks.tools.transformer_lens_bridge import TransformerLens


class LensEdges:
    """The edges of a GPT-2, one at a time.

    Args:
        made: the model.
        ids, donor: the prompt and its donor.
        target, contrast: whose logits' difference is measured.
    """

    def __init__(
        self, made: Subject, ids: list[int], donor: list[int], target: int, contrast: int
    ) -> None:
        self.shape: Shape = made.shape
        self.tokens, self.answers = torch.tensor([ids]), (target, contrast)
        self.bridge: Any = TransformerLens(made).bridge
        self.bridge.set_use_split_qkv_input(True)
        self.bridge.set_use_attn_result(True)
        self.bridge.set_use_hook_mlp_in(True)
        own, other = (self._written(torch.tensor([text])) for text in (ids, donor))
        self.changes = {name: other[name] - share for name, share in own.items()}

    @torch.no_grad()
    def value(self, edge: str) -> float:
        """The logit difference where one edge carries the donor's share."""
        writer, _, reader = edge.partition("->")
        change = self.changes[writer]
        where, head = self._place(reader)

        def besides(read: Tensor, hook: Any) -> Tensor:
            if head is None:
                return read + change
            own = read.clone()
            own[:, :, head] += change
            return own

        logits = self.bridge.run_with_hooks(
            self.tokens, return_type="logits", fwd_hooks=[(where, besides)]
        )
        target, contrast = self.answers
        return float(logits[0, -1, target] - logits[0, -1, contrast])

    def _place(self, reader: str) -> tuple[str, int | None]:
        """The hook of what a reader reads, and its head."""
        if reader == "logits":
            return f"blocks.{self.shape.layers - 1}.hook_resid_post", None
        if reader[0] == "m":
            return f"blocks.{reader[1:]}.hook_mlp_in", None
        layer, _, head = reader[1 : reader.index("<")].partition(".h")
        return f"blocks.{layer}.hook_{reader[-2]}_input", int(head)

    @torch.no_grad()
    def _written(self, tokens: Tensor) -> dict[str, Tensor]:
        """What every node writes in a run, ``[1, pos, width]``."""
        _, cache = self.bridge.run_with_cache(tokens)
        found = {"input": cache["blocks.0.hook_resid_pre"]}
        for layer in range(self.shape.layers):
            result = cache[f"blocks.{layer}.attn.hook_result"]
            for head in range(result.shape[2]):
                found[f"a{layer}.h{head}"] = result[:, :, head]
            found[f"m{layer}"] = cache[f"blocks.{layer}.hook_mlp_out"]
        return found
