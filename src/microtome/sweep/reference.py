"""The reference path: one full forward pass per cell, with plain hooks. Slow, obviously right.

It is the oracle that the walk is held against, so it stays plain.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from jaxtyping import Float
from torch import Tensor

from microtome.interventions import Sources, intervene
from microtome.model.model import Model
from microtome.prompts import Encoded
from microtome.sweep.measured import Measured
from microtome.sweep.plan import Cell


def measure(
    model: Model,
    cells: Iterable[Cell],
    one: Encoded,
    clean: Float[Tensor, "1 pos vocab"],
    sources: Sources,
    into: Measured,
    tick: Callable[[int], None],
) -> None:
    """Run the cells of one prompt, a forward pass each; ``tick`` is told of every cell."""
    for cell in cells:
        logits, receipts = intervene(
            model.hf, model.anatomy, one, cell.edits, sources, prompt=cell.prompt
        )
        for reading, values in into.values.items():
            at = reading.position(one, model.anatomy.dims)
            values[cell.index] = float(reading.measure(logits[:, at], clean[:, at], one)[0])
        into.changed[cell.index] = sum(receipt.changed for receipt in receipts)
        into.norm[cell.index] = math.hypot(*(receipt.norm for receipt in receipts))
        into.work["token_blocks"] += model.anatomy.dims.n_layers * len(one.tokens)
        tick(1)
