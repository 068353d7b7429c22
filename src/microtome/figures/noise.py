"""Marks at the cells whose effects are no larger than the noise floor."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from numpy.typing import ArrayLike

from microtome.figures import style
from microtome.figures.mapped import NOISE_FLOOR

MOST = 5_000
"""Marks of a map, at most: more are no longer told apart."""


def is_noise(effect: xr.DataArray) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which effects are not 0, and no larger than the noise floor that comes with them."""
    size, floor = np.abs(effect.values), effect.attrs.get(NOISE_FLOOR) or 0.0
    found: np.ndarray[Any, np.dtype[np.bool_]] = (size > 0) & (size <= floor)
    return found


def mark(made: go.Figure, x: ArrayLike, y: ArrayLike, effect: xr.DataArray, size: float) -> None:
    """Grey dots at some places, with a line in the legend that says what they are.

    Args:
        made: the figure.
        x, y: where such cells are drawn.
        effect: the effects, with their noise floor.
        size: of a dot, in pixels.
    """
    x, y = np.asarray(x), np.asarray(y)
    if not 0 < len(x) <= MOST:
        return
    floor = effect.attrs[NOISE_FLOOR]
    made.add_scatter(
        x=x,
        y=y,
        mode="markers",
        name=f"no larger than the noise floor, {floor:.2g}",
        marker={"color": style.NOISE, "size": size},
        hoverinfo="skip",
        showlegend=True,
    )
    made.update_layout(showlegend=True)
