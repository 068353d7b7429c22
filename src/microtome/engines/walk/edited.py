"""The edits of a layer in a tile: which cells each changes, and where."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from microtome.edits.application import Application
from microtome.edits.keys import Keys
from microtome.edits.sources import Sources
from microtome.engines.walk.batches import Batch, Tile
from microtome.engines.walk.routes import Routes
from microtome.language.edges import Edge
from microtome.language.regions import Column, Layout, Regions
from microtome.plan.cells import Cells
from microtome.plan.plan import Plan


@dataclass(frozen=True, eq=False)
class _Strip:
    """Cells of one prompt in a tile that one edit changes.

    ``rows`` are theirs in the tile, ``cells`` their numbers in the plan.
    """

    prompt: int
    rows: Column
    cells: Column
    layout: Layout


def edits_at(
    plan: Plan, sources: Sources | Routes, layer: int, batch: Batch, tile: Tile
) -> Iterator[Application]:
    """The edits of a layer in a tile; those that do the same to one shape go together."""
    found: dict[tuple[int, int, tuple[int, ...]], list[_Strip]] = defaultdict(list)
    for row, prompt in enumerate(batch.prompts[tile.prompts]):
        numbers = batch.cells[tile.prompts][row, tile.cells]
        for number, layout in enumerate(plan.cells.moving(prompt)):
            live = plan.cells.live[prompt]
            for variant, chosen in _variants(plan.cells, numbers, layout, layer, live):
                strip = _Strip(prompt, row * len(numbers) + chosen, numbers[chosen], layout)
                found[number, variant, layout.shape].append(strip)
    # In the order of the edits of a cell, which decides where two meet at one tensor.
    for number, variant, shape in sorted(found):
        strips = found[number, variant, shape]
        yield _together(plan, sources, layer, (number, variant), strips, batch.position)


def _variants(
    cells: Cells, numbers: Column, layout: Layout, layer: int, live: int
) -> Iterator[tuple[int, Column]]:
    """Which of some cells an edit changes in a layer, by the variant that they are of."""
    chosen = np.flatnonzero(numbers < len(cells))  # idlers are left as they are
    if live:  # before it there is nothing to change, and nothing in the batch
        positions = layout.position(cells.values(numbers[chosen]), len(chosen))
        chosen = chosen[positions >= live]
    if isinstance(layout.layers, str):
        axis = 1 + cells.stars.index(layout.layers)
        chosen = chosen[layout.is_in(layer, cells.points[numbers[chosen], axis])]
    elif layer not in layout.blocks:
        return
    if len(cells.edits) == 1:
        if len(chosen):
            yield 0, chosen
        return
    variants = cells.variant[numbers[chosen]]
    for variant in np.unique(variants).tolist():
        yield variant, chosen[variants == variant]


def _together(
    plan: Plan,
    sources: Sources | Routes,
    layer: int,
    which: tuple[int, int],
    strips: Sequence[_Strip],
    position: int,
) -> Application:
    cells, encoded = plan.cells, plan.question.encoded
    number, variant = which
    edit = cells.edits[variant][number]
    regions, given = [], []
    for strip in strips:
        place = None if strip.layout.layers is None else layer
        stars = cells.values(strip.cells)
        regions.append(strip.layout.at(place, stars, len(strip.cells)))
        live = cells.live[strip.prompt]
        one = encoded[strip.prompt]
        source = sources.of(edit, place, one, stars, len(strip.cells), live)
        given += [] if source is None else [source]
    own = Regions.together(regions)
    sizes = [len(strip.cells) for strip in strips]
    tokens = [encoded[strip.prompt].tokens for strip in strips]
    return Application(
        edit=edit,
        regions=own,
        keys=Keys(own, tokens, np.repeat(np.arange(len(strips)), sizes)),
        source=torch.cat(given) if given else None,
        rows=np.concatenate([strip.rows for strip in strips]),
        start=position,
        alike=_alike(cells, number, strips),
        kind=sources.kind,
    )


def _alike(cells: Cells, number: int, strips: Sequence[_Strip]) -> Column | None:
    """A number for each writer of each prompt: cells that have it read the same.

    Over a path, where they read it at the same positions.
    """
    found, known = [], 0
    for strip in strips:
        share = cells.shares[strip.prompt][number]
        if share is None:
            return None
        address, place = cells.edits[0][number].address, strip.layout.indices[0]
        if isinstance(address, Edge) and address.is_path and isinstance(place, str):
            share = replace(share, indices=(*share.indices, place))
        _, of = share.unlike(cells.values(strip.cells), len(strip.cells))
        found.append(known + of)
        known += int(of.max()) + 1
    return np.concatenate(found)
