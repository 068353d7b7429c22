"""What an executor brings back from a unit's cells, while they arrive.

Behind the unit's cells there is room for idlers (`plan.idlers`), which have numbers beyond the
plan's cells.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
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
from microtome.plan.idlers import IDLERS
from microtome.plan.plan import Plan
from microtome.plan.units import Unit
from microtome.readings.inside import Gauge
from microtome.readings.output import TOKEN_ID, Reading
from microtome.readings.registry import Asked

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
        values: per reading, ``[cell]``; idlers last, as everywhere.
        clean: per reading, ``[prompt]``.
        inside: per gauge, ``[cell, *shape]``.
        clean_inside: per gauge, ``[prompt, *shape]``.
        changed: how many values each cell's edits changed, ``[cell]``.
        norm: L2 norm of the change, ``[cell]``.
        twins: of each idler the cell that it goes along with, ``[idler]``; -1 where it has not met
            one yet.
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
    twins: Column
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
        idlers = IDLERS * len(prompts)
        rows = len(numbers) + idlers

        def absent(*shape: int) -> Array:
            return np.full(shape, np.nan)

        return cls(
            plan=plan,
            numbers=numbers,
            prompts=prompts,
            values={reading: absent(rows) for reading in outputs},
            clean={reading: absent(len(prompts)) for reading in outputs},
            inside={gauge: absent(rows, *shape) for gauge, shape in gauges.items()},
            clean_inside={gauge: absent(len(prompts), *shape) for gauge, shape in gauges.items()},
            changed=absent(rows),
            norm=absent(rows),
            twins=np.full(idlers, -1, dtype=np.int64),
        )

    @cached_property
    def _rows(self) -> Column:
        """Where each of the plan's cells, and of the idlers, stands among these."""
        cells, idlers = len(self.plan.cells), len(self.twins)
        rows = np.full(cells + idlers, -1, dtype=np.int64)
        rows[self.numbers] = np.arange(len(self.numbers))
        rows[cells:] = len(self.numbers) + np.arange(idlers)
        return rows

    def rows(self, cells: Column) -> Column:
        """Where cells stand here, by their numbers in the plan; or idlers."""
        return self._rows[cells]

    def ride(self, prompts: Sequence[int], which: int, twins: Column) -> Column:
        """The numbers of an idler of each of some prompts, which now has met its twin."""
        own = np.searchsorted(self.prompts, prompts) * IDLERS + which
        self.twins[own] = twins
        return len(self.plan.cells) + own

    def twin(self, cells: Column) -> Column:
        """The plan's cells that stand for some cells: themselves, and the twins of idlers."""
        known, found = len(self.plan.cells), cells.copy()
        found[cells >= known] = self.twins[cells[cells >= known] - known]
        return found

    def effects(self, asked: Asked, cells: Column) -> Array:
        """How large the effects of some cells, or idlers, on a metric are, ``[cell, *shape]``."""
        values, clean = (
            (self.inside[asked], self.clean_inside[asked])
            if isinstance(asked, Gauge)
            else (self.values[asked], self.clean[asked])
        )
        of_prompt = np.searchsorted(self.prompts, self.plan.cells.prompt[self.twin(cells)])
        with np.errstate(invalid="ignore"):  # −∞ − −∞, of a token that cannot be, is no number
            found: Array = np.abs(values[self.rows(cells)] - clean[of_prompt])
        # Where there is no such position, or a cosine is undefined without edits, is no effect.
        return np.where(np.isnan(clean[of_prompt]), 0.0, found)

    def noise(self) -> dict[str, float]:
        """The largest effect of any idler, per metric that has effects."""
        met = np.flatnonzero(self.twins >= 0)
        idlers = len(self.plan.cells) + met
        found = {}
        every: list[Asked] = [*self.values, *self.inside]
        for asked in every:
            if asked.metric.unit == TOKEN_ID:
                continue
            each = self.effects(asked, idlers)
            found[str(asked)] = float(np.nanmax(each)) if np.isfinite(each).any() else 0.0
        return found

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
        """Let what is still on the device arrive: the only time that it is waited for.

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
        """Let nothing more arrive of what was kept since; what has arrived is computed again."""
        self.arriving.clear()
        self.proved.clear()

    def block(self, unit: Unit) -> Block:
        """All of it, settled."""
        self.settle()
        self._check_numbers()
        cells = slice(len(self.numbers))

        def named(
            arrays: Mapping[Reading, Array] | Mapping[Gauge, Array], rows: slice = slice(None)
        ) -> dict[str, Array]:
            return {str(reading): values[rows] for reading, values in arrays.items()}

        return Block(
            unit=unit.number,
            cells=self.numbers,
            values=named(self.values, cells),
            inside=named(self.inside, cells),
            prompts=self.prompts,
            clean=named(self.clean),
            clean_inside=named(self.clean_inside),
            changed=self.changed[cells],
            norm=self.norm[cells],
            noise=self.noise(),
            work=dict(self.work),
            notes=list(dict.fromkeys(self.notes)),
        )

    def _check_numbers(self) -> None:
        """Raise where a metric came to be no number by an edit: NaN stands for what is not there.

        Raises:
            EditError: it did.
        """
        own = self.plan.cells.prompt[self.numbers]
        for reading, values in self.values.items():
            without = self.clean[reading][np.searchsorted(self.prompts, own)]
            lost = np.isnan(values[: len(own)]) & ~np.isnan(without)
            if lost.any() and not reading.metric.undefined:
                edits = self.plan.cells[int(self.numbers[lost.argmax()])].edits
                raise EditError(
                    f"{reading} is no number after {listing(edits)}: what the edit leaves "
                    "overflows further on in the model. Take a smaller factor, or another edit."
                )

    def _put(self, array: Array, rows: Column, values: Float[Tensor, " cell *shape"]) -> None:
        """Values for some rows; a shorter prompt has fewer positions, the rest stays NaN."""
        inner = (slice(size) for size in values.shape[1:])
        part = array[(slice(None), *inner)]
        if values.device.type == "cpu":
            # At once: nobody is waited for, and a few numbers that stay would stand in the hole
            # that logits leave behind, so that the next ones find no room in it.
            part[rows] = values.double().numpy()
        else:
            self.arriving.append((part, (rows,), values))


def shapes_of(plan: Plan) -> dict[Gauge, tuple[int, ...]]:
    """How many values each gauge has along its dimensions, on the longest prompt."""
    question = plan.question
    found = {}
    for gauge in question.gauges:
        shapes = [gauge.on(one, question.dims).shape for one in question.encoded]
        found[gauge] = tuple(max(sizes) for sizes in zip(*shapes, strict=True))
    return found
