"""What is needed to repeat a result: model, versions, and the question itself."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
from functools import cache
from typing import Any

from microtome.model.loaded import Loaded

PACKAGES = ("microtome", "torch", "transformers", "numpy")


def of_model(model: Loaded) -> dict[str, Any]:
    """The model: what it was loaded as, its weights' hash, type, attention and device."""
    return {
        "name": model.name,
        "revision": model.revision,
        "weight_hash": model.weight_hash,
        "architecture": type(model.hf).__name__,
        "dtype": str(model.dtype).removeprefix("torch."),
        "attention": str(getattr(model.hf.config, "_attn_implementation", None)),
        "device": str(model.device),
    }


def of_machine() -> dict[str, Any]:
    """Versions of what computed, and when."""
    return {
        "versions": {"python": platform.python_version(), **_versions()},
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


@cache
def _versions() -> dict[str, str]:
    """Looked up once: it takes milliseconds, and they stay."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}
