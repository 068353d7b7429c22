"""What the engine has to reach, and whether a record says that it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.tools.microtome_sweep import NAME

Row = Mapping[str, Any]
"""A row of the JSON: the fields of `measure.Row`."""

LENS = "TransformerLens"


def seconds(row: Row, tool: str) -> float | None:
    """Of the whole map; None where the tool is absent or does not agree."""
    timing = row["tools"].get(tool)
    if timing is None or timing["absent"] is not None or not timing["agrees"]:
        return None
    found: float = timing["seconds"]
    # Of an older record: without verification, and the default call beside it.
    default = row.get("verified_seconds") if tool == NAME else None
    return found if default is None else float(default)


def unverified(row: Row) -> float | None:
    """Microtome's seconds with ``verify=0``; None where they were not measured."""
    if "unverified_seconds" in row:
        found: float | None = row["unverified_seconds"]
        return found
    return float(row["tools"][NAME]["seconds"])


def price(row: Row) -> float | None:
    """Microtome's time by its default call ÷ without verification."""
    ours, alone = seconds(row, NAME), unverified(row)
    return None if ours is None or not alone else ours / alone


def ratio(row: Row, tool: str = LENS) -> float | None:
    """How many times faster microtome is."""
    ours, theirs = seconds(row, NAME), seconds(row, tool)
    return None if ours is None or theirs is None else theirs / ours


def over_floor(row: Row) -> float | None:
    """Microtome's time ÷ what the operations take at the measured matrix rate."""
    ours = seconds(row, NAME)
    return None if ours is None else ours / row["floor_seconds"]


def rate_used(row: Row) -> float | None:
    """The share of the measured matrix rate."""
    found = over_floor(row)
    return None if found is None else 1 / found


@dataclass(frozen=True)
class Bar:
    """A value of one row, and its limit: at least, or at most."""

    shape: str
    map: str
    about: str
    value: Callable[[Row], float | None]
    limit: float
    least: bool
    device: str = "cpu"

    def judge(self, record: Mapping[str, Any]) -> tuple[float | None, str]:
        """The value, and ``"reached"``, ``"not reached"`` or ``"not measured"``."""
        of_shape = (self.shape, self.map)
        rows: Sequence[Row] = [r for r in record["rows"] if (r["shape"], r["map"]) == of_shape]
        right_device = record["machine"]["device"].split(":")[0] == self.device
        found = self.value(rows[-1]) if rows and right_device else None
        if found is None:
            return None, "not measured"
        reached = found >= self.limit if self.least else found <= self.limit
        return found, "reached" if reached else "not reached"


FASTER = f"times faster than {LENS}"
SLOWER = "time ÷ floor"
PRICE = "verified ÷ unverified"
BARS = (
    Bar("small", "b", FASTER, ratio, 60, least=True),
    Bar("large", "b", FASTER, ratio, 100, least=True),
    *(Bar(shape, "a", FASTER, ratio, 12, least=True) for shape in ("small", "large")),
    *(Bar(shape, "c", FASTER, ratio, 60, least=True) for shape in ("small", "large")),
    *(
        Bar(shape, map_, SLOWER, over_floor, 1.3, least=False)
        for shape in ("medium", "large")
        for map_ in "abc"
    ),
    Bar("small", "b", PRICE, price, 1.5, least=False),
    Bar("large", "b", PRICE, price, 1.15, least=False),
    *(Bar("large", map_, PRICE, price, 1.05, least=False) for map_ in "acdf"),
    Bar("large", "g", "share of the matrix rate", rate_used, 0.5, least=True, device="cuda"),
)
