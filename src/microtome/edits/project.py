"""A direction projected out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from microtome.edits.base import Context, Edit, number
from microtome.edits.by_layer import Vectors, vectors_of
from microtome.edits.direction import along, check_direction, moved
from microtome.language.regions import Region
from microtome.spoken import spoken


@spoken
@dataclass(frozen=True)
class Project(Edit):
    """What the addressed values have along a direction is taken away: the direction is ablated.

    Args:
        vector: the direction, whatever its length: an array with the shape of one position's
            addressed features (``[d_model]``, or ``[head, d_head]``, of which an axis of length 1
            may be left out); or a mapping of layers to theirs, ``{5: […], 6: […]}``; or the path of
            a file of them (`SteeringVector.save`).
        factor: what is left of the component: 0 nothing, 1 all of it, −1 mirrors it.

    Source: directional ablation, Arditi et al. 2024 (arXiv:2406.11717), section 2.4.

    >>> str(Project("L5.resid_post.d{0,1}", [3.0, 4.0]))
    'project([3.0, 4.0]) L5.resid_post.d{0,1}'
    """

    name: ClassVar[str] = "project"
    rounds: ClassVar[bool] = True

    vector: Vectors
    factor: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "vector", vectors_of(self.vector, self.address))
        object.__setattr__(self, "factor", number(self.factor, "project's factor"))

    def check(self, region: Region, causal: bool = True) -> None:
        """There must be a direction for the features."""
        super().check(region, causal)
        check_direction(self.vector, region, self)

    def change(
        self, values: Float[Tensor, " cell *region"], context: Context
    ) -> Float[Tensor, " cell *region"]:
        """Values without it, or with another share of it."""
        component, unit = along(values, self.vector, context, self)
        return moved(values, component * (self.factor - 1), unit)
