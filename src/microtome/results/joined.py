"""Results of windows of one stream, put together: one result over all of their prompts."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from microtome.figures.mapped import NOISE_FLOOR
from microtome.results.known import brought, known
from microtome.stats.samples import PROMPT

ABSENT: Mapping[str, Any] = {"f": np.nan, "i": -1, "O": ""}
"""What stands where a prompt has no such cell, by the kind of the values."""


def joined(parts: Sequence[xr.Dataset], prompts: Sequence[Mapping[str, Any]]) -> xr.Dataset:
    """The result over the prompts of all parts, in order, without provenance.

    As it is labelled when all prompts are one map: positions up to the longest prompt, and what a
    part does not know of its prompts is absent there.

    Args:
        parts: the results.
        prompts: all prompts, as plain values. What else is known of them is looked up there: what
            is a number in every prompt of one part may be text in another.
    """
    metas = [one.get("meta", {}) for one in prompts]
    ends = [*itertools.accumulate(part.sizes[PROMPT] for part in parts)]
    parts = [
        part.drop_vars(brought(part, metas[end - part.sizes[PROMPT] : end]))
        for part, end in zip(parts, ends, strict=True)
    ]
    names = list(dict.fromkeys(str(name) for part in parts for name in part.variables))
    sizes: Counter[str] = Counter()
    for part in parts:
        for name, size in part.sizes.items():
            sizes[str(name)] = max(sizes[str(name)], size)
    sizes[PROMPT] = sum(part.sizes[PROMPT] for part in parts)
    found: dict[str, Any] = {PROMPT: (PROMPT, np.arange(sizes[PROMPT]))}
    for name in names:
        having = [part for part in parts if name in part.variables]
        first = having[0].variables[name]
        if name == PROMPT:
            continue
        if PROMPT not in first.dims:
            longest = max(having, key=lambda part: part.variables[name].size)
            found[name] = longest.variables[name]
        else:
            found[name] = (first.dims, _filled(name, parts, first.dims, sizes), _told(name, having))
    labels = {name for part in parts for name in map(str, part.coords)} | {PROMPT}
    variables = {name: own for name, own in found.items() if name not in labels}
    coordinates = {name: own for name, own in found.items() if name in labels}
    attributes = {k: v for k, v in parts[0].attrs.items() if k != "provenance"}
    coordinates |= known(metas, {*found})
    return xr.Dataset(variables, coordinates, attributes)


def _filled(
    name: str, parts: Sequence[xr.Dataset], dims: Sequence[Any], sizes: Mapping[str, int]
) -> np.ndarray[Any, Any]:
    """A variable over all prompts; absent where a part has it not, or is shorter."""
    kinds = {part.variables[name].dtype.kind for part in parts if name in part.variables}
    kind = "O" if kinds & set("OUT") else "f" if "f" in kinds else "i"
    dtype = {"O": object, "f": np.float64, "i": np.int64}[kind]
    if kinds == {"b"}:
        kind, dtype = "b", bool
    whole = np.full([sizes[str(dim)] for dim in dims], ABSENT.get(kind, False), dtype=dtype)
    at = 0
    for part in parts:
        rows = part.sizes[PROMPT]
        if name in part.variables:
            own = part.variables[name]
            where = [slice(at, at + rows) if d == PROMPT else slice(part.sizes[d]) for d in dims]
            whole[tuple(where)] = _texts(own.values) if kind == "O" else own.values
        at += rows
    return whole


def _texts(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Values of a coordinate that are texts in another part."""
    if values.dtype.kind in "OUT":
        return values.astype(object)
    texts = ["" if value != value else str(value) for value in values.ravel().tolist()]
    return np.array(texts, dtype=object).reshape(values.shape)


def _told(name: str, having: Sequence[xr.Dataset]) -> dict[str, Any]:
    """The attributes of a variable, with the largest of its noise floors."""
    every = [part.variables[name].attrs for part in having]
    floors = [own[NOISE_FLOOR] for own in every if NOISE_FLOOR in own]
    return {**every[0], **({NOISE_FLOOR: max(floors)} if floors else {})}
