"""What an engine brings back from the cells of a plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from microtome.edits.application import no_number
from microtome.errors import EditError, listing
from microtome.language.regions import Column
from microtome.plan.plan import Cells, Plan
from microtome.readings.inside import Gauge
from microtome.readings.output import Reading

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

Arrival = tuple[Array, tuple[Column | slice, ...], Tensor]
"""A part of an array, and the values that go there."""


@dataclass(frozen=True)
class Measured:
    """Values of all cells; NaN marks a cell that does not exist.

    Attributes:
        cells: the plan's.
        values: per reading, of the plan's shape.
        clean: per reading, ``[prompt]``.
        inside: per gauge, of the plan's shape and then the gauge's.
        clean_inside: per gauge, ``[prompt, *shape]``.
        changed: how many values each cell's edits changed, of the plan's shape.
        norm: L2 norm of the change, of the plan's shape.
        witnesses: the logits ``[vocab]`` of some cells, by the cell's number and position, for
            verification.
        arriving: values that are still on the device, with where they go.
        proved: cells whose receipts are among them.
        work: how often some block was run on some token, counted (``token_blocks``).
        notes: what a reader of the result should know of how it came about.
    """

    cells: Cells
    values: dict[Reading, Array]
    clean: dict[Reading, Array]
    inside: dict[Gauge, Array]
    clean_inside: dict[Gauge, Array]
    changed: Array
    norm: Array
    witnesses: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    arriving: list[Arrival] = field(default_factory=list)
    proved: list[Column] = field(default_factory=list)
    work: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def empty(
        cls, plan: Plan, readings: Sequence[Reading], gauges: Mapping[Gauge, tuple[int, ...]]
    ) -> Measured:
        """Nothing measured yet; of every gauge, how many values it has along its dimensions."""

        def absent(*shape: int) -> Array:
            return np.full(shape, np.nan)

        return cls(
            cells=plan.cells,
            values={reading: absent(*plan.shape) for reading in readings},
            clean={reading: absent(plan.shape[0]) for reading in readings},
            inside={gauge: absent(*plan.shape, *shape) for gauge, shape in gauges.items()},
            clean_inside={gauge: absent(plan.shape[0], *shape) for gauge, shape in gauges.items()},
            changed=absent(*plan.shape),
            norm=absent(*plan.shape),
        )

    def store(self, reading: Reading, cells: Column, values: Float[Tensor, " cell"]) -> None:
        """Keep the values of some cells, by their numbers in the plan."""
        self._put(self.values[reading], self._where(cells), values)

    def store_clean(self, reading: Reading, prompt: int, value: Float[Tensor, "1"]) -> None:
        """Keep the value without edits of a prompt."""
        self._put(self.clean[reading], (np.array([prompt]),), value)

    def store_inside(
        self, gauge: Gauge, cells: Column, values: Float[Tensor, " cell *shape"]
    ) -> None:
        """Keep what a gauge read in some cells."""
        self._put(self.inside[gauge], self._where(cells), values)

    def store_clean_inside(
        self, gauge: Gauge, prompt: int, values: Float[Tensor, " *shape"]
    ) -> None:
        """Keep what a gauge read in a prompt's clean run."""
        self._put(self.clean_inside[gauge], (np.array([prompt]),), values[None])

    def prove(
        self,
        cells: Column,
        changed: Float[Tensor, " cell"],
        squares: Float[Tensor, " cell"],
    ) -> None:
        """Keep the receipts of some cells: values changed, and the change's squared norm."""
        self._put(self.changed, self._where(cells), changed)
        self._put(self.norm, self._where(cells), squares.sqrt())
        self.proved.append(cells)

    def settle(self) -> None:
        """Let what was kept arrive, in one copy: the only time that the device is waited for.

        Raises:
            EditError: an edit gave what is not a finite number.
        """
        if not self.arriving:
            return
        first = self.arriving[0][-1].device
        flat = [values.double().flatten().to(first) for *_, values in self.arriving]
        whole = torch.cat(flat).cpu().numpy()
        ends = np.cumsum([values.numel() for *_, values in self.arriving])
        for (array, where, values), own in zip(self.arriving, np.split(whole, ends), strict=False):
            array[where] = own.reshape(values.shape)
        self.arriving.clear()
        while self.proved:
            cells = self.proved.pop()
            wrong = np.flatnonzero(~np.isfinite(self.norm[self._where(cells)]))
            if len(wrong):
                raise EditError(no_number(listing(self.cells[int(cells[wrong[0]])].edits)))

    def forget(self) -> None:
        """Let nothing arrive of what was kept since."""
        self.arriving.clear()
        self.proved.clear()

    def _where(self, cells: Column) -> tuple[Column, ...]:
        return tuple(self.cells.points[cells].T)

    def _put(
        self, array: Array, where: tuple[Column, ...], values: Float[Tensor, " cell *shape"]
    ) -> None:
        """Values for some rows; a shorter prompt has fewer positions, the rest stays NaN."""
        inner = (slice(size) for size in values.shape[1:])
        self.arriving.append((array[(slice(None),) * len(where) + tuple(inner)], where, values))
