"""Several named series."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from microtome.errors import EffectsError
from microtome.figures import style
from microtome.figures.labels import escaped

XY = tuple[ArrayLike, ArrayLike]

LEVEL_WIDTH = 14
"""Letters of a level's name in one line."""


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
        log_x: whether x is logarithmic.
        log_y: whether y is, should its values span a decade.
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
        level(made, height, name, log_y and _decade(named, levels))
    if log_x:
        made.update_xaxes(type="log", **_ladder([x for x, _ in named.values()]))
    if log_y and _decade(named, levels):
        made.update_yaxes(type="log", **_ladder([y for _, y in named.values()]))
    return made


def level(made: go.Figure, height: float, name: str, log: bool = False) -> None:
    """A dashed horizontal line with its name at its end; ``log`` where y is logarithmic."""
    lines = textwrap.wrap(name, LEVEL_WIDTH) or [""]
    made.add_hline(y=height, line={"color": style.QUIET, "width": 1.5, "dash": "dash"})
    made.add_annotation(
        text="<br>".join(map(escaped, lines)),
        font={"size": 11, "color": style.QUIET},
        align="left",
        showarrow=False,
        x=1,
        xref="x domain",
        xanchor="left",
        xshift=6,
        y=float(np.log10(height)) if log else height,
        yanchor="middle",
    )
    room = 14 + 7 * max(map(len, lines))
    made.update_layout(margin_r=max(room, made.layout.margin.r or 0))


def _ladder(values: Sequence[ArrayLike]) -> dict[str, object]:
    """Ticks at 1, 2, 5, 10, …, each written in full: plotly writes 20 as a small 2."""
    every = np.concatenate([np.asarray(one, dtype=np.float64) for one in values])
    low, high = np.nanmin(every), np.nanmax(every)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**n for n in decades for step in (1, 2, 5)]
    shown = [tick for tick in ticks if low * 0.99 <= tick <= high * 1.01]
    return {"tickmode": "array", "tickvals": shown, "ticktext": [f"{tick:g}" for tick in shown]}


def _decade(named: Mapping[str, XY], levels: Mapping[str, float] | None) -> bool:
    """Whether all values are above 0, and the largest is ten times the least."""
    every = np.concatenate([np.asarray(y, dtype=np.float64) for _, y in named.values()])
    every = np.append(every, list((levels or {}).values()))
    low, high = np.nanmin(every), np.nanmax(every)
    return bool(low > 0 and high >= 10 * low)


def _bars(given: ArrayLike | None, color: str) -> dict[str, object] | None:
    if given is None:
        return None
    bars = np.asarray(given, dtype=np.float64)
    up, down = bars if bars.ndim == 2 else (bars, bars)
    return {"array": up, "arrayminus": down, "symmetric": False, "color": color, "thickness": 1.2}
