"""Activation patching."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from microtome.edits.base import Context, Edit, Source


@dataclass(frozen=True)
class Patch(Edit):
    """The addressed values become those of the donor's run, at the same place.

    Source: activation patching, also called interchange intervention or causal tracing; Meng et
    al. 2022 (arXiv:2202.05262), Heimersheim and Nanda 2024 (arXiv:2404.15255).

    >>> str(Patch("L*.z.h*@-1"))
    'patch L*.z.h*@-1'
    """

    name: ClassVar[str] = "patch"

    @property
    def source(self) -> Source:
        """The donor's activations."""
        return Source.DONOR

    @property
    def keeps_zeros(self) -> bool:
        """Where the recipient has zeros by its shape, the donor has them too."""
        return True

    def change(
        self, values: Float[Tensor, " cell *region"], context: Context
    ) -> Float[Tensor, " cell *region"]:
        """The donor's values."""
        assert context.source is not None, "the runner brings what `source` asks for"
        return context.source
