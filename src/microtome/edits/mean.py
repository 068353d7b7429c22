"""Mean ablation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from microtome.edits.base import Context, Edit, one_of
from microtome.errors import EditError, listing
from microtome.language.operations import Source
from microtome.language.regions import Region
from microtome.language.sites import owner
from microtome.prompts.alignment import ALIGNMENTS, SAME
from microtome.spoken import spoken


@spoken
@dataclass(frozen=True)
class Mean(Edit):
    """The addressed values become their mean.

    Args:
        over: ``"tensor"``: one number, the mean of everything addressed in the cell, in one layer;
            ``"positions"``: each feature has its own mean, over the addressed tokens;
            ``"prompts"``: each position and feature has its mean over the reference prompts.
        align: over prompts, how positions are found in the references. ``"position"``: they are as
            long as the prompt, and a place is the same position in all of them; only a role is
            where each has it. ``"roles"`` or ``"words"``: in references of any length, as `patch`
            finds them in a donor. A position without a counterpart in one of the references is an
            error; in a map over positions that cell does not exist.

    Source: mean ablation over a reference set, Wang et al. 2022 (arXiv:2211.00593), section 2.

    >>> str(Mean("L5.z.h3", over="positions"))
    'mean(over="positions") L5.z.h3'
    >>> str(Mean("L5.z.h3@*", over="prompts", align="roles"))
    'mean(over="prompts", align="roles") L5.z.h3@*'
    """

    name: ClassVar[str] = "mean"
    on_edges: ClassVar[bool] = True
    rounds: ClassVar[bool] = True

    over: str = "tensor"
    align: str = SAME

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of(self.over, ("tensor", "positions", "prompts"), "mean(over=…)")
        one_of(self.align, tuple(ALIGNMENTS), "mean(align=…)")
        if self.align != SAME and self.over != "prompts":
            raise EditError(
                f"{self}: align says how positions are found in the reference prompts, and "
                f'over="{self.over}" needs none: use over="prompts", or leave align out.'
            )

    @property
    def source(self) -> Source:
        """The reference prompts where the mean is over prompts."""
        return Source.REFERENCE if self.over == "prompts" else Source.NOTHING

    @property
    def keeps_zeros(self) -> bool:
        """Over prompts: where this one has zeros by its shape, the others have them too."""
        return self.over == "prompts"

    @property
    def alignment(self) -> str:
        """As asked."""
        return self.align

    def check_together(self, regions: Sequence[Region], causal: bool = True) -> None:
        """One number for several layers would have to be known before the first of them runs."""
        super().check_together(regions, causal)
        if self.over == "tensor" and len(regions) > 1:
            layers = listing(region.layer for region in regions)
            raise EditError(
                f'{self}: over="tensor" is one number, the mean of everything addressed, and this '
                f"addresses layers {layers} together; what is done in one changes what the next "
                'ones hold. Name one layer, star them for a map (L*), or use over="positions" or '
                'over="prompts", which are of each layer by itself.'
            )

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
