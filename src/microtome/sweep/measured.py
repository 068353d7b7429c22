"""What an engine brings back from the cells of a plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from microtome.metrics import Reading
from microtome.sweep.plan import Plan

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
Index = tuple[int, ...]


@dataclass(frozen=True)
class Measured:
    """Values of all cells; NaN marks a cell that does not exist.

    Attributes:
        values: per reading, of the plan's shape.
        clean: per reading, ``[prompt]``.
        changed: how many values each cell's edits changed, of the plan's shape.
        norm: L2 norm of the change, of the plan's shape.
        witnesses: the logits ``[vocab]`` of some cells, by cell and position, for verification.
        work: how often some block was run on some token, counted (``token_blocks``).
        notes: what a reader of the result should know of how it came about.
    """

    values: dict[Reading, Array]
    clean: dict[Reading, Array]
    changed: Array
    norm: Array
    witnesses: dict[tuple[Index, int], Tensor] = field(default_factory=dict)
    work: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def empty(cls, plan: Plan, readings: Sequence[Reading]) -> Measured:
        """Nothing measured yet."""

        def absent(*shape: int) -> Array:
            return np.full(shape, np.nan)

        return cls(
            values={reading: absent(*plan.shape) for reading in readings},
            clean={reading: absent(plan.shape[0]) for reading in readings},
            changed=absent(*plan.shape),
            norm=absent(*plan.shape),
        )
