"""Multiplication by a factor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from microtome.edits.base import Context, Edit, number


@dataclass(frozen=True)
class Scale(Edit):
    """Every addressed value is multiplied by a factor: 1 changes nothing, 0 is `Zero`.

    >>> str(Scale("L2.resid_post", 0.6))
    'scale(0.6) L2.resid_post'
    """

    name: ClassVar[str] = "scale"

    factor: float

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "factor", number(self.factor, "scale's factor"))

    def change(
        self, values: Float[Tensor, " cell *region"], context: Context
    ) -> Float[Tensor, " cell *region"]:
        """The product."""
        return values * self.factor
