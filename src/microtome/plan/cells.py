"""Cells, as columns: what a map may have hundreds of thousands of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import Any, cast, overload

import numpy as np

from microtome.language.operations import Operation
from microtome.language.regions import Column, Layout, Region
from microtome.language.selectors import Span


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
        shares: per prompt and edit, where the writer of its edge adds; None where it has none.
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
    shares: tuple[tuple[Layout | None, ...], ...]
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
        index, stars = self._point(number)
        layouts = self.layouts[index[0]]
        edits = tuple(
            _in_window(edit.at(**stars), layout, stars)
            for edit, layout in zip(self.edits[self.variant[number]], layouts, strict=True)
        )
        return Cell(index, edits, tuple(layout.regions(**stars) for layout in layouts))

    def regions(self, number: int) -> Iterator[Region]:
        """Where the edits of a cell land: to make these as well takes several times as long."""
        index, stars = self._point(number)
        for layout in self.layouts[index[0]]:
            yield from layout.regions(**stars)

    def _point(self, number: int) -> tuple[tuple[int, ...], dict[str, int]]:
        """Where a cell is in the map, and what each star is in it."""
        index = tuple(self.points[number].tolist())
        return index, dict(zip(self.stars, index[1:], strict=False))

    @property
    def prompt(self) -> Column:
        """The prompt of each cell, ``[cell]``."""
        return self.points[:, 0]

    def span(self, prompt: int) -> slice:
        """Which of the cells are a prompt's: they lie together, prompt by prompt."""
        return slice(self._ends[prompt], self._ends[prompt + 1])

    @cached_property
    def _ends(self) -> list[int]:
        ends: list[int] = np.searchsorted(self.prompt, np.arange(len(self.layouts) + 1)).tolist()
        return ends

    def of_prompt(self, prompt: int) -> Column:
        """The numbers of a prompt's cells."""
        own = self.span(prompt)
        return np.arange(own.start, own.stop)

    def moving(self, prompt: int) -> tuple[Layout, ...]:
        """Where a prompt's edits make a difference: not where it is the donor's anyway."""
        return tuple(one.since(self.live[prompt]) for one in self.layouts[prompt])

    def values(self, chosen: Column | slice = slice(None)) -> dict[str, Column]:
        """What each star is in some cells, by its name."""
        return {name: self.points[chosen, 1 + n] for n, name in enumerate(self.stars)}

    @cached_property
    def entry(self) -> Column:
        """The first block that each cell has to run, ``[cell]``; one past the last: none."""
        found = np.empty(len(self), dtype=np.int64)
        for own, layouts, stars in self._by_prompt():
            cells = own.stop - own.start
            found[own] = reduce(np.minimum, (one.entry(stars, cells) for one in layouts))
        return found

    @cached_property
    def position(self) -> Column:
        """The first position that may not be the clean run's, ``[cell]``.

        That is the first one edited, or the first of a patch's where the donor differs; beyond all
        positions (`STILL`) where there is none, and nothing can change. In an encoder it is 0, as
        every position sees the edited one.
        """
        found = np.zeros(len(self), dtype=np.int64)
        if not self.causal:
            return found
        for live, (own, layouts, stars) in zip(self.live, self._by_prompt(), strict=True):
            cells = own.stop - own.start
            first = reduce(np.minimum, (one.position(stars, cells) for one in layouts))
            if live:
                last = reduce(np.maximum, (one.last(stars, cells) for one in layouts))
                first = np.where(last < live, STILL, np.maximum(first, live))
            found[own] = first
        return found

    @cached_property
    def still(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Whether each cell can change nothing at all, ``[cell]``: it is the clean run."""
        return np.asarray(self.position == STILL)

    def _by_prompt(self) -> Iterator[tuple[slice, tuple[Layout, ...], dict[str, Column]]]:
        """Per prompt its cells, where its edits land, and what each star is in the cells."""
        for prompt, layouts in enumerate(self.layouts):
            own = self.span(prompt)
            yield own, layouts, self.values(own)


def _in_window(edit: Operation, layout: Layout, stars: Mapping[str, int]) -> Operation:
    """A cell's edit with all the layers that it is made in."""
    if not layout.windows or not isinstance(layout.layers, str):
        return edit
    own = layout.windows[stars[layout.layers]]
    address = replace(edit.place, layers=Span(own.start, own.stop))
    return cast(Operation, replace(cast(Any, edit), address=address))


STILL = 2**31
"""The start of a cell that never differs from the clean run: beyond any prompt."""
