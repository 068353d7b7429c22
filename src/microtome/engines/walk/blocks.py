"""What is done in a block: cells are let in, edited, measured, and run through it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass

from microtome.engines.walk.batches import Tile
from microtome.engines.walk.edited import edits_at
from microtome.engines.walk.pieces import Piece, Row
from microtome.engines.walk.resumed import Resumed
from microtome.engines.walk.routes import Routes
from microtome.engines.walk.shared import AFTER_ATTENTION, Shared
from microtome.engines.walk.underway import Underway
from microtome.language.sites import BEHIND
from microtome.model.devices import numbers
from microtome.model.loaded import Loaded
from microtome.passes.hooks import Visit, in_order, only_at, visited
from microtome.passes.trace import Trace
from microtome.plan.plan import Plan
from microtome.readings.watch import Watch


@dataclass(frozen=True, eq=False)
class Blocks:
    """The blocks of a model, with what is done in them to batches on their way.

    Attributes:
        model: the model.
        plan: the plan.
        trace: the clean runs.
        routes: where edits get values from.
        resumed: the blocks by themselves.
        watch: the metrics inside the model.
        places: of each clean run, the positions that a metric on the output reads.
    """

    model: Loaded
    plan: Plan
    trace: Trace
    routes: Routes
    resumed: Resumed
    watch: Watch
    places: Sequence[Collection[int]]

    def enter(self, layer: int, front: Underway, tile: Tile) -> bool:
        """Let cells in at a block; whether they differ already, by an edit of what enters it."""
        offset = front.batch.position - self.trace.start
        own = front.x[tile.prompts, tile.cells]
        inputs = self.trace.inputs[layer]
        rows = numbers(inputs.device, front.rows[tile.prompts])
        clean = inputs[rows, None, offset:]
        edits = list(edits_at(self.plan, self.routes, layer - 1, front.batch, tile))
        if not edits:
            own[:] = clean
            return False
        entering = clean.repeat(1, own.shape[1], 1, 1)
        visits = [*(edit.visit() for edit in edits), *self._measured(layer - 1, front, tile)]
        for visit in in_order(visits, self.model.anatomy):
            if visit.place[0].name in BEHIND:
                visit.act(entering.flatten(0, 1))
        own[:] = entering
        front.prove(tile, edits)
        return True

    def piece(self, layer: int, front: Underway, tile: Tile, alike: int) -> Piece:
        """A tile, and what is done to it in a block; from a cell on they are alike."""
        own = front.x[tile.prompts, tile.cells]
        edits = list(edits_at(self.plan, self.routes, layer, front.batch, tile))
        measured = self._measured(layer, front, tile)
        shared = Shared.of(self.model, self.trace.calls[layer], layer, tile, alike)
        entering = shared.entering(edits, measured)
        if entering is None:
            visits = [*(edit.visit() for edit in edits), *measured]
            savings = [*shared.once(visits)]
        else:
            visits = [entering.visit(own[:, entering.rows.apart]), *measured]
            savings = [shared.packed(entering)]
        return Piece(front, tile, edits, visits, savings)

    def run(self, layer: int, pieces: Sequence[Piece]) -> None:
        """Run a block on a piece, or on several side by side."""
        row = Row.of(pieces)
        with ExitStack() as stack:
            for saving in (saving for piece in pieces for saving in piece.savings):
                stack.enter_context(saving)
            stack.enter_context(visited(self.model.hf, self.model.anatomy, row.visits))
            stack.enter_context(self._finish(layer, row))
            if row.is_single:
                [piece] = pieces
                out = self.resumed(layer, row.x, piece.prompts, piece.position)
            else:
                out = self.resumed.side_by_side(layer, row.x, row.beside)
        row.put(out)
        for piece in pieces:
            piece.front.prove(piece.tile, piece.edits)

    def _measured(self, layer: int, front: Underway, tile: Tile) -> list[Visit]:
        """What is measured of a tile in a layer, behind what is done to it."""
        here = {gauge: seen[tile.prompts, tile.cells] for gauge, seen in front.seen.items()}
        rows = front.rows[tile.prompts]
        return [*self.watch.visits(layer, rows, front.batch.position, here, front.room.looks)]

    def _finish(self, layer: int, row: Row) -> AbstractContextManager[None]:
        """The last block's MLP runs only at the positions that a metric reads.

        Attention needs all of them, but after it nothing looks at the others any more, unless
        something is edited or measured there.
        """
        model = self.model
        mlp = model.anatomy.mlp(model.hf, layer)
        if mlp is None or layer < model.anatomy.dims.n_layers - 1:
            return nullcontext()
        if any(visit.place[0].name in AFTER_ATTENTION for visit in row.visits):
            return nullcontext()
        return only_at(mlp, row.read(self.places.__getitem__))
