"""Idlers: cells that change nothing, which walk beside the others to measure the noise floor.

An idler has the place of one of the unit's own cells, its twin: it enters at the same layer and
starts at the same position, in the same batch, and its edits are left out. So whatever effect it
has is rounding.
"""

from __future__ import annotations

import numpy as np

from microtome.language.regions import Column
from microtome.plan.cells import Cells

IDLERS = 4
"""Of each prompt in a unit, at most."""

EVERY = 32
"""Cells for each idler, so that they cost little."""


def twins_of(cells: Cells, numbers: Column) -> Column:
    """Of some cells of a prompt, by number, those that an idler goes along with.

    One in so many, spread over them, and first the one that enters earliest: rounding has the
    longest way there.
    """
    if not len(numbers):
        return numbers
    some = min(IDLERS, max(1, len(numbers) // EVERY))
    entry, position = cells.entry[numbers], cells.position[numbers]
    deepest = int(np.argmin(entry * (int(position.max()) + 1) + position))
    spread = np.linspace(0, len(numbers) - 1, some).round().astype(np.int64)[1:]
    chosen = dict.fromkeys([deepest, *spread.tolist()])
    found: Column = numbers[np.array([*chosen])]
    return found
