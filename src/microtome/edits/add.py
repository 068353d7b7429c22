"""Steering: a vector added to the activations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from microtome.edits.base import Context, Edit, number
from microtome.edits.by_layer import Vectors, vector_in, vectors_of
from microtome.language.regions import Region
from microtome.language.sites import OWNERS
from microtome.spoken import spoken


@spoken
@dataclass(frozen=True)
class Add(Edit):
    """A vector, times a factor, is added to the addressed values, at every addressed position.

    Args:
        vector: one number; or an array with the shape of one position's addressed features
            (``[d_model]``, or ``[head, d_head]``), added at each of them; or one with the whole
            region's shape. A feature axis of length 1 may be left out. Or a mapping of layers to
            such arrays, ``{5: […], 6: […]}``, each layer's own; or the path of a file of them
            (`SteeringVector.save`).
        factor: how much of it.

    Source: activation addition, Turner et al. 2023 (arXiv:2308.10248).

    >>> str(Add("L5.resid_post.d{0,1}", [0.5, -1.0]))
    'add([0.5, -1.0]) L5.resid_post.d{0,1}'
    """

    name: ClassVar[str] = "add"
    on_edges: ClassVar[bool] = True

    vector: Vectors
    factor: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "vector", vectors_of(self.vector, self.address))
        object.__setattr__(self, "factor", number(self.factor, "add's factor"))

    def check(self, region: Region, causal: bool = True) -> None:
        """The vector must fit the features, or the region."""
        super().check(region, causal)
        per_position, squeezed = self._shapes(region.shape, region.site.axes)
        vector = vector_in(self.vector, region.layer, self)
        vector.fit(region.shape, region.site.axes, self, per_position, squeezed)

    def change(
        self, values: Float[Tensor, " cell *region"], context: Context
    ) -> Float[Tensor, " cell *region"]:
        """The sum."""
        shape = tuple(values.shape[1:])
        own = vector_in(self.vector, context.layer, self)
        vector = own.like(values)
        if own.shape not in ((), shape):
            at_each = [
                1 if axis in OWNERS else n for n, axis in zip(shape, context.axes, strict=True)
            ]
            vector = vector.reshape(at_each)
        return values + (vector if self.factor == 1 else vector * self.factor)

    @staticmethod
    def _shapes(shape: tuple[int, ...], axes: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
        per_position = tuple(n for n, axis in zip(shape, axes, strict=True) if axis not in OWNERS)
        return per_position, tuple(n for n in per_position if n > 1)
