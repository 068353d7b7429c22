"""The reference path: one full forward pass per cell, with plain hooks. Slow, obviously right.

It is the oracle that the walk is held against, so it stays plain.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from microtome.edits.application import Receipt, intervene
from microtome.edits.sources import Sources
from microtome.engines.measured import Measured
from microtome.model.loaded import Loaded
from microtome.passes.hooks import forward
from microtome.passes.trace import Piece, ids_of, record
from microtome.plan.plan import Cell
from microtome.prompts.encoding import Encoded
from microtome.readings.inside import Gauge
from microtome.readings.watch import Watch


def measure(
    model: Loaded,
    numbers: Iterable[int],
    prompt: int,
    one: Encoded,
    sources: Sources,
    into: Measured,
    tick: Callable[[float], None],
) -> None:
    """Run the cells of one prompt, a forward pass each; ``tick`` is told of every cell."""
    clean = forward(model.hf, model.anatomy, ids_of([one.tokens], model.hf))
    watch = watch_of(model, one, list(into.inside))
    for gauge in into.inside:
        into.store_clean_inside(gauge, prompt, watch.without_edits(gauge, 0))
    places = {reading: reading.position(one, model.anatomy.dims) for reading in into.values}
    for reading, at in places.items():
        value = reading.measure(clean[:, at], clean[:, at], one)
        into.clean[reading][prompt] = float(value)
    for number in numbers:
        cell = into.cells[number]
        logits, receipts, inside = run_cell(model, cell, one, sources, watch)
        for gauge, values in inside.items():
            into.store_inside(gauge, np.array([number]), values)
        for reading, at in places.items():
            value = reading.measure(logits[:, at], clean[:, at], one)
            into.values[reading][cell.index] = float(value)
        into.changed[cell.index] = sum(receipt.changed for receipt in receipts)
        into.norm[cell.index] = math.hypot(*(receipt.norm for receipt in receipts))
        into.work["token_blocks"] += model.anatomy.dims.n_layers * len(one.tokens)
        tick(1)


def watch_of(model: Loaded, one: Encoded, gauges: Sequence[Gauge]) -> Watch:
    """The gauges on one prompt."""
    dims = model.anatomy.dims
    last = len(one.tokens) - 1
    pieces = [Piece(place, 0, last) for place in {p for own in gauges for p in own.places(dims)}]
    kept = record(model.hf, model.anatomy, [one.tokens], pieces) if pieces else {}
    return Watch.over(gauges, [one], dims, kept)


def run_cell(
    model: Loaded, cell: Cell, one: Encoded, sources: Sources, watch: Watch
) -> tuple[Float[Tensor, "1 pos vocab"], list[Receipt], dict[Gauge, Float[Tensor, " 1 *shape"]]]:
    """One cell: its logits, a receipt per edit, and what the gauges read."""
    inside = watch.unedited([0], 1)
    visits = [
        visit
        for layer in range(model.anatomy.dims.n_layers)
        for visit in watch.visits(layer, [0], 0, inside)
    ]
    logits, receipts = intervene(
        model.hf, model.anatomy, one, cell.edits, sources, visits, prompt=cell.prompt
    )
    return logits, receipts, {gauge: values[0] for gauge, values in inside.items()}
