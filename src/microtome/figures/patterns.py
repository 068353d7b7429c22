"""All heads' attention as one map of small maps."""

from __future__ import annotations

import numpy as np
import xarray as xr

from microtome.amounts import many
from microtome.errors import EffectsError
from microtome.figures import style
from microtome.figures.labels import Axis, escaped
from microtome.figures.matrix import colored
from microtome.figures.pictures import Drawn

MOST_TILES = 24
"""Rows of tiles that are as high as they are wide; more are packed into the same height."""

MOST_NAMED = 200_000
"""Cells that say on hover what they are; of more, only their weight."""
MOST = 4_000_000
"""Cells of a figure."""


def pattern_grid(array: xr.DataArray, *, title: str, note: str = "") -> Drawn:
    """Attention weights as small maps side by side.

    Args:
        array: ``[layer, head, q_pos, k_pos]``.
        title: over the figure.
        note: a quiet line under it.

    Raises:
        EffectsError: there are too many cells for one figure.
    """
    if array.size > MOST:
        raise EffectsError(
            f"These patterns have {many(array.size, 'weight')}, and a figure at most {MOST:,}: "
            "read fewer layers or heads, such as L5.pattern.h{0,1}, or draw one head."
        )
    array = array.transpose("layer", "head", "q_pos", "k_pos")
    layers, heads, n, m = array.shape
    whole = np.full((layers, heads, n + 1, m + 1), np.nan)
    whole[:, :, :n, :m] = array.values
    tiled = whole.transpose(0, 2, 1, 3).reshape(layers * (n + 1), heads * (m + 1))[:-1, :-1]
    queries, keys = (Axis.of(array, name) for name in ("q_pos", "k_pos"))
    made = style.figure(
        escaped(title), escaped(note), "head", "layer",
        height=min(max(260 + 60 * layers, 340), 260 + 60 * MOST_TILES),
    )  # fmt: skip
    trace = colored(tiled, str(array.attrs.get("unit", "weight")), diverging=False)
    trace.update(xgap=0, ygap=0)
    trace.hovertemplate = "%{z:.3g}<extra></extra>"
    if array.size <= MOST_NAMED:
        trace.customdata = _named(array, queries, keys)
        trace.hovertemplate = "%{customdata}<br>%{z:.3g}<extra></extra>"
    made.add_trace(trace)
    made.update_layout(plot_bgcolor="rgba(0,0,0,0)")
    made.update_xaxes(showgrid=False, **_ticks(array["head"].values, m))
    made.update_yaxes(showgrid=False, autorange="reversed", **_ticks(array["layer"].values, n))
    return Drawn(made)


def _named(array: xr.DataArray, queries: Axis, keys: Axis) -> np.ndarray:
    """What each cell of the tiles is: its head, and from which token to which."""
    layers, heads, n, m = array.shape
    words = np.full((layers, heads, n + 1, m + 1), "", dtype=object)
    for layer, head in np.ndindex(layers, heads):
        name = f"L{int(array['layer'][layer])}.h{int(array['head'][head])}"
        words[layer, head, :n, :m] = [
            [f"{name}<br>{query} → {key}" for key in keys.labels] for query in queries.labels
        ]
    return words.transpose(0, 2, 1, 3).reshape(layers * (n + 1), heads * (m + 1))[:-1, :-1]


def _ticks(names: np.ndarray, size: int) -> dict[str, object]:
    """A number at the middle of each tile."""
    middles = [number * (size + 1) + (size - 1) / 2 for number in range(len(names))]
    return {"tickmode": "array", "tickvals": middles, "ticktext": [str(name) for name in names]}
