"""What runs of circuits take of the memory, and how many fit into a pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from microtome.amounts import many
from microtome.circuits.graph import Graph
from microtome.errors import CircuitError
from microtome.language.sites import Dimensions
from microtome.plan.memory.budget import Budget
from microtome.plan.memory.recorded import bytes_of_block

COPIES = 9
"""Copies of the stream that there are of every head while a layer's readers are given their own."""

ENDS = 5
"""Copies of a row's logits where metrics look: they, what metrics make of them, one to verify."""

KEPT_SHARE = 4
"""What is ablated is kept of all prompts if it takes one part in so many of the memory, at most."""


@dataclass(frozen=True, eq=False)
class Needs:
    """What circuits on some prompts take.

    Attributes:
        dims: the model's dimensions.
        graph: its graph.
        budget: what may be used.
        lengths: tokens of each prompt.
        places: at how many positions of a prompt metrics look, at most.
        alike: what is ablated is the same in all prompts of one length, and kept once.
    """

    dims: Dimensions
    graph: Graph
    budget: Budget
    lengths: Sequence[int]
    places: int
    alike: bool = False

    def rows_at_once(self, length: int) -> int:
        """How many rows of so many tokens a pass takes.

        Raises:
            CircuitError: not even one fits beside what is kept.
        """
        row, held = self.of_row(length), self.held
        if row + held > self.budget.memory:
            raise CircuitError(
                f"memory={self.budget.memory:,} bytes are too few: a circuit on a prompt of "
                f"{many(length, 'token')} needs {row:,}, and what is kept of all prompts {held:,}. "
                f"Give at least {row + held:,}, or fewer or shorter prompts."
            )
        left = self.budget.memory - held
        return max(1, min(left // row, 4 * self.budget.tile // length))

    def of_row(self, length: int) -> int:
        """Bytes that a row of so many tokens has in memory at most, about."""
        dims, size = self.dims, self.budget.itemsize
        writers, heads = len(self.graph.writers), dims.n_heads
        branches = heads // dims.n_kv_heads if dims.n_kv_heads < heads else 0
        stream = length * dims.d_model * size
        attention = (1 + branches) * (6 * stream + 3 * heads * length**2 * size)
        sums = length * dims.d_model * max(size, torch.float32.itemsize)
        shares = (2 * writers + COPIES * heads) * sums
        block = bytes_of_block(dims, length, size)
        return shares + attention + block + 2 * self.graph.exists.size + ENDS * self._logits

    @property
    def held(self) -> int:
        """Bytes that are kept of all prompts: logits of their clean runs, and what is ablated."""
        return len(self.lengths) * self._logits + (self._ablated if self.keeps else 0)

    @property
    def keeps(self) -> bool:
        """Whether what is ablated is kept of all prompts."""
        return self._ablated <= self.budget.memory // KEPT_SHARE

    @property
    def _ablated(self) -> int:
        width = len(self.graph.writers) * self.graph.d_model
        return sum({*self.lengths} if self.alike else self.lengths) * width * self.budget.itemsize

    @property
    def _logits(self) -> int:
        """Of a row, where metrics look."""
        return self.places * self.dims.d_vocab * self.budget.itemsize
