"""Several named series."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray

from microtome.errors import EffectsError
from microtome.figures import style
from microtome.figures.labels import escaped

XY = tuple[ArrayLike, ArrayLike]
Values = NDArray[Any]

LEVEL_WIDTH = 14
"""Letters of a level's name in one line."""
HIDING = 0.01
"""Lines nearer to each other than this share of what both span lie on each other."""
MOST_WIDER = 2
"""By how many steps a line becomes wider at most, however many lie on it."""
MOST_COUNTS = 8
"""Ticks along an axis of whole numbers."""


def series(
    named: Mapping[str, XY],
    *,
    x_title: str,
    y_title: str,
    title: str,
    y_error: Mapping[str, ArrayLike] | None = None,
    bands: Mapping[str, XY] | None = None,
    levels: Mapping[str, float] | None = None,
    log_x: bool = False,
    log_y: bool = False,
    whole: bool = False,
    note: str = "",
) -> go.Figure:
    """Several named series, as lines with markers.

    A line that lies under a later one is wider, so that both are seen.

    Args:
        named: name → (x, y), of one length.
        x_title, y_title: of the axes, with units.
        title: over the figure.
        y_error: name → half the length of each point's error bar; or ``[2, n]``, the part above
            and the part below.
        bands: name → the lower and the upper edge of a shaded area over the points of the first
            series, such as its quartiles, which need not lie around a mean.
        levels: name → height of a dashed horizontal line to compare with.
        log_x: whether x is logarithmic.
        log_y: whether y is, should its values span a decade.
        whole: y counts, such as ranks: there is no tick between two whole numbers.
        note: a quiet line under the title.

    Raises:
        EffectsError: x and y differ in length, an error has no series, or a part of it is
            below 0.
    """
    made = style.figure(title, note, x_title, y_title, legend=len(named) > 1 or bool(bands))
    errors = dict(y_error or {})
    lines = {name: _points(name, x, y) for name, (x, y) in named.items()}
    log = log_y and _decade(named, levels)
    for name, (low, high) in (bands or {}).items():
        _band(made, name, next(iter(lines.values()))[0], low, high)
    for number, (name, (x, y)) in enumerate(lines.items()):
        later = list(lines.values())[number + 1 :]
        wider = min(sum(_covers(other, (x, y), log) for other in later), MOST_WIDER)
        color = style.COLORS[number % len(style.COLORS)]
        made.add_scatter(
            x=x,
            y=y,
            name=escaped(name),
            mode="lines+markers" if len(x) <= 100 else "lines",
            line={"color": color, "width": 2 + 2.5 * wider},
            marker={"color": color, "size": 6 + 2.5 * wider},
            error_y=_bars(name, errors.pop(name, None), color),
            hovertemplate=f"{x_title} %{{x}}<br>%{{y:.4g}}<extra>{escaped(name)}</extra>",
        )
    if errors:
        raise EffectsError(f"There is no series called {next(iter(errors))!r} for its error bars.")
    for name, height in (levels or {}).items():
        level(made, height, name, log)
    if log_x:
        made.update_xaxes(type="log", **_ladder([x for x, _ in named.values()]))
    if log:
        made.update_yaxes(type="log", **_ladder([y for _, y in named.values()], whole))
    elif whole:
        made.update_yaxes(**_counts([y for _, y in lines.values()], levels))
    return made


def _points(name: str, x: ArrayLike, y: ArrayLike) -> tuple[Values, Values]:
    xs, ys = np.asarray(x), np.asarray(y, dtype=np.float64)
    if xs.shape != ys.shape or xs.ndim != 1:
        raise EffectsError(
            f"The series {name!r} has x of shape {list(xs.shape)} and y of {list(ys.shape)}."
        )
    return xs, ys


def _covers(line: tuple[Values, Values], other: tuple[Values, Values], log: bool) -> bool:
    """Whether a line would hide another one from one point to the next."""
    (x, y), (other_x, other_y) = line, other
    if not np.array_equal(x, other_x):
        return False
    mine, its = (np.log10(y), np.log10(other_y)) if log else (y, other_y)
    both = np.concatenate([mine, its])
    both = both[np.isfinite(both)]
    near = np.abs(mine - its) <= HIDING * (np.ptp(both) if both.size else 0.0)
    return bool((near[1:] & near[:-1]).any())


def _band(made: go.Figure, name: str, x: Values, low: ArrayLike, high: ArrayLike) -> None:
    edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
    made.add_scatter(x=x, y=np.asarray(low), showlegend=False, **edge)
    fill = {"fill": "tonexty", "fillcolor": "rgba(59,111,182,0.22)"}
    made.add_scatter(x=x, y=np.asarray(high), name=escaped(name), **fill, **edge)


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


def _counts(values: Sequence[ArrayLike], levels: Mapping[str, float] | None) -> dict[str, object]:
    """Ticks at whole numbers, a handful of them at round ones."""
    every = np.concatenate([np.asarray(one, dtype=np.float64) for one in values])
    every = np.append(every, list((levels or {}).values()))
    low, high = math.floor(np.nanmin(every)), math.ceil(np.nanmax(every))
    decades = range(len(str(high - low)) + 1)
    steps = (step * 10**n for n in decades for step in (1, 2, 5))
    step = next(step for step in steps if (high - low) / step <= MOST_COUNTS)
    ticks = [*range(-(-low // step) * step, high + 1, step)]
    if low not in ticks:
        ticks.insert(0, low)
    return {"tickmode": "array", "tickvals": ticks, "ticktext": [f"{tick:,}" for tick in ticks]}


def _ladder(values: Sequence[ArrayLike], whole: bool = False) -> dict[str, object]:
    """Ticks at 1, 2, 5, 10, …, each written in full: plotly writes 20 as a small 2."""
    every = np.concatenate([np.asarray(one, dtype=np.float64) for one in values])
    low, high = np.nanmin(every), np.nanmax(every)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**n for n in decades for step in (1, 2, 5)]
    shown = [
        tick for tick in ticks if low * 0.99 <= tick <= high * 1.01 and (tick >= 1 or not whole)
    ]
    labels = [f"{tick:,.0f}" if 1e4 <= tick < 1e9 else f"{tick:g}" for tick in shown]
    return {"tickmode": "array", "tickvals": shown, "ticktext": labels}


def _decade(named: Mapping[str, XY], levels: Mapping[str, float] | None) -> bool:
    """Whether all values are above 0, and the largest is ten times the least."""
    every = np.concatenate([np.asarray(y, dtype=np.float64) for _, y in named.values()])
    every = np.append(every, list((levels or {}).values()))
    low, high = np.nanmin(every), np.nanmax(every)
    return bool(low > 0 and high >= 10 * low)


def _bars(name: str, given: ArrayLike | None, color: str) -> dict[str, object] | None:
    if given is None:
        return None
    bars = np.asarray(given, dtype=np.float64)
    up, down = bars if bars.ndim == 2 else (bars, bars)
    if (bars < 0).any():
        raise EffectsError(
            f"An error bar of {name!r} has the length {np.nanmin(bars):.3g}: lengths count from "
            "the point, up and down. An area that need not lie around it is a band: bands=."
        )
    return {"array": up, "arrayminus": down, "symmetric": False, "color": color, "thickness": 1.2}
