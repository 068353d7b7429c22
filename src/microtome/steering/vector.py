"""A steering vector: a direction for each of some layers, and the edits that are made with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from microtome.amounts import many, single
from microtome.edits import vector_files as files
from microtome.edits.add import Add
from microtome.edits.base import number, whole
from microtome.edits.by_layer import ByLayer, Vectors
from microtome.edits.clamp import Clamp
from microtome.edits.project import Project
from microtome.edits.values import Values
from microtome.errors import EditError, MicrotomeError, listing
from microtome.language.addresses import Address, parse
from microtome.paths import at_home
from microtome.results import disk
from microtome.spoken import spoken

Direction = np.ndarray[Any, np.dtype[np.float64]]
Layers = int | Sequence[int] | str | None
"""One layer, several together, ``"*"`` for each by itself, or None: all that there are."""


@spoken
@dataclass(frozen=True, eq=False)
class SteeringVector:
    """A direction for each of some layers.

    Attributes:
        directions: layer → ``[d_model]``, in the units of the activation, float64.
        site: where they are of, a site of d_model's width.
        about: how it was made, as plain values: kept in files.

    >>> vector = SteeringVector({5: np.array([3.0, 4.0])})
    >>> vector.norms
    {5: 5.0}
    >>> str(vector.add(2, layers=5))
    'add([3.0, 4.0], factor=2) L5.resid_post'
    """

    directions: Mapping[int, Float[Direction, " d_model"]]
    site: str = "resid_post"
    about: Mapping[str, str | int | float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.directions == {}:
            raise MicrotomeError("A steering vector has a direction for one layer at least.")
        found = {layer: values.array for layer, values in ByLayer.of(self.directions).layers}
        shapes = {one.shape for one in found.values()}
        if len(shapes) > 1 or len(next(iter(shapes))) != 1:
            shown = listing(sorted(map(str, map(list, shapes))))
            raise MicrotomeError(
                f"The directions of a steering vector are rows of one length; these are {shown}."
            )
        object.__setattr__(self, "directions", found)

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that it has a direction for."""
        return tuple(self.directions)

    @property
    def norms(self) -> dict[int, float]:
        """The length of each direction."""
        return {layer: float(np.linalg.norm(one)) for layer, one in self.directions.items()}

    def __getitem__(self, layer: int) -> Float[Direction, " d_model"]:
        """The direction of one layer.

        Raises:
            MicrotomeError: it has none, or it is no number.
        """
        layer = whole(layer, "A layer")
        if layer not in self.directions:
            raise MicrotomeError(
                f"This steering vector has no direction for layer {layer}; it has some for layers "
                f"{listing(self.layers)}."
            )
        return self.directions[layer]

    def __repr__(self) -> str:
        width = len(self.directions[self.layers[0]])
        how = str(self.about.get("how", "a vector"))
        layers = many(len(self.layers), "layer")
        return f"<SteeringVector: {how}, {self.site} of {layers}, {width} wide>"

    # -------------------------------------------------------------------------------- other vectors

    def normalised(self) -> SteeringVector:
        """The same directions, each of length 1.

        Raises:
            MicrotomeError: one is zero.
        """
        for layer, norm in self.norms.items():
            if not norm:
                raise MicrotomeError(f"The direction of layer {layer} is zero: it has no length.")
        return self._of(lambda one: one / np.linalg.norm(one))

    def only(self, layers: int | Sequence[int]) -> SteeringVector:
        """The directions of some layers.

        Raises:
            MicrotomeError: it has none for one of them.
        """
        return replace(self, directions={layer: self[layer] for layer in _numbers(layers)})

    def __mul__(self, factor: float) -> SteeringVector:
        """All directions times a number."""
        by = number(factor, "A factor")
        return self._of(lambda one: one * by)

    def __neg__(self) -> SteeringVector:
        return self * -1.0

    def cosine(self, other: SteeringVector) -> pd.Series:
        """The cosine of the angle to another vector's direction, in each layer that both have."""
        both = [layer for layer in self.layers if layer in other.directions]
        if not both:
            raise MicrotomeError(
                f"The two vectors have no layer in common: {listing(self.layers)}; "
                f"{listing(other.layers)}."
            )
        one, two = self.normalised(), other.normalised()
        values = [float(one[layer] @ two[layer]) for layer in both]
        return pd.Series(values, index=pd.Index(both, name="layer"), name="cosine")

    def _of(self, change: Callable[[Direction], Direction]) -> SteeringVector:
        return replace(
            self, directions={layer: change(one) for layer, one in self.directions.items()}
        )

    # ---------------------------------------------------------------------------------------- edits

    def add(self, factor: float = 1.0, *, layers: Layers = None, at: str = ":") -> Add:
        """The edit that adds it.

        Args:
            factor: times this.
            layers: in one layer, in several together, or with ``"*"`` in each by itself, which
                makes an axis of a map; in all that it has unless given.
            at: positions, as in an address: ``":"`` all, ``"last"``, ``'"word"'``.

        Raises:
            MicrotomeError: it has no direction for such a layer.
        """
        return Add(*self._where(layers, at), factor)

    def project(self, factor: float = 0.0, *, layers: Layers = None, at: str = ":") -> Project:
        """The edit that projects it out, or leaves ``factor`` of it; arguments as in `add`."""
        return Project(*self._where(layers, at), factor)

    def clamp(
        self,
        low: float | None = None,
        high: float | None = None,
        *,
        layers: Layers = None,
        at: str = ":",
    ) -> Clamp:
        """The edit that holds what there is of it between bounds; other arguments as in `add`."""
        return Clamp(*self._where(layers, at), low, high)

    def _where(self, layers: Layers, at: str) -> tuple[Address, Vectors]:
        """Where an edit is made, and the vectors that it needs there."""
        if isinstance(layers, str) and layers == "*":
            chosen, text = self.layers, "*"
        elif isinstance(layers, str):
            raise EditError(f"layers= is a number, several, or '*', not {layers!r}.")
        else:
            chosen = self.layers if layers is None else _numbers(layers)
            text = str(chosen[0]) if len(chosen) == 1 else f"{{{','.join(map(str, chosen))}}}"
        place = "" if at == ":" else f"@{at}"
        address = parse(f"L{text}.{self.site}{place}")
        own = {layer: self[layer] for layer in chosen}
        if len(own) == 1 and layers != "*":
            return address, Values.of(own[chosen[0]])
        return address, ByLayer.of(own)

    # ---------------------------------------------------------------------------------------- files

    def save(self, path: str | PathLike[str]) -> Path:
        """Keep it in a file: ``.safetensors``, or ``.gguf`` as llama.cpp's control vectors are.

        Both have a float32 tensor ``direction.N`` for each layer N, whose output it is added to.
        llama.cpp has no place for layer 0, and adds to the output of blocks alone (``resid_post``).

        Returns:
            Where it is.

        Raises:
            MicrotomeError: the ending is another one, or the layout has no place for it.
            EffectsError: it cannot be written.
        """
        place = at_home(path)
        data = files.encoded(place.suffix, self.directions, self.site, self.about)
        with disk.failures(place):
            disk.refuse_link(place)
            disk.write_file(place, data)
        return place


def _numbers(layers: int | Sequence[int]) -> tuple[int, ...]:
    """One layer or several, whoever's whole numbers they are."""
    given = single(layers)
    several = given if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    return tuple(whole(one, "A layer") for one in several)


@spoken
def open_vector(path: str | PathLike[str]) -> SteeringVector:
    """A steering vector out of a file: what `SteeringVector.save` or llama.cpp's tools wrote.

    Raises:
        MicrotomeError: it cannot be read, or is none.
    """
    return SteeringVector(*files.decoded(at_home(path)))
