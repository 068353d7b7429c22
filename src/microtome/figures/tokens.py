"""A map with the text of a token in each cell."""

from __future__ import annotations

import numpy as np
import xarray as xr

from microtome.errors import EffectsError, listing
from microtome.figures import style
from microtome.figures.labels import Axis, escaped
from microtome.figures.matrix import colored, grid, pairs
from microtome.figures.pictures import Drawn
from microtome.texts import visible

CELL = 74
"""Pixels of a cell's width."""
LETTERS = 9
"""Letters of a token that fit into a cell."""
ROWS = 22
"""Pixels of a cell's height."""


def token_map(
    array: xr.DataArray, words: xr.DataArray, *, title: str, unit: str, note: str = ""
) -> Drawn:
    """Numbers over two dimensions as colours, each with the text of a token.

    Args:
        array: the numbers; the first dimension runs down, the second to the right. A dimension of
            one coordinate beyond these is left out.
        words: texts at the same coordinates.
        title: over the figure.
        unit: of the numbers.
        note: a quiet line under the title.

    Raises:
        EffectsError: not two dimensions are left.
    """
    one = [name for name in array.dims if array.sizes[name] == 1]
    array = array.isel(dict.fromkeys(one[: max(0, array.ndim - 2)], 0))
    if array.ndim != 2:
        sizes = listing(f"{name} ({size})" for name, size in array.sizes.items()) or "none"
        advice = "Pick fewer." if array.ndim < 2 else "Pick a coordinate, such as pos=-1."
        raise EffectsError(
            f"A map of tokens has two dimensions, and those left are: {sizes}. {advice}"
        )
    words = words.isel({name: 0 for name in words.dims if name not in array.dims})
    words = words.transpose(*array.dims)
    down, right = (Axis.of(array, str(name)) for name in array.dims)
    made = grid(down, right, escaped(title), escaped(note))
    trace = colored(np.asarray(array.values, dtype=np.float64), unit, diverging=False)
    whole = [[escaped(visible(str(word))) for word in row] for row in words.values.tolist()]
    trace.text = [[_short(word) for word in row] for row in whole]
    trace.texttemplate = "%{text}"
    trace.textfont = {"size": 11}
    trace.customdata = np.concatenate(
        [pairs(down, right), np.array(whole, dtype=object)[..., None]], axis=-1
    )
    trace.hovertemplate = (
        f"%{{customdata[2]}}<br>{down.name} %{{customdata[0]}}<br>{right.name} %{{customdata[1]}}"
        f"<br>%{{z:{style.digits(unit)}}} {unit}<extra></extra>"
    )
    made.add_trace(trace)
    made.update_layout(
        width=max(style.WIDTH, 180 + CELL * len(right.values)),
        height=made.layout.height + max(0, 190 + ROWS * len(down.values) - 900),
    )
    return Drawn(made)


def _short(word: str) -> str:
    return word if len(word) <= LETTERS else f"{word[: LETTERS - 1]}…"
