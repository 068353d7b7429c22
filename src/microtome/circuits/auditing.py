"""Effects by gradients with their audit: some of them exact, and what these say of the others.

A cell is an edge, or a node, on a prompt; exactly it is a pass of the circuit of all other edges,
or of all that do not leave the node. Half of the exact cells are those that the approximation holds
strongest, of whatever kind. For the draw of the other half the rest is put in order, by what reads
(of nodes: by what writes), by its layer, and by size, and cut into strata of equal size.

All is kept in units, as that of a sweep is: some prompts each, and the audit last.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from microtome.circuits.circuit import Circuit
from microtome.circuits.clean import Array
from microtome.circuits.graph import PARTS, Graph, Numbers
from microtome.circuits.running import attributes
from microtome.circuits.search import identity
from microtome.circuits.trial import Trial, ticking
from microtome.circuits.without import Without, removed
from microtome.engines.approximate.audit import DRAWN, STRONGEST, said
from microtome.engines.block import Block
from microtome.engines.observer import Observer
from microtome.figures.mapped import WHY_EXACT
from microtome.results import stores
from microtome.results.sinks import MemorySink, StoreSink
from microtome.stats.auditing import Drawn, draw

NOTHING: Array = np.empty(0)


@dataclass(frozen=True, eq=False)
class Audited:
    """What is known of effects by gradients.

    Attributes:
        approximate: the effects by gradients alone, ``[prompt, edge]`` or ``[prompt, node]``.
        why: of each, why it is exact: 1 one of the strongest, 2 drawn; 0: it is not.
        found: what the exact ones say of the others, in plain values.
    """

    approximate: Array
    why: np.ndarray[Any, np.dtype[np.int8]]
    found: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Ablated:
    """The effects of ablating each edge or node.

    Attributes:
        effects: of the first metric, ``[prompt, edge]`` or ``[prompt, node]``.
        audited: of effects by gradients, what is exact of them; None: all are.
    """

    effects: Array
    audited: Audited | None = None


@dataclass(frozen=True, eq=False)
class Auditing:
    """Effects by gradients on their way.

    Attributes:
        trial: what is asked.
        level: ``"edge"`` or ``"node"``.
        cells: how many are exact.
        seed: of their draw.
        sink: what keeps the units.
        observer: who is told.
    """

    trial: Trial
    level: str
    cells: int
    seed: int
    sink: MemorySink | StoreSink
    observer: Observer

    @cached_property
    def _kept(self) -> dict[int, Block]:
        """The units that were there before."""
        return {block.unit: block for block in self.sink.blocks()}

    def rough(
        self, units: Sequence[tuple[int, ...]], make: Callable[[Sequence[int]], Array]
    ) -> Array:
        """The effects by gradients, ``[prompt, edge]``.

        Args:
            units: prompts, by number, which are made together.
            make: makes the effects on some prompts, ``[row, edge]``.
        """
        edges = len(self.trial.graph)
        found = np.empty((len(self.trial.encoded), edges))
        for unit, prompts in enumerate(units):
            cells = (np.array(prompts)[:, None] * edges + np.arange(edges)).ravel()
            values = self._unit(unit, len(units) + 1, cells, partial(make, prompts))
            found[[*prompts]] = values.reshape(len(prompts), edges)
        return found

    def audited(self, rough: Array, unit: int) -> Ablated:
        """The same with some of its cells exact, and what these say of the others.

        Args:
            rough: approximate effects, ``[prompt, edge]`` or ``[prompt, node]``.
            unit: the number of the last unit, which the exact cells are.
        """
        drawn = self._drawn(rough)
        where = np.divmod(drawn.cells, rough.shape[1])
        exact = self._unit(unit, unit + 1, drawn.cells, partial(self._exact, *where))
        fine, why = rough.copy(), np.zeros(rough.shape, dtype=np.int8)
        fine[where] = exact
        why[where] = [STRONGEST] * len(drawn.strongest) + [DRAWN] * len(drawn.sample)
        names = names_of(self.trial.graph, self.level)

        def named(worst: int) -> dict[str, Any]:
            prompt, thing = (int(side[worst]) for side in where)
            return {"prompt": prompt, self.level: names[thing]}

        found = {"cells": len(drawn.cells), **said(drawn, rough[where], exact, named)}
        return Ablated(fine, Audited(rough, why, found))

    def _unit(self, unit: int, of: int, cells: Numbers, make: Callable[[], Array]) -> Array:
        """The values of some cells: those that are kept, or new ones, which are kept then."""
        name, kept = str(self.trial.asked[0]), self._kept.get(unit)
        if kept is not None and np.array_equal(kept.cells, cells):
            if kept.verification is not None:
                self.trial.checked.resume(kept.verification)
            self.observer.advanced(len(cells))
            self.observer.unit_there(unit, of)
            return kept.values[name]
        checked = self.trial.checked
        before = checked.done
        values: Array = make().ravel()
        verification = checked.state() if checked.done > before else None
        prompts = np.unique(cells // len(names_of(self.trial.graph, self.level)))
        self.sink.take(
            Block(unit, cells, {name: values}, {}, prompts, {}, {}, NOTHING, NOTHING,
                  verification=verification)
        )  # fmt: skip
        self.observer.unit_done(unit, of)
        return values

    def _drawn(self, rough: Array) -> Drawn:
        values = rough.ravel()
        chance = np.random.default_rng([self.seed % 2**64, len(values)])
        groups = np.tile(groups_of(self.trial.graph, self.level), len(rough))
        return draw(values, groups, self.cells, chance)

    def _exact(self, prompts: Numbers, things: Numbers) -> Array:
        """The exact effects of some cells, by circuits."""
        trial, name = self.trial, str(self.trial.asked[0])
        some, which = np.unique(things, return_inverse=True)
        parts = [removed(trial.graph, self.level, one) for one in some.tolist()]
        circuits, pairs = Without(Circuit.full(trial.graph), parts), np.stack([prompts, which], 1)
        measured = trial.measure_pairs(circuits, pairs, ticking(self.observer))[name]
        found: Array = measured[prompts, which] - trial.clean[name][prompts]
        return found


def groups_of(graph: Graph, level: str) -> Numbers:
    """What edges, or nodes, are told apart by for the draw: a number for each kind and layer."""
    if level == "node":
        kinds = np.array([one.head is None for one in graph.writers]) * 1
    else:
        parts = [*PARTS, ""]
        kinds = np.array([parts.index(one.part) for one in graph.readers])[graph.ends[1]]
    found: Numbers = kinds * (graph.n_layers + 1) + layers_of(graph, level)
    return found


def layers_of(graph: Graph, level: str) -> Numbers:
    """The layer of what reads each edge, or of each node; of the logits one more than there are."""
    if level == "node":
        return np.array([one.layer or 0 for one in graph.writers])
    own = [graph.n_layers if one.layer is None else one.layer for one in graph.readers]
    return np.array(own)[graph.ends[1]]


def names_of(graph: Graph, level: str) -> Sequence[str]:
    """What edges, or nodes, are called."""
    return graph.edges if level == "edge" else [writer.name for writer in graph.writers]


# ------------------------------------------------------------------------------ what is kept


@contextmanager
def keeping(
    place: Path | None, trial: Trial, method: dict[str, Any], units: int
) -> Iterator[MemorySink | StoreSink]:
    """What keeps units: memory, or where the same call goes on from.

    Raises:
        EffectsError: the place is of something else, in use, or cannot be written to.
    """
    if place is None:
        yield MemorySink()
        return
    with StoreSink(place, identity(trial, method), units) as sink:
        yield sink


def saved(found: Ablated, trial: Trial, level: str) -> xr.Dataset:
    """What is kept of effects once all are there."""
    assert found.audited is not None, "those by gradients are"
    dims, audited = ("prompt", level), found.audited
    return xr.Dataset(
        {
            "effect": (dims, found.effects),
            "approximate": (dims, audited.approximate),
            WHY_EXACT: (dims, audited.why),
        },
        attrs={
            **attributes(trial),
            "audit": json.dumps(audited.found),
            "checked": json.dumps(trial.checked.state()),
        },
    )


def opened(place: Path, trial: Trial) -> Ablated:
    """What `saved` made, where it is kept.

    Raises:
        EffectsError: it is damaged.
    """
    data = stores.read(place)
    trial.checked.resume(json.loads(data.attrs["checked"]))
    audited = Audited(
        data["approximate"].values, data[WHY_EXACT].values, json.loads(data.attrs["audit"])
    )
    return Ablated(data["effect"].values, audited)
