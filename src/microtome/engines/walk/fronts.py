"""Paths on the walk: the first of their two runs, for all writers of a prompt together.

A path takes two runs (`edits.paths`). In the first one the writer's share is edited, the parts that
the path goes through are free and all others hold what they had: what arrives at the reader there,
less what it reads in the clean run, is put there in the second one, where all else is clean. The
second is a cell like any other. The first one is walked here:

- **One run for all readers.** What a path does not go through is held from the writer on, to the
  end; what is held behind a reader does not change what that reads. So a writer's run is the same
  for all readers, and each takes what has arrived when the run gets to it. A map of writers ×
  readers is as many runs as there are writers.
- **Late entry, late start.** A writer's run begins in the block that it writes in, with the clean
  run's input, at the first position that is changed; keys and values before come from the trace.
- **In step.** The runs go on block by block as the walk asks for readers of later layers. Of each
  writer there is one stream, as far as it has come.
- **What is held is not computed.** Where heads are held, what a layer's heads add together is the
  clean run's, and attention runs on one row for all; where MLPs are, the MLP runs at one position.
  Every position takes its own way then, and one that nothing has reached is the clean run's to the
  bit; with free heads those behind the first changed one are reached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from microtome.engines.walk.shared import Shared
from microtome.language.edges import WITHIN, Edge
from microtome.language.regions import Column
from microtome.language.sites import site as find_site
from microtome.model.loaded import Loaded
from microtome.passes.hooks import Visit, only_at, visited
from microtome.passes.trace import Trace

Block = Callable[[int, Tensor, Sequence[int], int], Tensor]
"""Runs a block: its number, rows ``[row, own, d_model]``, the prompt's row in the trace, and the
position at which they begin."""


@dataclass(frozen=True, eq=False)
class Way:
    """The way of one prompt's writers through the model.

    Attributes:
        model: the model.
        trace: the clean runs.
        row: the prompt's among them.
        path: what it may go through, and where it ends.
        start: the first position that is changed.
        tile: tokens that a block is run on at a time.
        block: runs a block.
    """

    model: Loaded
    trace: Trace
    row: int
    path: Edge
    start: int
    tile: int
    block: Block

    def entering(self, layer: int) -> Float[Tensor, "own d_model"]:
        """What enters a block in the clean run; behind the last one, what leaves it."""
        return self.trace.inputs[layer][self.row, self.start - self.trace.start :]

    def clean(self, site: str, layer: int) -> Float[Tensor, " own *units"]:
        """What was recorded of the clean run at a site."""
        return self.trace.kept[find_site(site), layer][self.row, self.start :]

    def holds(self, part: str) -> bool:
        """Whether heads, or MLPs, stay as they were."""
        return part not in (self.path.via or ())

    def spread(self, touched: Bool[Tensor, "row own"]) -> Bool[Tensor, "row own"]:
        """Where a layer's heads may bring what has reached some positions."""
        if not self.model.anatomy.dims.causal:
            return touched.any(1, keepdim=True).expand_as(touched)
        return touched.cumsum(1) > 0

    def rows(self) -> int:
        """Writers whose block runs at a time."""
        own = self.trace.inputs[0].shape[1] - (self.start - self.trace.start)
        return max(1, self.tile // own)


@dataclass(eq=False)
class Front:
    """The streams of some writers, as far as they have come.

    Attributes:
        way: their way.
        layers: the block that each writes in, ascending; -1 before the first one.
        changes: of some of them, what is changed of what they write, ``[writer, own, d_model]``.
        x: the streams, ``[writer, own, d_model]``; of one that has not entered, nothing.
        touched: which positions the change has reached, ``[writer, own]``.
        at: the next block.
        seen: what has arrived within the block before, if that is where the path ends.
    """

    way: Way
    layers: Column
    changes: Callable[[slice], Float[Tensor, "writer own d_model"]]
    x: Float[Tensor, "writer own d_model"] = field(init=False)
    touched: Bool[Tensor, "writer own"] = field(init=False)
    at: int = 0
    seen: Tensor | None = None

    def __post_init__(self) -> None:
        clean = self.way.entering(0)
        self.x = clean.new_zeros(len(self.layers), *clean.shape)
        self.touched = torch.zeros(self.x.shape[:2], dtype=torch.bool, device=clean.device)
        before = int(np.searchsorted(self.layers, 0))
        if before:
            change = self.changes(slice(0, before))
            self.x[:before] = clean + change
            self.touched[:before] = (change != 0).any(-1)
        self.at = int(max(0, self.layers[0]))

    def is_past(self, layer: int | None) -> bool:
        """Whether what arrives there is gone already."""
        return layer is not None and self.at > layer + self._ends_within

    @property
    def _ends_within(self) -> bool:
        return self.way.path.site.name in WITHIN

    def arriving(self, layer: int | None) -> Float[Tensor, "writer own *units"]:
        """The change of what the path's reader in a layer reads; None: at the end."""
        end = self.way.model.anatomy.dims.n_layers if layer is None else layer
        while self.at < end + self._ends_within:
            self._run(self.at == layer and self._ends_within)
        if self._ends_within:
            assert self.seen is not None, "the block was just run"
            return self.seen
        return _where(self.touched, self.x - self.way.entering(end))

    def _run(self, reads: bool) -> None:
        """One block, on all writers that have written by then."""
        layer = self.at
        before, entered = (
            int(np.searchsorted(self.layers, layer, side=side)) for side in ("left", "right")
        )
        self.x[before:entered] = self.way.entering(layer)
        self.seen = self._unseen() if reads else None
        for first in range(0, entered, self.way.rows()):
            self._tile(slice(first, min(first + self.way.rows(), entered)), before)
        self.at += 1

    def _unseen(self) -> Tensor:
        clean = self.way.clean(self.way.path.site.name, self.at)
        return clean.new_zeros(len(self.layers), *clean.shape)

    def _tile(self, rows: slice, before: int) -> None:
        way, layer = self.way, self.at
        apart = min(max(before - rows.start, 0), rows.stop - rows.start)
        change = self.changes(slice(rows.start + apart, rows.stop))
        touched = self.touched[rows]
        mixed = way.spread(touched)
        after = (touched if way.holds("head") else mixed).clone()
        after[apart:] |= (change != 0).any(-1)
        reached = touched if way.model.anatomy.dims.is_parallel else after
        visits = [
            *self._written(apart, change),
            *self._reading(rows, mixed if way.path.site.name == "z" else reached),
        ]
        out = self._block(self.x[rows], apart, visits)
        self.x[rows] = torch.where(after.unsqueeze(-1), out, way.entering(layer + 1))
        self.touched[rows] = after

    def _written(self, apart: int, change: Tensor) -> Iterator[Visit]:
        """What heads and MLPs add: as it was where that is held, and what writers change."""
        way, layer = self.way, self.at
        adds = way.path.share.site.name
        for part, site in (("head", "attn_out"), ("mlp", "mlp_out")):
            writes = len(change) > 0 and (adds == "mlp_out") == (part == "mlp")
            if not writes and not way.holds(part):
                continue
            still = way.clean(site, layer) if way.holds(part) else None

            def act(view: Tensor, still: Tensor | None = still, writes: bool = writes) -> None:
                if still is not None:
                    view[:] = still
                if writes:
                    view[apart:] += change

            yield Visit((find_site(site), layer), act, writes=True)

    def _reading(self, rows: slice, reached: Tensor) -> Iterator[Visit]:
        """What has arrived within this block."""
        if self.seen is None:
            return
        seen, name, layer = self.seen, self.way.path.site.name, self.at
        clean = self.way.clean(name, layer)

        def act(view: Tensor) -> None:
            seen[rows] = _where(reached, view - clean)

        yield Visit((find_site(name), layer), act)

    def _block(
        self, x: Float[Tensor, "row own d_model"], apart: int, visits: Sequence[Visit]
    ) -> Float[Tensor, "row own d_model"]:
        way, layer = self.way, self.at
        hf, anatomy = way.model.hf, way.model.anatomy
        looks = self.seen is not None and way.path.site.name == "z"
        apart = 0 if way.holds("head") and not looks else apart
        call = way.trace.calls[layer]
        shared = Shared(hf, anatomy, layer, call, 1, apart, len(x) - apart)
        with ExitStack() as stack:
            for saving in shared.once(visits):
                stack.enter_context(saving)
            mlp = self._spared
            if mlp is not None:
                stack.enter_context(only_at(mlp, [0]))
            stack.enter_context(visited(hf, anatomy, visits))
            return way.block(layer, x, [way.row], way.start)

    @property
    def _spared(self) -> nn.Module | None:
        """The MLP that need not run, since what it adds is held behind it and nobody looks."""
        hf, anatomy = self.way.model.hf, self.way.model.anatomy
        mlp = anatomy.mlp(hf, self.at)
        if mlp is None or not self.way.holds("mlp") or self.seen is not None:
            return None
        held = hf.get_submodule(anatomy.tap(find_site("mlp_out"), self.at).module)
        within = any(part is held for part in mlp.modules() if part is not mlp)
        return None if within else mlp


def _where(touched: Bool[Tensor, "row own"], values: Tensor) -> Tensor:
    """Values at the positions that were reached, and 0 elsewhere."""
    own = touched.view(*touched.shape, *[1] * (values.ndim - 2))
    return torch.where(own, values, values.new_zeros(()))
