"""A saved result on an object store, at any address that fsspec knows: ``s3://…``, ``gs://…``.

The files are those of a local result (`stores`), and units lie under ``<result>.partial/`` too.
Such a store writes single objects whole or not at all, and that is all that it promises. So:

- a unit is one object, and is there or not, whenever a process is killed;
- the list of checksums is written last, and what has no list, or another, is no result: one that is
  half written is never taken for whole. While an older result is replaced there is none for some
  moments, and the units of the new one are there until it is;
- nobody is kept out: two processes that answer one question write the same twice, and those of two
  questions see each other's question when they begin, or not at all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import fsspec
import xarray as xr
from fsspec.implementations.local import LocalFileSystem

from microtome.errors import EffectsError
from microtome.paths import PARTIAL
from microtome.results import form
from microtome.results.checksums import LIST, Checksums
from microtome.results.hold import Held, Unheld
from microtome.results.identity import MARK, Identity
from microtome.results.stores import UNITS, WINDOWS


def is_remote(path: object) -> bool:
    """Whether a path is an address of fsspec's.

    >>> is_remote("s3://bucket/map.zarr"), is_remote("map.zarr")
    (True, False)
    """
    return isinstance(path, str) and "://" in path


class Remote:
    """A result's place on an object store, and what lies beside it; as `stores.Beside`.

    Args:
        url: the result's address.

    Raises:
        EffectsError: fsspec does not know the kind of store, or its package is missing.
    """

    def __init__(self, url: str) -> None:
        self.path = url.rstrip("/")
        with failures(self.path):
            self._files, self._root = fsspec.core.url_to_fs(self.path)
        if isinstance(self._files, LocalFileSystem):
            raise EffectsError(
                f"{self.path} is a folder of this machine: give its path, {self._root}."
            )
        self._root = self._root.rstrip("/")

    def enter(self) -> Unheld:
        """Begin to write; nobody is kept out.

        Raises:
            EffectsError: what is in the result's place is no result.
        """
        with failures(self.path):
            listed = self._names(self._root)
            if listed and not self.is_there() and not self._is_half():
                raise EffectsError(
                    f"{self.path} holds something that is not a saved result "
                    f"({', '.join(listed[:3])}); it is left alone."
                )
        return Unheld()

    def leave(self, hold: Held) -> None:
        """Nothing more is written; what led to no unit is removed."""
        with contextlib.suppress(EffectsError):  # whoever writes next clears up
            if hold.held and not self.has_begun():
                self.clear()
        hold.release()

    def make(self, folder: str = UNITS) -> None:
        """Object stores have no folders to be made."""

    def names(self, folder: str) -> list[str]:
        """The names of the files in a folder beside the result, in order."""
        return self._names(f"{self._root}{PARTIAL}/{folder}")

    def read(self, name: str) -> bytes:
        """A file beside the result.

        Raises:
            FileNotFoundError: it is not there.
            EffectsError: the store refuses.
        """
        with failures(self.path):
            return bytes(self._files.cat_file(f"{self._root}{PARTIAL}/{name}"))

    def write(self, name: str, data: bytes) -> None:
        """Write a file beside the result, whole.

        Raises:
            EffectsError: the store refuses.
        """
        with failures(self.path):
            self._files.pipe_file(f"{self._root}{PARTIAL}/{name}", data)

    def add(self, name: str, data: bytes) -> None:
        """As `write`: two who write one object do not meet."""
        self.write(name, data)

    def remove(self, name: str) -> None:
        """Remove a file beside the result, if it is there."""
        with failures(self.path), contextlib.suppress(FileNotFoundError):
            self._files.rm_file(f"{self._root}{PARTIAL}/{name}")

    def spelled(self, name: str) -> str:
        """A file beside the result, for messages."""
        return f"{self.path}{PARTIAL}/{name}"

    def has_begun(self) -> bool:
        """Whether anything is done of a sweep into this place."""
        return bool(self.names(UNITS) or self.names(WINDOWS))

    def clear(self) -> None:
        """Remove what led to the result."""
        with failures(self.path), contextlib.suppress(FileNotFoundError):
            self._files.rm(f"{self._root}{PARTIAL}", recursive=True)

    def is_there(self) -> bool:
        """Whether a result is there, damaged or not."""
        try:
            return f'"{MARK}":'.encode() in self._own(LIST)
        except FileNotFoundError:
            return False

    def question(self) -> Identity | None:
        """What the result there answers; None where it does not say.

        Raises:
            EffectsError: its list of files is damaged.
        """
        return Checksums.read(self._own(LIST)).question

    def verify(self) -> None:
        """Raise unless every file of the result is as it was written.

        Raises:
            EffectsError: one is not.
        """
        self._sound()

    def load(self) -> xr.Dataset:
        """The result, every byte of it proved.

        Raises:
            EffectsError: there is none, or it is damaged.
        """
        try:
            return form.decode(self._sound())
        except FileNotFoundError:
            begun = "; a sweep into it has begun" if self.has_begun() else ""
            raise EffectsError(f"{self.path} is no saved result: it is not there{begun}.") from None
        except EffectsError as error:
            raise EffectsError(f"{self.path} is no saved result: {error}.") from error

    def publish(self, files: Mapping[str, bytes], question: Identity | None = None) -> None:
        """Write a result: the list of its files last, and the older one's list is removed first.

        Raises:
            EffectsError: the store refuses.
        """
        with failures(self.path, "What was there may be gone: write it again."):
            older = self._files.find(self._root) if self._files.exists(self._root) else []
            if self.is_there():
                self._files.rm_file(f"{self._root}/{LIST}")
            for name in sorted(files, key=lambda name: name != form.ATTRIBUTES):
                self._files.pipe_file(f"{self._root}/{name}", files[name])
            kept = {f"{self._root}/{name}".lstrip("/") for name in (*files, LIST)}
            for path in older:
                if path.lstrip("/") not in kept:
                    self._files.rm_file(path)
            written = Checksums.of(files, question).written()
            self._files.pipe_file(f"{self._root}/{LIST}", written)

    def _is_half(self) -> bool:
        """Whether what is there was begun as a result: its attributes are written first."""
        try:
            return form.is_form(form.attributes({form.ATTRIBUTES: self._own(form.ATTRIBUTES)}))
        except FileNotFoundError:
            return False

    def _own(self, name: str) -> bytes:
        with failures(self.path):
            return bytes(self._files.cat_file(f"{self._root}/{name}"))

    def _sound(self) -> dict[str, bytes]:
        checksums = Checksums.read(self._own(LIST))
        found = {}
        for name in checksums.files:
            try:
                found[name] = self._own(name)
            except FileNotFoundError:
                raise EffectsError(f"{name} is missing") from None
            checksums.check(name, found[name])
        return found

    def _names(self, folder: str) -> list[str]:
        with failures(self.path):
            self._files.invalidate_cache()
            try:
                listed = self._files.ls(folder, detail=False)
            except FileNotFoundError:
                return []
        return sorted(str(path).rstrip("/").rpartition("/")[2] for path in listed)


@contextlib.contextmanager
def failures(url: str, left: str = "What was complete before still is.") -> Iterator[None]:
    """Let what a store refuses be an `EffectsError`; that something is not there is none.

    Args:
        url: of the store.
        left: what becomes of what was there, in a sentence.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except (ImportError, ValueError) as error:
        if isinstance(error, EffectsError):
            raise
        raise EffectsError(
            f"{url} cannot be opened: {error}. It is an address of fsspec's, which needs a package "
            "for each kind of store: s3fs for s3://, gcsfs for gs://, adlfs for abfs://."
        ) from error
    except OSError as error:
        raise EffectsError(f"{url} could not be written or read: {error}. {left}") from error
