"""A saved result in its folder, and the folder beside it in which its successor is made.

::

    map.zarr/                the result: a zarr store with checksums.json
    map.zarr.partial/        only while one is written, or when a sweep has not finished
        lock                 who is writing
        question.json        what the sweep is asked
        shared               by which workers know the place (`delivery`)
        units/000007.zip     what is done of it
        windows/000003.zip   the same of a stream of prompts (`windows`)
        new/, old/, gone/    the successor, what it replaces, and what is being removed

A result is replaced only by a complete one. Whenever a process is killed, one of the two is there
and is what `read` finds; whoever writes next clears up.
"""

from __future__ import annotations

import contextlib
import os
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import xarray as xr

from microtome.amounts import many
from microtome.errors import EffectsError
from microtome.paths import PARTIAL
from microtome.results import disk, form
from microtome.results.checksums import LIST, Checksums
from microtome.results.hold import Held, Hold
from microtome.results.identity import Identity, Undertaken
from microtome.results.sound import is_empty, is_result, names_in, question_of, sound, verify

QUESTION = "question.json"
SHARED = "shared"
UNITS = "units"
WINDOWS = "windows"
UNIT = re.compile(r"(\d{6,})\.zip")
_LOCK = "lock"
_TRIES = 8


@dataclass(frozen=True)
class Beside:
    """The folder beside a result.

    Attributes:
        path: the result's own, absolute.
    """

    path: Path

    @property
    def folder(self) -> Path:
        """The folder itself."""
        return self.path.with_name(self.path.name + PARTIAL)

    @property
    def new(self) -> Path:
        """The successor."""
        return self.folder / "new"

    @property
    def old(self) -> Path:
        """What the successor replaces."""
        return self.folder / "old"

    @property
    def gone(self) -> Path:
        """What is being removed."""
        return self.folder / "gone"

    @property
    def units(self) -> Path:
        """The units that are done."""
        return self.folder / UNITS

    @property
    def asked(self) -> Path:
        """What the sweep is asked."""
        return self.folder / QUESTION

    @property
    def windows(self) -> Path:
        """What is done of a stream of prompts."""
        return self.folder / WINDOWS

    def enter(self) -> Hold:
        """Have the folder to oneself, made if need be, with what a killed process left cleared up.

        Raises:
            EffectsError: it is somebody else's, somebody has it, or what is in the result's place
                is no result.
            OSError: the system refuses.
        """
        self.check()
        hold = self._hold()
        try:
            disk.recover(self.path, self.new, self.old)
            for leftover in (self.new, self.old):
                disk.remove_folder(leftover, self.gone)
            self._forget_workers()
        except BaseException:
            hold.release()
            raise
        return hold

    def leave(self, hold: Held) -> None:
        """Give the folder back, and remove it where no unit is in it; again, nothing happens."""
        if not hold.held:
            return
        try:
            if not names_in(self.units) and not names_in(self.windows):
                with contextlib.suppress(OSError):  # whoever writes next clears up
                    self.clear()
        finally:
            hold.release()
        if not names_in(self.folder):
            with contextlib.suppress(OSError):  # somebody else may just be coming in
                disk.remove_empty(self.folder)

    def clear(self) -> None:
        """Remove the units, then what they answer."""
        disk.recover(self.path, self.new, self.old)
        for leftover in (self.new, self.old, self.units, self.windows):
            disk.remove_folder(leftover, self.gone)
        for file in (self.folder / SHARED, self.asked):
            if file.exists():
                disk.remove_file(file)

    def make(self, folder: str = UNITS) -> None:
        """See that files can be written to a folder beside the result."""
        disk.make_folder(self.folder / folder)

    def names(self, folder: str) -> list[str]:
        """The names of the files in a folder beside the result, in order."""
        return sorted(names_in(self.folder / folder))

    def read(self, name: str) -> bytes:
        """A file beside the result.

        Raises:
            OSError: it is not there, or cannot be read.
            EffectsError: it is a link, or no regular file: a pipe would be waited for.
        """
        file = self.folder / name
        if file.is_symlink():
            raise EffectsError("it is a link")
        if file.exists() and not file.is_file():
            raise EffectsError("it is no regular file")
        return file.read_bytes()

    def write(self, name: str, data: bytes) -> None:
        """Write a file beside the result: it is whole, or not there.

        Raises:
            OSError: the system refuses.
        """
        disk.make_folder((self.folder / name).parent)
        disk.write_file(self.folder / name, data)

    def add(self, name: str, data: bytes) -> None:
        """Write a file for whoever has the place: another may write it at the same time.

        Raises:
            FileNotFoundError: there is no such folder any more.
            OSError: the system refuses.
        """
        disk.write_file(self.folder / name, data, own=f".{uuid.uuid4().hex}")

    def remove(self, name: str) -> None:
        """Remove a file beside the result, if it is there."""
        disk.remove_file(self.folder / name)

    def spelled(self, name: str) -> str:
        """A file beside the result, for messages."""
        return str(self.folder / name)

    def has_begun(self) -> bool:
        """Whether anything is done of a sweep into this place."""
        return bool(unit_numbers(self.units) or names_in(self.windows))

    def is_there(self) -> bool:
        """Whether something is in the result's place."""
        return self.path.exists() and not is_empty(self.path)

    def question(self) -> Identity | None:
        """What the result there answers; none where it does not say.

        Raises:
            EffectsError: its list of files is damaged.
        """
        return question_of(self.path)

    def verify(self) -> None:
        """Raise unless every file of the result there is as it was written.

        Raises:
            EffectsError: one is not.
        """
        verify(self.path)

    def publish(self, files: Mapping[str, bytes], question: Identity | None = None) -> None:
        """Write a result and put it in its place; the older one is there until this one is.

        Raises:
            OSError: the system refuses; the older result is there.
        """
        try:
            checksums = Checksums.of(files, question)
            disk.write_folder(self.new, {**files, LIST: checksums.written()})
            disk.replace(self.path, self.new, self.old)
        finally:
            with contextlib.suppress(OSError):  # whoever writes next clears up
                for leftover in (self.new, self.old) if self.path.exists() else (self.new,):
                    disk.remove_folder(leftover, self.gone)

    def check(self) -> None:
        """Raise unless the place, and the folder beside it, are free or microtome's.

        Raises:
            EffectsError: they are not.
        """
        _check_name(self.path)
        for place in (self.path, self.folder):
            disk.refuse_link(place)
        _check_stays(self.path)
        if self.path.exists() and not is_result(self.path) and not is_empty(self.path):
            raise EffectsError(f"{self.path} exists and is not a saved result; it is left alone.")
        for name in names_in(self.folder):
            disk.refuse_link(self.folder / name)
        if self.folder.exists() and not self._is_ours():
            raise EffectsError(
                f"{self.folder} exists and is not what microtome leaves beside a result; it is "
                "left alone. Move it away, or choose another name."
            )

    def _is_ours(self) -> bool:
        files = {one + ending for one in (QUESTION, SHARED) for ending in ("", disk.WRITING)}
        known = {_LOCK, *files, UNITS, WINDOWS, "new", "old", "gone"}
        return self.folder.is_dir() and names_in(self.folder) <= known

    def _forget_workers(self) -> None:
        """Remove what a killed process and its workers were about to write."""
        on_their_way = [
            inside / name
            for inside in (self.units, self.windows)
            for name in sorted(names_in(inside))
            if name.endswith(disk.WRITING)
        ]
        for file in (self.folder / SHARED, *on_their_way):
            if file.exists():
                disk.remove_file(file)

    def _hold(self) -> Hold:
        for _ in range(_TRIES):
            disk.make_folder(self.folder)
            with contextlib.suppress(FileNotFoundError):  # whoever left has removed the folder
                return Hold(self.folder / _LOCK, self.path)
        raise EffectsError(f"{self.path} is being written by others at the same time.")


def read(path: Path) -> xr.Dataset:
    """The result that is saved there, every byte of it proved.

    Raises:
        EffectsError: there is none, or it is damaged.
    """
    for _ in range(_TRIES):
        place = _place(path)
        before = _identity(place)
        try:
            return form.decode(sound(place))
        except EffectsError as error:
            if _identity(_place(path)) == before:
                begun = "" if place.exists() else _begun(place)
                raise EffectsError(f"{path} is no saved result: {error}{begun}.") from error
        # A newer one took its place meanwhile.
    raise EffectsError(f"{path} is being replaced again and again; wait, then open it.")


def write(path: Path, data: xr.Dataset) -> None:
    """Save a result, in the place of an older one once it is complete.

    Raises:
        EffectsError: something else is there, somebody is writing, a value has no saved form, or
            the system refuses. An older result is there then.
    """
    files = form.encode(data)
    beside = Beside(Path(os.path.abspath(path)))
    with disk.failures(path):
        hold = beside.enter()
        try:
            beside.publish(files)
        finally:
            beside.leave(hold)


def unit_numbers(units: Path) -> list[int]:
    """The numbers of the units in a folder, in order."""
    found = (UNIT.fullmatch(name) for name in names_in(units))
    return sorted(int(one[1]) for one in found if one)


def _place(path: Path) -> Path:
    """Where a result is read from: its place, or what a killed writer was about to put there."""
    beside = Beside(Path(os.path.abspath(path)))
    if not path.exists() and beside.old.is_dir():
        return beside.new if beside.new.is_dir() else beside.old
    return path


def _begun(path: Path) -> str:
    """What of an unfinished sweep lies beside a result that is not there."""
    beside = Beside(Path(os.path.abspath(path)))
    try:
        asked = Undertaken.read(beside.read(QUESTION))
    except (OSError, EffectsError):  # no sweep has begun, or it cannot say what it is
        return ""
    of = f"{len(unit_numbers(beside.units))} of {many(asked.units, 'unit')}"
    if names_in(beside.windows):
        of = "windows of a stream of prompts"
    return (
        f", but a sweep that is not finished is: {of} are in {beside.folder}, and the same sweep "
        "into the same place goes on from there"
    )


def _identity(place: Path) -> tuple[int, int, int] | None:
    """What a folder is known by; a number of its own is given again when it is gone."""
    try:
        found = place.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_ctime_ns


def _check_stays(path: Path) -> None:
    """Raise for a folder that nothing can take the place of, or from under whom it would go."""
    here = False
    with contextlib.suppress(FileNotFoundError):  # the folder that we were in is gone
        here = Path.cwd().is_relative_to(path)
    if here or path.is_mount():
        why = "this program runs" if here else "a file system is mounted"
        raise EffectsError(
            f"{path} is a folder in which {why}, and a result takes the place of the whole folder: "
            f"name one in it, such as {path / 'map.zarr'}."
        )


def _check_name(path: Path) -> None:
    if not path.name:
        raise EffectsError(f"{str(path)!r} names no folder that a result could be written to.")
