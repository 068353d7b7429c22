"""Effects, or edited values, over one dimension."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from microtome.errors import EffectsError
from microtome.figures import style
from microtome.figures.labels import MOST_TICKS, Axis
from microtome.figures.mapped import Mapped
from microtome.figures.noise import is_noise, mark
from microtome.figures.view import View, squeezed, view
from microtome.stats.samples import PROMPT

SHOWN = ("effect", "edited")
MOST_LINES = 20
"""More prompts than this are shown as a band."""


def curve(
    effects: Mapped, metric: str, *, show: str = "effect", title: str | None = None, **at: Any
) -> go.Figure:
    """The effects on a metric over one dimension: layers, positions, a parameter in ``over=``.

    Of several prompts the mean is drawn, with a thin line per prompt, or with a band that holds
    the middle half of the prompts where they are many. A grey dot marks an effect no larger than
    the noise floor.

    Args:
        effects: the result of a sweep.
        metric: one that was measured and has a difference.
        show: ``"effect"``, or ``"edited"``: the metric itself, with its clean value dashed.
        title: in the place of one that names the edits and the metric.
        **at: a coordinate for each other dimension.

    Raises:
        EffectsError: there is no such metric or coordinate, or not one dimension is left.
    """
    if show not in SHOWN:
        raise EffectsError(f"show must be 'effect' or 'edited', not {show!r}.")
    part = squeezed(view(effects, metric, at), 1)
    part.expect(1, "curve")
    [axis] = part.axes
    label = f"effect on {metric}" if show == "effect" else metric
    made = style.figure(
        title or part.title, part.note, axis.name, f"{label}, {part.unit}",
        legend=part.n_prompts > 1 or show == "edited",
    )  # fmt: skip
    x = _place(made, axis)
    if part.n_prompts > 1:
        _spread(made, x, part.told(show).transpose(PROMPT, axis.name))
    _line(made, x, part, axis, show)
    noise = is_noise(part.mean["effect"])
    mark(made, np.array(x)[noise], part.mean[show].values[noise], part.mean["effect"], 7)
    if show == "edited":
        made.add_scatter(
            x=x, y=part.mean["clean"].values, mode="lines", name="clean", hoverinfo="skip",
            line={"color": style.QUIET, "dash": "dash", "width": 1.5},
        )  # fmt: skip
    else:
        made.add_hline(y=0, line={"color": style.QUIET, "width": 1})
    if part.unit == style.WHOLE:
        made.update_yaxes(**style.whole_ticks(np.concatenate([t.y for t in made.data])))
    return made


def _place(made: go.Figure, axis: Axis) -> list[float]:
    """The places of the coordinates along x; the axis is set to show them."""
    if axis.numeric and not axis.counted:
        x = [float(value) for value in axis.values]
        made.update_xaxes(type="log" if axis.spans_decades else "linear")
        if axis.spans_decades and len(x) <= MOST_TICKS:
            made.update_xaxes(tickmode="array", tickvals=x, ticktext=axis.labels)
        return x
    made.update_xaxes(**axis.ticks)
    if axis.slanted:
        made.update_xaxes(tickangle=-45)
    return [float(n) for n in range(len(axis.values))]


def _line(made: go.Figure, x: list[float], part: View, axis: Axis, show: str) -> None:
    mean, digits = part.mean, style.digits(part.unit)
    several = part.n_prompts > 1
    made.add_scatter(
        x=x,
        y=mean[show].values,
        mode="lines+markers" if len(x) <= 100 else "lines",
        name="mean" if several else "edited",
        line={"color": style.COLORS[0], "width": 2},
        marker={"color": style.COLORS[0], "size": 6},
        text=[f"{axis.name} {label}" for label in axis.labels],
        customdata=np.stack([mean[name].values for name in ("clean", "edited", "effect", "n")], -1),
        hovertemplate=f"%{{text}}<br>clean %{{customdata[0]:{digits}}}"
        f"<br>edited %{{customdata[1]:{digits}}}<br>effect %{{customdata[2]:+{digits}}}"
        f"{'<br>n %{customdata[3]}' if several else ''}<extra></extra>",
    )


def _spread(made: go.Figure, x: list[float], values: xr.DataArray) -> None:
    """What the single prompts do, behind their mean."""
    if len(values) <= MOST_LINES:
        for number, row in enumerate(values.values):
            made.add_scatter(
                x=x, y=row, mode="lines", name="each prompt", legendgroup="prompts",
                showlegend=number == 0, line={"color": "rgba(59,111,182,0.45)", "width": 1},
                hovertemplate=f"prompt {number}: %{{y:.4g}}<extra></extra>",
            )  # fmt: skip
        return
    low, high = values.quantile([0.25, 0.75], dim=PROMPT).values
    edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
    made.add_scatter(x=x, y=low, showlegend=False, **edge)
    made.add_scatter(
        x=x, y=high, fill="tonexty", fillcolor="rgba(59,111,182,0.28)",
        name="middle half of the prompts", **edge,
    )  # fmt: skip
