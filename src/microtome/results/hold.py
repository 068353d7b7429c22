"""Exclusive use of a folder: a lock file that says who has it, and that ends with its process."""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import os
import socket
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from microtome.errors import EffectsError
from microtome.results import disk

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_TAKEN = {errno.EACCES, errno.EAGAIN, errno.EDEADLK}
_BEYOND = 1 << 30
"""What Windows locks cannot be read meanwhile: a byte that the file does not have."""


class Held(Protocol):
    """That somebody writes to a place: `Hold`, or where there are no locks, nothing much."""

    @property
    def held(self) -> bool:
        """Whether it still is."""

    def release(self) -> None:
        """Give it back; again, nothing happens."""


class Unheld:
    """In the place of a lock where there are none: nobody is kept out."""

    held = True

    def release(self) -> None:
        """Nothing more is written."""
        self.held = False


class Hold:
    """The lock of a folder, from when it is made until `release` or the end of the process.

    The system ends it with the process, however that ends: a file that is left over locks nothing.
    It is that process's own: a fork of it, which may end or be stopped in the same lines, has
    nothing to give back.

    Args:
        path: the lock file. Its folder has to be there.
        what: what is locked, for messages.

    Raises:
        EffectsError: somebody has it; the message says who, and since when.
        OSError: the file cannot be made.
    """

    def __init__(self, path: Path, what: Path):
        self.path = path
        self._pid = os.getpid()
        while True:
            disk.about_to("lock", path)
            handle = os.open(path, _FLAGS, 0o666)
            self._close = weakref.finalize(self, os.close, handle)
            try:
                if self._is_had(handle, what):
                    return
            except BaseException:  # an interrupt's traceback may be kept, and this with it
                self._close()
                raise
            self._close()

    def _is_had(self, handle: int, what: Path) -> bool:
        """Lock the open file and sign it; not where that is no longer the one of this name."""
        try:
            _lock(handle)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
            raise EffectsError(
                f"{what} is being written by {_owner(handle)}. Let it finish, end it, or choose "
                "another folder."
            ) from None
        # Whoever had it before may have removed the file after it was opened here.
        if not _is_there(handle, self.path):
            return False
        disk.about_to("sign", self.path)
        _sign(handle)
        return True

    @property
    def held(self) -> bool:
        """Whether it still is, by this process."""
        return self._close.alive and self._pid == os.getpid()

    def release(self) -> None:
        """Give the folder back; again, nothing happens."""
        if not self.held:
            return
        try:
            if sys.platform != "win32":  # an open file is not removed there
                with contextlib.suppress(OSError):  # the file locks nothing once it is closed
                    disk.remove_file(self.path)
        finally:
            self._close()


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Within this block a folder, which is made if it is not there, is nobody else's.

    Raises:
        EffectsError: somebody has it, or the system refuses.
    """
    with disk.failures(folder):
        disk.make_folder(folder.absolute())
        hold = Hold(folder.absolute() / "lock", folder)
    try:
        yield
    finally:
        hold.release()


def _lock(handle: int) -> None:
    if sys.platform == "win32":
        os.lseek(handle, _BEYOND, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_there(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _sign(handle: int) -> None:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    mine = {"pid": os.getpid(), "host": socket.gethostname(), "since": now}
    os.lseek(handle, 0, os.SEEK_SET)
    os.ftruncate(handle, 0)
    os.write(handle, json.dumps(mine).encode())


def _owner(handle: int) -> str:
    os.lseek(handle, 0, os.SEEK_SET)
    try:
        found = json.loads(os.read(handle, 4096))
        return f"process {found['pid']} on {found['host']} since {found['since']}"
    except (OSError, ValueError, KeyError, TypeError):  # it has not signed yet
        return "another process"
