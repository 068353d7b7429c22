"""Mean ablation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from microtome.edits.base import Context, Edit, one_of
from microtome.errors import EditError
from microtome.language.operations import Source
from microtome.language.regions import Region
from microtome.language.sites import owner


@dataclass(frozen=True)
class Mean(Edit):
    """The addressed values become their mean.

    Args:
        over: ``"tensor"``: one number, the mean of everything addressed in the cell;
            ``"positions"``: each feature keeps its own mean over the addressed tokens;
            ``"prompts"``: each position and feature has its mean over the reference prompts.

    Source: mean ablation over a reference set, Wang et al. 2022 (arXiv:2211.00593), section 2.

    >>> str(Mean("L5.z.h3", over="positions"))
    'mean(over="positions") L5.z.h3'
    """

    name: ClassVar[str] = "mean"
    rounds: ClassVar[bool] = True

    over: str = "tensor"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of(self.over, ("tensor", "positions", "prompts"), "mean(over=…)")

    @property
    def source(self) -> Source:
        """The reference prompts where the mean is over prompts."""
        return Source.REFERENCE if self.over == "prompts" else Source.NOTHING

    @property
    def keeps_zeros(self) -> bool:
        """Over prompts: where this one has zeros by its shape, the others have them too."""
        return self.over == "prompts"

    def check(self, region: Region, causal: bool = True) -> None:
        """A mean of one value would change nothing."""
        super().check(region, causal)
        positions = region.shape[owner(region.site.axes)]
        if self.over == "positions" and positions == 1:
            raise EditError(
                f"{self}: the mean over one position is the value itself. Address several "
                'positions, or use over="tensor" or over="prompts".'
            )
        if self.over == "tensor" and region.size == 1:
            raise EditError(f"{self}: the mean of a single value is the value itself.")

    def change(
        self, values: Float[Tensor, " cell *region"], context: Context
    ) -> Float[Tensor, " cell *region"]:
        """The mean, in every place that it stands for."""
        if self.over == "prompts":
            assert context.source is not None, "the runner brings what `source` asks for"
            return context.source
        axes = tuple(range(1, values.ndim))
        if self.over == "positions":
            axes = (1 + owner(context.axes),)
        return values.mean(dim=axes, keepdim=True).expand_as(values)
