"""Gaussian noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.edits.base import Context, Edit, number, one_of, whole
from microtome.errors import EditError, glimpse
from microtome.language.regions import Region
from microtome.model.devices import onto
from microtome.spoken import spoken


@spoken
@dataclass(frozen=True)
class Noise(Edit):
    """The addressed values are replaced by Gaussian noise, or noise is added to them.

    Args:
        mean, std: of the noise, in the units of the activation.
        how: ``"replace"`` or ``"add"``.
        relative: mean and std count in standard deviations of the addressed values themselves
            (each cell's own, over its whole region).
        seed: two seeds give independent noise; so do two regions or two prompts.

    >>> str(Noise("L0.mlp_post.n::2", mean=10.0, std=1.0))
    'noise(mean=10) L0.mlp_post.n::2'
    """

    name: ClassVar[str] = "noise"
    on_edges: ClassVar[bool] = True

    mean: float = 0.0
    std: float = 1.0
    how: str = "replace"
    relative: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "mean", number(self.mean, "noise's mean"))
        object.__setattr__(self, "std", number(self.std, "noise's std"))
        if self.std < 0:
            raise EditError(f"noise's std must be 0 or more, not {self.std}.")
        object.__setattr__(self, "seed", whole(self.seed, "noise's seed"))
        given: object = self.relative
        if not isinstance(given, bool):
            raise EditError(f"noise(relative=…) must be True or False, not {glimpse(given)}.")
        one_of(self.how, ("replace", "add"), "noise(how=…)")

    def check(self, region: Region, causal: bool = True) -> None:
        """Relative noise needs values with a spread."""
        super().check(region, causal)
        if self.relative and region.size == 1:
            raise EditError(f"{self}: a single value has no standard deviation to be relative to.")

    def change(
        self, values: Float[Tensor, " cell *region"], context: Context
    ) -> Float[Tensor, " cell *region"]:
        """The noise, or values plus noise."""
        drawn = [
            torch.randn(values.shape[1:], generator=generator, dtype=torch.float64, device="cpu")
            for generator in context.generators(self.seed)
        ]
        noise = onto(values.device, torch.stack(drawn)).to(values.dtype) * self.std + self.mean
        if self.relative:
            noise = noise * values.std(dim=tuple(range(1, values.ndim)), keepdim=True)
        return noise if self.how == "replace" else values + noise
