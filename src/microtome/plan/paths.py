"""Paths in a plan: their writers, and what the first of their two runs takes. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from microtome.language.edges import Edge
from microtome.language.order import beside
from microtome.language.regions import Column, Layout
from microtome.language.sites import Dimensions
from microtome.plan.cells import Cells

SHARE = 8
"""Streams of writers on their way take one part in so many of the memory, at most."""

COPIES = 3
"""Copies of each there are: as it is, as it arrives, and what is taken of that."""


def paths_of(cells: Cells) -> list[tuple[int, Edge]]:
    """Which edits of a cell are on paths: their numbers, and the paths."""
    return [
        (number, edit.address)
        for number, edit in enumerate(cells.edits[0])
        if isinstance(edit.address, Edge) and edit.address.is_path
    ]


def share_of(cells: Cells, prompt: int, number: int) -> Layout:
    """Where the writer of an edit's path adds, from the first position that can differ on."""
    share = cells.shares[prompt][number]
    assert share is not None, "an edge has a writer"
    return share.since(cells.live[prompt])


def first_written(cells: Cells, prompt: int, numbers: Column) -> int | None:
    """The first position that the writers of some cells' paths change; None without paths.

    Of an encoder it is 0: every position sees the changed one.
    """
    paths = paths_of(cells)
    if not paths or not cells.causal:
        return 0 if paths else None
    stars, live = cells.values(numbers), cells.live[prompt]
    shares = (share_of(cells, prompt, number) for number, _ in paths)
    each = (share.position(stars, len(numbers)) for share in shares)
    firsts = [int(positions.min()) for positions in each if len(positions)]
    return max(live, min(firsts, default=live))


def writers_of(cells: Cells, prompt: int, number: int, numbers: Column) -> Column:
    """The blocks in which the different writers of some cells' path write, ``[writer]``."""
    share = share_of(cells, prompt, number)
    kinds, of = share.unlike(cells.values(numbers), len(numbers))
    writers = int(of.max(initial=-1)) + 1
    if isinstance(share.layers, str):
        return kinds[share.layers]
    return np.full(writers, min(share.blocks), dtype=np.int64)


def writers_at_once(dims: Dimensions, own: int, memory: int, itemsize: int) -> int:
    """Of how many writers the streams of ``own`` positions are on their way together."""
    return max(1, memory // SHARE // (COPIES * own * dims.d_model * itemsize))


def bytes_on_the_way(
    cells: Cells, prompts: Sequence[int], dims: Dimensions, own: int, memory: int, itemsize: int
) -> int:
    """What the streams of the writers of some prompts take at any one time."""
    every = len(cells.edits) * sum(  # each parameter has streams of its own
        len(writers_of(cells, prompt, number, cells.of_prompt(prompt)))
        for prompt in prompts
        for number, _ in paths_of(cells)
    )
    together = min(every, writers_at_once(dims, own, memory, itemsize))
    return COPIES * together * own * dims.d_model * itemsize


def bytes_beside(cells: Cells, dims: Dimensions, length: int, itemsize: int) -> int:
    """What is recorded of one prompt's clean run for the paths of its cells."""
    places = {place for _, path in paths_of(cells) for place in beside(path, dims)}
    widths = (
        dims.n_heads * dims.d_head if site.name == "z" else dims.d_model for site, _ in places
    )
    return itemsize * length * sum(widths)


def blocks_on_the_way(
    cells: Cells, prompt: int, numbers: Column, dims: Dimensions
) -> Iterator[Column]:
    """How many blocks the writers of some cells' paths go through, at most: ``[writer]`` each."""
    for number, _ in paths_of(cells):
        yield dims.n_layers - writers_of(cells, prompt, number, numbers)
