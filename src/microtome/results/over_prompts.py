"""What a sweep over many prompts says of each cell: mean, interval, corrected p, and n."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from microtome.amounts import whole_of
from microtome.figures.mapped import NOISE_FLOOR, Mapped, cells_of
from microtome.results.roles import beside as role_beside
from microtome.stats import LEVEL, MapTest, max_statistic
from microtome.stats.aligned import tokens_of
from microtome.stats.averaged import CHANGED, averaged
from microtome.stats.samples import PROMPT

MOST_WORK = 4e10
"""Products of a flip, a prompt and a cell: some ten seconds."""
FLIPS = (1_000, 10_000)
"""How many flips a map is tested with: the fewest on the largest maps, and the most."""


def evidence(effects: Mapped, metric: str) -> xr.DataArray:
    """The effects of cells whose edits changed something; the others are absent."""
    effect = effects.delta(metric)
    return effect.where(effects.data["values_changed"] != 0)


def tested(effects: Mapped, metric: str) -> MapTest | None:
    """The test of all cells; None where no cell has the two prompts that it takes.

    A cell with an infinite effect in any prompt is not tested.
    """
    given = evidence(effects, metric)
    given = given.where(~(abs(given) == np.inf).any(PROMPT))
    if given.sizes[PROMPT] < 2 or not bool((given.notnull().sum(PROMPT) > 1).any()):
        return None
    flips = int(np.clip(MOST_WORK / max(given.size, 1), *FLIPS))
    return max_statistic(given, permutations=flips)


def table(effects: Mapped, metric: str) -> pd.DataFrame:
    """A row per cell of the map, in its order; cells that do not exist are left out.

    Columns: the cell's coordinates, then means over the prompts in which its edits changed
    something, ``effect`` (first: pandas leaves out the middle of what is printed), ``clean`` and
    ``edited``; ``low`` and ``high``, the effect's own 95 % t interval; ``p``, corrected for all
    cells; ``n``, how many prompts; ``unchanged``, in how many more the edits changed nothing;
    ``above_noise``; and ``significant``, p is below 0.05 and the effect above the noise floor.
    """
    cells = cells_of(effects, metric)
    mean = averaged(cells)
    found = mean[["effect", "clean", "edited"]].drop_vars(_of_prompts(mean), errors="ignore")
    there = cells["effect"].notnull()
    nothing = xr.full_like(mean["effect"], np.nan)
    test = tested(effects, metric)
    for name in ("low", "high", "p"):
        found[name] = nothing if test is None else getattr(test, name)
    found["n"] = mean["n"]
    found["unchanged"] = (there & ~cells[CHANGED]).sum(PROMPT)
    floor = float(effects.data[metric].attrs.get(NOISE_FLOOR, 0.0))
    found["above_noise"] = np.abs(found["effect"]) > floor
    found["significant"] = (found["p"] < LEVEL) & found["above_noise"]
    dims = [name for name in map(str, cells["effect"].dims) if name != PROMPT]
    for name in dims:
        found = _with_tokens(found, effects.data, name)
    if not dims:
        return pd.DataFrame([{str(name): one.item() for name, one in found.data_vars.items()}])
    frame = found.to_dataframe(dim_order=dims).reset_index()
    return frame.dropna(subset=["effect"]).reset_index(drop=True)


def largest(frame: pd.DataFrame, n: int | None) -> pd.DataFrame:
    """The n rows with the largest effects, by absolute value, the largest first; None: all."""
    order = frame["effect"].abs().sort_values(ascending=False, kind="stable").index
    n = len(frame) if n is None else whole_of(n, 0, "n")
    return frame.loc[order].head(n).reset_index(drop=True)


def _with_tokens(found: xr.Dataset, data: xr.Dataset, name: str) -> xr.Dataset:
    """The same with token and role beside each coordinate of a dimension, where all have them."""
    for beside in (tokens_of(data, name), data.coords.get(role_beside(name))):
        if beside is None or beside.dims != (PROMPT, name):
            continue
        kinds = [sorted({str(text) for text in each if text}) for each in beside.values.T]
        same = [each[0] if len(each) == 1 else "" for each in kinds]
        found = found.assign({str(beside.name): (name, same)}) if any(same) else found
    return found


def _of_prompts(data: xr.Dataset) -> list[str]:
    return [str(name) for name, one in data.coords.items() if PROMPT in one.dims]
