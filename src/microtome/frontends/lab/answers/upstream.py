"""What wrote what a part reads: every edge into it, exactly, the strongest first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from microtome import Effects, Model, Prompt, sweep
from microtome.circuits import Graph
from microtome.circuits.graph import INPUT, Reader, Writer
from microtome.engines.observer import Observer
from microtome.errors import CircuitError, did_you_mean
from microtome.frontends.lab.answers.measuring import canonical
from microtome.language.nodes import read, wrote
from microtome.prompts.encoding import Encoded
from microtome.readings.registry import about

HOW: Mapping[str, str] = {"patch": "patch", "zero": "zero", "mean": 'mean(over="positions")'}
"""What an edge carries in the place of what was written → the edit: the donor's, nothing, or the
writer's own mean over all tokens."""
WAYS = tuple(HOW)


@dataclass(frozen=True)
class Incoming:
    """One edge into a reader.

    Attributes:
        name: such as ``"a0.h1->a2.h0<q>"``.
        writer: its node, ``"a0.h1"``.
        edit: the edit that was made, ``"patch L0.z.h1 -> L2.q_in.h0"``.
        effect: metric with the edit − metric without.
    """

    name: str
    writer: str
    edit: str
    effect: float


@dataclass(frozen=True)
class Upstream:
    """What a reader reads of every writer before it.

    Attributes:
        reader: such as ``"a2.h0<q>"``.
        way: one of `WAYS`.
        metric, unit: what is measured.
        clean: the metric without edits.
        noise: the largest effect of cells that change nothing.
        edges: all that exist, the largest effect first.
    """

    reader: str
    way: str
    metric: str
    unit: str
    clean: float
    noise: float
    edges: tuple[Incoming, ...]


def why_no_patch(one: Encoded) -> str:
    """Why no edge can be patched: ``"donor"``, there is none, or ``"length"``; else empty."""
    if one.donor is None:
        return "donor"
    return "" if len(one.donor.read) == len(one.tokens.read) else "length"


def way_for(one: Encoded, wanted: str = "") -> str:
    """How edges are edited: as wanted, or else patched where the prompt has a donor for it."""
    return wanted or ("zero" if why_no_patch(one) else "patch")


def written_before(model: Model, reader: str) -> tuple[str, ...]:
    """The nodes that write what a reader reads, in the order of a pass: so many cells it takes.

    Raises:
        CircuitError: there is no such reader, or the model's stream is no sum.

    >>> import microtome as mt
    >>> written_before(mt.load("nano"), "a1.h0<q>")[-2:]
    ('a0.h7', 'm0')
    """
    return tuple(one.name for one in _before(model, reader))


def edits_into(model: Model, prompt: Prompt, reader: str, way: str = "") -> tuple[str, ...]:
    """The sweeps that span every edge into a reader, as texts, each over one kind of writers.

    Raises:
        CircuitError: as `written_before`.

    >>> import microtome as mt
    >>> edits_into(mt.load("nano"), mt.Prompt("Berlin is"), "m0")
    ('zero embed -> L0.mlp_in', 'zero L*.z.h* -> L0.mlp_in')
    """
    [encoded] = model.encode(prompt)
    how, forms = HOW[way_for(encoded, way)], _forms(_before(model, reader))
    return tuple(f"{how} {form} -> {read(reader)}" for form in forms)


def upstream(
    model: Model,
    prompt: Prompt,
    reader: str,
    metric: str,
    way: str = "",
    observer: Observer | None = None,
) -> Upstream:
    """Every edge into a reader, one cell each, in sweeps that verify themselves.

    Args:
        model: from `load`.
        prompt: what is read.
        reader: ``"a2.h0<q>"``, ``"m3"`` or ``"logits"``.
        metric: one with a difference.
        way: one of `WAYS`; unless given a patch where that goes, or else zero.
        observer: is told of progress, and may cancel.

    Raises:
        CircuitError: there is no such reader.
        AddressError, EditError, PromptError, MetricError, EffectsError: as `sweep`.
    """
    [encoded], name = model.encode(prompt), canonical(metric)
    way = way_for(encoded, way)
    maps = [
        sweep(model, prompt, edit, metrics=[name], progress=observer or False)
        for edit in edits_into(model, prompt, reader, way)
    ]
    edges = [edge for effects in maps for edge in _edges(effects, reader, way)]
    return Upstream(
        reader,
        way,
        name,
        about(name).unit,
        float(maps[0].clean(name).values.item()),
        max(effects.noise_floor(name) or 0.0 for effects in maps),
        tuple(sorted(edges, key=_size)),
    )


def _before(model: Model, reader: str) -> Sequence[Writer]:
    graph = Graph.of(model)
    found = _reader(graph, reader)
    return graph.writers[: graph.written_before(found)]


def _reader(graph: Graph, name: str) -> Reader:
    known = {one.name: one for one in graph.readers}
    if name not in known:
        raise CircuitError(
            f"Nothing that reads is called {name!r}: a head reads as 'a2.h0<q>', '<k>' and '<v>', "
            f"an MLP as 'm3', the end as 'logits'.{did_you_mean(name, known, 0.6)}"
        )
    return known[name]


def _forms(writers: Sequence[Writer]) -> Iterator[str]:
    """The writers, kind by kind, as addresses with stars."""
    yield "embed"
    if any(one.head is not None for one in writers):
        yield "L*.z.h*"
    if any(one.head is None and one.name != INPUT for one in writers):
        yield "L*.mlp_out"


def _edges(effects: Effects, reader: str, way: str) -> Iterator[Incoming]:
    """The edges of one sweep; those that do not exist are left out."""
    effect = effects.delta(effects.metrics[0]).values[0]
    there = effects.data["values_changed"].notnull().values[0]
    for index in np.ndindex(effect.shape):
        if there[index]:
            node = _node(index)
            edit = f"{HOW[way]} {wrote(node)} -> {read(reader)}"
            yield Incoming(f"{node}->{reader}", node, edit, float(effect[index]))


def _size(edge: Incoming) -> float:
    """What edges are sorted by; one whose effect is no number comes last."""
    return math.inf if math.isnan(edge.effect) else -abs(edge.effect)


def _node(index: tuple[int, ...]) -> str:
    """The node of a point of a form: stars of a head are two, of an MLP one."""
    if not index:
        return INPUT
    return f"m{index[0]}" if len(index) == 1 else f"a{index[0]}.h{index[1]}"
