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
    the program at once, and not with a traceback from the midst of somebody's module. The same when
    the command has ended, as a second Ctrl-C finds it.
    """
    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    for one in (getattr(signal, name) for name in names):
        if signal.getsignal(one) is not signal.SIG_IGN:
            signal.signal(one, _leave)
    importlib.import_module("microtome.frontends.cli").main()


def _leave(number: int, frame: FrameType | None) -> None:
    os._exit(SIGNALLED + number)


if __name__ == "__main__":
    main()
