"""``python -m microtome``, and what the command ``microtome`` calls."""

from __future__ import annotations

import importlib
import os
import signal
from types import FrameType

SIGNALLED = 128
"""A shell's own code for a program that a signal ended: this and the signal's number."""


def main() -> None:
    """Import the command line, which takes seconds, and run it.

    Until it is imported there is nothing to keep: Ctrl-C, SIGTERM and a terminal that is closed end
    the program at once, and not with a traceback from the midst of somebody's module.
    """
    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {one: signal.getsignal(one) for one in (getattr(signal, name) for name in names)}
    taken = {one: old for one, old in before.items() if old is not signal.SIG_IGN}
    for one in taken:
        signal.signal(one, _leave)
    command_line = importlib.import_module("microtome.frontends.cli")
    for one, old in taken.items():
        signal.signal(one, old)
    command_line.main()


def _leave(number: int, frame: FrameType | None) -> None:
    os._exit(SIGNALLED + number)


if __name__ == "__main__":
    main()
