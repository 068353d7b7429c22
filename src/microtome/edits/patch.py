"""Activation patching."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from microtome.edits.base import Context, Edit, one_of
from microtome.language.operations import Source
from microtome.prompts.alignment import ALIGNMENTS, SAME
from microtome.spoken import spoken


@spoken
@dataclass(frozen=True)
class Patch(Edit):
    """The addressed values become those of the donor's run, at the same place.

    Args:
        align: ``"position"``: text and donor are equally long, and a place is the same position in
            both; only a role is where the donor has it. In a donor of any length: ``"roles"``,
            roles are where the donor has them, and the tokens between two roles match one by one
            where there are equally many; ``"words"``, equal words in the same order match. A
            position without a counterpart is an error; in a map over positions that cell does not
            exist.

    Source: activation patching, also called interchange intervention or causal tracing; Meng et
    al. 2022 (arXiv:2202.05262), Heimersheim and Nanda 2024 (arXiv:2404.15255).

    >>> str(Patch("L*.z.h*@-1"))
    'patch L*.z.h*@-1'
    >>> str(Patch("L*.z.h*@*", align="roles"))
    'patch(align="roles") L*.z.h*@*'
    """

    name: ClassVar[str] = "patch"
    on_edges: ClassVar[bool] = True

    align: str = SAME

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of(self.align, tuple(ALIGNMENTS), "patch(align=…)")

    @property
    def source(self) -> Source:
        """The donor's activations."""
        return Source.DONOR

    @property
    def keeps_zeros(self) -> bool:
        """Where the recipient has zeros by its shape, the donor has them too."""
        return True

    @property
    def alignment(self) -> str:
        """As asked."""
        return self.align

    def change(
        self, values: Float[Tensor, " cell *region"], context: Context
    ) -> Float[Tensor, " cell *region"]:
        """The donor's values."""
        assert context.source is not None, "the runner brings what `source` asks for"
        return context.source
