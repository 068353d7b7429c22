"""Where the walk's edits get values from, over paths too: which writers' streams are asked for.

How these go through the model is in `fronts`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from microtome.edits.shares import Change
from microtome.edits.sources import Sources
from microtome.engines.walk.fronts import Block, Front, Way
from microtome.language.edges import Edge
from microtome.language.operations import Operation
from microtome.language.regions import Column, Layout, Regions
from microtome.model.devices import onto
from microtome.model.loaded import Loaded
from microtome.passes.trace import Trace
from microtome.plan.paths import writers_at_once
from microtome.prompts.encoding import Encoded
from microtome.prompts.sides import sides


@dataclass(frozen=True, eq=False)
class Writers:
    """The different writers of a path in some cells, those of earlier layers first.

    Attributes:
        share: where each adds, as a function of its stars.
        kinds: what these are, ``[writer]`` each.
        count: how many writers there are.
    """

    share: Layout
    kinds: Mapping[str, Column]
    count: int

    @classmethod
    def of(cls, share: Layout, stars: Mapping[str, Column]) -> Writers:
        """Those of cells in which stars are so."""
        cells = len(next(iter(stars.values()), [0]))
        kinds, of = share.unlike(stars, cells)
        return cls(share, kinds, int(of.max()) + 1)

    @property
    def layers(self) -> Column:
        """The block that each writes in; -1 before the first one."""
        layers = self.share.layers
        if isinstance(layers, str):
            return self.kinds[layers]
        return np.full(self.count, -1 if layers is None else layers[0])

    def first(self, since: int) -> int:
        """The first position that any changes, from one on."""
        chosen = self.share.indices[0]
        positions = self.kinds[chosen] if isinstance(chosen, str) else np.array(chosen, dtype=int)
        return max(since, int(positions.min(initial=2**31))) if len(positions) else since

    def numbers(self, stars: Mapping[str, Column], cells: int) -> Column:
        """Which of these each of some cells has, ``[cell]``."""
        if not self.share.stars:
            return np.zeros(cells, dtype=np.int64)
        known, asked = (
            np.stack([given[name] for name in self.share.stars], axis=1)
            for given in (self.kinds, stars)
        )
        places = {tuple(kind): number for number, kind in enumerate(known.tolist())}
        return np.array([places[tuple(kind)] for kind in asked.tolist()])

    def some(self, which: slice) -> tuple[dict[str, Column], int]:
        """The stars of some of them, and how many these are."""
        return {name: own[which] for name, own in self.kinds.items()}, which.stop - which.start


@dataclass(frozen=True, eq=False)
class FirstRun:
    """The first run of a path in a prompt, of all its writers.

    Attributes:
        sources: of what writers change.
        edit: made on the path.
        one: the prompt.
        writers: its writers.
        way: their way.
        since: the first position at which anything can differ.
    """

    sources: Sources
    edit: Operation
    one: Encoded
    writers: Writers
    way: Way
    since: int

    def changes(self, first: int, some: slice) -> Float[Tensor, "writer own d_model"]:
        """What is changed of what some writers write, counted from one on, where streams are."""
        clean = self.way.entering(0)
        kinds, count = self.writers.some(slice(first + some.start, first + some.stop))
        found = clean.new_zeros(count, *clean.shape)
        if not count or not self.writers.share.shape[0]:
            return found
        change = self.sources.change(self.edit, self.one, kinds, count, self.since)
        positions = self.writers.share.at(None, kinds, count).columns[0] - self.way.start
        there = np.broadcast_to(positions, (count, positions.shape[1]))
        rows, columns = np.nonzero(there >= 0)  # before, there is no difference
        values = change.table[onto(found.device, change.of)]
        own, places, taken = (
            onto(found.device, one) for one in (rows, there[rows, columns], columns)
        )
        found[own, places] = values[own, taken]
        return found


Known = tuple[Encoded, int, Mapping[str, Column]]
"""A prompt, its row in the trace, and what the stars are in its cells."""


@dataclass(eq=False)
class Routes:
    """Where the walk's edits get values from: `Sources`, and over paths what is walked here.

    Attributes:
        sources: of all other edits, and of what writers change.
        model: the model.
        trace: the clean runs of some prompts.
        known: these prompts.
        memory: bytes besides the model.
        tile: tokens that a block is run on at a time.
        block: runs a block.
        fronts: the streams of writers on their way; those that were asked for last.
    """

    sources: Sources
    model: Loaded
    trace: Trace
    known: Sequence[Known]
    memory: int
    tile: int
    block: Block
    fronts: OrderedDict[tuple[int, int, int], Front] = field(default_factory=OrderedDict)

    @property
    def kind(self) -> torch.dtype:
        """The type of the model's stream."""
        return self.sources.kind

    def of(
        self,
        edit: Operation,
        layer: int | None,
        one: Encoded,
        stars: Mapping[str, Column],
        cells: int,
        since: int,
    ) -> Tensor | None:
        """What an edit of a prompt needs in one layer, ``[cell, *region]``; see `Sources.of`."""
        path = edit.address
        if not isinstance(path, Edge) or not path.is_path:
            return self.sources.of(edit, layer, one, stars, cells, since)
        own = sides(path, self.model.anatomy.dims, one.tokens)
        run = self._run(edit, path, one, since)
        lands = own.lands.since(since).at(layer, stars, cells)
        which = run.writers.numbers(stars, cells)
        at_once = self._at_once(len(one.tokens.read) - run.way.start)
        parts = [
            (part, np.flatnonzero(which // at_once == part))
            for part in np.unique(which // at_once).tolist()
        ]
        each = []
        for part, mine in parts:
            arrived = self._front(run, part, at_once, layer).arriving(layer)
            own_writers = which[mine] - part * at_once
            each.append(_taken(arrived, own_writers, _of(lands, mine), run.way.start))
        if len(each) == 1:
            return each[0]
        back = np.argsort(np.concatenate([mine for _, mine in parts]))
        return torch.cat(each)[onto(self.trace.final.device, back)]

    def _run(self, edit: Operation, path: Edge, one: Encoded, since: int) -> FirstRun:
        dims = self.model.anatomy.dims
        share = sides(path, dims, one.tokens).share
        assert share is not None, "an edge has a writer"
        _, row, stars = next(known for known in self.known if known[0] is one)
        writers = Writers.of(share.since(since), stars)
        start = writers.first(since) if dims.causal else 0
        way = Way(self.model, self.trace, row, path, start, self.tile, self.block)
        return FirstRun(self.sources, edit, one, writers, way, since)

    def _front(self, run: FirstRun, part: int, at_once: int, layer: int | None) -> Front:
        """The streams of some writers, not further than at a layer's reader."""
        key = id(run.edit), run.way.row, part
        if key not in self.fronts or self.fronts[key].is_past(layer):
            first = part * at_once
            layers = run.writers.layers[first : first + at_once]
            self._keep(key, Front(run.way, layers, partial(run.changes, first)), at_once)
        self.fronts.move_to_end(key)
        return self.fronts[key]

    def _at_once(self, own: int) -> int:
        size = self.trace.inputs[0].itemsize
        return writers_at_once(self.model.anatomy.dims, own, self.memory, size)

    def _keep(self, key: tuple[int, int, int], front: Front, at_once: int) -> None:
        """Keep some streams, and forget those that were not asked for the longest, if need be."""
        self.fronts.pop(key, None)
        while self.fronts and _writers_of(self.fronts) + len(front.layers) > at_once:
            self.fronts.popitem(last=False)
        self.fronts[key] = front


def _writers_of(fronts: Mapping[tuple[int, int, int], Front]) -> int:
    return sum(len(front.layers) for front in fronts.values())


def _of(regions: Regions, cells: Column) -> Regions:
    """The regions of some cells."""
    columns = tuple(one if len(one) == 1 else one[cells] for one in regions.columns)
    return replace(regions, cells=len(cells), columns=columns)


def _taken(
    arrived: Float[Tensor, "writer own *units"], of: Column, regions: Regions, start: int
) -> Float[Tensor, " cell *region"]:
    """What arrives in each cell's region, of the writer that it has."""
    device = arrived.device
    positions = regions.columns[0] - start
    at = onto(device, np.maximum(positions, 0))
    each = arrived[onto(device, of)[:, None], at]
    if (positions < 0).any():  # nothing arrives before the first change
        there = onto(device, positions >= 0)
        each = each * there.view(*there.shape, *[1] * (each.ndim - 2))
    if regions.site.name != "z":
        return Change(each, np.arange(len(of))).at(regions)
    heads, units = (onto(device, column) for column in regions.columns[1:])
    rows = onto(device, np.arange(len(of)))[:, None, None, None]
    places = onto(device, np.arange(each.shape[1]))[None, :, None, None]
    return each[rows, places, heads[:, None, :, None], units[:, None, None, :]]
