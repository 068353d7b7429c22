"""Files of a report: written whole, through no link, in JSON's and UTF-8's own terms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from microtome.results import disk


def write_file(path: Path, text: str) -> None:
    """Write a text as a file of a report, whole; see `write`."""
    write(path, utf8(text))


def write(path: Path, data: bytes) -> None:
    """Write a file whole, in the place of any there, through no link."""
    disk.refuse_link(path)
    with disk.failures(path):
        disk.make_folder(path.parent)
        disk.write_file(path, data)


def write_unless_there(path: Path, data: bytes) -> None:
    """The same, unless it holds this already."""
    if not (path.is_file() and path.read_bytes() == data):
        write(path, data)


def utf8(text: str) -> bytes:
    """A text for a file; half a character, which no encoding has, becomes a question mark."""
    return text.encode("utf-8", "replace")


def plain(value: Any) -> Any:
    """A value in JSON's own types."""
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(one) for one in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
