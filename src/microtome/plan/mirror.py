"""Maps of pairs: an edit made twice, at places that are starred by themselves.

In ``["zero L*.z.h*", "zero L*.z.h* as other"]`` the cell of a head and another is the cell of the
other and the one: half of the square is computed, and the map is whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from microtome.language.addresses import Address
from microtome.language.operations import Operation
from microtome.language.regions import Column

Chosen = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]


def mirror(edits: Sequence[Operation]) -> Mapping[str, str]:
    """Each star → the one that it may change places with; nothing where there is no such pair.

    Args:
        edits: of a cell.
    """
    if len(edits) != 2:
        return {}
    (one, first), (other, second) = ((edit, edit.address) for edit in edits)
    if not isinstance(first, Address) or not isinstance(second, Address):
        return {}
    if first.label == second.label or not first.stars:
        return {}
    if first.relabelled("") != second.relabelled("") or one != replace(
        cast(Any, other), address=first
    ):
        return {}
    pairs = dict(zip(first.stars, second.stars, strict=True))
    return {**pairs, **{other: own for own, other in pairs.items()}}


def axes_of(pairs: Mapping[str, str], names: Sequence[str]) -> tuple[int, ...]:
    """In which order the axes of a map are those of its mirror image; nothing where it has none."""
    return tuple(names.index(pairs.get(name, name)) for name in names) if pairs else ()


def computed(pairs: Mapping[str, str], stars: Sequence[str], points: Column) -> Chosen:
    """Which points ``[point, star]`` are computed: of two that mirror each other the first one."""
    if not pairs:
        return np.ones(len(points), dtype=bool)
    image = points[:, list(axes_of(pairs, stars))]
    own = points[:, : len(stars)]
    apart = own != image
    first = apart.argmax(axis=1)
    rows = np.arange(len(points))
    found: Chosen = (own[rows, first] <= image[rows, first]) | ~apart.any(axis=1)
    return found
