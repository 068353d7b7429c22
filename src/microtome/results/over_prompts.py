"""What a sweep over many prompts says of each cell: mean, interval, corrected p, and n."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

from microtome.stats import LEVEL, MapTest, max_statistic
from microtome.stats.aligned import tokens_of
from microtome.stats.averaged import CHANGED, averaged
from microtome.stats.samples import PROMPT

if TYPE_CHECKING:
    from microtome.results.effects import Effects

MOST_WORK = 4e10
"""Products of a flip, a prompt and a cell: some ten seconds."""
FLIPS = (1_000, 10_000)
"""How many flips a map is tested with: the fewest on the largest maps, and the most."""


def parts(effects: Effects, metric: str) -> xr.Dataset:
    """``clean``, ``edited`` and ``effect`` of a metric, ``[prompt, *map]``, and ``changed``."""
    effect = effects.delta(metric)
    clean = effects.baseline(metric).broadcast_like(effect).where(effect.notnull())
    changed = (effects.data["values_changed"] != 0).broadcast_like(effect)
    edited = effects.data[metric]
    return xr.Dataset({"clean": clean, "edited": edited, "effect": effect, CHANGED: changed})


def evidence(effects: Effects, metric: str) -> xr.DataArray:
    """The effects of cells whose edits changed something; the others are absent."""
    effect = effects.delta(metric)
    return effect.where(effects.data["values_changed"] != 0)


def tested(effects: Effects, metric: str) -> MapTest | None:
    """The test of all cells; None where no cell has the two prompts that it takes."""
    given = evidence(effects, metric)
    if given.sizes[PROMPT] < 2 or not bool((given.notnull().sum(PROMPT) > 1).any()):
        return None
    flips = int(np.clip(MOST_WORK / max(given.size, 1), *FLIPS))
    return max_statistic(given, permutations=flips)


def table(effects: Effects, metric: str) -> pd.DataFrame:
    """A row per cell of the map, in its order; cells that do not exist are left out.

    Columns: the cell's coordinates, then means over the prompts in which its edits changed something,
    ``clean``, ``edited`` and ``effect``; ``low`` and ``high``, the effect's own 95 % t interval;
    ``p``, corrected for all cells; ``n``, how many prompts; ``unchanged``, in how many more the edits
    changed nothing; ``significant`` and ``above_noise``.
    """
    cells = parts(effects, metric)
    mean = averaged(cells)
    found = mean[["clean", "edited", "effect"]].drop_vars(_of_prompts(mean), errors="ignore")
    there = cells["effect"].notnull()
    nothing = xr.full_like(mean["effect"], np.nan)
    test = tested(effects, metric)
    for name in ("low", "high", "p"):
        found[name] = nothing if test is None else getattr(test, name)
    found["n"] = mean["n"]
    found["unchanged"] = (there & ~cells[CHANGED]).sum(PROMPT)
    floor = effects.noise_floor(metric) or 0.0
    found["above_noise"] = np.abs(found["effect"]) > floor
    found["significant"] = (found["p"] < LEVEL) & found["above_noise"]
    dims = [name for name in map(str, cells["effect"].dims) if name != PROMPT]
    for name in dims:
        found = _with_tokens(found, effects.data, name)
    if not dims:
        return pd.DataFrame([{str(name): one.item() for name, one in found.data_vars.items()}])
    frame = found.to_dataframe(dim_order=dims).reset_index()
    return frame.dropna(subset=["effect"]).reset_index(drop=True)


def _with_tokens(found: xr.Dataset, data: xr.Dataset, name: str) -> xr.Dataset:
    """The same with the token beside each coordinate of a dimension, where all prompts have it."""
    tokens = tokens_of(data, name)
    if tokens is None:
        return found
    kinds = [sorted({str(text) for text in each if text}) for each in tokens.values.T]
    same = [each[0] if len(each) == 1 else "" for each in kinds]
    return found.assign({str(tokens.name): (name, same)}) if any(same) else found


def _of_prompts(data: xr.Dataset) -> list[str]:
    return [str(name) for name, one in data.coords.items() if PROMPT in one.dims]


def sentences(effects: Effects, metric: str, frame: pd.DataFrame) -> list[str]:
    """What a table of cells says: the largest effect, and, apart from that, what is significant."""
    if frame.empty:
        return []
    dims = cells_of(effects, metric)
    test = tested_cells(frame)
    largest = frame.loc[frame["effect"].abs().idxmax()]
    if not largest["n"]:
        return ["In no prompt did the edits change anything: every effect is exactly 0."]
    said = [f"The largest mean effect is at {place(largest, dims)}: {of_cell(largest)}."]
    said += _significance(effects, frame, dims, test)
    left_out = int((frame["unchanged"] > 0).sum())
    if left_out:
        said.append(
            f"In {left_out:,} of {len(frame):,} cells the edits changed nothing in some prompts or "
            "in all; those prompts are no evidence of what the edits do, and are not among the n of "
            "the cell."
        )
    return said


def tested_cells(frame: pd.DataFrame) -> int:
    """How many cells there is a p value of."""
    return int(frame["p"].notna().sum())


def cells_of(effects: Effects, metric: str) -> list[str]:
    """The dimensions of a metric's map, prompts left out."""
    return [name for name in map(str, effects.data[metric].dims) if name != PROMPT]


def place(row: pd.Series, dims: list[str]) -> str:
    """Where a cell is, in words."""
    return ", ".join(f"{name} {row[name]}" for name in dims) or "the only cell"


def of_cell(row: pd.Series) -> str:
    """A cell's mean effect with its interval and n, in words."""
    if np.isnan(row["low"]):
        return _signed(f"{row['effect']:+.3g} (n = {int(row['n'])})")
    return _signed(
        f"{row['effect']:+.3g} (95 % interval {row['low']:.3g} … {row['high']:.3g}, "
        f"n = {int(row['n'])})"
    )


def _signed(text: str) -> str:
    return text.replace("-", "−")


def _significance(
    effects: Effects, frame: pd.DataFrame, dims: list[str], cells: int
) -> list[str]:
    if not cells:
        return ["No cell has the two prompts that a test takes."]
    prompts = int(effects.data.sizes[PROMPT])
    least = 2.0 ** (1 - prompts)
    if least >= LEVEL:
        return [
            f"Of {prompts} prompts no p value below {least:.2g} is possible, so that none of these "
            "effects can be called significant, or not: take more prompts (6 at least)."
        ]
    passed = frame[frame["significant"]]
    corrected = f"after correction for {cells:,} cells (max-statistic sign flips)"
    if passed.empty:
        return [f"No cell's effect differs from 0 at p < {LEVEL} {corrected}."]
    least_p = passed.loc[passed["p"].idxmin()]
    which = "it is" if len(passed) == 1 else "among them the largest is"
    top = passed.loc[passed["effect"].abs().idxmax()]
    count = f"{len(passed):,} of {cells:,} cells differ" if cells > 1 else "It differs"
    said = f"{count} from 0 at p < {LEVEL} {corrected}"
    if cells > 1:
        said += f"; {which} {place(top, dims)} ({_signed(f'{top.effect:+.3g}')})"
    return [f"{said}, the smallest p being {least_p['p']:.2g}."]
