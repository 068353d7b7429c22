"""Zero ablation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.edits.base import Context, Edit
from microtome.spoken import spoken


@spoken
@dataclass(frozen=True)
class Zero(Edit):
    """Every addressed value becomes 0.

    Takes a part out altogether, which also takes the activations off the distribution that the
    model was trained on; `Mean` is the gentler ablation.

    >>> str(Zero("L5.z.h3"))
    'zero L5.z.h3'
    """

    name: ClassVar[str] = "zero"
    on_edges: ClassVar[bool] = True

    @property
    def keeps_zeros(self) -> bool:
        """It makes nothing else."""
        return True

    def change(
        self, values: Float[Tensor, " cell *region"], context: Context
    ) -> Float[Tensor, " cell *region"]:
        """Zeros."""
        return torch.zeros_like(values)
