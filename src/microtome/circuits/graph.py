"""The graph of a model: what writes to its residual stream, what reads it, and the edges between.

Nodes are called as in the files of EAP-IG and of MIB's circuit track:

| node | what it writes | what it reads |
|---|---|---|
| ``input`` | what enters block 0 (the site ``embed``) | |
| ``a0.h1`` | head 1 of layer 0 (``head_out``) | ``a0.h1<q>``, ``<k>``, ``<v>`` (``q_in``, …) |
| ``m3`` | the MLP of layer 3 (``mlp_out``) | the same name (``mlp_in``) |
| ``logits`` | | what the final norm reads (``final_in``) |

An **edge** is what one reader reads of one writer: ``input->a0.h0<q>``, ``a0.h1->m3``. There is one
wherever the writer comes before the reader in a pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy import typing as npt

from microtome.amounts import many
from microtome.errors import CircuitError, did_you_mean
from microtome.model.anatomy import Anatomy
from microtome.model.loaded import Loaded, check_loaded
from microtome.spoken import spoken

INPUT, LOGITS = "input", "logits"
PARTS = ("q", "k", "v")
"""What a head reads for, in the order of the files."""

Bools = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Writer:
    """What writes: ``layer`` is None of the input, ``head`` of the input and of an MLP."""

    name: str
    layer: int | None = None
    head: int | None = None


@dataclass(frozen=True)
class Reader:
    """What reads: ``part`` is ``"q"``, ``"k"`` or ``"v"`` of a head, else empty."""

    name: str
    node: str
    layer: int | None = None
    head: int | None = None
    part: str = ""


@spoken
@dataclass(frozen=True)
class Graph:
    """All nodes and edges of a model of some size.

    Attributes:
        n_layers, n_heads: how many; heads are query heads, each of which reads keys and values by
            itself, shared or not.
        d_model: the width of what is written.
        parallel: an MLP reads what the heads of its layer read, not what they write.

    >>> graph = Graph(n_layers=12, n_heads=12, d_model=768)
    >>> len(graph.nodes), len(graph)
    (158, 32491)
    >>> graph.edges[0], graph.edges[-1]
    ('input->a0.h0<q>', 'm11->logits')
    """

    n_layers: int
    n_heads: int
    d_model: int
    parallel: bool = False

    @classmethod
    def of(cls, model: Loaded | Anatomy) -> Graph:
        """The graph of a model.

        Raises:
            CircuitError: its residual stream is normed after every addition (BERT), so that what
                is read is not a sum of what was written.
        """
        if not isinstance(model, Anatomy):
            check_loaded(model)
        anatomy = model.anatomy if isinstance(model, Loaded) else model
        dims = anatomy.dims
        if not dims.sums:
            raise CircuitError(
                f"A {anatomy.family.model_type} norms the residual stream itself after every "
                "addition: what is read there is not a sum of what was written, so there are no "
                "edges. Patch nodes instead: mt.sweep(model, prompts, mt.patch('L*.z.h*'), …)."
            )
        return cls(dims.n_layers, dims.n_heads, dims.d_model, dims.is_parallel)

    # ----------------------------------------------------------------------- its nodes

    @cached_property
    def writers(self) -> tuple[Writer, ...]:
        """What writes, in the order of a pass."""
        return (Writer(INPUT), *(one for layer in range(self.n_layers) for one in self._of(layer)))

    def _of(self, layer: int) -> Iterator[Writer]:
        for head in range(self.n_heads):
            yield Writer(f"a{layer}.h{head}", layer, head)
        yield Writer(f"m{layer}", layer)

    @cached_property
    def readers(self) -> tuple[Reader, ...]:
        """What reads, layer by layer: queries of all heads, keys, values, the MLP; the logits."""
        found: list[Reader] = []
        for layer in range(self.n_layers):
            for part in PARTS:
                for head in range(self.n_heads):
                    node = f"a{layer}.h{head}"
                    found.append(Reader(f"{node}<{part}>", node, layer, head, part))
            found.append(Reader(f"m{layer}", f"m{layer}", layer))
        return (*found, Reader(LOGITS, LOGITS))

    @cached_property
    def nodes(self) -> tuple[str, ...]:
        """The names of all nodes, in the order of a pass."""
        return (*(writer.name for writer in self.writers), LOGITS)

    @cached_property
    def node_of_reader(self) -> Numbers:
        """Per reader, which node it is a part of, ``[reader]``."""
        numbers = {node: number for number, node in enumerate(self.nodes)}
        return np.array([numbers[reader.node] for reader in self.readers])

    def has(self, nodes: Iterable[str]) -> Bools:
        """Which of the nodes are among some, by name, ``[node]``.

        Raises:
            CircuitError: there is none of this name.
        """
        numbers = {node: number for number, node in enumerate(self.nodes)}
        found = np.zeros(len(numbers), dtype=bool)
        for name in nodes:
            if name not in numbers:
                raise CircuitError(
                    f"There is no node {name!r} in a model with {self}; nodes are called 'input', "
                    f"'a0.h1', 'm3', 'logits'.{did_you_mean(name, numbers, 0.6)}"
                )
            found[numbers[name]] = True
        return found

    def written_before(self, reader: Reader) -> int:
        """How many of the writers come before a reader: the first ones."""
        if reader.layer is None:
            return len(self.writers)
        own = self.n_heads if reader.head is None and not self.parallel else 0
        return self.first_writer(reader.layer) + own

    def first_writer(self, layer: int) -> int:
        """The number of a layer's first head among the writers; its MLP is behind its heads."""
        return 1 + layer * (self.n_heads + 1)

    # ----------------------------------------------------------------------- its edges

    @cached_property
    def exists(self) -> Bools:
        """Which edges there are, ``[writer, reader]``."""
        before = np.array([self.written_before(reader) for reader in self.readers])
        found: Bools = np.arange(len(self.writers))[:, None] < before
        found.setflags(write=False)
        return found

    @cached_property
    def ends(self) -> tuple[Numbers, Numbers]:
        """Per edge its writer and its reader, each ``[edge]``; writer by writer."""
        writers, readers = np.nonzero(self.exists)
        return writers, readers

    @cached_property
    def edges(self) -> tuple[str, ...]:
        """The names of all edges, in the order of ``ends``."""
        sides = zip(*(one.tolist() for one in self.ends), strict=True)
        return tuple(f"{self.writers[w].name}->{self.readers[r].name}" for w, r in sides)

    def __len__(self) -> int:
        return int(self.exists.sum())

    @cached_property
    def _numbers(self) -> Mapping[str, int]:
        return {name: number for number, name in enumerate(self.edges)}

    def number(self, edge: str) -> int:
        """Which edge has this name.

        Raises:
            CircuitError: none has.
        """
        if edge not in self._numbers:
            raise CircuitError(f"There is no edge {edge!r}: {self._why_no_edge(edge)}")
        return self._numbers[edge]

    def _why_no_edge(self, edge: str) -> str:
        writer, arrow, reader = edge.partition("->")
        if not arrow:
            return "an edge is called 'a0.h1->m3', or 'a0.h1->a2.h0<q>' into a head."
        writers = [one.name for one in self.writers]
        readers = [one.name for one in self.readers]
        if writer not in writers:
            return f"nothing that writes is called {writer!r}.{did_you_mean(writer, writers, 0.6)}"
        if reader not in readers:
            parts = [name for name in readers if name.startswith(f"{reader}<")]
            hint = f" A head reads as {', '.join(parts)}." if parts else ""
            return f"nothing that reads is called {reader!r}.{hint}" + (
                did_you_mean(reader, readers, 0.6) if not hint else ""
            )
        return f"{writer} comes after {reader} in a pass, or beside it."

    # ----------------------------------------------------------------------- in files

    @property
    def cfg(self) -> dict[str, Any]:
        """What the files of EAP-IG and MIB say of a model."""
        return {
            "n_layers": self.n_layers,
            "n_heads": self.n_heads,
            "parallel_attn_mlp": self.parallel,
            "d_model": self.d_model,
        }

    @classmethod
    def by(cls, cfg: Mapping[str, Any]) -> Graph:
        """The graph that such a ``cfg`` is of.

        Raises:
            CircuitError: it does not say what is needed.
        """
        sizes: list[int] = []
        for name in ("n_layers", "n_heads", "d_model"):
            size = cfg.get(name)
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise CircuitError(
                    f"The cfg of a circuit has a whole number above 0 as {name!r}, and this one "
                    f"has {size!r}; it says {dict(cfg)}."
                )
            sizes.append(size)
        parallel = cfg.get("parallel_attn_mlp", False)
        if not isinstance(parallel, bool):
            raise CircuitError(f"parallel_attn_mlp is true or false, not {parallel!r}.")
        return cls(sizes[0], sizes[1], sizes[2], parallel)

    def __str__(self) -> str:
        blocks = "parallel" if self.parallel else "sequential"
        return (
            f"{many(self.n_layers, 'layer')} × {many(self.n_heads, 'head')}, d_model "
            f"{self.d_model}, {blocks} blocks"
        )
