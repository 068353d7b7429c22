"""The order in which a pass reaches what writes and what reads: which edges there are.

And what a run has to be known of for them: what lies between the two ends of a path, what a path is
walked beside, what a writer's share is made of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from microtome.errors import AddressError
from microtome.language.edges import WITHIN, WRITERS, Edge
from microtome.language.regions import Column, Layout
from microtome.language.sites import Dimensions, Site
from microtome.language.sites import site as find_site

_ADD = {"head": ("z", "head_out"), "mlp": ("mlp_out", "mlp_out")}
"""Part → where it is held, and what it adds."""


def exists(
    edge_: Edge, writers: Layout, readers: Layout, stars: Mapping[str, Column], dims: Dimensions
) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Whether the writer is before the reader, ``[cell]`` or ``[1]``.

    Where a side takes several layers together, all of the writer's have to be.

    Args:
        edge_: the edge.
        writers, readers: where its sides are.
        stars: what each star is in each cell.
        dims: the model's.
    """
    written = _order(WRITERS[edge_.writer.site.name], _layers(writers, stars, dims, -1), dims)
    read = _order(edge_.reader.site.name, _layers(readers, stars, dims, 0), dims)
    return np.atleast_1d(written < read)


def held(
    path: Edge, written: int | None, read: int | None, dims: Dimensions
) -> list[tuple[Site, int | None]]:
    """Between a writer and a reader, what a path does not go through: it is to stay as it was.

    Args:
        path: the path.
        written: the layer of its writer.
        read: the layer of its reader.
        dims: the model's.
    """
    begin, end = (
        _order(site, np.array(dims.n_layers if layer is None else layer), dims)
        for site, layer in ((WRITERS[path.writer.site.name], written), (path.site.name, read))
    )
    layers = np.arange(dims.n_layers)
    found: list[tuple[Site, int | None]] = []
    for part, (site, adds) in _ADD.items():
        if part not in (path.via or ()):
            at = _order(adds, layers, dims)
            there = layers[(begin < at) & (at < end)].tolist()
            found += [(find_site(site), layer) for layer in there]
    return found


def beside(path: Edge, dims: Dimensions) -> list[tuple[Site, int | None]]:
    """What of a clean run a path is walked beside: what it does not go through, and its reader's.

    All heads of a layer are held by what they add together; what enters a block is known anyway.

    Args:
        path: the path.
        dims: the model's.
    """
    still = {"head": "attn_out", "mlp": "mlp_out"}
    names = [adds for part, adds in still.items() if part not in (path.via or ())]
    names += [path.site.name] if path.site.name in WITHIN else []
    return [(find_site(name), layer) for name in names for layer in range(dims.n_layers)]


def recorded_of(share: Layout, dims: Dimensions) -> Layout:
    """What has to be recorded of a run for what a writer adds: of heads, their ``z``."""
    if share.site.name != "head_out":
        return share
    pos, heads, _ = share.indices
    return replace(share, site=find_site("z"), indices=(pos, heads, tuple(range(dims.d_head))))


def refuse(edge_: Edge, dims: Dimensions) -> AddressError:
    """The complaint about an edge whose writer is not before its reader, in any cell."""
    block = "attention and MLP of a block read one stream here, so that neither reads the other"
    parallel = f"; {block}" if dims.is_parallel else ""
    return AddressError(
        f"{edge_}: what is written there is not before what reads it, so that there is no such "
        f"edge. A writer of layer l is read by the layers behind it, a head also by the MLP of its "
        f"own layer, and all by final_in{parallel}."
    )


def _order(site: str, layers: Column, dims: Dimensions) -> Column:
    """When a site is reached: in a parallel block attention and MLP are at the same time."""
    if site == "embed":
        return np.full_like(layers, -1)
    after = 0 if dims.is_parallel else 2
    within = {"head_out": 1, "attn_out": 1, "mlp_in": after, "mlp_out": after + 1}
    return 4 * layers + within.get(site, 0)


def _layers(layout: Layout, stars: Mapping[str, Column], dims: Dimensions, which: int) -> Column:
    """The first (0) or the last (-1) layer of a side; what is in none counts behind all."""
    if isinstance(layout.layers, str):
        return stars[layout.layers]
    return np.array([dims.n_layers if layout.layers is None else layout.layers[which]])
