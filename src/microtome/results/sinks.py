"""Where blocks are kept while a sweep runs: in memory, or where the next run finds them."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import xarray as xr

from microtome.engines.block import Block
from microtome.errors import EffectsError, listing
from microtome.results import disk, form, stores
from microtome.results.identity import Identity, Undertaken, canonical, difference, digest
from microtome.results.units import pack, record_of, unpack


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

    def blocks(self) -> Iterator[Block]:
        """Every block, in the order of their units."""
        yield from (self._blocks[unit] for unit in sorted(self._blocks))

    def finish(self, data: xr.Dataset) -> None:
        """Nothing is to be written."""

    def close(self) -> None:
        """Nothing is held."""


class StoreSink:
    """Keeps blocks on disk, unit by unit, beside where the finished result will be.

    Everything that can be refused is refused when it is made, before anything is computed. It then
    has the place to itself until `close`, or to the end of the process. What is there already of
    the same question is taken over (`done`), once its checksums are proved.

    Args:
        path: where the result will be.
        question: everything that decides the numbers, in JSON's own types.
        units: how many units the question has.
        overwrite: whether what answers another question is replaced. An older result stays until
            the new one is complete; the units of an unfinished sweep go at once. What is not
            microtome's is never touched.

    Attributes:
        path: where the result will be.
        finished: whether it is there already, complete, with nothing left to compute.
        notes: what a user should know of what was found.

    Raises:
        EffectsError: the place has something else, is in use, or cannot be written to.
    """

    def __init__(
        self, path: str | Path, question: Identity, units: int, *, overwrite: bool = False
    ):
        self.path = Path(path)
        self.finished = False
        self.notes: list[str] = []
        self._done: set[int] = set()
        self._asked = Undertaken(json.loads(canonical(question)), units)
        self._digest = digest(question)
        self._beside = stores.Beside(Path(os.path.abspath(path)))
        with disk.failures(self.path):
            self._hold = self._beside.enter()
            try:
                self._resume(overwrite)
            except BaseException:
                self.close()
                raise

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
            disk.write_file(self._file(block.unit), pack(block, self._digest))
        self._done.add(block.unit)

    def blocks(self) -> Iterator[Block]:
        """Every block that is there, in the order of their units, each read from disk.

        Raises:
            EffectsError: one is damaged since, or the result is finished: open that.
        """
        if self.finished:
            raise EffectsError(f"{self.path} is finished, and has no units any more: open it.")
        for unit in sorted(self._done):
            file = self._file(unit)
            try:
                yield unpack(file.read_bytes())
            except OSError as error:
                raise EffectsError(f"{file} cannot be read ({error.strerror}).") from error
            except EffectsError as error:
                raise EffectsError(f"{file} cannot be used: {error}.") from error

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
                f"{self.path} is not finished: {len(missing)} of {self._asked.units} units are "
                f"missing ({listing(missing[:5])}{', …' if missing[5:] else ''})."
            )
        files = form.encode(data)
        with disk.failures(self.path):
            self._beside.publish(files, self._asked.question)
        self.finished = True
        with contextlib.suppress(OSError):  # the result is there; whoever writes next clears up
            self._beside.clear()

    def close(self) -> None:
        """Give the place back; the units that are done stay. Again, nothing happens."""
        self._beside.leave(self._hold)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _resume(self, overwrite: bool) -> None:
        begun = self._begun()
        if self._beside.path.exists() and not stores.is_empty(self._beside.path):
            self._look_at_result(overwrite)
        if self.finished:
            if begun == self._asked:
                self._beside.clear()
            return
        if begun != self._asked:
            self._make_room(begun, overwrite)
        disk.make_folder(self._beside.units)
        # Whatever was there: what is written now proves that there is a place to write to.
        disk.write_file(self._beside.question, self._asked.written())
        self._done.update(
            unit for unit in stores.unit_numbers(self._beside.units) if self._keep(unit)
        )

    def _begun(self) -> Undertaken | None:
        """What the units that are there answer; none where there are none."""
        if not stores.unit_numbers(self._beside.units):
            return None
        try:
            return Undertaken.read(self._beside.question.read_bytes())
        except (FileNotFoundError, EffectsError):
            return Undertaken({}, 0)  # nobody's question

    def _look_at_result(self, overwrite: bool) -> None:
        """Whether the result that is there is the one that is asked for; raise if it is another."""
        path = self._beside.path
        try:
            there = stores.question_of(path)
        except EffectsError as error:
            self._refuse(overwrite, f"a result that cannot say what it answers: {error}")
            return
        if there is None:
            self._refuse(
                overwrite,
                "a result that does not say what it answers: it was saved by hand, or by an older "
                "microtome",
            )
        elif digest(there) != self._digest:
            how = difference(there, self._asked.question)
            self._refuse(overwrite, f"the result of another question: {how}")
        else:
            try:
                stores.verify(path)
                self.finished = True
            except EffectsError as error:
                self.notes.append(f"{self.path} is damaged ({error}) and is computed again.")

    def _make_room(self, begun: Undertaken | None, overwrite: bool) -> None:
        """Let nothing be there of another question; raise where it may not be removed."""
        if begun is not None:
            units = f"{len(stores.unit_numbers(self._beside.units))} units of an unfinished sweep"
            if not begun.units:
                self._refuse(overwrite, f"{units} whose {stores.QUESTION} is missing or damaged")
            else:
                how = difference(begun.fields, self._asked.fields)
                self._refuse(overwrite, f"{units} that ask another question: {how}")
        self._beside.clear()

    def _refuse(self, overwrite: bool, what: str) -> None:
        if not overwrite:
            raise EffectsError(
                f"{self.path} holds {what}. Choose another place, or let it be replaced "
                "(overwrite)."
            )

    def _keep(self, unit: int) -> bool:
        """Whether a unit that is there is sound; removed if not, to be computed again."""
        file = self._file(unit)
        try:
            if file.is_symlink():
                raise EffectsError("it is a link")
            record = record_of(file.read_bytes())
            if record["question"] != self._digest or record["unit"] != unit:
                raise EffectsError("it is of another sweep")
            if unit >= self._asked.units:
                raise EffectsError("there is no such unit")
        except EffectsError as error:
            self.notes.append(f"Unit {unit} cannot be used ({error}) and is computed again.")
            disk.remove_file(file)
            return False
        return True

    def _file(self, unit: int) -> Path:
        return self._beside.units / f"{unit:06d}.zip"

    def _check_open(self) -> None:
        if not self._hold.held:
            raise EffectsError(f"{self.path} was given back already: make a new sink.")
