"""Several named series."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from microtome.errors import EffectsError
from microtome.figures import style
from microtome.figures.labels import escaped

XY = tuple[ArrayLike, ArrayLike]


def series(
    named: Mapping[str, XY],
    *,
    x_title: str,
    y_title: str,
    title: str,
    y_error: Mapping[str, ArrayLike] | None = None,
    levels: Mapping[str, float] | None = None,
    log_x: bool = False,
    log_y: bool = False,
    note: str = "",
) -> go.Figure:
    """Several named series, as lines with markers.

    Args:
        named: name → (x, y), of one length.
        x_title, y_title: of the axes, with units.
        title: over the figure.
        y_error: name → half the length of each point's error bar; or ``[2, n]``, the part above
            and the part below.
        levels: name → height of a dashed horizontal line to compare with.
        log_x, log_y: whether an axis is logarithmic.
        note: a quiet line under the title.

    Raises:
        EffectsError: x and y differ in length, or an error has no series.
    """
    made = style.figure(title, note, x_title, y_title, legend=len(named) > 1)
    errors = dict(y_error or {})
    for number, (name, (x, y)) in enumerate(named.items()):
        x, y = np.asarray(x), np.asarray(y, dtype=np.float64)
        if x.shape != y.shape or x.ndim != 1:
            raise EffectsError(
                f"The series {name!r} has x of shape {list(x.shape)} and y of {list(y.shape)}."
            )
        color = style.COLORS[number % len(style.COLORS)]
        made.add_scatter(
            x=x,
            y=y,
            name=escaped(name),
            mode="lines+markers" if len(x) <= 100 else "lines",
            line={"color": color, "width": 2},
            marker={"color": color, "size": 6},
            error_y=_bars(errors.pop(name, None), color),
            hovertemplate=f"{x_title} %{{x}}<br>%{{y:.4g}}<extra>{escaped(name)}</extra>",
        )
    if errors:
        raise EffectsError(f"There is no series called {next(iter(errors))!r} for its error bars.")
    for name, height in (levels or {}).items():
        level(made, height, name, log_y)
    for log, update in ((log_x, made.update_xaxes), (log_y, made.update_yaxes)):
        if log:
            update(type="log", dtick="D2")  # ticks at 1, 2, 5, 10, …
    return made


def level(made: go.Figure, height: float, name: str, log: bool = False) -> None:
    """A dashed horizontal line with its name; ``log`` where the axis is logarithmic."""
    made.add_hline(y=height, line={"color": style.QUIET, "width": 1.5, "dash": "dash"})
    made.add_annotation(
        text=escaped(name),
        font={"size": 11, "color": style.QUIET},
        showarrow=False,
        x=1,
        xref="x domain",
        xanchor="right",
        y=float(np.log10(height)) if log else height,
        yanchor="bottom",
    )


def _bars(given: ArrayLike | None, color: str) -> dict[str, object] | None:
    if given is None:
        return None
    bars = np.asarray(given, dtype=np.float64)
    up, down = bars if bars.ndim == 2 else (bars, bars)
    return {"array": up, "arrayminus": down, "symmetric": False, "color": color, "thickness": 1.2}
