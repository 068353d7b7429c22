"""Figures: Effects → plotly, one kind per file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from microtome.errors import EffectsError
from microtome.figures import style
from microtome.figures.curve import curve
from microtome.figures.heatmap import heatmap
from microtome.figures.histogram import histogram
from microtome.figures.look import Look
from microtome.figures.mapped import Mapped
from microtome.figures.matrix import matrix
from microtome.figures.pictures import Drawn, refuse_file, write
from microtome.figures.png import png_of, write_png
from microtome.figures.points import points
from microtome.figures.scatter import scatter
from microtome.figures.series import series
from microtome.figures.view import squeezed, view
from microtome.paths import at_home


def effect_map(effects: Mapped, metric: str, **at: Any) -> go.Figure:
    """The map of the effects on a metric: a heatmap over two dimensions, a curve over one.

    Args:
        effects: the result of a sweep.
        metric: one that was measured and has a difference.
        **at: a coordinate for each dimension that is not to be drawn, such as ``pos=-1``.
            Several prompts are averaged, unless ``prompt=`` picks one.

    Raises:
        EffectsError: there is no such metric or coordinate, or not one or two dimensions are
            left.
    """
    part = squeezed(view(effects, metric, at), 2)
    if not part.dims:
        raise EffectsError(
            "A map needs a dimension, and none is left: star more of the address, pick fewer "
            f"coordinates, or read the number itself with effects.delta({metric!r})."
        )
    if len(part.dims) == 1:
        return curve(effects, metric, **at)
    part.expect(2, "figure")
    return heatmap(effects, metric, **at)


PLOTLY = "plotly.min.js"
"""The file beside a figure's page that draws it."""


def page_of(figure: go.Figure) -> str:
    """A figure as an HTML page, which needs `PLOTLY` beside it and no network."""
    page: str = figure.to_html(include_plotlyjs="directory", config=dict(style.CONFIG))
    return page


def plotly_js() -> bytes:
    """What the file `PLOTLY` holds."""
    return str(get_plotlyjs()).encode()


def save(figure: go.Figure, folder: str | Path, name: str) -> tuple[Path, Path]:
    """Write ``name.html`` and ``name.png`` to a folder.

    The page needs no network: ``plotly.min.js`` is put beside it, once per folder.

    Returns:
        The two paths.
    """
    folder = at_home(folder)
    folder.mkdir(parents=True, exist_ok=True)
    page, picture = folder / f"{name}.html", folder / f"{name}.png"
    page.write_text(page_of(figure), encoding="utf-8")
    (folder / PLOTLY).write_bytes(plotly_js())
    write_png(figure, picture)
    return page, picture


__all__ = [
    "PLOTLY",
    "Drawn",
    "Look",
    "curve",
    "effect_map",
    "heatmap",
    "histogram",
    "matrix",
    "page_of",
    "plotly_js",
    "png_of",
    "points",
    "refuse_file",
    "save",
    "scatter",
    "series",
    "write",
    "write_png",
]
