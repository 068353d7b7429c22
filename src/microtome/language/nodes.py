"""The graph of a model's edges, by the names that EAP-IG and MIB's circuit track have for them.

| node | it writes | it reads |
|---|---|---|
| ``input`` | ``embed`` | |
| ``a5.h3`` | ``L5.z.h3`` | ``L5.q_in.h3``, ``L5.k_in.h3``, ``L5.v_in.h3``: as ``a5.h3<q>``… |
| ``m5`` | ``L5.mlp_out`` | ``L5.mlp_in`` |
| ``logits`` | | ``final_in`` |

An edge is ``input->a0.h0<q>``, ``a0.h1->m3``. The form is that of Hanna et al. 2024
(arXiv:2403.17806) and Mueller et al. 2025 (arXiv:2504.13151). Pure: no tensor, no model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, overload

import numpy as np

from microtome.errors import AddressError, did_you_mean
from microtome.language.edges import NORMED, Edge, parse_edge
from microtome.language.sites import Dimensions

Names = np.ndarray[Any, np.dtype[np.str_]]

_WRITTEN = {"input": "embed", "head": "L{layer}.z.h{head}", "mlp": "L{layer}.mlp_out"}
_READ = {
    "q": "L{layer}.q_in.h{head}",
    "k": "L{layer}.k_in.h{head}",
    "v": "L{layer}.v_in.h{head}",
    "mlp": "L{layer}.mlp_in",
    "logits": "final_in",
}
_NODE = re.compile(r"a(?P<layer>\d+)\.h(?P<head>\d+)(?:<(?P<part>[qkv])>)?|m(?P<mlp>\d+)")


@dataclass(frozen=True)
class Kind:
    """The edges from one kind of writer to one kind of reader: what one sweep spans.

    Attributes:
        writer: ``"input"``, ``"head"`` or ``"mlp"``.
        reader: ``"q"``, ``"k"``, ``"v"``, ``"mlp"`` or ``"logits"``.

    >>> Kind("head", "q").text, Kind("input", "mlp").text
    ('L*.z.h* -> L*.q_in.h*', 'embed -> L*.mlp_in')
    """

    writer: str
    reader: str

    @property
    def text(self) -> str:
        """The edges as an address with stars."""
        every = {"layer": "*", "head": "*"}
        return f"{_WRITTEN[self.writer].format(**every)} -> {_READ[self.reader].format(**every)}"

    def names(self, dims: Dimensions) -> Names:
        """The name of each point of the sweep, in its shape without ``prompt``; "" where none is.

        >>> dims = Dimensions(2, 2, 2, 4, 2, 8, 99)
        >>> Kind("input", "mlp").names(dims).tolist()
        ['input->m0', 'input->m1']
        >>> Kind("mlp", "mlp").names(dims).tolist()
        [['', 'm0->m1'], ['', '']]
        """
        writers, readers = _writing(self.writer, dims), _reading(self.reader, dims)
        known = _known(dims)
        found = [[_if_known(f"{w}->{r}", known) for r in readers] for w in writers]
        sizes = [*self._sizes(self.writer, dims), *self._sizes(self.reader, dims)]
        return np.array(found).reshape(sizes)

    @staticmethod
    def _sizes(end: str, dims: Dimensions) -> tuple[int, ...]:
        if end in ("input", "logits"):
            return ()
        return (dims.n_layers,) if end == "mlp" else (dims.n_layers, dims.n_heads)


KINDS = tuple(Kind(writer, reader) for writer in _WRITTEN for reader in _READ)
"""All of them; together they are the graph."""


@dataclass(frozen=True)
class Edges(Sequence[str]):
    """Every edge of a model's graph, by name: layer by layer, in the order of EAP-IG.

    Attributes:
        dims: the model's sizes; nothing else of it matters.

    Raises:
        AddressError: the model has no edges, as its stream is no sum.

    >>> edges = Edges(Dimensions(12, 12, 12, 768, 64, 3072, 50257))
    >>> len(edges.nodes), len(edges), edges[0], edges[-1]
    (158, 32491, 'input->a0.h0<q>', 'm11->logits')
    >>> str(edges.edge("a0.h1->m3"))
    'L0.z.h1 -> L3.mlp_in'
    """

    dims: Dimensions

    def __post_init__(self) -> None:
        if not self.dims.sums:
            raise AddressError(f"There are no edges: {NORMED}.")

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The sweeps that together span all edges."""
        return tuple(kind for kind in KINDS if (kind.names(self.dims) != "").any())

    @cached_property
    def nodes(self) -> tuple[str, ...]:
        """Every node: ``input``, each layer's heads and MLP, ``logits``."""
        found = ["input"]
        for layer in range(self.dims.n_layers):
            found += [f"a{layer}.h{head}" for head in range(self.dims.n_heads)]
            found.append(f"m{layer}")
        return (*found, "logits")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every edge's name."""
        return tuple(f"{w}->{r}" for w, r in zip(self.writers, self.readers, strict=True))

    @property
    def writers(self) -> Names:
        """The node that writes, per edge."""
        return self._columns[0]

    @property
    def readers(self) -> Names:
        """What reads, per edge: a node, of a head with ``<q>``, ``<k>`` or ``<v>``."""
        return self._columns[1]

    @cached_property
    def _columns(self) -> tuple[Names, Names]:
        pairs = list(self._pairs())
        writers, readers = zip(*pairs, strict=True)
        return np.array(writers), np.array(readers)

    def _pairs(self) -> Iterator[tuple[str, str]]:
        stream = ["input"]
        for layer in range(self.dims.n_layers):
            heads = [f"a{layer}.h{head}" for head in range(self.dims.n_heads)]
            yield from ((w, f"{head}<{part}>") for w in stream for head in heads for part in "qkv")
            stream += [] if self.dims.is_parallel else heads
            yield from ((w, f"m{layer}") for w in stream)
            stream += heads if self.dims.is_parallel else []
            stream.append(f"m{layer}")
        yield from ((w, "logits") for w in stream)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.names)}

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, number: int) -> str: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[str]: ...
    def __getitem__(self, number: int | slice) -> str | Sequence[str]:
        return self.names[number]

    def __contains__(self, name: object) -> bool:
        return name in self._numbers

    def index(self, name: str, start: int = 0, stop: int | None = None) -> int:
        """The number of an edge.

        Raises:
            AddressError: there is no such edge.
        """
        if name not in self._numbers:
            raise AddressError(
                f"No edge is called {name!r}: there are {len(self):,}, from {self[0]} to "
                f"{self[-1]}, of nodes input, a0.h0 … a{self.dims.n_layers - 1}."
                f"h{self.dims.n_heads - 1}, m0 … m{self.dims.n_layers - 1}, logits."
                f"{did_you_mean(name, self.names)}"
            )
        return self._numbers[name]

    def edge(self, name: str) -> Edge:
        """An edge of a name as an address.

        Raises:
            AddressError: there is no such edge.
        """
        self.index(name)
        writer, _, reader = name.partition("->")
        return parse_edge(f"{wrote(writer)} -> {read(reader)}")


def wrote(node: str) -> str:
    """The address at which a node writes.

    >>> wrote("a5.h3"), wrote("m5"), wrote("input")
    ('L5.z.h3', 'L5.mlp_out', 'embed')
    """
    return _side(node, _WRITTEN)


def read(reader: str) -> str:
    """The address at which something reads, by its name in an edge.

    >>> read("a5.h3<q>"), read("m5"), read("logits")
    ('L5.q_in.h3', 'L5.mlp_in', 'final_in')
    """
    return _side(reader, _READ)


def _side(node: str, forms: dict[str, str]) -> str:
    found = _NODE.fullmatch(node)
    if found is None:
        return forms[node]
    if found["mlp"] is not None:
        return forms["mlp"].format(layer=found["mlp"])
    form = forms[found["part"] or "head"]
    return form.format(layer=found["layer"], head=found["head"])


def _writing(kind: str, dims: Dimensions) -> list[str]:
    """The nodes of a kind that write, layer by layer."""
    return ["input"] if kind == "input" else _in_layers(kind, dims)


def _reading(kind: str, dims: Dimensions) -> list[str]:
    """What reads, of a kind, layer by layer."""
    if kind in ("logits", "mlp"):
        return ["logits"] if kind == "logits" else _in_layers(kind, dims)
    return [f"{head}<{kind}>" for head in _in_layers("head", dims)]


def _in_layers(kind: str, dims: Dimensions) -> list[str]:
    layers = range(dims.n_layers)
    if kind == "mlp":
        return [f"m{layer}" for layer in layers]
    return [f"a{layer}.h{head}" for layer in layers for head in range(dims.n_heads)]


def _if_known(name: str, known: frozenset[str]) -> str:
    return name if name in known else ""


@lru_cache(maxsize=4)
def _known(dims: Dimensions) -> frozenset[str]:
    return frozenset(Edges(dims).names)
