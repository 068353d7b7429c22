"""Sinks: what takes blocks. In memory here; see `results.store` for the disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from microtome.engines.block import Block


@dataclass(frozen=True)
class MemorySink:
    """Blocks in memory, by the numbers of their units."""

    _blocks: dict[int, Block] = field(default_factory=dict)

    @property
    def done(self) -> frozenset[int]:
        """The units that are there."""
        return frozenset(self._blocks)

    def take(self, block: Block) -> None:
        """Keep a block."""
        self._blocks[block.unit] = block

    def blocks(self) -> Iterator[Block]:
        """All blocks, in the order of their units."""
        for number in sorted(self._blocks):
            yield self._blocks[number]
