"""Changes on disk, each whole or not at all.

A file is written beside its place, flushed, and renamed into it; a folder likewise. Whatever stops
the program in between leaves the earlier one or the new one. No link is written through: one that
lies where something is to be written is refused.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from microtome.errors import EffectsError

NEW, OLD = ".new", ".old"
"""Ends of the names of what is not in its place yet, and of what is not any more."""


def about_to(change: str, path: Path) -> None:
    """Every change passes here before it is made: tests raise what a full disk would, or a kill."""


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file, in the place of any there.

    Raises:
        EffectsError: the disk refuses, or a link or a folder is in the way. The earlier file is
            as it was.
    """
    refuse_link(path)
    new = beside(path, NEW)
    with explained(path):
        try:
            about_to("write", new)
            new.unlink(missing_ok=True)
            with new.open("xb") as file:  # which follows no link
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            about_to("rename", path)
            os.replace(new, path)
        except OSError:
            with contextlib.suppress(OSError):  # the first error is the one to tell
                new.unlink(missing_ok=True)
            raise
        _flush(path.parent)


def replace_folder(
    path: Path, make: Callable[[Path], object], ready: Callable[[], object] = lambda: None
) -> None:
    """Put a folder in the place of any there.

    Args:
        path: the place.
        make: writes the folder to the path that it is given, beside the place.
        ready: called when it is written, before the earlier one is moved away.

    Raises:
        EffectsError: the disk refuses, or a link is in the way. The earlier folder is as it was.
    """
    refuse_link(path)
    recover(path)
    new, old = beside(path, NEW), beside(path, OLD)
    remove(new)
    with explained(path):
        try:
            about_to("write", new)
            make(new)
            for folder, _, files in os.walk(new):
                for name in files:
                    _flush(Path(folder, name))
                _flush(Path(folder))
        except Exception:
            shutil.rmtree(new, ignore_errors=True)  # the first error is the one to tell
            raise
        ready()
        if path.exists():
            about_to("rename", old)
            os.replace(path, old)
        about_to("rename", path)
        os.replace(new, path)
        _flush(path.parent)
    remove(old)


def recover(path: Path) -> None:
    """Bring a folder back that was moved away when the program was stopped."""
    old = beside(path, OLD)
    if not old.is_dir() or old.is_symlink():
        return
    if path.exists():
        remove(old)
    else:
        with explained(path):
            about_to("rename", path)
            os.replace(old, path)


def make_folder(path: Path) -> None:
    """Make a folder, and those that it lies in."""
    if not path.is_dir():
        with explained(path):
            about_to("make", path)
            path.mkdir(parents=True, exist_ok=True)


def remove(path: Path) -> None:
    """Remove a file, a folder with all in it, or a link, but not what the link leads to."""
    with explained(path):
        if path.is_dir() and not path.is_symlink():
            about_to("remove", path)
            shutil.rmtree(path)
        elif path.exists() or path.is_symlink():
            about_to("remove", path)
            path.unlink()


def beside(path: Path, end: str) -> Path:
    """The name beside a path under which its successor or predecessor lies."""
    return path.with_name(f".{path.name}{end}")


def refuse_link(path: Path) -> None:
    """Raise `EffectsError` where a link lies."""
    if path.is_symlink():
        raise EffectsError(
            f"{path} is a link, and nothing is written through links: remove it, or choose "
            "another folder."
        )


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """What the disk refuses, as an `EffectsError` that says where and why."""
    try:
        yield
    except OSError as error:
        raise EffectsError(f"Cannot write {path}: {error.strerror or error}.") from error


def _flush(path: Path) -> None:
    """Have a file, or a folder's names, reach the disk; Windows has no such call for folders."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
