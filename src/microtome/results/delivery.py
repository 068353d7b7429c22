"""How workers put blocks into a place themselves, where it is theirs as much as the sink's.

Whether it is cannot be told by its name: a path may be another folder on another machine. So the
sink writes a word beside the result that nobody else has, and whoever reads it there writes there.
When the sink is closed it is there no more, and no worker that was given up writes any longer.
"""

from __future__ import annotations

from dataclasses import dataclass

from microtome.engines.block import Block
from microtome.engines.sink import Delivered
from microtome.errors import EffectsError
from microtome.results import disk, places
from microtome.results.stores import SHARED
from microtome.results.units import pack


@dataclass(frozen=True)
class Shared:
    """A place whose sink has left a word there.

    Attributes:
        path: where the result will be.
        question: the digest of the question that blocks answer.
        word: what the sink has written there.
        name: of a unit's file beside the result, with the unit's number to be put in.
    """

    path: str
    question: str
    word: str
    name: str

    def deliver(self, block: Block) -> Delivered | Block:
        """Write a block; the block again where the place is another, or the sink is closed.

        Raises:
            EffectsError: the place is the sink's, and cannot be written to.
        """
        try:
            place = places.at(self.path)
            if place.read(SHARED) != self.word.encode():
                return block
        except (OSError, EffectsError):  # it is not to be reached from here
            return block
        data = pack(block, self.question)
        with disk.failures(self.path):
            try:
                place.add(self.name.format(block.unit), data)
            except FileNotFoundError:  # the place was given back just now
                return block
        return Delivered(block.unit, len(block.cells))
