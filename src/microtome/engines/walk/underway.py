"""A batch on its way through the layers, as far as it has come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from microtome.edits.application import Application
from microtome.engines.walk.batches import Batch, Tile
from microtome.model.devices import onto
from microtome.passes.trace import Trace
from microtome.plan.memory.room import Room
from microtome.readings.inside import Gauge
from microtome.readings.watch import Watch


@dataclass(frozen=True, eq=False)
class Underway:
    """A batch on its way.

    Attributes:
        batch: it.
        room: the memory that it has.
        rows: of the batch's prompts among the clean runs.
        x: the residual stream, ``[prompt, cell, pos, d_model]``.
        proofs: per cell, how many values were changed, and the squared norm of the change.
        seen: what the metrics inside the model have read.
    """

    batch: Batch
    room: Room
    rows: Sequence[int]
    x: Float[Tensor, "prompt cell own d_model"]
    proofs: Float[Tensor, "2 prompt cell"]
    seen: Mapping[Gauge, Tensor]

    @classmethod
    def of(
        cls, batch: Batch, room: Room, rows: Sequence[int], trace: Trace, watch: Watch
    ) -> Underway:
        """A batch that nothing was done to yet, whose prompts are these rows of the clean runs."""
        prompts, cells = batch.cells.shape
        stream, final = trace.inputs[0], trace.final  # of other types, it may be
        own = final.shape[1] - batch.position
        return cls(
            batch=batch,
            room=room,
            rows=rows,
            x=stream.new_empty(prompts, cells, own, stream.shape[2]),
            proofs=torch.zeros(2, prompts, cells, dtype=torch.float64, device=final.device),
            seen=watch.unedited(rows, cells),
        )

    def entered(self, layer: int) -> int:
        """How many of its cells enter at a block or before."""
        return int(np.searchsorted(self.batch.layers, layer, side="right"))

    def prove(self, tile: Tile, edits: Sequence[Application]) -> None:
        """Add up what edits did in a tile."""
        proofs = self.proofs[:, tile.prompts, tile.cells]
        proof = torch.zeros_like(proofs).flatten(1)
        for edit in edits:
            assert edit.changed is not None, "visits are proved"
            assert edit.squares is not None, "visits are proved"
            assert edit.rows is not None, "a batch has rows"
            own = torch.stack([edit.changed.double(), edit.squares]).to(proof.device)
            proof.index_add_(1, onto(proof.device, edit.rows), own)
        proofs += proof.view_as(proofs)
