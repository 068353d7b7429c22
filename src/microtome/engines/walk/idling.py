"""Idlers in a batch: beside some cells a twin that is edited nowhere, and has to be the clean run.

What it is off by is the walk's noise.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from microtome.engines.collector import Collector
from microtome.engines.walk.batches import Batch, Company
from microtome.plan.idlers import twins_of
from microtome.plan.memory.room import Room


def with_idlers(batch: Batch, room: Room, company: Company, into: Collector) -> Batch:
    """A batch with idlers beside the twins that it has of its first prompt, as many as fit."""
    cells, first = batch.cells, batch.prompts[0]
    twins = twins_of(into.plan.cells, company.starts[first].cells).tolist()
    columns = [n for n, number in enumerate(cells[0].tolist()) if number in twins]
    columns = columns[: (room.batch - len(batch)) // len(batch.prompts)]
    if not columns:
        return batch
    idlers = [
        into.ride(batch.prompts, twins.index(cells[0, column]), cells[:, column])
        for column in columns
    ]
    behind = np.array(columns) + 1
    return replace(
        batch,
        cells=np.insert(cells, behind, np.stack(idlers, axis=1), axis=1),
        layers=np.insert(batch.layers, behind, batch.layers[columns]),
    )


def idler_alone(batch: Batch, into: Collector) -> Batch:
    """An idler by itself, where no batch had room for one."""
    prompts = batch.prompts[:1]
    idler = into.ride(prompts, 0, batch.cells[:1, 0])
    return Batch(prompts, idler[:, None], batch.layers[:1], batch.position)
