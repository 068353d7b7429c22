"""Cells that enter a block by what single heads read: one row of attention for many.

An edge into a head's queries changes these alone, and heads do not see each other inside of
attention. So one row in which *all* heads read a changed stream has in it what each of them makes
of that, and cells of one writer take a head each from it. The attention of as many rows is
computed as there are different streams, by the model's own module; all else of it is the clean
run's. Before W_O mixes the heads every cell is a row again.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from torch import Tensor

from microtome.edits.application import Application
from microtome.language.edges import Edge
from microtome.language.regions import Column
from microtome.model.devices import onto
from microtome.passes.head_reads import HeadReads
from microtome.passes.hooks import End, Visit, between

SITES = ("q_in", "k_in", "v_in")
"""What heads read, each by itself."""


@dataclass(frozen=True, eq=False)
class Rows:
    """How a tile's rows are packed where attention begins.

    Attributes:
        prompts: how many.
        apart: cells of each that have rows of their own, in front.
        alike: cells of each that enter here.
        inputs: streams of each that are different, at most.
    """

    prompts: int
    apart: int
    alike: int
    inputs: int

    @property
    def packed(self) -> int:
        """Rows of each prompt inside attention: the clean run's is before the inputs'."""
        return self.apart + 1 + self.inputs

    def fewer(self, x: Tensor) -> Tensor:
        """What enters attention: the clean run's row for every input."""
        rows = x.view(self.prompts, self.apart + self.alike, *x.shape[1:])
        chosen = [*range(self.apart), *[self.apart] * (1 + self.inputs)]
        return rows[:, chosen].flatten(0, 1)

    def row(self, prompts: Column, slots: Column) -> Column:
        """The row of a prompt's inputs."""
        rows: Column = prompts * self.packed + self.apart + 1 + slots
        return rows


@dataclass(frozen=True, eq=False)
class Entering:
    """Cells of a tile that enter a block by what heads read.

    Attributes:
        way: what is made of a changed stream.
        edit: of all these cells.
        own: the same edit, made once for all cells that read the same.
        rows: how they are packed.
        prompts: of each input the prompt of the tile, ``[input]``.
        inputs: the input of each cell, ``[cell]``.
        slots: of each input its place among its prompt's.
    """

    way: HeadReads
    edit: Application
    own: Application
    rows: Rows
    prompts: Column
    inputs: Column
    slots: Column

    @classmethod
    def of(
        cls, way: HeadReads, edit: Application, prompts: int, apart: int, alike: int
    ) -> Entering | None:
        """The cells of an edit; None where some of them are in the block already."""
        assert edit.rows is not None, "a tile has rows"
        assert edit.alike is not None, "an edge's cells are known by their writers"
        prompt, cell = np.divmod(edit.rows, apart + alike)
        if (cell < apart).any():
            return None
        _, first, inputs = np.unique(edit.alike, return_index=True, return_inverse=True)
        owners = prompt[first]
        slots = _places(owners)
        rows = Rows(prompts, apart, alike, int(slots.max()) + 1)
        return cls(way, edit, _once(edit, first), rows, owners, inputs.reshape(-1), slots)

    def visit(self, stream: Float[Tensor, "prompt pos d_model"]) -> Visit:
        """Make the edit, and what the heads make of it; the visit puts that in its place."""
        before = stream[onto(stream.device, self.prompts)]
        view = before.clone().unsqueeze(2)
        self.own.visit().act(view)
        self._prove()
        after = view[:, :, 0]
        differs = (after != before).any(-1)[:, :, None, None]
        made = self.way.of_all(after)
        where = onto(stream.device, self.rows.row(self.prompts, self.slots))

        def put(values: Float[Tensor, "row pos head d_head"]) -> None:
            values[where] = made.where(differs, values[where])

        return Visit(self.way.whole_end, put, writes=True, tap=self.way.tap)

    def _prove(self) -> None:
        """The receipts of the cells: each of its heads reads what was changed."""
        assert self.own.changed is not None, "it was just made"
        assert self.own.squares is not None, "it was just made"
        heads = self.edit.regions.shape[1]
        of = onto(self.own.changed.device, self.inputs)
        self.edit.changed = self.own.changed[of] * heads
        self.edit.squares = self.own.squares[of] * heads

    def meanwhile(self, begin: End, end: End) -> AbstractContextManager[None]:
        """Within this block attention, from one module to another, has the packed rows."""
        return between(begin, end, self.rows.fewer, self._more)

    def _more(self, z: Float[Tensor, "packed pos width"]) -> Float[Tensor, "row pos width"]:
        """Every cell's own row: the clean run's, but for the heads that it edits."""
        rows, heads = self.rows, self.way.anatomy.dims.n_heads
        by_prompt = z.view(rows.prompts, rows.packed, *z.shape[1:])
        chosen = [*range(rows.apart), *[rows.apart] * rows.alike]
        full = by_prompt[:, chosen].flatten(0, 1)
        assert self.edit.rows is not None, "a tile has rows"
        own = onto(z.device, self.edit.rows)[:, None]
        there = rows.row(self.prompts, self.slots)[self.inputs]
        head = onto(z.device, self.edit.regions.columns[1])
        values = z.view(*z.shape[:2], heads, -1)[onto(z.device, there)[:, None], :, head]
        full.view(*full.shape[:2], heads, -1)[own, :, head] = values
        return full


def is_entry(edits: Sequence[Application], width: int) -> bool:
    """Whether cells enter a block by nothing but one edge into heads, each of a whole stream."""
    if len(edits) != 1:
        return False
    [edit] = edits
    site, units = edit.regions.site.name, edit.regions.shape[-1]
    return isinstance(edit.edit.address, Edge) and site in SITES and units == width


def _once(edit: Application, first: Column) -> Application:
    """An edit in the first cell of each kind, at one head."""
    assert edit.source is not None, "what is added is known"
    pos, _, units = (_chosen(column, first) for column in edit.regions.columns)
    columns = pos, np.zeros((1, 1), dtype=np.int64), units
    regions = replace(edit.regions, cells=len(first), columns=columns)
    source = edit.source[onto(edit.source.device, first)][:, :, :1]
    return replace(edit, regions=regions, source=source, rows=np.arange(len(first)))


def _chosen(column: Column, cells: Column) -> Column:
    return column if len(column) == 1 else column[cells]


def _places(owners: Column) -> Column:
    """The place of each among those of its owner, in order."""
    found = np.empty_like(owners)
    for owner in np.unique(owners):
        own = np.flatnonzero(owners == owner)
        found[own] = np.arange(len(own))
    return found
