"""A circuit without each of some parts: as many circuits as there are parts, made when asked for.

A step of a search is a circuit for every edge that is left, and what is in each takes a byte for
every edge of the graph: all of them together would be a gigabyte for GPT-2 Small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from microtome.circuits.circuit import Circuit
from microtome.circuits.graph import Graph, Numbers


@dataclass(frozen=True, eq=False)
class Without(Sequence[Circuit]):
    """A circuit without each of some parts.

    Attributes:
        whole: the circuit.
        parts: of each, the edges that are missing, by number.

    >>> import numpy as np
    >>> from microtome.circuits import Graph
    >>> full = Circuit.full(Graph(n_layers=1, n_heads=1, d_model=4))
    >>> [len(one) for one in Without(full, [np.array([0]), np.array([], dtype=int)])]
    [7, 8]
    """

    whole: Circuit
    parts: Sequence[Numbers]

    def __len__(self) -> int:
        return len(self.parts)

    @overload
    def __getitem__(self, number: int) -> Circuit: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[Circuit]: ...
    def __getitem__(self, number: int | slice) -> Circuit | Sequence[Circuit]:
        if isinstance(number, slice):
            return Without(self.whole, self.parts[number])
        chosen = self.whole.chosen.copy()
        chosen[self.parts[number]] = False
        return Circuit(self.whole.graph, chosen, self.whole.scores)


def removed(graph: Graph, level: str, number: int) -> Numbers:
    """The edges that are gone where one edge, or all that leaves one node, is ablated, by number.

    >>> removed(Graph(n_layers=1, n_heads=1, d_model=4), "node", 1)  # head 0: to the MLP, the end
    array([5, 6])
    """
    if level == "edge":
        return np.array([number])
    return np.flatnonzero(graph.ends[0] == number)
