"""What the windows of a stream, or parts of one, say of themselves, put together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

Record = Mapping[str, Any]

SUMMED = ("cells", "units", "absent", "token_blocks", "flops", "passes", "reference_passes")
"""Fields of what was predicted that add up; of the others, memory, the largest counts."""


def together(one: Record, other: Record) -> dict[str, Any]:
    """The provenance of two results, one after the other, as one; see `record.record`."""
    return {
        **one,
        "created": other["created"],
        "engine": {
            **one["engine"],
            "notes": _each_once(one["engine"]["notes"], other["engine"]["notes"]),
        },
        "verification": _verified(one["verification"], other["verification"]),
        "noise_floor": _by_name(one["noise_floor"], other["noise_floor"], max),
        "predicted": _predicted(one["predicted"], other["predicted"]),
        "actual": _by_name(one["actual"], other["actual"], lambda a, b: a + b),
        "spec": {**one["spec"], "prompts": [*one["spec"]["prompts"], *other["spec"]["prompts"]]},
        "measured": [*one.get("measured", ()), *other.get("measured", ())],
    }


def nearness(one: Record) -> float:
    """How much of its tolerance a unit's verification took."""
    found: float = one["largest_difference"] / one["tolerance"] if one["tolerance"] else 0.0
    return found


def without_prompts(one: Record) -> dict[str, Any]:
    """The same without what it says of each prompt: it is as long as one of a single prompt."""
    return {**one, "spec": {**one["spec"], "prompts": []}, "measured": []}


def _verified(one: Record, other: Record) -> dict[str, Any]:
    """What was verified in both, and of the two what came nearest to its tolerance."""
    some = [own for own in (one, other) if own["cells"]]
    if not some:
        return dict(one)
    worst = max(some, key=nearness)
    noise = max(own.get("noise") or 0.0 for own in some)
    return {**worst, "cells": sum(own["cells"] for own in some), "noise": noise}


def _predicted(one: Record, other: Record) -> dict[str, Any]:
    whole = _by_name(
        {name: own for name, own in one.items() if name != "why_absent"},
        {name: own for name, own in other.items() if name != "why_absent"},
        max,
    )
    summed = {name: one[name] + other[name] for name in SUMMED}
    return {**whole, **summed, "why_absent": one["why_absent"] or other["why_absent"]}


def _by_name(one: Record, other: Record, both: Callable[[Any, Any], Any]) -> dict[str, Any]:
    names = _each_once(one, other)
    return {
        name: both(one[name], other[name])
        if name in one and name in other
        else one.get(name, other.get(name))
        for name in names
    }


def _each_once(one: Iterable[str], other: Iterable[str]) -> list[str]:
    return list(dict.fromkeys([*one, *other]))
