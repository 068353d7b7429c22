"""A stream of prompts while it is swept: its windows, whole ones and the units of the next.

::

    map.zarr.partial/windows/
        000003.zip           a window that is whole: its cells, or what is known over all so far
        000004-000002.zip    a unit of the window that is under way
        000005-000000.zip    a unit of the one after it, where workers have begun with that
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import xarray as xr

from microtome.engines.block import Block
from microtome.engines.sink import Delivered, Delivery, Sink
from microtome.errors import EffectsError
from microtome.prompts.stream import Chain
from microtome.results import disk, form, places
from microtome.results.identity import Identity, Undertaken, digest
from microtome.results.kept import Kept
from microtome.results.sinks import MemorySink
from microtome.results.stores import WINDOWS
from microtome.results.units import archived, check, pack, record_of, unarchived, unpack

PROMPTS = "prompts"
"""Field of a stream's question that says which prompts there were; known when all were read."""

_RECORD = "record.json"
_WHOLE = re.compile(r"(\d{6,})\.zip")
_UNIT = re.compile(r"(\d{6,})-(\d{6,})\.zip")


@dataclass(frozen=True)
class Whole:
    """A window that is whole.

    Attributes:
        number: its own, from 0.
        prompts: how many there were, in all windows so far.
        digest: what they are known by (`Chain`).
    """

    number: int
    prompts: int
    digest: str


class Windows(Protocol):
    """Where the windows of a stream are kept: in memory, or at a place."""

    notes: list[str]

    @property
    def last(self) -> Whole | None:
        """The last window that is whole, as are all before it."""

    def whole(self, number: int) -> Whole | None:
        """A window that is whole; none where it is kept in a later one."""

    def forget(self) -> None:
        """Remove what is there: it is of other prompts."""

    def sink(self, number: int, chain: Chain) -> Sink:
        """Where the units of a window go. The chain has its prompts."""

    def keep(self, number: int, chain: Chain, data: xr.Dataset) -> None:
        """Keep what a window gave, in the place of its units."""

    def parts(self) -> Iterator[xr.Dataset]:
        """What was kept, in order."""

    def finish(self, data: xr.Dataset, chain: Chain) -> None:
        """Keep the finished result, in the place of the windows."""

    def discard(self) -> None:
        """Remove what was kept: it is of no model."""

    def close(self) -> None:
        """Let go; what is there stays."""


class MemoryWindows:
    """Keeps windows as they are; ``alone``, the last one, which has all that was known before."""

    def __init__(self, *, alone: bool) -> None:
        self._alone = alone
        self.notes: list[str] = []
        self.last: Whole | None = None
        self._parts: list[xr.Dataset] = []

    def whole(self, number: int) -> Whole | None:
        """Nothing is there that an earlier call left."""
        return None

    def forget(self) -> None:
        """Nothing is there that an earlier call left."""

    def sink(self, number: int, chain: Chain) -> Sink:
        """The units of a window, in memory."""
        return MemorySink()

    def keep(self, number: int, chain: Chain, data: xr.Dataset) -> None:
        """Keep what a window gave."""
        self._parts = [data] if self._alone else [*self._parts, data]

    def parts(self) -> Iterator[xr.Dataset]:
        """What was kept, in order."""
        yield from self._parts

    def finish(self, data: xr.Dataset, chain: Chain) -> None:
        """Nothing is to be written."""

    def discard(self) -> None:
        """Forget the windows."""
        self._parts = []

    def close(self) -> None:
        """Nothing is held."""


class StoreWindows(Kept):
    """Keeps windows beside where the finished result will be; see `Kept`.

    Which prompts there are is known when they have been read: `check` holds those that are read
    again to what is there. ``alone``, each window that is kept has all that was known before, and
    takes the place of the one before.
    """

    def __init__(
        self, path: str | Path, question: Identity, *, alone: bool, overwrite: bool = False
    ) -> None:
        self._alone = alone
        self._whole: dict[int, Whole] = {}
        self._there: Identity = {}
        self._before: Undertaken | None = None
        super().__init__(path, question, 1, overwrite=overwrite)

    @property
    def last(self) -> Whole | None:
        """The last window that is whole, as are all before it."""
        return self._whole[max(self._whole)] if self._whole else None

    def whole(self, number: int) -> Whole | None:
        """A window that is whole; none where it is kept in a later one."""
        return self._whole.get(number)

    def check(self, chain: Chain, overwrite: bool) -> bool:
        """Whether the finished result is of these prompts; they are all.

        Raises:
            EffectsError: it is of others, and not to be replaced.
        """
        if self._there == told(chain):
            with disk.failures(self.path):
                super()._answered(self._before)
            return True
        self._refuse(overwrite, "the result of the same question about other prompts")
        self.finished = False
        with disk.failures(self.path):
            self._begin(self._before, overwrite)
        return False

    def forget(self) -> None:
        """Remove the windows that are there: they are of other prompts.

        Raises:
            EffectsError: they cannot be removed.
        """
        with disk.failures(self.path):
            self._place.clear()
            self._word, self._whole = "", {}
            self._begin(self._asked, overwrite=True)

    def sink(self, number: int, chain: Chain) -> Sink:
        """The units of a window, at the place."""
        return _Units(self, number, digest([self._digest, number, chain.digest]))

    def keep(self, number: int, chain: Chain, data: xr.Dataset) -> None:
        """Write what a window gave, then remove its units.

        Raises:
            EffectsError: it cannot be written; the units are there.
        """
        whole = Whole(number, chain.prompts, chain.digest)
        told = {"number": number, "prompts": whole.prompts, "digest": whole.digest}
        record = {"question": self._digest, **told}
        files = {_RECORD: json.dumps(record).encode(), **form.encode(data)}
        with disk.failures(self.path):
            self._place.write(_window(number), archived(files))
            if self._alone:
                for before in sorted(self._whole):
                    self._place.remove(_window(before))
                self._whole = {}
            self._whole[number] = whole
            for name in self._place.names(WINDOWS):
                if (found := _UNIT.fullmatch(name)) and int(found[1]) <= number:
                    self._place.remove(f"{WINDOWS}/{name}")

    def discard(self) -> None:
        """Remove all windows: one may have taken the place of those before.

        Raises:
            EffectsError: one cannot be removed.
        """
        with disk.failures(self.path):
            self._place.clear()
        self._whole = {}

    def parts(self) -> Iterator[xr.Dataset]:
        """What was kept, in order, each read from its place.

        Raises:
            EffectsError: one is damaged since.
        """
        for number in sorted(self._whole):
            packed = self._read(_window(number))
            try:
                check(packed)
                files = unarchived(packed)
                files.pop(_RECORD)
                data = form.decode(files)
            except EffectsError as error:
                file = self._place.spelled(_window(number))
                raise EffectsError(f"{file} cannot be used: {error}.") from error
            yield data

    def finish(self, data: xr.Dataset, chain: Chain) -> None:
        """Put the finished result in its place, and remove what led to it.

        Raises:
            EffectsError: it cannot be written; all windows are there then.
        """
        self._check_open()
        files = form.encode(data)
        with disk.failures(self.path):
            self._place.publish(files, {**self._asked.question, PROMPTS: told(chain)})
        self.finished = True
        with contextlib.suppress(OSError, EffectsError):  # it is there; whoever writes next clears
            self._place.clear()

    def open(self) -> xr.Dataset:
        """The finished result."""
        return places.read(self.path)

    def _answered(self, begun: Undertaken | None) -> None:
        """Which prompts it answers is not known yet (`check`): what has begun may be of others."""
        self._before = begun

    def _is_asked(self, there: Identity) -> bool:
        prompts = there.get(PROMPTS)
        self._there = prompts if isinstance(prompts, dict) else {}
        return digest({k: v for k, v in there.items() if k != PROMPTS}) == self._digest

    def _take_over(self) -> None:
        found: dict[int, Whole] = {}
        for name in self._place.names(WINDOWS):
            if number := _WHOLE.fullmatch(name):
                whole = self._sound(int(number[1]))
                found |= {} if whole is None else {whole.number: whole}
        if self._alone:
            self._whole = {n: found[n] for n in sorted(found)[-1:]}
        else:  # without one among them, those after it are computed again too
            self._whole = {n: found[n] for at, n in enumerate(sorted(found)) if n == at}

    def _sound(self, number: int) -> Whole | None:
        """What a window says of itself; None, and it is removed, where it is damaged."""
        try:
            packed = self._place.read(_window(number))
            check(packed)
            record = json.loads(unarchived(packed)[_RECORD])
            if record["question"] != self._digest:
                raise EffectsError("it is of another sweep")
            if record.get("number", number) != number:  # older ones do not say it
                raise EffectsError("it is another window")
        except EffectsError as error:
            self.notes.append(f"Window {number} cannot be used ({error}) and is computed again.")
            self._place.remove(_window(number))
            return None
        return Whole(number, record["prompts"], record["digest"])


class _Units:
    """The units of one window of a stream."""

    def __init__(self, windows: StoreWindows, number: int, question: str) -> None:
        self.notes: list[str] = []
        self._windows, self._place, self._number = windows, windows._place, number
        self._question = question
        self._done = {unit for unit in self._numbers() if self._is_sound(unit)}

    @property
    def done(self) -> frozenset[int]:
        """The numbers of the units that are there."""
        return frozenset(self._done)

    def take(self, block: Block) -> None:
        """Write a block."""
        self._windows._check_open()
        with disk.failures(self._windows.path):
            self._place.write(self._file(block.unit), pack(block, self._question))
        self._done.add(block.unit)

    def delivery(self) -> Delivery:
        """What workers write units by."""
        return self._windows._delivered_by(self._question, self._name)

    def heard(self, delivered: Delivered) -> None:
        """Know of a unit that a worker has written."""
        self._done.add(delivered.unit)

    def blocks(self) -> Iterator[Block]:
        """Every block that is there, in order."""
        for unit in sorted(self._done):
            packed = self._windows._read(self._file(unit))
            try:
                block = unpack(packed, self._question)
            except EffectsError as error:
                file = self._place.spelled(self._file(unit))
                raise EffectsError(f"{file} cannot be used: {error}.") from error
            yield block

    def finish(self, data: xr.Dataset) -> None:
        """The window is kept whole (`StoreWindows.keep`)."""

    def discard(self) -> None:
        """The stream removes it."""

    def close(self) -> None:
        """The stream holds the place."""

    def _numbers(self) -> Sequence[int]:
        found = (_UNIT.fullmatch(name) for name in self._place.names(WINDOWS))
        return sorted(int(one[2]) for one in found if one and int(one[1]) == self._number)

    def _is_sound(self, unit: int) -> bool:
        """Whether a unit that is there can be used; of other prompts, it is not."""
        try:
            record = record_of(self._place.read(self._file(unit)))
            if record["unit"] != unit:
                raise EffectsError("it is another unit")
            return record["question"] == self._question
        except EffectsError as error:
            self.notes.append(f"Unit {unit} cannot be used ({error}) and is computed again.")
            self._place.remove(self._file(unit))
            return False

    def _file(self, unit: int) -> str:
        return self._name.format(unit)

    @property
    def _name(self) -> str:
        """Of a unit's file, with its number to be put in."""
        return f"{WINDOWS}/{self._number:06d}-{{:06d}}.zip"


def told(chain: Chain) -> dict[str, object]:
    """What a result says of the prompts of its stream."""
    return {"n": chain.prompts, "sha256": chain.digest}


def _window(number: int) -> str:
    return f"{WINDOWS}/{number:06d}.zip"
