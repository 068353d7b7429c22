"""The map of effects over two dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from microtome.figures import style
from microtome.figures.labels import Axis
from microtome.figures.mapped import EXACT, Mapped
from microtome.figures.matrix import colored, grid
from microtome.figures.noise import is_noise, mark
from microtome.figures.view import squeezed, view


def heatmap(effects: Mapped, metric: str, *, title: str | None = None, **at: Any) -> go.Figure:
    """The effects on a metric over two dimensions, such as layer × head.

    The first dimension runs down, with layer 0 at the top; red is an effect above zero. A cell
    that does not exist is a gap. A grey dot marks an effect no larger than the noise floor, and a
    ring on an approximate map a cell that was computed exactly.

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
    part.expect(2, "heatmap")
    down, right = part.axes
    mean = part.mean
    made = grid(down, right, title or part.title, part.note)
    trace = colored(mean["effect"].values, f"effect, {part.unit}", diverging=True)
    trace.customdata = np.stack([mean[name].values for name in ("clean", "edited", "n")], axis=-1)
    trace.x, trace.y = (list(range(len(axis.values))) for axis in (right, down))
    where = [f"{down.name} %{{y}}", f"{right.name} %{{x}}"]
    if not (_plain(down) and _plain(right)):
        trace.text = [
            [f"{down.name} {row}<br>{right.name} {column}" for column in right.labels]
            for row in down.labels
        ]
        where = ["%{text}"]
    trace.hovertemplate = "<br>".join(
        [
            *where,
            f"clean %{{customdata[0]:{style.digits(part.unit)}}}",
            f"edited %{{customdata[1]:{style.digits(part.unit)}}}",
            f"effect %{{z:+{style.digits(part.unit)}}}",
            *(["n %{customdata[2]}"] if part.n_prompts > 1 else []),
        ]
    )
    trace.hovertemplate += "<extra></extra>"
    if part.unit == style.WHOLE:
        ticks = [tick for tick in style.whole_numbers([trace.zmin, trace.zmax])
                 if trace.zmin <= tick <= trace.zmax]  # fmt: skip
        trace.colorbar.update(style.ticks_at(ticks))
    made.add_trace(trace)
    rows, columns = np.nonzero(is_noise(mean["effect"]))
    mark(made, columns, rows, mean["effect"], 5 if max(mean["effect"].shape) <= 64 else 2)
    if EXACT in mean:
        rows, columns = np.nonzero(mean[EXACT].values > 0)
        rings(made, columns, rows, part.n_prompts > 1)
    return made


def rings(made: go.Figure, x: ArrayLike, y: ArrayLike, several: bool, size: int = 11) -> None:
    """Rings at cells of an approximate map that were computed exactly, of so many pixels."""
    made.add_scatter(
        x=x,
        y=y,
        mode="markers",
        name="exact in some of the prompts" if several else "exact",
        marker={"color": style.QUIET, "size": size, "symbol": "circle-open"},
        hoverinfo="skip",
        showlegend=True,
    )
    made.update_layout(showlegend=True)


def _plain(axis: Axis) -> bool:
    """Whether an axis' own numbers say it all, so that no text per cell is needed."""
    return axis.counted and not axis.slanted
