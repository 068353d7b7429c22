"""A labelled matrix as a map of colours."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from microtome.errors import EffectsError, listing
from microtome.figures import style
from microtome.figures.labels import Axis


def matrix(
    array: xr.DataArray,
    *,
    title: str,
    unit: str,
    diverging: bool = False,
    neutral: float | None = None,
    note: str = "",
) -> go.Figure:
    """A labelled matrix as a map of colours.

    Args:
        array: over two dimensions: the first runs down, the second to the right. NaN is shown
            in the colour of what is absent.
        title: over the figure.
        unit: of its values, beside the colours.
        diverging: red above zero and blue below, symmetric; else one hue from the least value
            (or 0, where none is below) to the largest.
        neutral: the value that means no change, such as 1 of a correlation: it has the pale middle
            colour, red is above it and blue below.
        note: a quiet line under the title.

    Raises:
        EffectsError: the array does not have two dimensions.
    """
    if array.ndim != 2:
        raise EffectsError(f"A matrix has two dimensions; given: {listing(array.dims) or 'none'}.")
    down, right = (Axis.of(array, str(name)) for name in array.dims)
    made = grid(down, right, title, note)
    values = np.asarray(array.values, dtype=np.float64)
    trace = colored(values, unit, diverging, neutral)
    named = "".join(f"{axis.name} %{{customdata[{n}]}}<br>" for n, axis in enumerate((down, right)))
    trace.customdata = pairs(down, right)
    trace.hovertemplate = f"{named}%{{z:.4g}} {unit}<extra></extra>"
    return made.add_trace(trace)


def grid(down: Axis, right: Axis, title: str, note: str) -> go.Figure:
    """An empty map: layer 0 at the top, a tick per row and column where they fit."""
    rows = len(down.values)
    slanted = 50 if right.slanted else 0
    height = min(max(190 + 24 * rows, 340), 900) + slanted
    across = {"showgrid": False, "constrain": "domain", **_ends(right), **right.ticks}
    made = style.figure(
        title,
        note,
        right.name,
        down.name,
        height=height,
        x_axis={**across, "tickangle": -45} if right.slanted else across,
        y_axis={"showgrid": False, "autorange": "reversed", **_ends(down), **down.ticks},
    )
    return made.update_layout(plot_bgcolor=style.ABSENT)


def _ends(axis: Axis) -> dict[str, object]:
    """No room beyond the first and last cells, which marks in them would ask for."""
    return {"autorangeoptions": {"clipmin": -0.5, "clipmax": len(axis.values) - 0.5}}


def colored(
    values: np.ndarray, unit: str, diverging: bool, neutral: float | None = None
) -> go.Heatmap:
    """The colours ``[row, column]``; x and y count columns and rows."""
    finite = values[np.isfinite(values)]
    diverging = diverging or neutral is not None
    kind = "diverging" if diverging else "sequential"
    middle = neutral or 0.0
    if diverging:
        # A map without any effect is all middle, not an error.
        reach = float(np.abs(finite - middle).max(initial=0)) or 1.0
        low, high = middle - reach, middle + reach
    else:
        low, high = float(min(finite.min(initial=np.inf), 0)), float(finite.max(initial=0)) or 1.0
    gap = 1 if max(values.shape) <= 64 else 0
    return go.Heatmap(
        z=values,
        zmin=low,
        zmax=high,
        zmid=middle if diverging else None,
        colorscale=style.scale(kind),
        meta=kind,
        xgap=gap,
        ygap=gap,
        hoverongaps=False,
        colorbar=style.colorbar(unit),
    )


def pairs(down: Axis, right: Axis) -> np.ndarray:
    """The labels of each cell ``[row, column, 2]``, for the hover text."""
    return np.stack(np.meshgrid(down.labels, right.labels, indexing="ij"), axis=-1).astype(object)
