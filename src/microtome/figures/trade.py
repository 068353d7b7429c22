"""What an edit gains against what it costs, dose by dose."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from microtome.figures import style
from microtome.figures.labels import Axis, escaped


def trade(
    gain: xr.DataArray, cost: xr.DataArray, *, title: str, gain_title: str, cost_title: str
) -> go.Figure:
    """Each dose as a point: its cost to the right, its gain upwards, in the colour of its layer.

    Args:
        gain, cost: over the same dimensions; of costs above 0 the axis is logarithmic.
        title: over the figure.
        gain_title, cost_title: of the axes, with units.
    """
    made = style.figure(title, "", cost_title, gain_title)
    order = gain.dims
    values, costs = gain.values.ravel(), cost.transpose(*order).values.ravel()
    axes = [Axis.of(gain, str(name)) for name in order]
    where = np.indices(gain.shape).reshape(gain.ndim, -1)
    texts = [
        "<br>".join(f"{a.name} {a.labels[n]}" for a, n in zip(axes, at, strict=True))
        for at in where.T
    ]
    layer = where[list(order).index("layer")] if "layer" in order else where[0]
    shown = np.isfinite(values) & (costs > 0)
    made.add_scatter(
        x=costs[shown],
        y=values[shown],
        mode="markers",
        meta="layers",
        marker={
            "color": layer[shown],
            "colorscale": style.scale("layers"),
            "size": 8,
            "opacity": 0.85,
            "colorbar": style.colorbar("layer" if "layer" in order else str(order[0])),
        },
        text=[text for text, kept in zip(texts, shown, strict=True) if kept],
        hovertemplate=f"%{{text}}<br>{escaped(cost_title)} %{{x:.4g}}"
        f"<br>{escaped(gain_title)} %{{y:+.4g}}<extra></extra>",
    )
    made.add_hline(y=0, line={"color": style.QUIET, "width": 1})
    made.update_xaxes(type="log")
    return made
