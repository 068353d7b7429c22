"""Shuffled coordinates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.edits.base import Context, Edit, whole
from microtome.errors import EditError
from microtome.language.regions import Region
from microtome.language.sites import owner
from microtome.model.devices import onto
from microtome.spoken import spoken


@spoken
@dataclass(frozen=True)
class Shuffle(Edit):
    """At each addressed position the addressed coordinates change places at random.

    The values at a position stay the same numbers, so their distribution does too; only where
    each stands is lost. Heads and coordinates addressed together are shuffled together.

    Args:
        seed: two seeds give independent permutations; so do two regions or two prompts.

    >>> str(Shuffle("L3.resid_post@-1", seed=1))
    'shuffle(seed=1) L3.resid_post@-1'
    """

    name: ClassVar[str] = "shuffle"

    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "seed", whole(self.seed, "shuffle's seed"))

    def check(self, region: Region, causal: bool = True) -> None:
        """One coordinate has no order to lose."""
        super().check(region, causal)
        if region.size == region.shape[owner(region.site.axes)]:
            raise EditError(f"{self}: one coordinate at a position cannot be shuffled.")

    def change(
        self, values: Float[Tensor, " cell *region"], context: Context
    ) -> Float[Tensor, " cell *region"]:
        """The same values, elsewhere."""
        axis = 1 + owner(context.axes)
        by_position = values.movedim(axis, 1)
        flat = by_position.flatten(2)
        positions, coordinates = flat.shape[1:]
        orders = [
            torch.stack(
                [torch.randperm(coordinates, generator=g, device="cpu") for _ in range(positions)]
            )
            for g in context.generators(self.seed)
        ]
        shuffled = flat.gather(2, onto(flat.device, torch.stack(orders)))
        return shuffled.reshape(by_position.shape).movedim(1, axis)
