"""What answers a command, torch and all, is imported when it is called, which takes seconds."""

from __future__ import annotations

import gc
import importlib
import sys
from types import ModuleType


def imported(home: str) -> ModuleType:
    """A module by its name.

    A fifth of the time would go into looking for garbage among what an import makes, which stays:
    so nobody looks meanwhile, nor among it later.
    """
    if home in sys.modules:  # whole, or on its way in another thread, which is waited for
        return importlib.import_module(home)
    looking = gc.isenabled()
    gc.disable()
    try:
        found = importlib.import_module(home)
        gc.freeze()
    finally:
        if looking:
            gc.enable()
    return found
