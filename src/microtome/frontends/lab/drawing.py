"""The map as it is shown: which two dimensions are drawn, and what a click on it means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import microtome as mt
from microtome.frontends.importing import imported
from microtome.language.calls import called
from microtome.texts import number

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from microtome import Effects

PROMPT = "prompt"
CHOSEN = "#111418"
"""Frames around chosen cells: neither of the scale's two colours."""
ROW = 24
"""Pixels of a row of the map."""
STRONGEST = 12
"""Cells that are listed beside the map."""


@dataclass(frozen=True)
class Strong:
    """One of the strongest cells.

    Attributes:
        edit: what is done there, without stars.
        where: its address.
        effect: its effect, as it is written.
        above_noise: whether that is larger than the noise floor.
    """

    edit: str
    where: str
    effect: str
    above_noise: bool


@dataclass(frozen=True)
class Drawing:
    """A map, drawn.

    Attributes:
        figure: the figure; None where there is no dimension to draw over.
        dims: what runs down and to the right; one of a curve.
        picked: the other dimensions, with where the map is cut.
        sizes: how many coordinates each of these has.
        strongest: the cells with the largest effects.
        clean: the metric without edits, as it is written.
        alone: the effect, where the map is a single cell.
        noise: the noise floor, as it is written; "" where it was not measured.
    """

    figure: go.Figure | None
    dims: tuple[str, ...]
    picked: Mapping[str, int]
    sizes: Mapping[str, int]
    strongest: tuple[Strong, ...]
    clean: str
    alone: str = ""
    noise: str = ""


def drawn(
    effects: Effects, metric: str, edit: str, at: Mapping[str, int], chosen: Sequence[str]
) -> Drawing:
    """A map over its two first dimensions, cut through its strongest cell along the others.

    Args:
        effects: the result, or as much of it as there is.
        metric: what is drawn.
        edit: what was done, stars and all.
        at: where else it is to be cut.
        chosen: edits without stars whose cells are framed.
    """
    delta = effects.delta(metric)
    sizes = {str(name): size for name, size in delta.sizes.items() if name != PROMPT}
    picked = _picked(effects, metric, sizes, at)
    dims = tuple(name for name, size in sizes.items() if name not in picked and size > 1)
    dims = dims or tuple(sizes)[:1]
    floor = effects.noise_floor(metric)
    alone = number(float(delta.values.ravel()[0])) if not sizes else ""
    figure = None if not sizes else _figure(effects, metric, dims, picked)
    if figure is not None:
        _frame(figure, _places(effects, metric, dims, picked, edit, chosen))
    return Drawing(
        figure=figure,
        dims=dims,
        picked=picked,
        sizes={name: sizes[name] for name in picked},
        strongest=_strongest(effects, metric, edit),
        clean=number(float(effects.clean(metric).values[0])),
        alone=alone,
        noise="" if floor is None else f"{floor:.2g}",
    )


def cell_at(
    effects: Effects, metric: str, edit: str, drawing: Drawing, x: int, y: int
) -> str | None:
    """The edit of the cell that is drawn at some place; None where there is none."""
    delta = effects.delta(metric)
    at = dict(drawing.picked)
    for name, index in zip(drawing.dims, (y, x) if len(drawing.dims) > 1 else (x,), strict=True):
        if not 0 <= index < delta.sizes[name]:
            return None
        at[name] = int(delta[name].values[index])
    return edit_at(edit, {**_alone(delta), **at})


def edit_at(edit: str, at: Mapping[str, int]) -> str:
    """An edit with numbers in the place of its stars.

    >>> edit_at("zero L*.z.h*@-1", {"layer": 3, "head": 1})
    'zero L3.z.h1@-1'
    """
    return str(mt.edit(edit).at(**at))


def _picked(
    effects: Effects, metric: str, sizes: Mapping[str, int], at: Mapping[str, int]
) -> dict[str, int]:
    """Where a map of more than two dimensions is cut: as is asked for, or at its strongest."""
    long = [name for name, size in sizes.items() if size > 1]
    if len(long) <= 2:
        return {}
    strongest = imported("microtome.figures.view").cut(effects, metric)
    drawn_anyway = [name for name in long if name not in at][:2] or long[:2]
    others = [name for name in long if name not in drawn_anyway]
    found = {name: int(strongest.get(name, 0)) for name in others}
    wanted = {name: n for name, n in at.items() if name in found and 0 <= n < sizes[name]}
    return found | wanted


def _figure(
    effects: Effects, metric: str, dims: Sequence[str], picked: Mapping[str, int]
) -> go.Figure:
    at: dict[str, Any] = dict(picked)
    figure = effects.figure(metric, title="", **at)
    rows = effects.data.sizes[dims[0]] if len(dims) > 1 else 0
    figure.update_layout(
        height=max(420, 110 + ROW * rows),
        width=None,
        autosize=True,
        margin={"l": 52, "r": 8, "t": 26, "b": 48},
        clickmode="event",
        dragmode=False,
        title_subtitle_text="",
        hoverlabel={"bgcolor": "#fff", "bordercolor": "#c9ced4", "font_color": "#1f2328"},
    )
    return figure


def _places(
    effects: Effects,
    metric: str,
    dims: Sequence[str],
    picked: Mapping[str, int],
    edit: str,
    chosen: Sequence[str],
) -> list[tuple[int, int]]:
    """Column and row of each chosen cell that is seen."""
    delta = effects.delta(metric)
    if not chosen or len(dims) != 2:
        return []
    rows, columns = (delta[name].values.tolist() for name in dims)
    known = {
        edit_at(edit, {**_alone(delta), **picked, dims[0]: int(row), dims[1]: int(column)}): (x, y)
        for y, row in enumerate(rows)
        for x, column in enumerate(columns)
    }
    return [known[one] for one in chosen if one in known]


def _frame(figure: go.Figure, places: Sequence[tuple[int, int]]) -> None:
    for x, y in places:
        figure.add_shape(
            type="rect",
            x0=x - 0.5,
            x1=x + 0.5,
            y0=y - 0.5,
            y1=y + 0.5,
            line={"color": CHOSEN, "width": 2.5},
        )


def _strongest(effects: Effects, metric: str, edit: str) -> tuple[Strong, ...]:
    """The strongest cells, each with its edit."""
    table = effects.top(STRONGEST, metric)
    dims = [name for name in effects.dims if name != PROMPT]
    found = []
    for row in table.to_dict("records"):
        at = {name: int(row[name]) for name in dims}
        cell = edit_at(edit, at)
        effect = number(float(row["effect"])).replace("-", "−")
        found.append(Strong(cell, called(cell).address, effect, bool(row["above_noise"])))
    return tuple(found)


def _alone(delta: Any) -> dict[str, int]:
    """Stars with a single coordinate."""
    names = [str(name) for name in delta.dims if name != PROMPT and delta.sizes[name] == 1]
    return {name: int(delta[name].values[0]) for name in names}
