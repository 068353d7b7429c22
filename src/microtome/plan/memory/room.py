"""How a budget is spent on the cells of a walk."""

from __future__ import annotations

from dataclasses import dataclass

from microtome.amounts import many
from microtome.errors import SweepError
from microtome.plan.memory.budget import Budget
from microtome.plan.memory.needs import EXACT, LOOK, Needs


@dataclass(frozen=True)
class Room:
    """How the memory of a walk is spent on cells that start at one position.

    Attributes:
        held: bytes of what is recorded of the clean runs.
        cell: bytes that each cell of a batch takes between blocks.
        row: bytes that each cell of a tile takes inside a block.
        end: bytes that each cell takes at the end, of those that it is computed of at a time.
        exact: bytes that metrics take besides, of each cell that they are computed of at a time.
        tile: cells in a tile.
        batch: cells in a batch.
        ends: cells whose end is computed at a time.
        reads: cells whose metrics are, of these.
        look: bytes that metrics inside the model take of each cell that they look at.
        looks: cells that they look at, at a time.
        places: positions at which each cell has an end.
    """

    held: int
    cell: int
    row: int
    end: int
    exact: int
    tile: int
    batch: int
    ends: int
    reads: int
    look: int
    looks: int
    places: int = 1

    def stays(self, cells: int) -> int:
        """Bytes of so many cells between blocks."""
        return min(self.batch, cells) * self.cell

    def inside(self, cells: int) -> int:
        """Bytes inside a block, with so many cells to run on."""
        tile = min(self.tile, cells)
        return tile * self.row + min(self.looks, tile) * self.look

    def last(self, cells: int) -> int:
        """Bytes at the end of so many cells, and of the clean run, wherever it is read."""
        batch = min(self.batch, cells)
        rows = min(1 + self.ends, (1 + batch) * self.places)
        return rows * self.end + (1 + min(self.reads, batch)) * self.exact


def room_for(needs: Needs, own: int, seen: int, held: int, budget: Budget) -> Room:
    """How a budget is spent on cells of ``own`` positions that attend to ``seen``.

    Raises:
        SweepError: not even one cell fits.
    """
    row, cell = needs.inside(own, seen), needs.stays(own)
    least = held + cell + max(row + needs.look, 2 * (needs.end + needs.exact))
    if least > budget.memory:
        raise SweepError(
            f"memory={budget.memory:,} bytes are too few: one cell at a time needs {least:,}, of "
            f"which {held:,} for the clean runs of prompts of {many(seen, 'token')}. Give at least "
            "that, or ask for less: shorter prompts, fewer metrics."
        )
    free = budget.memory - held
    looks = max(1, free // LOOK // needs.look) if needs.look else 1
    tile = max(1, min(budget.tile // own, (free - looks * needs.look) // 2 // row))
    looks = min(looks, tile)
    reads = max(1, min(EXACT, free // 4) // needs.exact - 1) if needs.exact else budget.tile
    most = min(free // 2 - (1 + reads) * needs.exact, max(EXACT, budget.memory // 16))
    ends = max(1, min(budget.tile, most // needs.end - 1))
    reads = min(reads, ends)
    last = (1 + ends) * needs.end + (1 + reads) * needs.exact
    reserved = max(tile * row + looks * needs.look, last)
    return Room(
        held=held,
        cell=cell,
        row=row,
        end=needs.end,
        exact=needs.exact,
        tile=tile,
        batch=max(1, (free - reserved) // cell),
        ends=ends,
        reads=reads,
        look=needs.look,
        looks=looks,
        places=needs.places,
    )
