"""Where blocks go."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import xarray as xr

from microtome.engines.block import Block


@dataclass(frozen=True)
class Delivered:
    """That what a unit gave was put into the sink where it was computed.

    Attributes:
        unit: the unit's number.
        cells: how many it has.
    """

    unit: int
    cells: int


class Delivery(Protocol):
    """Puts blocks into a sink from somewhere else; it pickles."""

    def deliver(self, block: Block) -> Delivered | Block:
        """Put a block there; the block again where the sink is not to be reached."""


class Sink(Protocol):
    """Takes blocks, in any order, and gives them back in the order of their units.

    Implemented by `results.sinks`: in memory, and on disk.
    """

    notes: list[str]
    """What a user should know of what was found there."""

    @property
    def done(self) -> frozenset[int]:
        """The numbers of the units that are there."""

    def take(self, block: Block) -> None:
        """Keep a block; when this returns, it is not lost any more."""

    def delivery(self) -> Delivery | None:
        """What puts blocks here from somewhere else; None where they have to be brought."""

    def heard(self, delivered: Delivered) -> None:
        """Know of a block that was put here."""

    def blocks(self) -> Iterator[Block]:
        """Every block that is there, in the order of their units."""

    def finish(self, data: xr.Dataset) -> None:
        """Keep the finished result, in the place of the blocks that it was made from."""

    def discard(self) -> None:
        """Remove the blocks that were taken: they are of no model."""

    def close(self) -> None:
        """Let go of what was held; what is there stays. Again, nothing happens."""
