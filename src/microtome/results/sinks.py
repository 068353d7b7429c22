"""Where blocks are kept while a sweep runs: in memory, or where the next run finds them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import xarray as xr

from microtome.amounts import many
from microtome.engines.block import Block
from microtome.engines.sink import Delivered, Delivery
from microtome.errors import EffectsError, listing
from microtome.results import disk, form
from microtome.results.identity import Identity
from microtome.results.kept import Kept
from microtome.results.stores import UNIT, UNITS
from microtome.results.units import pack, record_of, unpack

FILE = UNITS + "/{:06d}.zip"
"""Of a unit, beside the result."""


class MemorySink:
    """Keeps blocks as they are."""

    def __init__(self) -> None:
        self._blocks: dict[int, Block] = {}
        self.notes: list[str] = []

    @property
    def done(self) -> frozenset[int]:
        """The numbers of the units that are there."""
        return frozenset(self._blocks)

    def take(self, block: Block) -> None:
        """Keep a block."""
        self._blocks[block.unit] = block

    def delivery(self) -> Delivery | None:
        """Nobody else has this memory."""
        return None

    def heard(self, delivered: Delivered) -> None:
        """Nobody puts anything here."""

    def blocks(self) -> Iterator[Block]:
        """Every block, in the order of their units."""
        yield from (self._blocks[unit] for unit in sorted(self._blocks))

    def finish(self, data: xr.Dataset) -> None:
        """Nothing is to be written."""

    def discard(self) -> None:
        """Forget the blocks."""
        self._blocks = {}

    def close(self) -> None:
        """Nothing is held."""


class StoreSink(Kept):
    """Keeps blocks unit by unit, beside where the finished result will be; see `Kept`.

    What is there already of the same question is taken over (`done`), once its checksums are
    proved.
    """

    def __init__(
        self, path: str | Path, question: Identity, units: int, *, overwrite: bool = False
    ):
        self._done: set[int] = set()
        self._taken: set[int] = set()
        super().__init__(path, question, units, overwrite=overwrite)

    @property
    def done(self) -> frozenset[int]:
        """The numbers of the units that are there: all of them, where the result is finished."""
        return frozenset(range(self._asked.units)) if self.finished else frozenset(self._done)

    def take(self, block: Block) -> None:
        """Write a block; when this returns, nothing but the disk's end loses it.

        Raises:
            EffectsError: it cannot be written. What was written before is there.
        """
        self._check_open()
        if block.unit not in range(self._asked.units):
            raise EffectsError(
                f"There is no unit {block.unit}; the question has {self._asked.units}, from 0 on."
            )
        with disk.failures(self.path):
            self._place.write(_file(block.unit), pack(block, self._digest))
        self._know(block.unit)

    def delivery(self) -> Delivery:
        """What workers write units by.

        Raises:
            EffectsError: the place cannot be written to.
        """
        return self._delivered_by(self._digest, FILE)

    def heard(self, delivered: Delivered) -> None:
        """Know of a unit that a worker has written."""
        self._know(delivered.unit)

    def _know(self, unit: int) -> None:
        self._done.add(unit)
        self._taken.add(unit)

    def blocks(self) -> Iterator[Block]:
        """Every block that is there, in the order of their units, each read from disk.

        Raises:
            EffectsError: one is damaged since, or the result is finished: open that.
        """
        if self.finished:
            raise EffectsError(f"{self.path} is finished, and has no units any more: open it.")
        for unit in sorted(self._done):
            packed = self._read(_file(unit))
            try:
                block = unpack(packed, self._digest)
            except EffectsError as error:
                file = self._place.spelled(_file(unit))
                raise EffectsError(f"{file} cannot be used: {error}.") from error
            yield block

    def finish(self, data: xr.Dataset) -> None:
        """Put the finished result in its place, and remove what led to it.

        Raises:
            EffectsError: units are missing, or it cannot be written; all units are there then.
        """
        self._check_open()
        if self.finished:
            return
        missing = sorted(frozenset(range(self._asked.units)) - self.done)
        if missing:
            raise EffectsError(
                f"{self.path} is not finished: {len(missing)} of "
                f"{many(self._asked.units, 'unit')} {'is' if len(missing) == 1 else 'are'} missing "
                f"({listing(missing[:5])}{', …' if missing[5:] else ''})."
            )
        files = form.encode(data)
        with disk.failures(self.path):
            self._place.publish(files, self._asked.question)
        self.finished = True
        # The result is there; whoever writes next clears up.
        with contextlib.suppress(OSError, EffectsError):
            self._place.clear()

    def discard(self) -> None:
        """Remove the blocks that were taken, not those that were there.

        Raises:
            EffectsError: one cannot be removed.
        """
        with disk.failures(self.path):
            for unit in sorted(self._taken):
                self._place.remove(_file(unit))
        self._done -= self._taken
        self._taken = set()

    def _take_over(self) -> None:
        found = (UNIT.fullmatch(name) for name in self._place.names(UNITS))
        numbers = sorted(int(one[1]) for one in found if one)
        self._done.update(unit for unit in numbers if self._keep(unit))

    def _keep(self, unit: int) -> bool:
        """Whether a unit that is there is sound; removed if not, to be computed again."""
        try:
            record = record_of(self._place.read(_file(unit)))
            if record["question"] != self._digest or record["unit"] != unit:
                raise EffectsError("it is of another sweep")
            if unit >= self._asked.units:
                raise EffectsError("there is no such unit")
        except EffectsError as error:
            self.notes.append(f"Unit {unit} cannot be used ({error}) and is computed again.")
            self._place.remove(_file(unit))
            return False
        return True


def _file(unit: int) -> str:
    return FILE.format(unit)
