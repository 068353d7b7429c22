"""The maps that are kept on disk: how much room they take, and which of them go.

A map lies in a store that is named after its question, its unfinished units beside it. Those that
were looked at the longest ago go first, and none that somebody is writing or reading: whoever
removes one holds its lock. What is not of this form, and not microtome's, is never touched.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from microtome.errors import EffectsError
from microtome.paths import PARTIAL
from microtome.results.disk import failures, remove_folder
from microtome.results.stores import Beside

NAME = re.compile(rf"([0-9a-f]{{24}})\.zarr(?:{re.escape(PARTIAL)})?")
"""How a map, and what lies beside it, is called: by the name of its question (`Asked.key`)."""


@dataclass(frozen=True)
class KeptMap:
    """A map on disk, whole or as far as it was computed.

    Attributes:
        key: the name of its question.
        path: its store.
        size: bytes of it, and of what lies beside it.
        used: when it was last made or looked at, in seconds since 1970.
    """

    key: str
    path: Path
    size: int
    used: float


@dataclass(frozen=True)
class Removed:
    """What was removed.

    Attributes:
        maps: how many.
        size: their bytes.
        left: how many are there still, that are in use or cannot be removed.
    """

    maps: int
    size: int
    left: int


def maps(folder: Path) -> list[KeptMap]:
    """The maps in a folder, those first that were looked at the longest ago."""
    matches = [NAME.fullmatch(one.name) for one in _listed(folder)]
    keys = sorted({one[1] for one in matches if one is not None})
    found = [_kept(folder, key) for key in keys]
    return sorted(found, key=lambda one: (one.used, one.key))


def others(folder: Path) -> int:
    """How many other things there are in a folder."""
    return sum(NAME.fullmatch(one.name) is None for one in _listed(folder))


def look_at(path: Path) -> None:
    """Note that a map was looked at now, where it can be noted."""
    with contextlib.suppress(OSError):  # it is gone, or somebody else's: it is as old as it was
        os.utime(path)


def clear(folder: Path) -> Removed:
    """Remove every map that nobody is using.

    Raises:
        EffectsError: the folder cannot be listed.
    """
    return trim(folder, -1)  # even of none there is more


def trim(folder: Path, most: int, using: Collection[str] = ()) -> Removed:
    """Remove maps until the others take no more room than this.

    Args:
        folder: where they are.
        most: bytes.
        using: keys of those that stay, as somebody is looking at them.

    Raises:
        EffectsError: the folder cannot be listed.
    """
    there = maps(folder)
    over, gone, left = sum(one.size for one in there) - most, list[KeptMap](), 0
    for one in there:
        if over <= 0:
            break
        if one.key in using:
            continue
        if _is_removed(one):
            gone.append(one)
            over -= one.size
        else:
            left += 1
    return Removed(len(gone), sum(one.size for one in gone), left)


def _is_removed(one: KeptMap) -> bool:
    """Remove a map, unless it is in use, is a link, or is none of microtome's."""
    beside = Beside(one.path)
    try:
        with failures(one.path):
            hold = beside.enter()
            try:
                remove_folder(one.path, beside.gone)
                beside.clear()
            finally:
                beside.leave(hold)
    except EffectsError:
        return False
    return True


def _kept(folder: Path, key: str) -> KeptMap:
    path = folder / f"{key}.zarr"
    beside = Beside(path)
    size = sum(_size(place) for place in (path, beside.folder)) if _is_ours(beside) else 0
    return KeptMap(key, path, size, max(map(_time, (path, beside.folder, beside.units))))


def _is_ours(beside: Beside) -> bool:
    """Whether it may be removed: what is not the lab's takes no room of the lab's either."""
    try:
        beside.check()
    except (EffectsError, OSError):
        return False
    return True


def _size(place: Path) -> int:
    """Bytes of the files in a folder; links lead nowhere."""
    found = 0
    for inside, _, names in os.walk(place):
        for name in names:
            with contextlib.suppress(OSError):  # somebody is writing there, or keeps it closed
                found += os.lstat(Path(inside, name)).st_size
    return found


def _time(place: Path) -> float:
    try:
        return os.lstat(place).st_mtime
    except OSError:  # it is not there, or in no folder that may be looked into
        return 0.0


def _listed(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise EffectsError(f"{folder} cannot be listed: {error.strerror}.") from None
