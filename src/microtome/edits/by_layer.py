"""Numbers that a user gives to an edit, one array for each of some layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import cast

from numpy.typing import ArrayLike
from torch import Tensor

from microtome.amounts import single
from microtome.edits.values import Values
from microtome.edits.vector_files import decoded
from microtome.errors import EditError, listing
from microtome.language.addresses import Address
from microtome.language.edges import Edge
from microtome.language.selectors import Group, Index, Selector
from microtome.paths import at_home
from microtome.texts import brief

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
            EditError: it is none, a key is no layer, or values are not finite numbers.
        """
        if not isinstance(given, Mapping):
            raise EditError(
                "Vectors by layer are a mapping, {5: […], 6: […]}, and not a "
                f"{type(given).__name__}; one for all layers is mt.add('L*.resid_post', vector)."
            )
        own = {single(layer): values for layer, values in given.items()}
        for layer in own:
            if isinstance(layer, bool) or not isinstance(layer, int) or layer < 0:
                raise EditError(
                    f"Vectors by layer go by the layer's number, from 0, and {layer!r} is none."
                )
        if not given:
            raise EditError(
                "The mapping of layers to vectors is empty: give one at least, {5: […]}."
            )
        return cls(tuple((layer, Values.of(own[layer])) for layer in sorted(own)))

    def __str__(self) -> str:
        return self._text

    @cached_property
    def _text(self) -> str:
        return "{" + ", ".join(f"{layer}: {values}" for layer, values in self.layers) + "}"


Vectors = Values | ByLayer
"""One array for every layer, or each layer's own."""


def vectors_of(given: object, address: Address | Edge) -> Vectors:
    """What a user gives as a vector, for an address.

    Args:
        given: an array for every layer; a mapping of layers to theirs; or the path of a file of a
            steering vector (`microtome.edits.vector_files`), of which the addressed layers count.
        address: where the edit is made.

    Raises:
        EditError: it is none; or it is of several layers, and the address an edge.
        MicrotomeError: the file cannot be read.
    """
    if isinstance(address, Edge):
        if isinstance(given, ByLayer | Mapping | str):
            raise EditError(
                f"A vector for each layer has no meaning on an edge, which is between two: "
                f"{address}. Give one array."
            )
        return Values.of(cast(Given, given))
    if isinstance(given, ByLayer):
        return given
    if isinstance(given, str):
        directions, site, _ = decoded(at_home(given))
        if site != address.site.name:
            raise EditError(
                f"The directions in {given} are of {site}, and the edit is made on {address}."
            )
        own = _named(address.layers)
        given = {n: one for n, one in directions.items() if own is None or n in own} or directions
    if isinstance(given, Mapping):
        return ByLayer.of(given)
    return Values.of(cast(Given, given))


def _named(layers: Selector | None) -> set[int] | None:
    """The layers that an address names by their numbers; None where it names them otherwise."""
    members = layers.members if isinstance(layers, Group) else (layers,)
    numbers = {one.value for one in members if isinstance(one, Index) and one.value >= 0}
    return numbers if len(numbers) == len(members) else None


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
    raise EditError(
        f"{brief(str(edit))}: there is no vector for {where}; there are some for layers {there}."
    )
