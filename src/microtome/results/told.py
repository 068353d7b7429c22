"""What a result says of itself (`results.provenance`), as the text that it carries with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import xarray as xr


def told_by(data: xr.Dataset) -> dict[str, Any]:
    """What is needed to repeat a result."""
    found: dict[str, Any] = json.loads(data.attrs["provenance"])
    return found


def telling(data: xr.Dataset, told: Mapping[str, Any]) -> xr.Dataset:
    """A result that says this of itself."""
    return data.assign_attrs(provenance=as_text(told))


def as_text(told: Mapping[str, Any]) -> str:
    """The same as a result has it among its attributes."""
    return json.dumps(told, ensure_ascii=False)
