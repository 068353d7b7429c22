"""Cells that start at several positions and go through the blocks side by side.

A block takes every token by itself, but in attention; so the tokens of cells of all starts can be
one row of its products. This is worth it where the cells of a start are few: of the residual
stream, a layer's are one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from microtome.language.edges import Edge
from microtome.language.sites import BEHIND, Dimensions
from microtome.plan.cells import Cells
from microtome.plan.memory.budget import Budget
from microtome.plan.memory.room import Room

T = TypeVar("T")

STREAMS = ("embed", "resid_pre", "attn_out", "resid_mid", "mlp_out", *BEHIND)
"""Sites that are as wide as the stream, and no more."""


def goes_beside(cells: Cells, dims: Dimensions) -> bool:
    """Whether the cells of one start go through a block beside those of others."""
    addresses = [edit.address for edits in cells.edits for edit in edits]
    streams = all(layout.site.name in STREAMS for own in cells.layouts for layout in own)
    edges = any(isinstance(address, Edge) for address in addresses)
    return dims.causal and not dims.copies_prefix and streams and not edges


def reading_of(cells: Cells, dims: Dimensions, budget: Budget) -> int:
    """What a batch costs in a block besides its tokens, in tokens."""
    return budget.beside if goes_beside(cells, dims) else budget.reading


def together(
    some: Iterable[tuple[T, Room, int]], cells: Cells, dims: Dimensions, budget: Budget
) -> Iterator[tuple[list[T], int]]:
    """Which of some batches, each with its room and its number of cells, walk side by side.

    With the bytes that they take. As many as fit, but no more than a tile for each block: where a
    tile of cells enters each, more would make no product faster. Or each by itself.
    """
    goes, waiting, rooms = goes_beside(cells, dims), list[T](), list[tuple[Room, int]]()
    for one, room, number in some:
        more = [*rooms, (room, number)]
        fits = used(more) <= budget.memory and _tiles(more) <= dims.n_layers
        if waiting and not (goes and fits):
            yield waiting, used(rooms)
            waiting, more = [], [(room, number)]
        waiting.append(one)
        rooms = more
    if waiting:
        yield waiting, used(rooms)


def _tiles(rooms: Sequence[tuple[Room, int]]) -> float:
    """How many tiles so many cells of each start fill, at once."""
    return sum(number / room.tile for room, number in rooms)


def used(rooms: Sequence[tuple[Room, int]]) -> int:
    """Bytes, with so many cells of each start to walk side by side.

    Inside a block they share a row of tokens, which is one tile at most; at the end each is alone.
    """
    filled = _tiles(rooms)
    stays = sum(room.stays(number) for room, number in rooms)
    inside = max(room.inside(math.ceil(filled * room.tile)) for room, _ in rooms)
    last = max(room.last(number) for room, number in rooms)
    return rooms[0][0].held + stays + max(inside, last)
