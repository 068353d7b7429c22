"""Colours and the look that all figures share. Applied to each figure; plotly is left as it is.

A figure is made light; a dark page swaps the template and the colour scales (see `SCALES`).
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

Layout = Mapping[str, object]
"""Part of a layout, as plotly takes it."""
NOTHING: Layout = MappingProxyType({})

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
WIDTH = 900
"""Pixels of a figure that is given no width."""
TITLE_WIDTH = 72
"""Letters of a title in one line of a figure of that width."""
TITLE_TOP = 14
"""Pixels above a title."""
MOST_LINES = 4
"""Lines of a title."""
COLORS = ("#3b6fb6", "#d1495b", "#2a9d78", "#e08e28", "#8a63b8", "#3f9fb0", "#b8577f", "#7d7d7d")
"""Of named series, in order; legible on light and dark."""

ABSENT = "#a9adb3"
"""Of cells that do not exist."""
NOISE = "#8b9097"
"""Dots at effects that may be rounding."""

QUIET = "#8b9097"
"""Of reference lines: zero, clean, identity."""

CONFIG: Mapping[str, object] = MappingProxyType(
    {
        "displaylogo": False,
        "responsive": True,
        # Uploads the data to plotly's service; pages of ours reach no network.
        "modeBarButtonsToRemove": ["sendChartToCloud"],
    }
)
"""How a figure behaves in a page."""

SCALES: Mapping[str, Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        # ColorBrewer's RdBu, blue first so that red is positive.
        "diverging": {
            "light": ("#053061", "#2166ac", "#4393c3", "#92c5de", "#d1e5f0", "#f7f7f7",
                      "#fddbc7", "#f4a582", "#d6604d", "#b2182b", "#67001f"),
            "dark": ("#9ccbe8", "#5fa8d8", "#3c82bd", "#2b5c8a", "#233b54", "#1d2126",
                     "#54292b", "#8b3434", "#c24a44", "#e57b68", "#fbb4a0"),
        },
        "sequential": {
            "light": ("#f7fbff", "#deebf7", "#c6dbef", "#9ecae1", "#6baed6", "#4292c6",
                      "#2171b5", "#08519c", "#08306b"),
            "dark": ("#1d2126", "#20344a", "#244a6e", "#2b6193", "#3c7fb8", "#5f9fd0",
                     "#8abfe3", "#b5d9f0", "#e0f0fb"),
        },
        "layers": {
            "light": ("#414487", "#2a788e", "#22a884", "#7ad151"),
            "dark": ("#7a7fd6", "#3aa0b8", "#2fc79b", "#a5e36b"),
        },
    }
)  # fmt: skip
"""Kind of a colour scale → its colours, evenly spaced, on light and on dark. A trace that uses
one carries the kind in its ``meta``."""


def scale(kind: str) -> list[list[float | str]]:
    """A colour scale as plotly takes it, on light.

    >>> scale("layers")[0]
    [0.0, '#414487']
    """
    colors = SCALES[kind]["light"]
    return [[n / (len(colors) - 1), color] for n, color in enumerate(colors)]


def colorbar(title: str) -> dict[str, object]:
    """The bar beside a figure that says what its colours mean."""
    return {
        "title": {"text": title, "side": "right"},
        "thickness": 14,
        "outlinewidth": 0,
        "exponentformat": "power",
    }


WHOLE = "rank"
"""The unit of what is counted: its ticks are whole numbers, and large ones are written in full."""


def digits(unit: str) -> str:
    """How plotly writes a value of a unit where a reader hovers.

    >>> digits("probability"), digits("rank")
    ('.4g', ',.6~r')
    """
    return ",.6~r" if unit == WHOLE else ".4g"


def whole_ticks(values: ArrayLike, most: int = 8) -> dict[str, object]:
    """Ticks at whole numbers alone, a few of them over the range of some values.

    >>> whole_ticks([1.0, 1.4])["tickvals"], whole_ticks([0, 11880])["ticktext"]
    ([1, 2], ['0', '2,000', '4,000', '6,000', '8,000', '10,000', '12,000'])
    """
    return ticks_at(whole_numbers(values, most))


def ticks_at(numbers: Sequence[int]) -> dict[str, object]:
    """Ticks at some whole numbers, as plotly's axes and bars of colours take them."""
    return {
        "tickmode": "array",
        "tickvals": list(numbers),
        "ticktext": [f"{number:,}" for number in numbers],
    }


def whole_numbers(values: ArrayLike, most: int = 8) -> list[int]:
    """Whole numbers, evenly spaced, from below the least of some values to above the largest."""
    given = np.asarray(values, dtype=np.float64)
    finite = given[np.isfinite(given)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    steps = (n * 10**decade for decade in range(16) for n in (1, 2, 5))
    step = next(each for each in steps if (high - low) / each <= most - 1)
    return list(range(math.floor(low / step) * step, math.ceil(high / step) * step + 1, step))


def _template(ink: str, grid: str, page: str) -> go.layout.Template:
    axis = {
        "gridcolor": grid,
        "linecolor": grid,
        "zeroline": False,
        "ticks": "outside",
        "tickcolor": grid,
        "ticklen": 4,
        "automargin": True,
        "exponentformat": "power",
        "title": {"standoff": 10},
    }
    return go.layout.Template(
        layout={
            "font": {"family": FONT, "size": 13, "color": ink},
            "title": {
                "font": {"size": 16},
                "subtitle": {"font": {"size": 12, "color": QUIET}},
                "x": 0,
                "xref": "paper",
                "xanchor": "left",
                # In pixels: as a share, a tall figure's title comes down to its legend.
                "y": 1,
                "yref": "container",
                "yanchor": "top",
                "pad": {"t": TITLE_TOP},
            },
            "colorway": list(COLORS),
            "paper_bgcolor": page,
            "plot_bgcolor": "rgba(0,0,0,0)",
            "xaxis": axis,
            "yaxis": axis,
            "margin": {"l": 64, "r": 24, "t": 92, "b": 60},
            "legend": {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"},
            "hoverlabel": {"font": {"family": FONT}, "align": "left"},
        }
    )


LIGHT = _template(ink="#24292f", grid="#e3e5e8", page="#ffffff")
DARK = _template(ink="#d7dbe0", grid="#343a42", page="#16191d")


def figure(
    title: str,
    note: str,
    x_title: str,
    y_title: str,
    *,
    height: int = 440,
    legend: bool = False,
    x_axis: Layout = NOTHING,
    y_axis: Layout = NOTHING,
) -> go.Figure:
    """An empty figure with titles; ``note`` is a quiet line under the title."""
    # All at once: plotly takes five times as long to change what is there.
    return go.Figure(
        layout={
            "template": LIGHT,
            **_titled(title, WIDTH, {"subtitle": {"text": note}}),
            "height": height,
            "showlegend": legend,
            "xaxis": {"title": {"text": x_title}, **x_axis},
            "yaxis": {"title": {"text": y_title}, **y_axis},
        }
    )


def entitle(made: go.Figure, title: str, width: float | None = None) -> None:
    """Give a figure its title, in as many lines as its width asks for, `MOST_LINES` at most.

    Args:
        made: the figure.
        title: escaped already.
        width: of the figure in pixels; `WIDTH` unless given.
    """
    made.update_layout(_titled(title, width or WIDTH))


def _titled(title: str, width: float, more: Layout = NOTHING) -> Layout:
    """A title in as many lines as it needs, and the room above that it takes."""
    letters = max(16, round(TITLE_WIDTH * width / WIDTH))
    lines = textwrap.wrap(title, letters, max_lines=MOST_LINES, placeholder=" …") or [""]
    return {
        "title": {"text": "<br>".join(lines), **more},
        "margin": {"t": LIGHT.layout.margin.t + 20 * (len(lines) - 1)},
    }
