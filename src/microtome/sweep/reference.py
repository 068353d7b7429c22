"""The reference path: one full forward pass per cell, with plain hooks. Slow, obviously right.

It is the oracle that the walk is held against, so it stays plain.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from microtome.interventions import Sources, intervene
from microtome.model.model import Model
from microtome.prompts import Encoded
from microtome.run import forward, ids_of
from microtome.sweep.measured import Measured
from microtome.sweep.plan import Cell


def measure(
    model: Model,
    cells: Iterable[Cell],
    prompt: int,
    one: Encoded,
    sources: Sources,
    into: Measured,
    tick: Callable[[float], None],
) -> None:
    """Run the cells of one prompt, a forward pass each; ``tick`` is told of every cell."""
    clean = forward(model.hf, model.anatomy, ids_of([one.tokens], model.hf))
    places = {reading: reading.position(one, model.anatomy.dims) for reading in into.values}
    for reading, at in places.items():
        value = reading.measure(clean[:, at], clean[:, at], one)
        into.clean[reading][prompt] = float(value)
    for cell in cells:
        logits, receipts = intervene(
            model.hf, model.anatomy, one, cell.edits, sources, prompt=prompt
        )
        for reading, at in places.items():
            value = reading.measure(logits[:, at], clean[:, at], one)
            into.values[reading][cell.index] = float(value)
        into.changed[cell.index] = sum(receipt.changed for receipt in receipts)
        into.norm[cell.index] = math.hypot(*(receipt.norm for receipt in receipts))
        into.work["token_blocks"] += model.anatomy.dims.n_layers * len(one.tokens)
        tick(1)
