"""The files of a saved result: what is one, and that each is as it was written.

Nothing outside of its folder is read, and nothing through a link.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from microtome.errors import EffectsError
from microtome.results import form
from microtome.results.checksums import LIST, Checksums
from microtome.results.identity import MARK, Identity

_FILE = re.compile(r"(?:\.zgroup|\.zattrs|\.zmetadata|[^/\\:]+/(?:\.zarray|\.zattrs|[0-9.]+))")


def question_of(path: Path) -> Identity | None:
    """What the result saved there answers; none where it does not say.

    Raises:
        EffectsError: its list of files is damaged.
    """
    if not (path / LIST).is_file():
        return None
    return Checksums.read(_bytes(path, LIST)).question


def verify(path: Path) -> None:
    """Raise unless every file of the result saved there is as it was written.

    Raises:
        EffectsError: one is not.
    """
    sound(path)


def is_result(path: Path) -> bool:
    """Whether a result is, or was, in a folder, damaged or not."""
    if not path.is_dir():
        return False
    with contextlib.suppress(OSError):  # what cannot be read is not ours to replace
        if (path / LIST).is_file() and f'"{MARK}":'.encode() in (path / LIST).read_bytes():
            return True
        if not (path / form.ATTRIBUTES).is_file():
            return False
        found = (path / form.ATTRIBUTES).read_bytes()
        return {"format", "provenance"} <= form.attributes({form.ATTRIBUTES: found}).keys()
    return False


def sound(place: Path) -> dict[str, bytes]:
    """The files of a store, each as it was written.

    Raises:
        EffectsError: it is no store, or one of them is not.
    """
    if not place.is_dir():
        raise EffectsError("it is a file" if place.exists() else "it is not there")
    found = {form.ATTRIBUTES: _bytes(place, form.ATTRIBUTES)}
    attributes = form.attributes(found)
    if form.is_form(attributes):
        form.check_format(attributes)
    if (place / LIST).exists():
        checksums = Checksums.read(_bytes(place, LIST))
        for name in checksums.files:
            found[name] = _bytes(place, name)
            checksums.check(name, found[name])
        return found
    if form.is_form(attributes) and attributes["format"] > 1:
        raise EffectsError(f"{LIST} is missing")
    return found | {name: _bytes(place, name) for name in _listed(place)}


def is_empty(folder: Path) -> bool:
    """Whether it is a folder with nothing in it: a place that was made ready."""
    return folder.is_dir() and not names_in(folder)


def names_in(folder: Path) -> set[str]:
    """The names of what is in a folder; none where there is no such folder."""
    try:
        return set(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return set()


def _listed(place: Path) -> Iterator[str]:
    """The names of what belongs to a store of format 1, which has no list."""
    for inside, _, names in os.walk(place):
        folder = Path(inside).relative_to(place).as_posix()
        for name in names:
            whole = name if folder == "." else f"{folder}/{name}"
            if _FILE.fullmatch(whole):
                yield whole


def _bytes(place: Path, name: str) -> bytes:
    """A file of a store; nothing outside it, and nothing through a link."""
    file = place / name
    if name != LIST and (not _FILE.fullmatch(name) or name.startswith("..")):
        raise EffectsError(f"{name!r} is not the name of a file of a store")
    if file.is_symlink() or (file.parent != place and file.parent.is_symlink()):
        raise EffectsError(f"{name} is a link, and a result has none")
    if not file.is_file():
        raise EffectsError(f"{name} is missing")
    try:
        return file.read_bytes()
    except OSError as error:
        raise EffectsError(f"{name} cannot be read ({error.strerror})") from error
