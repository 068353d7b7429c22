"""Signals that wait while something is done that must not be cut in two."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

HELD = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
"""Signals that wait while things go on modules or come off."""


def undisturbed(act: Callable[[], None]) -> None:
    """Do something while signals wait, where they would come to this thread."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(
        signal, "pthread_sigmask"
    ):
        act()
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
        act()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
