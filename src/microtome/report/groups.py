"""The largest effects once more, over the prompts of each group: by what prompts have as meta."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import xarray as xr

from microtome.figures.mapped import cells_of
from microtome.report.document import Table
from microtome.results.effects import Effects
from microtome.results.over_prompts import largest
from microtome.stats.averaged import averaged
from microtome.stats.samples import PROMPT

MOST_GROUPS = 6
"""Of more a table is too wide; `Effects.groups` has them."""

NONE = "(none)"
"""The group of prompts that do not have it."""

CAPTION = (
    "The same cells over the prompts of each group alone: the mean effect, and n, in how many of "
    "them the edits changed something. Nothing here is tested; Effects.groups({name!r}) gives each "
    "group's own result."
)


def columns(effects: Effects) -> list[str]:
    """What divides the prompts into a few groups, of which one has two at least."""
    found = []
    for name, values in effects.data.coords.items():
        if values.dims == (PROMPT,) and name not in (PROMPT, "text"):
            kinds = len(pd.unique(values.values))
            if 1 < kinds <= MOST_GROUPS and kinds < values.size:
                found.append(str(name))
    return found


def by_groups(
    effects: Effects, metric: str, frame: pd.DataFrame, top: int
) -> Iterator[tuple[str, Table]]:
    """For each column that divides the prompts, its name and the table of its groups.

    Args:
        effects: whose means over prompts are of the same places.
        metric: the metric.
        frame: all cells, as `Effects.table` has them.
        top: how many of the largest are shown.
    """
    dims = [str(name) for name in effects.delta(metric).dims if name != PROMPT]
    rows = largest(frame[frame["effect"] != 0], top)
    if rows.empty:
        return
    places = [name for name in rows if name in dims or str(name).endswith(("token", "role"))]
    for name in columns(effects):
        table = rows[[*places, "effect"]].rename(columns={"effect": "all"})
        for value, group in effects.groups(name).items():
            cells = _of_rows(averaged(cells_of(group, metric)), rows[dims])
            called = _called(value)
            table[called] = [float(cell["effect"]) for cell in cells]
            table[f"n ({called})"] = [int(cell["n"]) for cell in cells]
        yield name, Table(f"By {name}", table, CAPTION.format(name=name))


def _of_rows(means: xr.Dataset, rows: pd.DataFrame) -> list[xr.Dataset]:
    """The cells of some rows of a table."""
    # Not to_dict: of a map without axes it has no row, before pandas 3.1.
    each = range(len(rows))
    return [means.sel({name: rows[name].iloc[number] for name in rows}) for number in each]


def _called(value: object) -> str:
    absent = value == "" or (isinstance(value, float) and np.isnan(value))
    return NONE if absent else str(value)
