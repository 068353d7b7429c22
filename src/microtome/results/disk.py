"""The local file system: what is written there is whole, or it is not there.

A file is written beside its place, flushed to the disk, and renamed into it. A folder takes
another's place the same way: see `replace` and `recover`. Everything here that changes the disk
tells `about_to` first, which does nothing: tests let each single step fail, or be the last.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from microtome.errors import EffectsError
from microtome.paths import cannot_name, on_its_way

WRITING = ".writing"
"""Ending of a file on its way; one that is left over is overwritten."""

_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_BINARY = getattr(os, "O_BINARY", 0)
_AT_ONCE = 8
_NO_FLUSHING = {errno.EINVAL, errno.ENOTSUP}

READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
"""What the system says where nothing may be written."""

_ADVICE: Mapping[int, str] = {
    errno.ENOSPC: "Free some space, then do the same again",
    errno.EDQUOT: "Free some space, then do the same again",
    errno.EFBIG: "Free some space, then do the same again",
    errno.EACCES: "Choose a folder that you may write to",
    errno.EPERM: "Choose a folder that you may write to",
    errno.EROFS: "Choose a folder that you may write to",
    errno.ENOTDIR: "A part of the path is a file: choose another",
    errno.EEXIST: "Something else has this name: choose another",
    errno.EISDIR: "Something else has this name: choose another",
    errno.ENAMETOOLONG: "Choose a shorter name",
    errno.ELOOP: "Results are not written through links: give the place that is meant",
}


def about_to(operation: str, path: Path) -> None:
    """Is told of every change to the disk before it is made."""


@contextlib.contextmanager
def failures(path: str | Path) -> Iterator[None]:
    """Let whatever the system refuses be an `EffectsError` that names the result and the reason."""
    if cannot_name(path):
        raise EffectsError(f"{str(path)[:80]!r} cannot name a file or a folder on this machine.")
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        where = f" ({error.filename})" if error.filename not in (None, str(path)) else ""
        advice = _ADVICE.get(error.errno or 0, "See that the disk is in order")
        raise EffectsError(
            f"{path} could not be written: {reason}{where}. {advice}; "
            "what was complete before still is."
        ) from error


def refuse_link(path: Path) -> None:
    """Raise unless a path is no symbolic link.

    Raises:
        EffectsError: it is one.
    """
    if path.is_symlink():
        raise EffectsError(
            f"{path} is a link to {os.readlink(path)}; nothing is written through links. "
            "Give the place that is meant."
        )


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where they are not there yet."""
    if path.is_dir():
        return
    if path.parent != path:
        make_folder(path.parent)
    about_to("make", path)
    path.mkdir(exist_ok=True)
    flush(path.parent)


def write_file(path: Path, data: bytes, own: str = "") -> None:
    """Write a file whole: beside its place, flushed, then renamed; what was there is replaced.

    Args:
        path: the file.
        data: what is in it.
        own: part of the name that it has on its way, where others may write it at the same time.
    """
    beside = on_its_way(path, own + WRITING)
    try:
        _fill(beside, data)
        _flush_file(beside)
        rename(beside, path)
    except OSError:
        with contextlib.suppress(OSError):  # the first failure is the one to tell
            remove_file(beside)
        raise


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files by their names (with slashes) to a new folder, and flush them all.

    Not whole until it returns: `replace` puts it in its place afterwards.
    """
    folders = {folder, *((folder / name).parent for name in files)}
    for inner in sorted(folders):
        about_to("make", inner)
        inner.mkdir(exist_ok=True)
    for name, data in files.items():
        _fill(folder / name, data)
    about_to("flush", folder)
    # Side by side: the system flushes many at once in the time of a few.
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(_flush_file, (folder / name for name in files)))
        list(pool.map(flush, folders))
    flush(folder.parent)


def replace(place: Path, new: Path, old: Path) -> None:
    """Put a complete folder in its place; the one that is there goes to ``old``, and stays.

    Whoever is killed in between leaves ``old`` and no ``place``: `recover` knows it by that.
    """
    if not place.exists():
        rename(new, place)
        return
    rename(place, old)
    try:
        rename(new, place)
    except OSError:
        with contextlib.suppress(OSError):  # the first failure is the one to tell
            rename(old, place)
        raise


def recover(place: Path, new: Path, old: Path) -> None:
    """Finish a `replace` that was killed: the new folder was complete, or it had not begun."""
    if old.is_dir() and not place.exists():
        rename(new if new.is_dir() else old, place)


def rename(path: Path, to: Path) -> None:
    """Rename, so that it outlasts a crash; a file in the way is replaced."""
    about_to("rename", path)
    os.replace(path, to)
    flush(to.parent)
    if path.parent != to.parent:
        flush(path.parent)


def remove_file(path: Path) -> None:
    """Remove a file or a link, if it is there."""
    about_to("remove", path)
    path.unlink(missing_ok=True)


def remove_folder(path: Path, gone: Path) -> None:
    """Remove a folder under another name, so that a part of it is never taken for the whole."""
    for one in (gone, path):
        if one.is_symlink():
            remove_file(one)
        elif one.is_dir():
            if one == path:
                rename(path, gone)
            _remove_tree(gone)


def flush(path: Path) -> None:
    """Have the system write a folder's list of names to the disk, where it can."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_FLUSHING:  # some network file systems have no such thing
            raise
    finally:
        os.close(handle)


def _fill(path: Path, data: bytes) -> None:
    about_to("write", path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _NO_LINK | _BINARY
    with open(os.open(path, flags, 0o666), "wb") as file:
        about_to("fill", path)
        file.write(data)


def _flush_file(path: Path) -> None:
    handle = os.open(path, os.O_RDWR | _NO_LINK | _BINARY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_tree(folder: Path) -> None:
    for inside, folders, files in os.walk(folder, topdown=False):
        for name in files:
            remove_file(Path(inside, name))
        for name in folders:
            below = Path(inside, name)
            if below.is_symlink():
                remove_file(below)
            else:
                remove_empty(below)
    remove_empty(folder)


def remove_empty(folder: Path) -> None:
    """Remove a folder in which nothing is left."""
    about_to("remove", folder)
    folder.rmdir()
