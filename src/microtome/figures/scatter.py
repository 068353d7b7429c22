"""Every cell of a map as a point, in the order of layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from microtome.figures import style
from microtome.figures.mapped import Mapped
from microtome.figures.view import squeezed, view

SPREAD = 0.7
"""How much of a layer's width its points take."""


def scatter(effects: Mapped, metric: str, *, title: str | None = None, **at: Any) -> go.Figure:
    """The effect of every cell of two dimensions, such as every head in the order of layers.

    The first dimension is the x axis; the points of one layer stand side by side in the order of
    the second.

    Args:
        effects: the result of a sweep.
        metric: one that was measured and has a difference.
        title: in the place of one that names the edits and the metric.
        **at: a coordinate for each other dimension. Several prompts are averaged, unless
            ``prompt=`` picks one.

    Raises:
        EffectsError: there is no such metric or coordinate, or not two dimensions are left.
    """
    part = squeezed(view(effects, metric, at), 2)
    part.expect(2, "scatter")
    groups, members = part.axes
    mean, digits = part.mean, style.digits(part.unit)
    made = style.figure(
        title or part.title, part.note, groups.name, f"effect on {metric}, {part.unit}"
    )
    rows, columns = np.indices(mean["effect"].shape).reshape(2, -1)
    offsets = ((columns + 0.5) / len(members.values) - 0.5) * SPREAD
    made.add_scatter(
        x=rows + offsets,
        y=mean["effect"].values.ravel(),
        mode="markers",
        meta="layers",
        marker={"color": rows, "colorscale": style.scale("layers"), "size": 7, "opacity": 0.85},
        text=[
            f"{groups.name} {groups.labels[row]}<br>{members.name} {members.labels[column]}"
            for row, column in zip(rows, columns, strict=True)
        ],
        customdata=np.stack([mean["clean"].values.ravel(), mean["edited"].values.ravel()], -1),
        hovertemplate=f"%{{text}}<br>clean %{{customdata[0]:{digits}}}"
        f"<br>edited %{{customdata[1]:{digits}}}<br>effect %{{y:+{digits}}}<extra></extra>",
    )
    made.add_hline(y=0, line={"color": style.QUIET, "width": 1})
    made.update_xaxes(showgrid=False, **groups.ticks)
    return made
