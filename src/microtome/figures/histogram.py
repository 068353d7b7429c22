"""How effects are distributed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from microtome.errors import EffectsError
from microtome.figures import style
from microtome.figures.labels import escaped


def histogram(
    named: Mapping[str, ArrayLike],
    *,
    unit: str,
    title: str,
    bins: int = 40,
    note: str = "",
    counted: str = "cells",
) -> go.Figure:
    """Distributions laid over each other, in shared bins.

    Args:
        named: name → values of any shape, such as ``{"zero": effects.delta("prob")}``; NaN is
            left out.
        unit: of the values.
        title: over the figure.
        bins: how many, over the range of all values together.
        note: a quiet line under the title.
        counted: what the values are, in the plural.

    Raises:
        EffectsError: there is no value.
    """
    values = {name: _finite(given) for name, given in named.items()}
    if not any(v.size for v in values.values()):
        raise EffectsError("A histogram needs values; none of those given is a finite number.")
    edges = np.histogram_bin_edges(np.concatenate(list(values.values())), bins)
    width = edges[1] - edges[0]
    made = style.figure(title, note, unit, counted, legend=len(values) > 1)
    made.update_layout(barmode="overlay", bargap=0)
    for number, (name, given) in enumerate(values.items()):
        made.add_bar(
            x=edges[:-1] + width / 2,
            y=np.histogram(given, edges)[0],
            width=width,
            name=escaped(name),
            customdata=np.stack([edges[:-1], edges[1:]], -1),
            hovertemplate="%{customdata[0]:.4g} … %{customdata[1]:.4g}<br>%{y} "
            f"{counted}<extra>{escaped(name)}</extra>",
            opacity=0.6 if len(values) > 1 else 0.9,
            marker={"color": style.COLORS[number % len(style.COLORS)], "line": {"width": 0}},
        )
    return made


def _finite(given: ArrayLike) -> np.ndarray:
    flat = np.asarray(given, dtype=np.float64).ravel()
    return flat[np.isfinite(flat)]
