"""Tables of a sweep for spreadsheets, whole: every cell, every mean over prompts, every prompt."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd

from microtome.report.cells import comparable
from microtome.report.method import with_delta
from microtome.report.names import distinct
from microtome.results.effects import Effects
from microtome.stats.samples import PROMPT

MOST_ROWS = 100_000
"""A table with more rows is for programs: it stands in the effects alone."""


def exports(effects: Effects) -> dict[str, pd.DataFrame]:
    """Tables by the names of their files.

    ``cells``: a row for each cell of each prompt, with every metric on the output and its clean
    value. ``prompts``: a row for each prompt, with what is known of it. Of several prompts also a
    table for each metric, a row per cell: mean, interval, corrected p and n.
    """
    tables = dict(_named(effects))
    return dict(zip(distinct(tables), tables.values(), strict=True))


def _named(effects: Effects) -> Iterator[tuple[str, pd.DataFrame]]:
    yield "prompts", _prompts(effects)
    if effects.n_cells <= MOST_ROWS:
        yield "cells", effects.to_dataframe().drop(columns="text", errors="ignore")
    if effects.data.sizes[PROMPT] < 2:
        return
    whole = comparable(effects)
    for metric in with_delta(whole):
        sizes = (size for name, size in whole.data[metric].sizes.items() if name != PROMPT)
        if math.prod(sizes) <= MOST_ROWS:
            yield metric, whole.table(metric)


def _prompts(effects: Effects) -> pd.DataFrame:
    """A row per prompt: its text, what it asks for, what else is known, and its clean values."""
    asked = pd.DataFrame(effects.provenance["spec"]["prompts"])
    fields = [name for name in ("text", "donor", "target", "contrast") if name in asked]
    own = asked.loc[effects.data[PROMPT].values, fields].reset_index(drop=True)
    known = {
        str(name): one.values
        for name, one in effects.data.coords.items()
        if one.dims == (PROMPT,) and name not in (PROMPT, *fields)
    }
    clean = {
        f"clean_{name}": effects.clean(name).values
        for name in effects.metrics
        if effects.clean(name).ndim == 1
    }
    number = pd.DataFrame({PROMPT: effects.data[PROMPT].values})
    return pd.concat([number, own, pd.DataFrame(known | clean)], axis=1)
