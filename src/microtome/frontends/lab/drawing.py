"""The map as it is shown: which two dimensions are drawn, and what a click on it means."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import microtome as mt
from microtome.frontends.importing import imported
from microtome.frontends.lab.speaking import spoken
from microtome.language.calls import called
from microtome.texts import Texts, number

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from microtome import Effects

PROMPT = "prompt"
ROWS, COLUMNS = "rows", "columns"
MARKS: Mapping[str, int] = {ROWS: 10**15, COLUMNS: 10**15 + 1}
"""Numbers in the place of those that a row and a column put into an edit."""
CHOSEN = "#111418"
"""Frames around chosen cells: neither of the scale's two colours."""
ROW = 24
"""Pixels of a row of the map."""
STRONGEST = 12
"""Cells that are listed beside the map."""


@dataclass(frozen=True)
class Cut:
    """Which part of a map is drawn.

    Attributes:
        dims: what runs down and to the right; one of a curve, none of a single cell.
        picked: the other dimensions, with where the map is cut.
        sizes: how many coordinates each dimension has.
    """

    dims: tuple[str, ...]
    picked: Mapping[str, int]
    sizes: Mapping[str, int]


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
class Grid:
    """The cells that are drawn, for the page itself: it asks nobody which of them is clicked.

    Attributes:
        parts: the text of a cell's edit, cut where its numbers stand.
        axes: what each of these numbers is of, ``"rows"`` or ``"columns"``.
        rows: their coordinates, from the top; none of a curve.
        columns: theirs, from the left.
        shapes: those of the figure, as plotly takes them: no cell is framed there.
        frame: around the cell in the first row and the first column.
    """

    parts: tuple[str, ...]
    axes: tuple[str, ...]
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    shapes: tuple[dict[str, Any], ...]
    frame: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Its fields as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Drawing:
    """A map, drawn.

    Attributes:
        figure: the figure; None where there is no dimension to draw over.
        cut: which part of the map it shows.
        strongest: the cells with the largest effects.
        clean: the metric without edits, as it is written.
        alone: the effect, where the map is a single cell.
        noise: the noise floor, as it is written; "" where it was not measured.
        grid: its cells; None where there is no figure.
    """

    figure: go.Figure | None
    cut: Cut
    strongest: tuple[Strong, ...]
    clean: str
    alone: str = ""
    noise: str = ""
    grid: Grid | None = None


def drawn(effects: Effects, metric: str, edit: str, at: Mapping[str, int]) -> Drawing:
    """A map over its two first dimensions, cut through its strongest cell along the others.

    Args:
        effects: the result, or as much of it as there is.
        metric: what is drawn.
        edit: what was done, stars and all.
        at: where else it is to be cut.
    """
    return _drawn(effects, metric, edit, tuple(at.items()))


@lru_cache(maxsize=32)
def _drawn(effects: Effects, metric: str, edit: str, at: tuple[tuple[str, int], ...]) -> Drawing:
    cut = cut_of(effects, metric, dict(at))
    floor = effects.noise_floor(metric)
    figure = _figure(effects, metric, cut) if cut.dims else None
    return Drawing(
        figure=figure,
        cut=cut,
        strongest=_strongest(effects, metric, edit),
        clean=number(float(effects.clean(metric).values[0])),
        alone="" if cut.dims else number(float(effects.delta(metric).values.ravel()[0])),
        noise="" if floor is None else f"{floor:.2g}",
        grid=None if figure is None else _grid(effects, metric, edit, cut, figure),
    )


def in_words(drawing: Drawing, words: Texts) -> go.Figure | None:
    """Its figure in the page's language."""
    if drawing.figure is None or words.lang == "en":
        return drawing.figure
    return spoken(drawing.figure, words)


def cut_of(effects: Effects, metric: str, at: Mapping[str, int]) -> Cut:
    """Which two dimensions of a map are drawn, and where it is cut along the others.

    Args:
        effects: the result, or as much of it as there is.
        metric: what is drawn.
        at: where it is to be cut; elsewhere, through its strongest cell.
    """
    delta = effects.delta(metric)
    sizes = {str(name): size for name, size in delta.sizes.items() if name != PROMPT}
    picked = _picked(effects, metric, sizes, at)
    dims = tuple(name for name, size in sizes.items() if name not in picked and size > 1)
    return Cut(dims or tuple(sizes)[:1], picked, sizes)


def edit_at(edit: str, at: Mapping[str, int]) -> str:
    """An edit with numbers in the place of its stars.

    >>> edit_at("zero L*.z.h*@-1", {"layer": 3, "head": 1})
    'zero L3.z.h1@-1'
    """
    return _edit_at(edit, tuple(at.items()))


@lru_cache(maxsize=20_000)
def _edit_at(edit: str, at: tuple[tuple[str, int], ...]) -> str:
    return str(mt.edit(edit).at(**dict(at)))


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


def _figure(effects: Effects, metric: str, cut: Cut) -> go.Figure:
    at: dict[str, Any] = dict(cut.picked)
    figure = effects.figure(metric, title="", **at)
    rows = cut.sizes[cut.dims[0]] if len(cut.dims) > 1 else 0
    figure.update_layout(
        height=max(420, 110 + ROW * rows),
        width=None,
        autosize=True,
        margin={"l": 52, "r": 8, "t": 26, "b": 48},
        clickmode="none",  # the page reads clicks off by itself
        dragmode=False,
        xaxis_fixedrange=True,  # with shift a press is a choice too, and no drag
        yaxis_fixedrange=True,
        title_subtitle_text="",
        hoverlabel={"bgcolor": "#fff", "bordercolor": "#c9ced4", "font_color": "#1f2328"},
    )
    return figure


def _grid(effects: Effects, metric: str, edit: str, cut: Cut, figure: go.Figure) -> Grid:
    """The cells that are drawn, by the text of one that has marks in the place of its numbers."""
    delta = effects.delta(metric)
    dims = dict(zip((ROWS, COLUMNS)[-len(cut.dims) :], cut.dims, strict=True))
    marks = {name: MARKS[axis] for axis, name in dims.items()}
    text = edit_at(edit, {**_alone(delta), **cut.picked, **marks})
    pieces = re.split(f"({MARKS[ROWS]}|{MARKS[COLUMNS]})", text)
    along = {axis: tuple(map(int, delta[name].values)) for axis, name in dims.items()}
    axis_of = {str(mark): axis for axis, mark in MARKS.items()}
    return Grid(
        parts=tuple(pieces[::2]),
        axes=tuple(axis_of[mark] for mark in pieces[1::2]),
        rows=along.get(ROWS, ()),
        columns=along[COLUMNS],
        shapes=tuple(one.to_plotly_json() for one in figure.layout.shapes),
        frame=_frame(ROWS in along),
    )


def _frame(has_rows: bool) -> dict[str, Any]:
    """A frame around the first cell of a map; at a point of a curve, from top to bottom."""
    down = {"y0": -0.5, "y1": 0.5} if has_rows else {"y0": 0, "y1": 1, "yref": "y domain"}
    line = {"color": CHOSEN, "width": 2.5 if has_rows else 1}
    return {"type": "rect", "x0": -0.5, "x1": 0.5, "line": line, **down}


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
