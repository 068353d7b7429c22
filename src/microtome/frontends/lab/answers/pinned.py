"""Pins as a circuit: drawn, weighed edge by edge, judged, and as the JSON that others read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from microtome import Model, Prompt, circuits, sweep
from microtome.circuits import Circuit, Graph
from microtome.circuits.measures import worse
from microtome.engines.observer import Observer, Silent, go_on
from microtome.errors import CircuitError
from microtome.figures import Drawn
from microtome.figures.labels import escaped
from microtome.frontends.lab.answers.measuring import canonical
from microtome.frontends.lab.answers.upstream import HOW, way_for
from microtome.language.edges import where
from microtome.language.nodes import read, wrote
from microtome.prompts.prompts import Given
from microtome.readings.registry import readings

MOST = 200
"""Pins that are weighed one by one."""


def circuit_of(model: Model, pins: Iterable[str]) -> Circuit:
    """The circuit that is pinned.

    Args:
        model: from `load`.
        pins: edges by name (``"a0.h1->m3"``) or as addresses (``"L0.z.h1 -> L3.mlp_in"``); nodes
            by name (``"a0.h1"``), between all of which, and the input and the logits, every edge
            is taken.

    Raises:
        CircuitError: a pin names what is not there, or the model's stream is no sum.
        AddressError: a pin cannot be read.

    >>> import microtome as mt
    >>> found = circuit_of(mt.load("nano"), ["m0", "a0.h1->a1.h2<q>"])
    >>> found.edges
    ('input->m0', 'input->logits', 'a0.h1->a1.h2<q>', 'm0->logits')
    """
    graph, given = Graph.of(model), list(pins)
    nodes = [pin for pin in given if "->" not in pin]
    edges = [_name(graph, pin) for pin in given if "->" in pin]
    found = Circuit.of(graph, edges)
    return found | Circuit.among(graph, nodes) if nodes else found


def _name(graph: Graph, pin: str) -> str:
    """The name of an edge that is given by it, or as an address."""
    if not pin.startswith(("L", "embed")):
        return pin
    address = where(pin)
    writers = {wrote(one.name): one.name for one in graph.writers}
    readers = {read(one.name): one.name for one in graph.readers}
    writer, _, reader = str(address).replace("head_out", "z").partition(" -> ")
    if writer not in writers or reader not in readers:
        raise CircuitError(
            f"{pin!r} is no edge of the graph: a circuit has whole edges from one head, MLP or "
            "the embedding to one reader, at all positions, such as L0.z.h1 -> L3.mlp_in."
        )
    return f"{writers[writer]}->{readers[reader]}"


def weighed(
    model: Model,
    prompt: Prompt,
    circuit: Circuit,
    metric: str,
    way: str = "",
    observer: Observer | None = None,
) -> Circuit:
    """The circuit with a score for each of its edges: how much worse the metric is without it.

    Each is a sweep of one cell, exact and verified; all else is clean.

    Args:
        model: from `load`.
        prompt: what is read.
        circuit: of at most `MOST` edges.
        metric: on the output.
        way: one of `WAYS`; unless given a patch where the prompt has a donor for it.
        observer: is told of each edge, and may cancel between two.

    Raises:
        CircuitError: there are too many edges.
        EditError, PromptError, MetricError, Cancelled: as `sweep`.
    """
    if len(circuit) > MOST:
        raise CircuitError(
            f"{len(circuit):,} edges are pinned, and at most {MOST} are weighed one by one: unpin "
            "some, or take mt.circuits.score, which scores all edges of the model."
        )
    name, [encoded] = canonical(metric), model.encode(prompt)
    sign, way = worse(readings(name)[0]), way_for(encoded, way)
    told = observer or Silent()
    scores = np.full(len(circuit.graph), np.nan)
    for edge in circuit:
        go_on(told)
        writer, _, reader = edge.partition("->")
        asked = f"{HOW[way]} {wrote(writer)} -> {read(reader)}"
        effects = sweep(model, prompt, asked, metrics=[name], progress=told)
        scores[circuit.graph.number(edge)] = sign * effects.delta(name).values.item()
    return replace(circuit, scores=scores)


def drawn(circuit: Circuit, note: str = "") -> Drawn:
    """The circuit, drawn, under a note of the user's.

    Raises:
        CircuitError: it has no edge, or too many.
    """
    return circuits.draw(circuit, title=escaped(note) or None)


@dataclass(frozen=True)
class Kept:
    """How much of what a model does a circuit keeps.

    Attributes:
        ablation: what edges outside carry.
        metric: what is measured.
        faithfulness: (m(C) − m(∅)) / (m(full) − m(∅)), of means over the prompts.
        low, high: its 95 % interval over prompts; NaN where they are too few.
        n: prompts.
        circuit, full, empty: the means of the metric.
        edges: in the circuit.
    """

    ablation: str
    metric: str
    faithfulness: float
    low: float
    high: float
    n: int
    circuit: float
    full: float
    empty: float
    edges: int


def kept(
    model: Model,
    prompts: Given | Sequence[Given],
    circuit: Circuit,
    metric: str,
    ablation: str,
    observer: Observer | None = None,
) -> Kept:
    """The circuit run alone: how faithful it is, with its interval over prompts.

    Args:
        model: from `load`.
        prompts: one, which gives no interval, or several.
        circuit: what is pinned.
        metric: on the output.
        ablation: ``"patch"``, ``"zero"`` or ``"mean"``.
        observer: is told of progress, and may cancel.

    Raises:
        CircuitError, PromptError, MetricError: as `circuits.faithfulness`.
    """
    name = canonical(metric)
    found = circuits.faithfulness(
        model, prompts, circuit, name, ablation=ablation, progress=observer or False
    )
    own, full, empty = (float(found[f"{kind}{name}"].mean()) for kind in ("", "clean_", "ablated_"))
    return Kept(
        ablation=ablation,
        metric=name,
        faithfulness=float(found["faithfulness"]),
        low=float(found["low"]),
        high=float(found["high"]),
        n=found.sizes["prompt"],
        circuit=own,
        full=full,
        empty=empty,
        edges=len(circuit),
    )
