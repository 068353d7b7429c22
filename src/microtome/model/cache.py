"""The user's cache: folders that are dear to make, each made once and found again by a key.

It lies in ``$MICROTOME_CACHE``, or else in ``microtome`` under ``$XDG_CACHE_HOME`` or ``~/.cache``;
``MICROTOME_CACHE=off`` does without. All of it may be deleted at any time. A folder is whole or not
there: it is made beside its place and renamed, one process at a time, and nothing is taken from it
unless every byte is the one that was written. Where there is no room or no right to write, the
work is done without it, and a `CacheWarning` says so.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock
from safetensors import SafetensorError

from microtome.errors import CacheWarning, MicrotomeError

VARIABLE = "MICROTOME_CACHE"
OFF = "off"

MANIFEST = "manifest.json"
"""Lists the other files of a folder with their checksums; it is written last."""


def directory() -> Path | None:
    """Where the cache lies; None where the user wants none."""
    own = os.environ.get(VARIABLE, "")
    if own:
        return None if own == OFF else Path(own).expanduser()
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # One that is no whole path is to be ignored, says the XDG specification.
    return (shared if shared.is_absolute() else Path.home() / ".cache") / "microtome"


def made_once(key: str, size: int, make: Callable[[Path], None]) -> Path | None:
    """The folder of a key, made now unless it was made before.

    Args:
        key: what it is made of, as a file name: other content, another key.
        size: how many bytes it will take, about.
        make: writes the files into the empty folder that it is given.

    Returns:
        The folder; None where nothing can be kept, which a warning tells the reason of.
    """
    root = directory()
    if root is None:
        return None
    folder = root / key
    try:
        if is_whole(folder):
            return folder
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not is_whole(folder):  # Nobody made it while we waited.
                _make(folder, size, make)
    except MicrotomeError:  # Nothing to do with the cache: what was to be made cannot be.
        raise
    # The second is what safetensors makes of a full disk, the third of a system without locks.
    except (OSError, SafetensorError, NotImplementedError) as error:
        warnings.warn(
            f"Going on without the cache at {root} ({error}): the next load takes as long again. "
            f"Make room or give another place: {VARIABLE}=DIRECTORY; {VARIABLE}={OFF} does "
            "without.",
            CacheWarning,
            stacklevel=2,
        )
        return None
    return folder


def is_whole(folder: Path) -> bool:
    """Whether a folder has the files of its manifest, every byte as it was written, and no other.

    Raises:
        OSError: it is there and cannot be read.
    """
    try:
        listed = json.loads((folder / MANIFEST).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return False
    there = {path.name for path in folder.iterdir()} - {MANIFEST}
    if not isinstance(listed, dict) or there != set(listed):
        return False
    return all(_digest(folder / name) == listed[name] for name in sorted(there))


def _make(folder: Path, size: int, make: Callable[[Path], None]) -> None:
    """Write a folder beside its place, and put it there in one step."""
    making = folder.with_name(f"{folder.name}.making")
    _remove(making)  # Left by a process that was killed: nobody else has the lock.
    if shutil.disk_usage(folder.parent).free < size:
        raise OSError(errno.ENOSPC, f"{size / 2**20:,.0f} MiB are needed and not free")
    making.mkdir(mode=0o700)
    try:
        make(making)
        listed = {path.name: _digest(path) for path in sorted(making.iterdir())}
        (making / MANIFEST).write_text(json.dumps(listed, indent=1), encoding="utf-8")
        _remove(folder)  # It is there only where it was damaged.
        making.rename(folder)
    finally:
        _remove(making)


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def _digest(path: Path) -> str | None:
    """The SHA-256 of a file; None of what is no plain file."""
    if path.is_symlink() or not path.is_file():
        return None
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
