"""Faults at any single change to the disk."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from microtome.results import disk

Steps = list[tuple[str, str]]


class Killed(BaseException):
    """What stands for a kill: nothing on disk changes any more from this step on."""


@contextlib.contextmanager
def watched() -> Iterator[Steps]:
    """Every change to the disk, in order: the operation, and the file's name."""
    steps: Steps = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            disk, "about_to", lambda operation, path: steps.append((operation, path.name))
        )
        yield steps


@contextlib.contextmanager
def killed_at(step: int) -> Iterator[None]:
    """Die before a step."""
    with _from(step, lambda at: Killed(f"step {at}"), lasting=True):
        yield


@contextlib.contextmanager
def interrupted_at(step: int) -> Iterator[None]:
    """Ctrl-C before a step."""
    with _from(step, lambda at: KeyboardInterrupt(f"step {at}"), lasting=False):
        yield


@contextlib.contextmanager
def full_at(step: int, lasting: bool) -> Iterator[None]:
    """Let one step fail, as on a full disk; or every step from there on."""
    with _from(step, lambda at: OSError(errno.ENOSPC, "No space left on device"), lasting):
        yield


@contextlib.contextmanager
def _from(step: int, fault, lasting: bool) -> Iterator[None]:
    count = 0

    def about_to(operation: str, path: Path) -> None:
        nonlocal count
        count += 1
        if count - 1 == step or (lasting and count - 1 > step):
            raise fault(count - 1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk, "about_to", about_to)
        yield
