"""A block: what running one unit gave."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from microtome.language.regions import Column

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, eq=False)
class Block:
    """The cells of one unit, measured. Plain arrays: it pickles, and knows no model.

    Metrics go by their canonical text, such as ``prob@last``.

    Attributes:
        unit: the unit's number.
        cells: which of the plan's cells, ``[n]``.
        values: per metric on the output, ``[n]``.
        inside: per metric inside the model, ``[n, *shape]``; NaN where a shorter prompt has no such
            position.
        prompts: the prompts of these cells, ``[m]``.
        clean: per metric on the output, without edits, ``[m]``.
        clean_inside: per metric inside the model, without edits, ``[m, *shape]``.
        changed: how many values each cell's edits changed, ``[n]``.
        norm: L2 norm of the change, ``[n]``.
        noise: per metric, the noise floor: the largest effect of cells that change nothing, or the
            largest difference between a verified cell's effects in the walk and on the reference
            path, whichever is larger.
        verification: what was computed again, in plain values; None where nothing was asked for.
        work: how often some block was run on some token, counted (``token_blocks``), and seconds.
        notes: what a reader of the result should know of how it came about.
    """

    unit: int
    cells: Column
    values: dict[str, Array]
    inside: dict[str, Array]
    prompts: Column
    clean: dict[str, Array]
    clean_inside: dict[str, Array]
    changed: Array
    norm: Array
    noise: dict[str, float] = field(default_factory=dict)
    verification: dict[str, Any] | None = None
    work: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
