"""How an approximate map is audited."""

from __future__ import annotations

from dataclasses import dataclass

from microtome.amounts import whole_of
from microtome.errors import SweepError


@dataclass(frozen=True)
class Audit:
    """Cells of an approximate map that are computed exactly, to know how good the others are.

    Attributes:
        cells: how many: half of them those that the approximation holds strongest on the first
            metric, half (of one, it) drawn at random from the rest. A map of fewer cells is exact.
        refine: how many more of the strongest.

    >>> Audit.of(64)
    Audit(cells=64, refine=0)
    """

    cells: int = 64
    refine: int = 0

    def __post_init__(self) -> None:
        for name, least in (("cells", 1), ("refine", 0)):
            found = whole_of(getattr(self, name), least=None, what=f"audit's {name}")
            if found < least:
                raise SweepError(
                    f"audit's {name} is {found}, and has to be at least {least}: an approximation "
                    "is not given without exact cells beside it. To do without gradients, take "
                    "method='exact'."
                )

    @classmethod
    def of(cls, given: int | Audit) -> Audit:
        """An audit as it is, or of so many cells."""
        return given if isinstance(given, Audit) else cls(given)
