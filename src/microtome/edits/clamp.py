"""What there is along a direction, held between bounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from microtome.edits.base import Context, Edit, number
from microtome.edits.by_layer import Vectors, vectors_of
from microtome.edits.direction import along, check_direction, moved
from microtome.errors import EditError
from microtome.language.regions import Region
from microtome.spoken import spoken


@spoken
@dataclass(frozen=True)
class Clamp(Edit):
    """What the addressed values have along a direction is held between two bounds.

    A position whose component lies between them stays as it is, to the bit. Two equal bounds set
    the component to that value everywhere.

    Args:
        vector: the direction, whatever its length, as `Project` takes it.
        low, high: the bounds of the component along the unit vector, in the units of the
            activation; None: no bound on that side.

    Source: feature clamping, Templeton et al. 2024 (Scaling Monosemanticity), "Influence on
    behavior", there of a dictionary's features.

    >>> str(Clamp("L5.resid_post.d{0,1}", [3.0, 4.0], low=2.0))
    'clamp([3.0, 4.0], low=2) L5.resid_post.d{0,1}'
    """

    name: ClassVar[str] = "clamp"

    vector: Vectors
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "vector", vectors_of(self.vector, self.address))
        for side in ("low", "high"):
            bound = getattr(self, side)
            if bound is not None:
                object.__setattr__(self, side, number(bound, f"clamp's {side}"))
        if self.low is None and self.high is None:
            raise EditError("clamp needs a bound: low=, high= or both.")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise EditError(f"clamp's low, {self.low:g}, is above its high, {self.high:g}.")

    def check(self, region: Region, causal: bool = True) -> None:
        """There must be a direction for the features."""
        super().check(region, causal)
        check_direction(self.vector, region, self)

    def change(
        self, values: Float[Tensor, " cell *region"], context: Context
    ) -> Float[Tensor, " cell *region"]:
        """Values with the component that is held."""
        component, unit = along(values, self.vector, context, self)
        return moved(values, component.clamp(self.low, self.high) - component, unit)
