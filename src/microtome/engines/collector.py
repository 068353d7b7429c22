"""What an executor brings back from a unit's cells, while they arrive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from microtome.edits.application import no_number
from microtome.engines.block import Array, Block
from microtome.errors import EditError, listing
from microtome.language.regions import Column
from microtome.plan.plan import Plan
from microtome.plan.units import Unit
from microtome.readings.inside import Gauge
from microtome.readings.output import Reading

Arrival = tuple[Array, tuple[Column | slice, ...], Tensor]
"""A part of an array, and the values that go there."""


FEW = 2**16
"""Numbers that are copied together with others."""


@dataclass(frozen=True, eq=False)
class Collector:
    """Values of a unit's cells; NaN marks what has not arrived.

    Attributes:
        plan: the plan.
        numbers: of the unit's cells in it, in order.
        prompts: of the unit.
        values: per reading, ``[cell]``.
        clean: per reading, ``[prompt]``.
        inside: per gauge, ``[cell, *shape]``.
        clean_inside: per gauge, ``[prompt, *shape]``.
        changed: how many values each cell's edits changed, ``[cell]``.
        norm: L2 norm of the change, ``[cell]``.
        witnesses: the logits ``[vocab]`` of some cells, by the cell's number and position, for
            verification.
        arriving: values that are still on the device, with where they go.
        proved: cells whose receipts are among them.
        work: how often some block was run on some token, counted (``token_blocks``).
        notes: what a reader of the result should know of how it came about.
    """

    plan: Plan
    numbers: Column
    prompts: Column
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
    def of(cls, plan: Plan, unit: Unit) -> Collector:
        """Nothing measured yet."""
        numbers, prompts = plan.numbers(unit), np.array(unit.prompts, dtype=np.int64)
        outputs = [one for one in plan.question.asked if isinstance(one, Reading)]
        gauges = shapes_of(plan)

        def absent(*shape: int) -> Array:
            return np.full(shape, np.nan)

        return cls(
            plan=plan,
            numbers=numbers,
            prompts=prompts,
            values={reading: absent(len(numbers)) for reading in outputs},
            clean={reading: absent(len(prompts)) for reading in outputs},
            inside={gauge: absent(len(numbers), *shape) for gauge, shape in gauges.items()},
            clean_inside={gauge: absent(len(prompts), *shape) for gauge, shape in gauges.items()},
            changed=absent(len(numbers)),
            norm=absent(len(numbers)),
        )

    @cached_property
    def _rows(self) -> Column:
        """Where each of the plan's cells stands among these, ``[the plan's cells]``."""
        rows = np.full(len(self.plan.cells), -1, dtype=np.int64)
        rows[self.numbers] = np.arange(len(self.numbers))
        return rows

    def rows(self, cells: Column) -> Column:
        """Where cells stand here, by their numbers in the plan."""
        return self._rows[cells]

    def _prompt(self, prompt: int) -> Column:
        return np.flatnonzero(self.prompts == prompt)

    def store(self, reading: Reading, cells: Column, values: Float[Tensor, " cell"]) -> None:
        """Keep the values of some cells, by their numbers in the plan."""
        self._put(self.values[reading], self.rows(cells), values)

    def store_clean(self, reading: Reading, prompt: int, value: Float[Tensor, "1"]) -> None:
        """Keep the value without edits of a prompt."""
        self._put(self.clean[reading], self._prompt(prompt), value)

    def store_inside(
        self, gauge: Gauge, cells: Column, values: Float[Tensor, " cell *shape"]
    ) -> None:
        """Keep what a gauge read in some cells."""
        self._put(self.inside[gauge], self.rows(cells), values)

    def store_clean_inside(
        self, gauge: Gauge, prompt: int, values: Float[Tensor, " *shape"]
    ) -> None:
        """Keep what a gauge read in a prompt's clean run."""
        self._put(self.clean_inside[gauge], self._prompt(prompt), values[None])

    def prove(
        self,
        cells: Column,
        changed: Float[Tensor, " cell"],
        squares: Float[Tensor, " cell"],
    ) -> None:
        """Keep the receipts of some cells: values changed, and the change's squared norm."""
        self._put(self.changed, self.rows(cells), changed)
        self._put(self.norm, self.rows(cells), squares.sqrt())
        self.proved.append(cells)

    def settle(self) -> None:
        """Let what was kept arrive: the only time that the device is waited for.

        Few numbers arrive in one copy, all together; many at once would be in memory twice.

        Raises:
            EditError: an edit gave what is not a finite number.
        """
        few = [one for one in self.arriving if one[-1].numel() <= FEW]
        for array, where, values in self.arriving:
            if values.numel() > FEW:
                array[where] = values.double().cpu().numpy()
        if few:
            first = few[0][-1].device
            flat = [values.double().flatten().to(first) for *_, values in few]
            whole = torch.cat(flat).cpu().numpy()
            ends = np.cumsum([values.numel() for *_, values in few])
            for (array, where, values), own in zip(few, np.split(whole, ends), strict=False):
                array[where] = own.reshape(values.shape)
        self.arriving.clear()
        while self.proved:
            cells = self.proved.pop()
            wrong = np.flatnonzero(~np.isfinite(self.norm[self.rows(cells)]))
            if len(wrong):
                edits = self.plan.cells[int(cells[wrong[0]])].edits
                raise EditError(no_number(listing(edits)))

    def forget(self) -> None:
        """Let nothing arrive of what was kept since."""
        self.arriving.clear()
        self.proved.clear()

    def block(self, unit: Unit) -> Block:
        """All of it, settled."""
        self.settle()

        def named(arrays: Mapping[Reading, Array] | Mapping[Gauge, Array]) -> dict[str, Array]:
            return {str(reading): values for reading, values in arrays.items()}

        return Block(
            unit=unit.number,
            cells=self.numbers,
            values=named(self.values),
            inside=named(self.inside),
            prompts=self.prompts,
            clean=named(self.clean),
            clean_inside=named(self.clean_inside),
            changed=self.changed,
            norm=self.norm,
            work=dict(self.work),
            notes=list(dict.fromkeys(self.notes)),
        )

    def _put(self, array: Array, rows: Column, values: Float[Tensor, " cell *shape"]) -> None:
        """Values for some rows; a shorter prompt has fewer positions, the rest stays NaN."""
        inner = (slice(size) for size in values.shape[1:])
        self.arriving.append((array[(slice(None), *inner)], (rows,), values))


def shapes_of(plan: Plan) -> dict[Gauge, tuple[int, ...]]:
    """How many values each gauge has along its dimensions, on the longest prompt."""
    question = plan.question
    found = {}
    for gauge in question.gauges:
        shapes = [gauge.on(one, question.dims).shape for one in question.encoded]
        found[gauge] = tuple(max(sizes) for sizes in zip(*shapes, strict=True))
    return found
