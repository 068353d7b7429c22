"""How an approximate map is audited, and refined."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, replace
from typing import Any

from microtome.amounts import is_finite, whole_of
from microtome.errors import SweepError
from microtome.spoken import spoken

ROUNDS = 8
"""How often at most a map is refined until its bound is low enough, each time by twice as many."""

BELOW = re.compile(r"below\s+(\S+)")
"""How a bound is asked for in a text: ``below 0.05``."""


@spoken
@dataclass(frozen=True)
class Audit:
    """Cells of an approximate map that are computed exactly, to know how good the others are.

    Attributes:
        cells: how many: half of them those that the approximation holds strongest on the first
            metric, half (of one, it) drawn at random from the rest. A map of fewer cells is exact.
        refine: how many more: those of which two approximations say the most different, if there
            is another that takes the question; else the strongest of the rest.
        below: refine until the bound on the first metric, in its unit, is no more than this.

    >>> Audit.of(64)
    Audit(cells=64, refine=0, below=None)
    """

    cells: int = 64
    refine: int = 0
    below: float | None = None

    def __post_init__(self) -> None:
        for name, least in (("cells", 1), ("refine", 0)):
            found = whole_of(getattr(self, name), least=None, what=f"audit's {name}")
            if found < least:
                raise SweepError(
                    f"audit's {name} is {found}, and has to be at least {least}: an approximation "
                    "is not given without exact cells beside it. To do without gradients, take "
                    "method='exact'."
                )
            object.__setattr__(self, name, found)  # one of numpy's is no JSON
        if self.below is None:
            return
        if self.refine:
            raise SweepError(
                f"An audit refines by so many cells, refine={self.refine}, or until its bound is "
                f"low enough, below={self.below}: take one of the two."
            )
        number = isinstance(self.below, int | float) and not isinstance(self.below, bool)
        if not (number and is_finite(self.below) and self.below > 0):
            raise SweepError(
                f"audit's below is {self.below!r}, and has to be a number above 0, in the unit of "
                "the first metric."
            )

    @classmethod
    def of(cls, given: int | Audit) -> Audit:
        """An audit as it is, or of so many cells."""
        return given if isinstance(given, Audit) else cls(given)

    @property
    def refines(self) -> bool:
        """Whether more is computed than it takes to know how good the map is."""
        return bool(self.refine) or self.below is not None

    @property
    def rounds(self) -> int:
        """How often cells are chosen, at most."""
        return 1 if self.below is None else ROUNDS

    def refined(self, by: int | str) -> Audit:
        """The same, refined by so many cells, or until the bound is ``"below 0.05"``.

        Raises:
            SweepError: it says something else, or this audit refines already.

        >>> Audit().refined("below 0.05")
        Audit(cells=64, refine=0, below=0.05)
        """
        if self.refines:
            raise SweepError(f"refine={by!r} is said twice: audit={self} refines by itself.")
        if not isinstance(by, str):
            return replace(self, refine=by)
        return replace(self, below=bound_of(by))

    def as_dict(self) -> dict[str, Any]:
        """In plain values."""
        below = {} if self.below is None else {"below": self.below}
        return {"cells": self.cells, "refine": self.refine, **below}


def bound_of(text: str) -> float:
    """The number of ``"below 0.05"``.

    Raises:
        SweepError: that is not what it says.
    """
    found = BELOW.fullmatch(text.strip())
    if found is not None:
        with contextlib.suppress(ValueError):
            return float(found[1])
    raise SweepError(f"refine={text!r}: give a number of cells, or a bound, such as 'below 0.05'.")
