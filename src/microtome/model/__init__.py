"""Models: how they are loaded, where their sites are, and the proof of it."""

from __future__ import annotations

import importlib
from types import ModuleType


def __getattr__(name: str) -> ModuleType:
    """`model.load`, as scripts of the first versions say it; transformers comes with it."""
    if name == "load":
        return importlib.import_module("microtome.model.load")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
