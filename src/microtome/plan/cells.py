"""Cells, as columns: what a map may have hundreds of thousands of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, overload

import numpy as np

from microtome.language.operations import Operation
from microtome.language.regions import Column, Layout, Region


@dataclass(frozen=True)
class Axis:
    """A dimension of the map and its coordinates."""

    name: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Cell:
    """One point of the map.

    Attributes:
        index: where it stands along each axis; the first is the prompt.
        edits: its edits, without stars.
        regions: per edit, where it lands.
    """

    index: tuple[int, ...]
    edits: tuple[Operation, ...]
    regions: tuple[tuple[Region, ...], ...]

    @property
    def prompt(self) -> int:
        """Index of its prompt."""
        return self.index[0]


@dataclass(frozen=True, eq=False)
class Cells(Sequence[Cell]):
    """Cells as columns.

    Attributes:
        edits: per variant (a combination of the parameters in ``over=``), the edits with stars.
        layouts: per prompt and edit, where its address lands.
        live: per prompt, the first position at which an edit can make a difference: a patch takes
            from a donor what is the same up to the first token where the two texts differ.
        stars: the names of the stars, which are the axes after the first.
        points: where each cell stands along each axis, ``[cell, axis]``.
        variant: which variant each cell is of, ``[cell]``.
        causal: no position sees a later one.
    """

    edits: tuple[tuple[Operation, ...], ...]
    layouts: tuple[tuple[Layout, ...], ...]
    live: tuple[int, ...]
    stars: tuple[str, ...]
    points: Column
    variant: Column
    causal: bool = True

    def __len__(self) -> int:
        return len(self.points)

    @overload
    def __getitem__(self, number: int) -> Cell: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[Cell]: ...
    def __getitem__(self, number: int | slice) -> Cell | Sequence[Cell]:
        if isinstance(number, slice):
            return [self[n] for n in range(*number.indices(len(self)))]
        index = tuple(self.points[number].tolist())
        stars = dict(zip(self.stars, index[1:], strict=False))
        edits = tuple(edit.at(**stars) for edit in self.edits[self.variant[number]])
        regions = tuple(layout.regions(**stars) for layout in self.layouts[index[0]])
        return Cell(index, edits, regions)

    @property
    def prompt(self) -> Column:
        """The prompt of each cell, ``[cell]``."""
        return self.points[:, 0]

    def of_prompt(self, prompt: int) -> Column:
        """The numbers of a prompt's cells: they lie together, prompt by prompt."""
        first, end = np.searchsorted(self.prompt, [prompt, prompt + 1])
        return np.arange(first, end)

    def moving(self, prompt: int) -> tuple[Layout, ...]:
        """Where a prompt's edits make a difference: not at positions that are the donor's anyway."""
        return tuple(one.since(self.live[prompt]) for one in self.layouts[prompt])

    def values(self, chosen: Column | slice = slice(None)) -> dict[str, Column]:
        """What each star is in some cells, by its name."""
        return {name: self.points[chosen, 1 + n] for n, name in enumerate(self.stars)}

    @cached_property
    def entry(self) -> Column:
        """The first block that each cell has to run, ``[cell]``; one past the last: none."""
        return self._first(lambda one, stars, n: one.entry(stars, n))

    @cached_property
    def position(self) -> Column:
        """The first position that may not be the clean run's, ``[cell]``.

        That is the first one edited, or the first of a patch's where the donor differs; beyond all
        positions (`STILL`) where there is none, and nothing can change. In an encoder it is 0, as
        every position sees the edited one.
        """
        if not self.causal:
            return np.zeros(len(self), dtype=np.int64)
        live = np.array(self.live)[self.prompt]
        first = np.maximum(self._first(lambda one, stars, n: one.position(stars, n)), live)
        last = self._first(lambda one, stars, n: -one.last(stars, n))
        return np.where(-last < live, STILL, first)

    @property
    def still(self) -> Column:
        """Whether each cell can change nothing at all, ``[cell]``: it is the clean run."""
        still: Column = self.position == STILL
        return still

    def _first(self, what: Any) -> Column:
        found = np.empty(len(self), dtype=np.int64)
        for prompt, layouts in enumerate(self.layouts):
            own = self.of_prompt(prompt)
            stars = self.values(own)
            found[own] = np.min([what(one, stars, len(own)) for one in layouts], axis=0)
        return found


STILL = 2**31
"""The start of a cell that never differs from the clean run: beyond any prompt."""
