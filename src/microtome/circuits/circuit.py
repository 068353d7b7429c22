"""A circuit: a set of edges of a graph, as a value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy import typing as npt

from microtome.amounts import many
from microtome.circuits import files
from microtome.circuits.graph import INPUT, LOGITS, Bools, Graph
from microtome.errors import CircuitError
from microtome.model.loaded import Loaded
from microtome.notebook import html_line, html_table
from microtome.spoken import spoken

Scores = npt.NDArray[np.float64]


@spoken
@dataclass(frozen=True, eq=False)
class Circuit:
    """A set of edges; the edges outside are what running it ablates.

    Two are equal where their graphs and their edges are. `|`, `&` and `-` are those of sets, ``in``
    takes an edge's name, and to go over it gives names.

    Attributes:
        graph: the graph.
        chosen: which of its edges are in the circuit, ``[edge]``.
        scores: what each edge of the graph counts, ``[edge]``; NaN where that is not known. They
            go along with the set and are no part of it.

    >>> graph = Graph(n_layers=1, n_heads=2, d_model=8)
    >>> circuit = Circuit.of(graph, ["input->a0.h1<v>", "a0.h1->logits", "a0.h0->m0"])
    >>> len(circuit), "a0.h0->m0" in circuit
    (3, True)
    >>> circuit.pruned().edges
    ('input->a0.h1<v>', 'a0.h1->logits')
    >>> circuit.pruned().nodes
    ('input', 'a0.h1', 'logits')
    """

    graph: Graph
    chosen: Bools
    scores: Scores | None = None

    def __post_init__(self) -> None:
        for name, kind in (("chosen", np.bool_), ("scores", np.float64)):
            given = getattr(self, name)
            if given is None:
                continue
            array = np.array(given, dtype=kind)  # its own: a value does not change
            if array.shape != (len(self.graph),):
                raise CircuitError(
                    f"{name} has one value for each of the {many(len(self.graph), 'edge')}, not "
                    f"{list(array.shape)}."
                )
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    # ----------------------------------------------------------------------- how it is made

    @classmethod
    def of(cls, graph: Graph | Loaded, edges: Iterable[str]) -> Circuit:
        """The circuit of some edges, by their names.

        Raises:
            CircuitError: there is no such edge.
        """
        graph = graph if isinstance(graph, Graph) else Graph.of(graph)
        chosen = np.zeros(len(graph), dtype=bool)
        chosen[[graph.number(edge) for edge in edges]] = True
        return cls(graph, chosen)

    @classmethod
    def full(cls, graph: Graph | Loaded) -> Circuit:
        """All edges: the model itself."""
        graph = graph if isinstance(graph, Graph) else Graph.of(graph)
        return cls(graph, np.ones(len(graph), dtype=bool))

    @classmethod
    def empty(cls, graph: Graph | Loaded) -> Circuit:
        """No edge: everything ablated."""
        graph = graph if isinstance(graph, Graph) else Graph.of(graph)
        return cls(graph, np.zeros(len(graph), dtype=bool))

    @classmethod
    def among(cls, graph: Graph | Loaded, nodes: Iterable[str]) -> Circuit:
        """All edges between some nodes; the input and the logits are always among them.

        Raises:
            CircuitError: there is no such node.
        """
        graph = graph if isinstance(graph, Graph) else Graph.of(graph)
        kept = graph.has(nodes) | graph.has([INPUT, LOGITS])
        writers, readers = graph.ends
        return cls(graph, kept[writers] & kept[graph.node_of_reader[readers]])

    # ----------------------------------------------------------------------- as a set

    @cached_property
    def edges(self) -> tuple[str, ...]:
        """The names of its edges, in the graph's order."""
        return tuple(self.graph.edges[n] for n in np.flatnonzero(self.chosen).tolist())

    def __iter__(self) -> Iterator[str]:
        return iter(self.edges)

    def __len__(self) -> int:
        return int(self.chosen.sum())

    def __bool__(self) -> bool:
        return bool(self.chosen.any())

    def __contains__(self, edge: object) -> bool:
        return isinstance(edge, str) and bool(self.chosen[self.graph.number(edge)])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Circuit):
            return NotImplemented
        return self.graph == other.graph and np.array_equal(self.chosen, other.chosen)

    def __hash__(self) -> int:
        return hash((self.graph, self.chosen.tobytes()))

    def __or__(self, other: Circuit) -> Circuit:
        return self._with(other, self.chosen | self._same(other).chosen)

    def __and__(self, other: Circuit) -> Circuit:
        return self._with(other, self.chosen & self._same(other).chosen)

    def __sub__(self, other: Circuit) -> Circuit:
        return self._with(other, self.chosen & ~self._same(other).chosen)

    def __le__(self, other: Circuit) -> bool:
        return not bool((self.chosen & ~self._same(other).chosen).any())

    def _same(self, other: Circuit) -> Circuit:
        if self.graph != other.graph:
            raise CircuitError(
                f"These circuits are of different graphs, {self.graph} and {other.graph}: edges "
                "of one are none of the other."
            )
        return other

    def _with(self, other: Circuit, chosen: Bools) -> Circuit:
        return Circuit(self.graph, chosen, self.scores if self.scores is not None else other.scores)

    # ----------------------------------------------------------------------- what it is

    @cached_property
    def mask(self) -> Bools:
        """Its edges as ``[writer, reader]``."""
        found = np.zeros(self.graph.exists.shape, dtype=bool)
        found[self.graph.ends] = self.chosen
        found.setflags(write=False)
        return found

    @cached_property
    def nodes(self) -> tuple[str, ...]:
        """The nodes that its edges begin or end at, in the order of a pass."""
        return tuple(self.graph.nodes[n] for n in np.flatnonzero(self._touched).tolist())

    @property
    def _touched(self) -> Bools:
        graph, mask = self.graph, self.mask
        found = np.zeros(len(graph.nodes), dtype=bool)
        found[:-1] = mask.any(axis=1)
        found[graph.node_of_reader[mask.any(axis=0)]] = True
        return found

    def pruned(self) -> Circuit:
        """Without what no way leads to from the input, or from which none leads to the logits."""
        graph, mask = self.graph, self.mask.copy()
        while True:
            into = np.zeros(len(graph.nodes), dtype=bool)
            into[graph.node_of_reader[mask.any(axis=0)]] = True
            into[0] = True  # the input is read by nobody and written by the text
            out = np.append(mask.any(axis=1), True)
            both = into & out
            left = mask & both[:-1, None] & both[graph.node_of_reader]
            if np.array_equal(left, mask):
                return replace(self, chosen=mask[graph.ends])
            mask = left

    def to_dataframe(self) -> pd.DataFrame:
        """A row per edge: its ends by name, where they are, and its score.

        ``part`` is ``q``, ``k`` or ``v`` where a head reads. Layers and heads are missing where a
        node has none.
        """
        graph = self.graph
        numbers = np.flatnonzero(self.chosen)
        writers = [graph.writers[n] for n in graph.ends[0][numbers]]
        readers = [graph.readers[n] for n in graph.ends[1][numbers]]
        frame = pd.DataFrame(
            {
                "edge": [graph.edges[n] for n in numbers],
                "writer": [one.name for one in writers],
                "reader": [one.node for one in readers],
                "part": [one.part for one in readers],
                "from_layer": pd.array([one.layer for one in writers], dtype="Int64"),
                "from_head": pd.array([one.head for one in writers], dtype="Int64"),
                "layer": pd.array([one.layer for one in readers], dtype="Int64"),
                "head": pd.array([one.head for one in readers], dtype="Int64"),
            }
        )
        if self.scores is not None:
            frame["score"] = self.scores[numbers]
        return frame

    # ----------------------------------------------------------------------- in files

    def save(self, path: str | Path) -> None:
        """Write it as the JSON that EAP-IG and MIB's circuit track read.

        Raises:
            CircuitError: the file cannot be written.
        """
        files.write(path, self._form)

    def to_json(self) -> str:
        """What `save` writes, as a text."""
        return files.as_text(self._form)

    @property
    def _form(self) -> files.Form:
        touched = dict(zip(self.graph.nodes, self._touched.tolist(), strict=True))
        return files.Form(self.graph.cfg, touched, self.graph.edges, self.chosen, self.scores)

    @classmethod
    def open(cls, path: str | Path, of: Graph | Loaded | None = None) -> Circuit:
        """Read what `save`, EAP-IG or MIB's circuit track wrote.

        Args:
            path: the file.
            of: the model that it has to be of, or its graph.

        Raises:
            CircuitError: it is no such file, of another model, or names what is not there.
        """
        read = files.read(path)
        with files.naming(path):
            graph = Graph.by(read.cfg)
        if of is not None:
            _check_same(graph, of, path)
        number = {edge: n for n, edge in enumerate(graph.edges)}
        chosen = np.zeros(len(graph), dtype=bool)
        scores = np.full(len(graph), np.nan)
        with files.naming(path):
            graph.has(read.nodes)
            at = [number[edge] if edge in number else graph.number(edge) for edge in read.edges]
        chosen[at], scores[at] = read.chosen, read.scored
        return cls(graph, chosen, None if np.isnan(scores).all() else scores)

    def __repr__(self) -> str:
        return (
            f"<Circuit of {len(self):,} of {many(len(self.graph), 'edge')}, "
            f"{many(len(self.nodes), 'node')}; {self.graph}>"
        )

    def _repr_html_(self) -> str:
        """In a notebook: its edges, the strongest first where they are scored."""
        table = self.to_dataframe()
        if "score" in table:
            table = table.sort_values("score", key=abs, ascending=False, kind="stable")
        table = table.astype(object)
        return html_line(repr(self)) + html_table(tuple(table.columns), table.values.tolist())


def _check_same(graph: Graph, of: Graph | Loaded, path: str | Path) -> None:
    own = of if isinstance(of, Graph) else Graph.of(of)
    if graph != own:
        name = "this model" if isinstance(of, Graph) else repr(of.name)
        raise CircuitError(
            f"The circuit in {path} is of a model with {graph}, and {name} has {own}: open it "
            "with the model that it was found in."
        )
