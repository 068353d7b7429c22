"""How much of a sweep is computed again on the reference path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from microtome.amounts import single
from microtome.errors import SweepError, glimpse
from microtome.spoken import spoken

SHARE = 0.05
"""What verifying a unit may cost, of the unit, where a sweep has several."""

ROWS = 2
"""Rows of a pass that a verified cell takes at most: its own, and its prompt's clean run."""


@spoken
@dataclass(frozen=True)
class Verify:
    """How many cells are computed again.

    Attributes:
        cells: of a sweep of one unit; where there are several, of each of them, but fewer where so
            many would cost more than a twentieth of it: one at least, and so many in all. None:
            every cell.

    >>> Verify.of(4), Verify.of("all").given
    (Verify(cells=4), 'all')
    """

    cells: int | None = 4

    @classmethod
    def of(cls, given: object) -> Verify:
        """What is asked for by a number, by ``"all"``, or by one of these.

        Raises:
            SweepError: it is none of them.
        """
        if isinstance(given, Verify):
            return given
        if isinstance(given, str):
            text = given.strip()
            if text == "all":
                return cls(None)
            given = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else given
        given = single(given)
        if isinstance(given, bool) or not isinstance(given, int) or given < 0:
            raise SweepError(
                f"verify={glimpse(given)}: give how many cells to recompute on the reference path, "
                "such as 4; 0 for none; or 'all'."
            )
        return cls(given)

    @property
    def most(self) -> int:
        """No unit verifies more, for one reason or another."""
        return 2**31 if self.cells is None else self.cells

    @property
    def given(self) -> int | Literal["all"]:
        """As it was given, in plain values."""
        return "all" if self.cells is None else self.cells

    def of_unit(self, cells: int, passes: float, units: int) -> int:
        """How many cells of a unit.

        Args:
            cells: how many it has.
            passes: full forward passes that its work is worth.
            units: how many the sweep has.

        >>> Verify(4).of_unit(144, 10.0, units=1), Verify(4).of_unit(9000, 120.0, units=7)
        (4, 3)
        >>> Verify(4).of_unit(12, 1.0, units=2)
        2
        """
        if self.cells is None:
            return cells
        asked = min(self.cells, cells)
        if units == 1:
            return asked
        return min(asked, max(1, -(-self.cells // units), int(SHARE * passes / ROWS)))
