"""Numbers that a user gives to an edit, one array for each of some layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from numpy.typing import ArrayLike
from torch import Tensor

from microtome.edits.values import Values
from microtome.errors import EditError, listing

Given = Values | Tensor | ArrayLike
"""What an array can be made of."""


@dataclass(frozen=True)
class ByLayer:
    """`Values` for each of some layers, so that one edit with ``L*`` has each layer's own.

    >>> str(ByLayer.of({0: [0.5, 2], 3: [1, 0]}))
    '{0: [0.5, 2.0], 3: [1.0, 0.0]}'
    """

    layers: tuple[tuple[int, Values], ...]

    @classmethod
    def of(cls, given: Mapping[int, Given]) -> ByLayer:
        """From a mapping of layers to what values are made of.

        Raises:
            EditError: a key is no layer, or values are not finite numbers.
        """
        for layer in given:
            if isinstance(layer, bool) or not isinstance(layer, int) or layer < 0:
                raise EditError(f"Vectors by layer are by its number, from 0, not by {layer!r}.")
        if not given:
            raise EditError("Vectors by layer are of one layer at least.")
        return cls(tuple((layer, Values.of(given[layer])) for layer in sorted(given)))

    def __str__(self) -> str:
        return "{" + ", ".join(f"{layer}: {values}" for layer, values in self.layers) + "}"


Vectors = Values | ByLayer
"""One array for every layer, or each layer's own."""


def vectors_of(given: object) -> Vectors:
    """What a user gives as a vector: one for every layer, or a mapping of layers to theirs.

    Raises:
        EditError: it is none.
    """
    if isinstance(given, ByLayer):
        return given
    if isinstance(given, Mapping):
        return ByLayer.of(given)
    return Values.of(cast(Given, given))


def vector_in(vectors: Vectors, layer: int | None, edit: object) -> Values:
    """The array of one layer.

    Raises:
        EditError: it has none.
    """
    if isinstance(vectors, Values):
        return vectors
    for known, values in vectors.layers:
        if known == layer:
            return values
    there = listing(known for known, _ in vectors.layers)
    where = "no layer" if layer is None else f"layer {layer}"
    raise EditError(f"{edit}: there is no vector for {where}; there are some for layers {there}.")
