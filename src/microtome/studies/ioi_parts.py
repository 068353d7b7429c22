"""The rules by which a head plays a part in the circuit of the indirect object.

A head looks at a mention that it gives a good part of its attention, and more than the other two;
what it does counts from a share of the clean score on.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

LEAST = 0.05
"""Share of the clean score from which on a head counts."""
LOOK = 0.25
"""Share of its attention that a head gives, at least, to what it looks at."""

Head = tuple[int, int]


def looks_at(attention: xr.DataArray, place: str) -> xr.DataArray:
    """Whether a mention has `LOOK` of a head's attention, and the most of the three."""
    return (attention.idxmax("place") == place) & (attention.sel(place=place, drop=True) >= LOOK)


def movers(direct: xr.DataArray, attention: xr.DataArray, clean: float) -> list[Head]:
    """Heads whose edge to the logits is worth `LEAST` of the score, and that look at IO."""
    return heads_by(direct >= LEAST * abs(clean), looks_at(attention, "IO"), by=direct)


def negative(direct: xr.DataArray, attention: xr.DataArray, clean: float) -> list[Head]:
    """Heads whose edge to the logits costs that much, and that look at IO."""
    return heads_by(direct <= -LEAST * abs(clean), looks_at(attention, "IO"), by=-direct)


def inhibition(queries: xr.DataArray, attention: xr.DataArray, clean: float) -> list[Head]:
    """Heads that look at S2, and whose edge to a name mover's query is worth that much."""
    return heads_by(queries >= LEAST * abs(clean), looks_at(attention, "S2"), by=queries)


def backups(backup: xr.DataArray, clean: float) -> list[Head]:
    """Heads that are missed by that much more where the name movers are silenced."""
    return heads_by(backup >= LEAST * abs(clean), by=backup)


def heads_by(*rules: xr.DataArray, by: xr.DataArray) -> list[Head]:
    """The heads that all rules hold for, the strongest first."""
    held = xr.ones_like(by, dtype=bool)
    for rule in rules:
        held = held & rule
    strength = by.transpose("layer", "head").values
    there = np.argwhere(held.transpose("layer", "head").values)
    order = np.argsort([-strength[layer, head] for layer, head in there], kind="stable")
    layers, heads = by["layer"].values, by["head"].values
    return [(int(layers[a]), int(heads[b])) for a, b in there[order].tolist()]
