"""The reference path: one full forward pass per cell, with plain hooks. Slow, obviously right.

It is the oracle that faster engines are held against, so it stays plain.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from transformers import PreTrainedModel

from microtome.interventions import Sources, intervene
from microtome.metrics import Reading
from microtome.model.anatomy import Anatomy
from microtome.prompts import Encoded
from microtome.run import forward, ids_of
from microtome.sweep.plan import Cell, Plan

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


@dataclass(frozen=True)
class Measured:
    """What an engine brings back; NaN marks a cell that does not exist.

    Attributes:
        values: per reading, of the plan's shape.
        clean: per reading, ``[prompt]``.
        changed: how many values each cell's edits changed, of the plan's shape.
        norm: L2 norm of the change, of the plan's shape.
    """

    values: dict[Reading, Array]
    clean: dict[Reading, Array]
    changed: Array
    norm: Array

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


def measure(
    hf: PreTrainedModel,
    anatomy: Anatomy,
    plan: Plan,
    encoded: Sequence[Encoded],
    readings: Sequence[Reading],
    reference: Sequence[Encoded] = (),
    tick: Callable[[], None] = lambda: None,
) -> Measured:
    """Run every cell of a plan, one forward pass each; ``tick`` is called after each cell."""
    measured = Measured.empty(plan, readings)
    sources = Sources(
        hf,
        anatomy,
        [(edit, encoded[cell.prompt]) for cell in plan.cells for edit in cell.edits],
        [one.tokens for one in reference],
    )
    for prompt, one in enumerate(encoded):
        clean = forward(hf, anatomy, ids_of(one.tokens, hf))
        for reading in readings:
            measured.clean[reading][prompt] = _value(reading, clean, clean, one, anatomy)
        for cell in plan.of_prompt(prompt):
            _measure_cell(hf, anatomy, cell, one, clean, sources, measured)
            tick()
    return measured


def _measure_cell(
    hf: PreTrainedModel,
    anatomy: Anatomy,
    cell: Cell,
    one: Encoded,
    clean: Tensor,
    sources: Sources,
    into: Measured,
) -> None:
    logits, receipts = intervene(hf, anatomy, one, cell.edits, sources, prompt=cell.prompt)
    for reading, values in into.values.items():
        values[cell.index] = _value(reading, logits, clean, one, anatomy)
    into.changed[cell.index] = sum(receipt.changed for receipt in receipts)
    into.norm[cell.index] = math.hypot(*(receipt.norm for receipt in receipts))


def _value(
    reading: Reading, logits: Tensor, clean: Tensor, one: Encoded, anatomy: Anatomy
) -> float:
    return float(reading.measure(logits, clean, one, anatomy.dims)[0])
