"""What an executor brings back from a unit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Ints = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


@dataclass(frozen=True, eq=False)
class Block:
    """Plain arrays, so that it pickles; metrics go by their canonical text (``prob@last``).

    Attributes:
        unit: the unit's number.
        cells: ``[n]``, the numbers of its cells in the plan.
        values: metric on the output → ``[n]``.
        inside: metric inside the model → ``[n, *shape]``; NaN where a shorter prompt has no such
            position.
        prompts: ``[m]``, the numbers of the prompts of these cells.
        clean: metric → ``[m]``, without edits.
        clean_inside: metric → ``[m, *shape]``, without edits.
        changed: ``[n]``, how many values each cell's edits changed.
        norm: ``[n]``, the L2 norm of that change.
        noise: metric → the largest effect of cells that change nothing.
        verification: which cells were computed again, how far apart, what was allowed.
        work: what was done, counted.
        notes: what a reader of the result should know.
    """

    unit: int
    cells: Ints
    values: dict[str, Floats]
    inside: dict[str, Floats]
    prompts: Ints
    clean: dict[str, Floats]
    clean_inside: dict[str, Floats]
    changed: Floats
    norm: Floats
    noise: dict[str, float]
    verification: dict[str, object] | None
    work: dict[str, int]
    notes: list[str]
