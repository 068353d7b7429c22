"""Work that needs no model: whoever does it is there at once, in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


class Nothing:
    """A recipe of no model."""

    def open(self) -> None:
        return None


@dataclass(frozen=True)
class Numbered:
    number: int


@dataclass(frozen=True, eq=False)
class Doubling:
    """A job that gives twice a unit's number, and weighs what one wants."""

    weight: bytes = b""

    def start(self, model: None) -> Callable[[Numbered], int]:
        return lambda unit: 2 * unit.number
