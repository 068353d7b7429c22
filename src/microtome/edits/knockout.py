"""Attention knockout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from microtome.edits.base import Context, Edit
from microtome.errors import EditError
from microtome.language.regions import Region
from microtome.spoken import spoken


@spoken
@dataclass(frozen=True)
class Knockout(Edit):
    """The addressed attention weights become 0; the rest of each query's are scaled to sum to 1.

    As if the scores had been −∞ before the softmax. (`Zero` on ``pattern`` takes the weights away
    and leaves the others as they are, so that less is attended to altogether.)

    Source: attention knockout, Geva et al. 2023 (arXiv:2304.14767), section 4.

    >>> str(Knockout('L5.pattern.h3@-1,"Sam"'))
    'knockout L5.pattern.h3@-1,"Sam"'
    """

    name: ClassVar[str] = "knockout"
    widens: ClassVar[str | None] = "k_pos"
    rounds: ClassVar[bool] = True

    @property
    def keeps_zeros(self) -> bool:
        """Weights are set to 0 or multiplied."""
        return True

    def check(self, region: Region, causal: bool = True) -> None:
        """It is made on attention weights, and every query must keep a key that the rest go to."""
        if "k_pos" not in region.site.axes:
            raise EditError(
                f"{self}: a knockout is of attention weights, as in 'knockout L5.pattern.h3@-1,0'."
            )
        queries, keys = (
            region.indices[region.site.axes.index(axis)] for axis in ("q_pos", "k_pos")
        )
        for query in queries if causal else ():
            first = 0 if region.reach is None else max(0, query - region.reach)
            if set(range(first, query + 1)) <= set(keys):
                raise EditError(
                    f"{self}: nothing that the token at position {query} attends to is left. Leave "
                    "it a key, or take its attention away altogether with 'zero'."
                )

    def change(
        self, values: Float[Tensor, " cell *region"], context: Context
    ) -> Float[Tensor, " cell *region"]:
        """Whole rows of weights, each with a sum of 1 again."""
        assert context.chosen is not None, "the runner says which of the row are addressed"
        chosen = context.chosen.view(len(context.chosen), 1, 1, -1)
        rest = values.scatter(-1, chosen.expand(*values.shape[:-1], -1), 0.0)
        return rest / rest.sum(-1, keepdim=True)
