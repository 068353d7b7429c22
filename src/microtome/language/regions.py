"""Regions: where edits land, as plain indices.

A `Region` is one place in one run: a site of a layer, and indices along each of its axes. A map
has very many, all alike but for a few numbers, so they are also kept as columns: `Regions` holds
one per cell as arrays, and a `Layout` says how the stars of an address turn into them. No tensor
is touched here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from microtome.language.sites import BEHIND, Site, owner

FAR = 2**31
"""The reach of attention without a window: beyond any prompt."""

Column = np.ndarray[Any, np.dtype[np.int64]]
"""Whole numbers, one row per cell."""


@dataclass(frozen=True)
class Region:
    """Where one edit lands: a site of one layer, and the indices along each of its axes.

    The region is the product of its indices: values of shape ``[cell, *shape]``. ``reach`` is how
    many tokens away a token of the layer sees, where its attention has a window.
    """

    site: Site
    layer: int | None
    indices: tuple[tuple[int, ...], ...]
    reach: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """How many indices along each axis of the site."""
        return tuple(map(len, self.indices))

    @property
    def size(self) -> int:
        """How many values."""
        return math.prod(self.shape)

    @property
    def looks_ahead(self) -> bool:
        """Whether it has attention weights of a query for a later key."""
        named = dict(zip(self.site.axes, self.indices, strict=True))
        return "k_pos" in named and max(named["k_pos"]) > min(named["q_pos"])

    @property
    def looks_beyond(self) -> bool:
        """Whether it has attention weights of a query for a key outside of its window."""
        named = dict(zip(self.site.axes, self.indices, strict=True))
        if "k_pos" not in named or self.reach is None:
            return False
        queries, keys = named["q_pos"], named["k_pos"]
        return max(max(queries) - min(keys), max(keys) - min(queries)) > self.reach


@dataclass(frozen=True, eq=False)
class Regions:
    """Regions of one site, layer and shape, one per cell.

    Attributes:
        cells: how many.
        columns: per axis of the site, the indices ``[cell, n]``; ``[1, n]`` where all cells have
            the same.
    """

    site: Site
    layer: int | None
    cells: int
    columns: tuple[Column, ...]

    @classmethod
    def of(cls, region: Region) -> Regions:
        """One region, as columns."""
        columns = tuple(np.array([indices], dtype=np.int64) for indices in region.indices)
        return cls(region.site, region.layer, 1, columns)

    @classmethod
    def together(cls, parts: Sequence[Regions]) -> Regions:
        """Some regions of one site, layer and shape, one after the other."""
        if len(parts) == 1:
            return parts[0]
        first = parts[0]
        columns = []
        for number, column in enumerate(first.columns):
            own = [part.columns[number] for part in parts]
            if all(len(c) == 1 and np.array_equal(c, column) for c in own):
                columns.append(column)
            else:
                whole = [
                    np.broadcast_to(c, (part.cells, c.shape[1]))
                    for c, part in zip(own, parts, strict=True)
                ]
                columns.append(np.concatenate(whole))
        cells = sum(part.cells for part in parts)
        return cls(first.site, first.layer, cells, tuple(columns))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of every one of them."""
        return tuple(column.shape[1] for column in self.columns)

    def widened(self, axis: str, size: int) -> Regions:
        """The same with all indices along an axis."""
        number = self.site.axes.index(axis)
        columns = list(self.columns)
        columns[number] = np.arange(size)[None]
        return replace(self, columns=tuple(columns))

    def __getitem__(self, cell: int) -> Region:
        """The region of one cell."""
        rows = (column[0 if len(column) == 1 else cell] for column in self.columns)
        return Region(self.site, self.layer, tuple(tuple(row.tolist()) for row in rows))


@dataclass(frozen=True)
class Layout:
    """Where an address lands in one prompt, as a function of its stars.

    Attributes:
        layers: the layers that it selects, or the name of a star; None where the site is in none.
        indices: per axis of the site, the indices that it selects, or the name of a star.
        reaches: per layer of the model, how many tokens away a token sees (None: all); empty where
            tokens see all in every layer.
        block: of a site in no layer, the block that it is at: the first, or the last.
        windows: per layer of the model, the layers that are edited together where the star is
            that one; empty where it is itself alone.
    """

    site: Site
    layers: tuple[int, ...] | str | None
    indices: tuple[tuple[int, ...] | str, ...]
    reaches: tuple[int | None, ...] = ()
    block: int = 0
    windows: tuple[range, ...] = ()

    @property
    def blocks(self) -> tuple[int, ...]:
        """The blocks that it is in, where those are no star."""
        return self.layers if isinstance(self.layers, tuple) else (self.block,)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of every region."""
        return tuple(1 if isinstance(chosen, str) else len(chosen) for chosen in self.indices)

    @property
    def is_ahead(self) -> bool:
        """Whether it is attention weights of queries for later keys, and nothing else."""
        named = dict(zip(self.site.axes, self.indices, strict=True))
        queries, keys = named.get("q_pos"), named.get("k_pos")
        return isinstance(queries, tuple) and isinstance(keys, tuple) and max(queries) < min(keys)

    @property
    def is_beyond(self) -> bool:
        """Whether it is attention weights for keys outside of windows, and nothing else."""
        named = dict(zip(self.site.axes, self.indices, strict=True))
        queries, keys = named.get("q_pos"), named.get("k_pos")
        if not isinstance(queries, tuple) or not isinstance(keys, tuple):
            return False
        nearest = int(np.abs(np.subtract.outer(queries, keys)).min())
        layers = self.layers if isinstance(self.layers, tuple) else range(len(self.reaches))
        return all(nearest > self.reach(layer) for layer in layers) if layers else False

    def reach(self, layer: int | None) -> int:
        """How many tokens away a token of a layer sees."""
        own = self.reaches[layer] if self.reaches and layer is not None else None
        return FAR if own is None else own

    def regions(self, **stars: int) -> tuple[Region, ...]:
        """One region per layer, with numbers in the place of the stars."""
        indices = tuple(
            (stars[chosen],) if isinstance(chosen, str) else chosen for chosen in self.indices
        )
        layers: tuple[int | None, ...]
        match self.layers:
            case None:
                layers = (None,)
            case str(star):
                layers = self._together(stars[star])
            case chosen:
                layers = chosen
        return tuple(
            Region(self.site, layer, indices, self.reaches[layer or 0] if self.reaches else None)
            for layer in layers
        )

    def at(self, layer: int | None, stars: Mapping[str, Column], cells: int) -> Regions:
        """The regions of some cells in one layer that all of them select."""
        columns = tuple(
            stars[chosen][:, None] if isinstance(chosen, str) else np.array([chosen])
            for chosen in self.indices
        )
        return Regions(self.site, layer, cells, columns)

    def attended(
        self, stars: Mapping[str, Column], cells: int, some_left: bool, causal: bool = True
    ) -> Column:
        """Which of some cells address attention weights that the model has, ``[cell]``.

        A token does not attend to later ones, if the model is causal, nor to those outside of the
        layer's window. With ``some_left`` every query of a cell also has to keep a key that is not
        addressed.
        """
        queries = self._named(stars, cells)["q_pos"]
        exists: Column = np.zeros(cells, dtype=bool)
        left: Column = np.ones(cells, dtype=bool)
        reaches = self._reaches(stars)
        for reach, absent in zip(reaches, self.absent(stars, cells, causal), strict=True):
            addressed = (~absent).sum(axis=2)
            exists = exists | (addressed > 0).any(axis=1)
            if some_left and causal:
                left = left & (addressed <= np.minimum(queries, reach)).all(axis=1)
        return exists & left

    def absent(
        self, stars: Mapping[str, Column], cells: int, causal: bool = True
    ) -> list[np.ndarray[Any, np.dtype[np.bool_]]]:
        """Which weights of some cells do not exist, ``[cell, query, key]``: for each layer."""
        named = self._named(stars, cells)
        back = named["q_pos"][:, :, None] - named["k_pos"][:, None, :]
        later = (back < 0) & causal
        return [later | (np.abs(back) > reach[..., None]) for reach in self._reaches(stars)]

    def has_absent(self, stars: Mapping[str, Column], cells: int, causal: bool = True) -> Column:
        """Which of some cells address a weight that does not exist, ``[cell]``."""
        each = [one.any(axis=(1, 2)) for one in self.absent(stars, cells, causal)]
        return np.broadcast_to(np.any(each, axis=0), cells)

    def _named(self, stars: Mapping[str, Column], cells: int) -> dict[str, Column]:
        return dict(zip(self.site.axes, self.at(None, stars, cells).columns, strict=True))

    def _reaches(self, stars: Mapping[str, Column]) -> list[Column]:
        """How far tokens see in each layer; of a star, in each cell's, ``[cell or 1, 1]``."""
        if isinstance(self.layers, str) and self.reaches:
            every = np.array([self.reach(layer) for layer in range(len(self.reaches))])
            return [every[stars[self.layers]][:, None]]
        own = self.layers if isinstance(self.layers, tuple) else (None,)
        return [np.array([[self.reach(layer)]]) for layer in dict.fromkeys(own)]

    def layer(self, stars: Mapping[str, Column], cells: int) -> Column:
        """The first layer that each cell edits; `block` where the site is in none."""
        if isinstance(self.layers, str) and self.windows:
            return np.array([window.start for window in self.windows])[stars[self.layers]]
        if isinstance(self.layers, str):
            return stars[self.layers]
        return np.broadcast_to(np.int64(min(self.blocks)), cells)

    def is_in(self, layer: int, starred: Column) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which cells edit a layer, by what the star of the layers is in them."""
        if not self.windows:
            return np.asarray(starred == layer)
        there = np.array([layer in window for window in self.windows])
        return np.asarray(there[starred])

    def _together(self, layer: int) -> tuple[int, ...]:
        return tuple(self.windows[layer]) if self.windows else (layer,)

    def entry(self, stars: Mapping[str, Column], cells: int) -> Column:
        """The first block that each cell has to run: what leaves a block enters the next one."""
        return self.layer(stars, cells) + (self.site.name in BEHIND)

    def position(self, stars: Mapping[str, Column], cells: int) -> Column:
        """The first position whose values depend on each cell's edit."""
        chosen = self.indices[owner(self.site.axes)]
        if isinstance(chosen, str):
            return stars[chosen]
        return np.broadcast_to(np.int64(min(chosen, default=-1)), cells)

    def last(self, stars: Mapping[str, Column], cells: int) -> Column:
        """The last position that each cell edits."""
        chosen = self.indices[owner(self.site.axes)]
        if isinstance(chosen, str):
            return stars[chosen]
        return np.broadcast_to(np.int64(max(chosen)), cells)

    @property
    def stars(self) -> tuple[str, ...]:
        """The names of its stars."""
        return tuple(name for name in (self.layers, *self.indices) if isinstance(name, str))

    def unlike(self, stars: Mapping[str, Column], cells: int) -> tuple[dict[str, Column], Column]:
        """Its different places in some cells, as what its stars are there; and which each has.

        >>> from microtome.language.sites import site
        >>> one = Layout(site("mlp_out"), "layer", ((0,), (0,)))
        >>> one.unlike({"layer": np.array([2, 0, 2]), "head": np.array([0, 1, 2])}, 3)
        ({'layer': array([0, 2])}, array([1, 0, 1]))
        """
        if not self.stars:
            return {}, np.zeros(cells, dtype=np.int64)
        columns = np.stack([stars[name] for name in self.stars], axis=1)
        kinds, of = np.unique(columns, axis=0, return_inverse=True)
        return dict(zip(self.stars, kinds.T, strict=True)), of.reshape(-1)

    def since(self, position: int) -> Layout:
        """The same without what belongs to earlier positions; stars stay open."""
        number = owner(self.site.axes)
        chosen = self.indices[number]
        if isinstance(chosen, str) or min(chosen) >= position:
            return self
        kept = tuple(index for index in chosen if index >= position)
        return replace(self, indices=(*self.indices[:number], kept, *self.indices[number + 1 :]))


def window_of(layer: int, width: int, n_layers: int) -> range:
    """Layers around one, fewer at the ends: as many before it as behind, and itself.

    Of an even width one more is before, as in the code of Meng et al. (2022).

    >>> window_of(7, 10, 30), window_of(2, 10, 30), window_of(3, 1, 4)
    (range(2, 12), range(0, 7), range(3, 4))
    """
    return range(max(0, layer - width // 2), min(n_layers, layer + (width + 1) // 2))
