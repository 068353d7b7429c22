"""Edits of what single parts read and write, as one would make them by hand, in runs of their own.

The stream is edited for everybody in one run. What the edited reader alone makes of that is taken
from there, and put into a run in which nothing else is edited.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from transformers import PreTrainedModel

from oracles import families as by_hand
from oracles.families import HEADS, ByHand, Change, Hooked, Op

LAYER = 1


@dataclass(frozen=True)
class Oracle:
    """One model and one text."""

    hf: PreTrainedModel
    hand: ByHand
    ids: Sequence[int]
    layer: int = LAYER
    known: dict[tuple[int, ...], Hooked] = field(default_factory=dict, repr=False, compare=False)
    """The clean run of each text: the same for every layer."""

    @property
    def clean(self) -> Hooked:
        """The run in which nothing is edited, made once."""
        ids = tuple(self.ids)
        if ids not in self.known:
            self.known[ids] = self.run()
        return self.known[ids]

    def run(self, *changes: Change) -> Hooked:
        return by_hand.run(self.hf, self.hand, self.ids, changes)

    def read(self, site: str) -> np.ndarray:
        """The values of a site of the layer in a clean run."""
        seen = self.clean.seen
        if site == "final_in":
            return seen["resid_post", self.hand.layers - 1]
        if site == "mlp_in":
            return seen[self._stream, self.layer]
        if site == "head_out":
            return self.shares(seen["z", self.layer])
        heads = self.hand.kv_heads if site.endswith("_group") else HEADS
        return np.repeat(seen["resid_pre", self.layer][:, None], heads, axis=1)

    def edit(self, site: str, positions: Sequence[int], heads: Sequence[int], op: Op) -> Hooked:
        """A run in which a site of the layer is edited at some positions, in some of its heads."""
        if site == "final_in":
            return self.run(self._stream_change("resid_post", self.hand.layers - 1, positions, op))
        if site == "mlp_in":
            apart = self.run(self._stream_change(self._stream, self.layer, positions, op))
            return self._with("mlp_out", apart.seen["mlp_out", self.layer])
        if site == "head_out":
            return self._added(positions, heads, op)
        part, _, group = site.partition("_in")
        apart = self.run(self._stream_change("resid_pre", self.layer, positions, op))
        made = self._with(part, apart.seen[part, self.layer])
        z = self.clean.seen["z", self.layer].copy()
        size = HEADS // self.hand.kv_heads if group else 1
        for head in heads:
            own = slice(head * size, (head + 1) * size)
            z[:, own] = made.seen["z", self.layer][:, own]
        return self._with("z", z)

    @property
    def _stream(self) -> str:
        return "resid_mid" if self.hand.rest is not None else "resid_pre"

    def _stream_change(self, site: str, layer: int, positions: Sequence[int], op: Op) -> Change:
        width = self.clean.seen[site, layer].shape[1]
        return Change(site, layer, [list(positions), list(range(width))], op)

    def _with(self, site: str, values: np.ndarray) -> Hooked:
        everything = [list(range(n)) for n in values.shape]
        return self.run(Change(site, self.layer, everything, lambda _: values))

    def shares(self, z: np.ndarray) -> np.ndarray:
        """What each head adds, ``[pos, head, d_model]``: a product with its rows of the matrix."""
        module = self.projection
        weight = module.weight.detach().numpy()
        weight = weight if type(module).__name__ == "Conv1D" else weight.T
        factor = 1.0 if self.is_normed else self.hand.factor
        rows = np.split(weight, HEADS)
        return np.stack([z[:, h] @ rows[h] * factor for h in range(HEADS)], axis=1)

    def _added(self, positions: Sequence[int], heads: Sequence[int], op: Op) -> Hooked:
        """The projection's own output is changed, which a norm may follow."""
        shares = self.shares(self.clean.seen["z", self.layer])
        change = np.zeros(shares.shape)
        where = np.ix_(positions, heads, range(shares.shape[2]))
        change[where] = op(shares[where]) - shares[where]
        added = torch.from_numpy(change.sum(axis=1))[None]
        factor = 1.0 if self.is_normed else self.hand.factor
        with _after(self.projection, lambda output: output + added / factor):
            return self.run()

    @property
    def projection(self) -> torch.nn.Module:
        return self.hf.get_submodule(f"{self.hand.blocks}.{self.layer}.{self.hand.z}")

    @property
    def is_normed(self) -> bool:
        return self.hand.attn_out.endswith("norm")


@contextmanager
def _after(module: torch.nn.Module, change: Callable[[torch.Tensor], torch.Tensor]):
    handle = module.register_forward_hook(lambda module, args, output: change(output))
    try:
        yield
    finally:
        handle.remove()
