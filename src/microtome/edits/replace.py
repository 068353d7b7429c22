"""Given values in the place of the model's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from microtome.edits.base import Context, Edit
from microtome.edits.values import Values
from microtome.language.regions import Region
from microtome.spoken import spoken


@spoken
@dataclass(frozen=True)
class Replace(Edit):
    """Every addressed value becomes a given one.

    Args:
        value: one number, or an array of exactly the region's shape.

    >>> str(Replace("L5.z.h3", 0.25))
    'replace(0.25) L5.z.h3'
    """

    name: ClassVar[str] = "replace"

    value: Values

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "value", Values.of(self.value))

    def check(self, region: Region, causal: bool = True) -> None:
        """An array must have the region's shape."""
        super().check(region, causal)
        self.value.fit(region.shape, region.site.axes, self)

    def change(
        self, values: Float[Tensor, " cell *region"], context: Context
    ) -> Float[Tensor, " cell *region"]:
        """The given values, in every cell."""
        return self.value.like(values).expand_as(values)
