"""Plotly figures as PNG, SVG and PDF, without a browser.

Plotly itself needs one to write pictures. The few kinds of traces that microtome's figures are
made of are drawn with matplotlib here, in the same colours; its global state is not touched.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from microtome.errors import EffectsError, listing
from microtome.figures import style
from microtome.paths import at_home

DPI = 100
SHARPNESS = 2
"""Pixels of the picture per pixel of the figure."""

MOST_SHAPES = 20_000
"""Squares of a map that are shapes of their own in SVG and PDF; of more, the map is a picture."""

POINT = 0.72
"""Points per pixel at this DPI: matplotlib measures lines and letters in points."""

DASHES = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-."}

Trace = Any
Color = str | tuple[float, float, float, float]


def write_png(figure: go.Figure, path: str | Path) -> Path:
    """Draw a figure of microtome's as a PNG.

    Args:
        figure: made of heatmaps, scatters (lines, markers, error bars, bands) and bars.
        path: where to write.

    Returns:
        The path.

    Raises:
        EffectsError: the figure has a trace of another kind, or the file cannot be written.
    """
    path, data = at_home(path), png_of(figure)
    try:
        path.write_bytes(data)
    except (OSError, ValueError) as error:  # the latter of names that no file can have
        raise EffectsError(f"Cannot write {str(path)[:80]!r}: {error}.") from error
    return path


def png_of(figure: go.Figure) -> bytes:
    """The PNG of a figure of microtome's; see `write_png`."""
    return picture_of(figure, "png")


def picture_of(figure: go.Figure, kind: str) -> bytes:
    """A figure of microtome's as the bytes of a ``"png"``, ``"svg"`` or ``"pdf"``.

    The same figure gives the same picture but for what SVG calls its parts; no date is in it.

    Raises:
        EffectsError: the figure has a trace of another kind than `write_png` draws.
    """
    layout = figure.layout
    size = ((layout.width or style.WIDTH) / DPI, (layout.height or 450) / DPI)
    canvas = Figure(figsize=size, dpi=DPI * SHARPNESS, layout="constrained", facecolor="white")
    canvas.set_layout_engine("constrained", w_pad=0.12, h_pad=0.1)
    axes = canvas.add_subplot()
    _frame(axes, layout)
    for number, trace in enumerate(figure.data):
        draw = TRACES.get(trace.type)
        if draw is None:
            raise EffectsError(
                f"A {trace.type!r} trace cannot be drawn as a picture; those that can: "
                f"{listing(TRACES)}. Write the figure as HTML, or install kaleido and use "
                "figure.write_image."
            )
        draw(axes, trace, figure.data[number - 1] if number else None)
    _marks(axes, layout)
    _axis(axes, layout.xaxis, "x")
    _axis(axes, layout.yaxis, "y")
    _titles(canvas, axes, layout)
    with warnings.catch_warnings():
        # A token in a script that matplotlib's font lacks becomes a box, which is legible enough.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        FigureCanvasAgg(canvas)
        drawn = io.BytesIO()
        dated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
        canvas.savefig(drawn, format=kind, dpi="figure", metadata=dated.get(kind))
    return drawn.getvalue()


# ----------------------------------------------------------------------------------- the traces


def _heatmap(axes: Axes, trace: Trace, previous: Trace | None) -> None:
    z = np.ma.masked_invalid(np.asarray(trace.z, dtype=np.float64))
    edges = [
        np.arange(n + 1) - 0.5 if given is None else _edges(np.asarray(given, dtype=np.float64))
        for given, n in ((trace.x, z.shape[1]), (trace.y, z.shape[0]))
    ]
    mesh = axes.pcolormesh(
        *edges,
        z,
        cmap=_colormap(trace.colorscale),
        vmin=trace.zmin,
        vmax=trace.zmax,
        edgecolors=style.ABSENT if trace.xgap else "none",
        linewidth=0.4 if trace.xgap else 0,
        rasterized=z.size > MOST_SHAPES,
    )
    if trace.texttemplate:
        _words(axes, trace, mesh)
    _colorbar(axes, mesh, trace.colorbar)


def _words(axes: Axes, trace: Trace, mesh: Any) -> None:
    """The text of each cell, dark on light and light on dark."""
    size = (trace.textfont.size or 11) * POINT
    for row, words in enumerate(trace.text):
        for column, word in enumerate(words):
            red, green, blue, _ = mesh.cmap(mesh.norm(float(trace.z[row][column])))
            light = 0.299 * red + 0.587 * green + 0.114 * blue > 0.5
            axes.text(
                column, row, _text(word), ha="center", va="center", fontsize=size,
                color=style.LIGHT.layout.font.color if light else "#ffffff",
            )  # fmt: skip


def _scatter(axes: Axes, trace: Trace, previous: Trace | None) -> None:
    x, y = np.asarray(trace.x), np.asarray(trace.y, dtype=np.float64)
    mode = trace.mode or "lines"
    if trace.fill == "tonexty" and previous is not None:
        below = np.asarray(previous.y, dtype=np.float64)
        axes.fill_between(
            x, below, y, color=_color(trace.fillcolor), linewidth=0, label=_label(trace)
        )
        return
    line, marker = trace.line, trace.marker
    if trace.error_y.array is not None:
        bars = np.stack([trace.error_y.arrayminus, trace.error_y.array])
        color = _color(trace.error_y.color)
        axes.errorbar(x, y, bars, fmt="none", ecolor=color, elinewidth=1, capsize=2)
    if "markers" in mode and not isinstance(marker.color, str):
        dots = axes.scatter(
            x, y, c=np.asarray(marker.color), cmap=_colormap(marker.colorscale),
            s=(marker.size * POINT) ** 2, alpha=marker.opacity, linewidths=0, zorder=3,
        )  # fmt: skip
        if marker.colorbar.thickness:
            _colorbar(axes, dots, marker.colorbar)
        return
    lined = "lines" in mode and line.width != 0
    axes.plot(
        x, y,
        linestyle=DASHES[line.dash or "solid"] if lined else "none",
        linewidth=(2 if line.width is None else line.width) * POINT,
        color=_color((line.color or style.COLORS[0]) if lined else marker.color),
        marker="o" if "markers" in mode else "",
        markersize=(marker.size or 6) * POINT,
        markeredgewidth=POINT if marker.symbol == "circle-open" else 0,
        markerfacecolor="none" if marker.symbol == "circle-open" else None,
        alpha=marker.opacity if "markers" in mode else None,
        label=_label(trace),
    )  # fmt: skip


def _bar(axes: Axes, trace: Trace, previous: Trace | None) -> None:
    axes.bar(
        np.asarray(trace.x), np.asarray(trace.y), width=trace.width or 0.8,
        color=_color(trace.marker.color), alpha=trace.opacity, label=_label(trace), linewidth=0,
    )  # fmt: skip


TRACES: Mapping[str, Callable[[Axes, Trace, Trace | None], None]] = MappingProxyType(
    {"heatmap": _heatmap, "scatter": _scatter, "scattergl": _scatter, "bar": _bar}
)
"""Kind of a plotly trace → what draws it, given the trace before it."""


# -------------------------------------------------------------------------------- what is around


def _frame(axes: Axes, layout: Any) -> None:
    grid = style.LIGHT.layout.xaxis.gridcolor
    axes.set_facecolor(_color(layout.plot_bgcolor) if layout.plot_bgcolor else "none")
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(grid)
    axes.set_axisbelow(True)
    for own, axis in ((axes.xaxis, layout.xaxis), (axes.yaxis, layout.yaxis)):
        if axis.showgrid is not False:
            own.grid(color=grid, linewidth=0.7)


def _axis(axes: Axes, axis: Any, which: str) -> None:
    ink = style.LIGHT.layout.font.color
    own = axes.xaxis if which == "x" else axes.yaxis
    if axis.type == "log":
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        own.set_major_locator(LogLocator())
        own.set_minor_locator(NullLocator())
        own.set_major_formatter(lambda value, _: f"{value:g}")
    if axis.tickvals is not None:
        own.set_ticks(list(axis.tickvals), [_text(label) for label in axis.ticktext])
        own.set_minor_locator(NullLocator())
    if axis.range is not None:
        low, high = axis.range if axis.type != "log" else (10**end for end in axis.range)
        (axes.set_xlim if which == "x" else axes.set_ylim)(low, high)
    if axis.autorange == "reversed":
        own.set_inverted(True)
    own.set_label_text(_text(axis.title.text), color=ink, fontsize=10)
    own.set_tick_params(labelsize=9, labelcolor=ink, color=style.LIGHT.layout.xaxis.tickcolor)
    if axis.tickangle:
        for label in own.get_ticklabels():
            label.set(rotation=-axis.tickangle, ha="right", rotation_mode="anchor")


def _marks(axes: Axes, layout: Any) -> None:
    """Lines across the whole width or height, and notes at them."""
    for shape in layout.shapes:
        look: dict[str, Any] = {
            "color": _color(shape.line.color or style.QUIET),
            "linewidth": (shape.line.width or 1) * POINT,
            "linestyle": DASHES[shape.line.dash or "solid"],
        }
        if shape.type == "line" and shape.y0 == shape.y1:
            axes.axhline(shape.y0, **look)
        elif shape.type == "line" and shape.x0 == shape.x1:
            axes.axvline(shape.x0, **look)
        else:
            raise EffectsError(
                f"A {shape.type!r} shape cannot be drawn as a picture; only lines can."
            )
    for note in layout.annotations:
        places = ["axes fraction" if "domain" in str(r) else "data" for r in (note.xref, note.yref)]
        # On a logarithmic axis plotly gives the height of a note, but of no line, as its logarithm.
        log = layout.yaxis.type == "log" and places[1] == "data"
        at = (note.x, 10**note.y if log else note.y)
        axes.annotate(
            _text(note.text), at, xycoords=(places[0], places[1]),
            ha=note.xanchor or "center", va=(note.yanchor or "middle").replace("middle", "center"),
            fontsize=8,
            color=_color(note.font.color or style.QUIET),
            xytext=((note.xshift or 0) * POINT, 0), textcoords="offset points",
        )  # fmt: skip


def _titles(canvas: Figure, axes: Axes, layout: Any) -> None:
    ink = style.LIGHT.layout.font.color
    if layout.title.text:
        canvas.suptitle(_text(layout.title.text), x=0.012, ha="left", fontsize=12, color=ink)
    if layout.title.subtitle.text:
        note = _text(layout.title.subtitle.text)
        axes.set_title(note, loc="left", fontsize=9, color=style.QUIET)
    handles, names = axes.get_legend_handles_labels()
    if layout.showlegend and names:
        canvas.legend(
            handles, names, loc="outside lower left", ncols=4, frameon=False, fontsize=9,
            labelcolor=ink,
        )  # fmt: skip


def _colorbar(axes: Axes, colored: Any, described: Any) -> None:
    canvas = axes.get_figure()
    assert canvas is not None, "the axes belong to the picture"
    bar = canvas.colorbar(colored, ax=axes, fraction=0.04, pad=0.015, aspect=32)
    bar.outline.set_visible(False)
    if described.tickvals is not None:
        bar.set_ticks(list(described.tickvals), labels=list(described.ticktext))
    bar.ax.tick_params(labelsize=8, length=2)
    bar.set_label(_text(described.title.text), fontsize=9)


def _label(trace: Trace) -> str:
    """Its name in the legend; matplotlib leaves out those with a leading underscore."""
    return "_hidden" if trace.showlegend is False or trace.name is None else _text(trace.name)


def _text(given: str | None) -> str:
    """Plotly's text, which is HTML, as matplotlib's, where a dollar sign would begin a formula."""
    plain = re.sub(r"<br\s*/?>", "\n", given or "")
    return html.unescape(re.sub(r"</?\w[^<>]*>", "", plain)).replace("$", r"\$")


def _color(given: str | None) -> Color:
    found = re.fullmatch(r"rgba\(([\d.]+),\s*([\d.]+),\s*([\d.]+),\s*([\d.]+)\)", given or "")
    if found is None:
        return given or style.QUIET
    red, green, blue, alpha = map(float, found.groups())
    return red / 255, green / 255, blue / 255, alpha


def _colormap(colorscale: Any) -> LinearSegmentedColormap:
    return LinearSegmentedColormap.from_list("microtome", [(at, color) for at, color in colorscale])


def _edges(centers: np.ndarray) -> np.ndarray:
    """The borders of cells whose centers are given."""
    if len(centers) == 1:
        return np.array([centers[0] - 0.5, centers[0] + 0.5])
    middle = (centers[1:] + centers[:-1]) / 2
    return np.concatenate([[2 * centers[0] - middle[0]], middle, [2 * centers[-1] - middle[-1]]])
