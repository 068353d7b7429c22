"""Where a result is: a folder of this machine, or an object store. What both can do."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import xarray as xr

from microtome.errors import EffectsError
from microtome.paths import at_home
from microtome.results import form, stores
from microtome.results.hold import Held
from microtome.results.identity import Identity
from microtome.results.remote import Remote, is_remote


class Place(Protocol):
    """A result's place, and what lies beside it while it is made: `stores.Beside`, `Remote`."""

    @property
    def path(self) -> Path | str:
        """The result's own, wherever one is: absolute, or its address."""

    def enter(self) -> Held:
        """Begin to write."""

    def leave(self, hold: Held) -> None:
        """Nothing more is written."""

    def make(self, folder: str = stores.UNITS) -> None:
        """See that files can be written to a folder beside the result."""

    def names(self, folder: str) -> list[str]:
        """The names of the files in a folder beside the result."""

    def read(self, name: str) -> bytes:
        """A file beside the result."""

    def write(self, name: str, data: bytes) -> None:
        """Write a file beside the result: it is whole, or not there."""

    def add(self, name: str, data: bytes) -> None:
        """The same for whoever has the place: another may write it at the same time."""

    def remove(self, name: str) -> None:
        """Remove a file beside the result."""

    def spelled(self, name: str) -> str:
        """A file beside the result, for messages."""

    def has_begun(self) -> bool:
        """Whether anything is done of a sweep into this place."""

    def clear(self) -> None:
        """Remove what led to the result."""

    def is_there(self) -> bool:
        """Whether something is in the result's place."""

    def question(self) -> Identity | None:
        """What the result there answers."""

    def verify(self) -> None:
        """Raise unless the result there is as it was written."""

    def publish(self, files: Mapping[str, bytes], question: Identity | None = None) -> None:
        """Put a result in its place."""


def at(path: str | Path) -> Place:
    """The place of a result, by its path or its address.

    Raises:
        EffectsError: there is no such kind of store.
    """
    return (
        Remote(str(path))
        if is_remote(path)
        else stores.Beside(Path(os.path.abspath(at_home(path))))
    )


def named(path: str | Path) -> str | Path:
    """A path as it is, an address as text: a `Path` would take its slashes for one."""
    return str(path) if is_remote(path) else at_home(path)


def read(path: str | Path) -> xr.Dataset:
    """The result that is saved there, every byte of it proved.

    Raises:
        EffectsError: there is none, or it is damaged.
    """
    if is_remote(path):
        return Remote(str(path)).load()
    with legible(path):
        return stores.read(at_home(path))


@contextmanager
def legible(path: str | Path) -> Iterator[None]:
    """Let what the system says of a name that no file can have be an `EffectsError`."""
    try:
        yield
    except EffectsError:
        raise
    except (OSError, ValueError) as error:
        raise EffectsError(f"Nothing can be read at {str(path)[:60]!r}: {error}.") from error


def write(path: str | Path, data: xr.Dataset) -> None:
    """Save a result, in the place of an older one once it is complete.

    Raises:
        EffectsError: as `stores.write`, or the store refuses.
    """
    if not is_remote(path):
        stores.write(at_home(path), data)
        return
    place = Remote(str(path))
    hold = place.enter()
    try:
        place.publish(form.encode(data))
    finally:
        place.leave(hold)
