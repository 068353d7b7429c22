"""Points with labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from microtome.errors import EffectsError
from microtome.figures import style
from microtome.figures.labels import escaped
from microtome.figures.series import XY

MANY = 5_000
"""More points than this are drawn small and pale, so that it shows where they are dense."""


def points(
    x: ArrayLike,
    y: ArrayLike,
    labels: Sequence[str],
    *,
    x_title: str,
    y_title: str,
    title: str,
    identity: bool = False,
    lines: Mapping[str, XY] | None = None,
    color: ArrayLike | None = None,
    color_title: str = "",
    note: str = "",
) -> go.Figure:
    """Points with labels to hover over, and lines to compare them with.

    Args:
        x, y: ``[point]``; a point with a NaN is not drawn.
        labels: what each point is: ``"L9 h6"``.
        x_title, y_title: of the axes, with units.
        title: over the figure.
        identity: whether to draw the line y = x.
        lines: name → (x, y) of a line to draw, such as a fitted trend.
        color: ``[point]``, a number that colours it, such as its layer.
        color_title: what that number is.
        note: a quiet line under the title.

    Raises:
        EffectsError: there are not as many x, y, labels and colours.
    """
    x, y = (np.asarray(given, dtype=np.float64).ravel() for given in (x, y))
    counts = {"x": len(x), "y": len(y), "labels": len(labels)}
    if color is not None:
        color = np.asarray(color, dtype=np.float64).ravel()
        counts["colors"] = len(color)
    if len(set(counts.values())) > 1:
        raise EffectsError(f"Points need as many of each; given: {counts}.")
    made = style.figure(title, note, x_title, y_title, legend=bool(identity or lines))
    if identity:
        both = np.concatenate([x, y])
        ends = [float(np.nanmin(both)), float(np.nanmax(both))] if both.size else [0.0, 1.0]
        made.add_trace(_rule("y = x", (ends, ends), "dash", style.QUIET))
    made.add_trace(_dots(x, y, labels, color, color_title, x_title, y_title))
    for number, (name, xy) in enumerate((lines or {}).items(), 1):
        made.add_trace(_rule(name, xy, "solid", style.COLORS[number % len(style.COLORS)]))
    return made


def _dots(
    x: ArrayLike,
    y: ArrayLike,
    labels: Sequence[str],
    color: ArrayLike | None,
    color_title: str,
    x_title: str,
    y_title: str,
) -> go.Scatter:
    many = len(labels) > MANY
    marker: dict[str, object] = {
        "size": 4 if many else 7,
        "opacity": 0.35 if many else 0.8,
        "color": style.COLORS[0],
    }
    if color is not None:
        marker |= {
            "color": color,
            "colorscale": style.scale("layers"),
            "colorbar": style.colorbar(color_title),
        }
    # A browser draws tens of thousands of points on its graphics card, but not one by one.
    return (go.Scattergl if many else go.Scatter)(
        x=x,
        y=y,
        mode="markers",
        showlegend=False,
        meta=None if color is None else "layers",
        marker=marker,
        text=[escaped(label) for label in labels],
        hovertemplate=f"%{{text}}<br>{x_title} %{{x:.4g}}<br>{y_title} %{{y:.4g}}<extra></extra>",
    )


def _rule(name: str, xy: XY, dash: str, color: str) -> go.Scatter:
    x, y = xy
    return go.Scatter(
        x=x, y=y, mode="lines", name=escaped(name), hoverinfo="skip",
        line={"color": color, "dash": dash, "width": 1.5},
    )  # fmt: skip
