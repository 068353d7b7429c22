"""Rows of circuits: the unit of a trial, which is run in one pass, here or by a worker."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy import typing as npt

from microtome.circuits.checking import Witnesses
from microtome.circuits.circuit import Circuit
from microtome.circuits.clean import Array
from microtome.circuits.graph import Bools
from microtome.language.regions import Column


@dataclass(frozen=True, eq=False)
class Rows:
    """Some pairs of a prompt and a circuit, of prompts of one length.

    Attributes:
        number: their own, from 0.
        pairs: the prompt and the circuit of each, by number, ``[row, 2]``.
        edges: gives the edges of each circuit that occurs, by number, ``[circuit, edge]``: made
            when they are asked for, as all circuits of a step may take a gigabyte.
        chosen: pairs whose logits are kept.
        seeks: whether those of the pair that is furthest from the clean run are, too.
    """

    number: int
    pairs: Column
    edges: Callable[[], Bools]
    chosen: tuple[tuple[int, int], ...]
    seeks: bool

    def __reduce__(self) -> tuple[Callable[..., Rows], tuple[object, ...]]:
        edges = self.edges()
        bits = np.packbits(edges, axis=1)
        return _sent, (self.number, self.pairs, bits, edges.shape[1], self.chosen, self.seeks)


def _sent(
    number: int,
    pairs: Column,
    bits: npt.NDArray[np.uint8],
    of: int,
    chosen: tuple[tuple[int, int], ...],
    seeks: bool,
) -> Rows:
    """Rows that were sent, of a graph of so many edges."""

    def edges() -> Bools:
        found: Bools = np.unpackbits(bits, axis=1, count=of).astype(bool)
        return found

    return Rows(number, pairs, edges, chosen, seeks)


def edges_of(circuits: Sequence[Circuit], pairs: Column) -> Bools:
    """The edges of the circuits that occur in some pairs, by number, ``[circuit, edge]``."""
    return np.stack([circuits[n].chosen for n in np.unique(pairs[:, 1]).tolist()])


@dataclass(frozen=True, eq=False)
class Ran:
    """What rows gave; it pickles to plain arrays.

    Attributes:
        number: the rows' own.
        values: per metric, ``[row]``.
        seen: the logits that were to be kept.
    """

    number: int
    values: Mapping[str, Array]
    seen: Witnesses


class Runner(Protocol):
    """Who runs rows in the place of this process."""

    def run(self, units: Sequence[Rows], listen: Callable[[], None]) -> Generator[Ran, None, None]:
        """What rows gave, in any order; what ``listen`` raises ends it."""
