"""What an engine brings back from the cells of a plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from torch import Tensor

from microtome.metrics import Reading
from microtome.regions import Column
from microtome.sweep.plan import Cells, Plan

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


@dataclass(frozen=True)
class Measured:
    """Values of all cells; NaN marks a cell that does not exist.

    Attributes:
        cells: the plan's.
        values: per reading, of the plan's shape.
        clean: per reading, ``[prompt]``.
        changed: how many values each cell's edits changed, of the plan's shape.
        norm: L2 norm of the change, of the plan's shape.
        witnesses: the logits ``[vocab]`` of some cells, by the cell's number and position, for
            verification.
        work: how often some block was run on some token, counted (``token_blocks``).
        notes: what a reader of the result should know of how it came about.
    """

    cells: Cells
    values: dict[Reading, Array]
    clean: dict[Reading, Array]
    changed: Array
    norm: Array
    witnesses: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    work: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def empty(cls, plan: Plan, readings: Sequence[Reading]) -> Measured:
        """Nothing measured yet."""

        def absent(*shape: int) -> Array:
            return np.full(shape, np.nan)

        return cls(
            cells=plan.cells,
            values={reading: absent(*plan.shape) for reading in readings},
            clean={reading: absent(plan.shape[0]) for reading in readings},
            changed=absent(*plan.shape),
            norm=absent(*plan.shape),
        )

    def store(self, reading: Reading, cells: Column, values: Float[Tensor, " cell"]) -> None:
        """Keep the values of some cells, by their numbers in the plan."""
        self.values[reading][tuple(self.cells.points[cells].T)] = values.cpu().numpy()

    def prove(
        self,
        cells: Column,
        changed: Float[Tensor, " cell"],
        squares: Float[Tensor, " cell"],
    ) -> None:
        """Keep the receipts of some cells: values changed, and the change's squared norm."""
        where = tuple(self.cells.points[cells].T)
        self.changed[where] = changed.cpu().numpy()
        self.norm[where] = squares.sqrt().cpu().numpy()
