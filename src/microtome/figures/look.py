"""How a figure looks, apart from what it shows: title, labels, size and colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import plotly.graph_objects as go
from matplotlib.colors import to_hex
from plotly import colors as scales
from plotly.exceptions import PlotlyError

from microtome.amounts import is_finite, single
from microtome.errors import EffectsError, did_you_mean
from microtome.figures import style
from microtome.figures.labels import escaped
from microtome.figures.translate import translated

LEAST, MOST = 100, 10_000
"""Pixels of a side."""


@dataclass(frozen=True)
class Look:
    """How a figure looks.

    Attributes:
        title: in the place of one that names the edits and the metric; "" for none.
        labels: what dimensions and the effect are called: ``{"head": "attention head"}``.
        size: width and height in pixels, 1/100 inch in SVG and PDF.
        colors: a colour scale of plotly's by its name, or colours from low to high.
        limit: the effect, up and down, at the ends of the colours or of a curve's axis.
    """

    title: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    size: tuple[float, float] | None = None
    colors: str | Sequence[str] | None = None
    limit: float | None = None

    def __post_init__(self) -> None:
        if self.size is not None and not _is_size(self.size):
            raise EffectsError(
                f"size is width and height in pixels, each {LEAST} … {MOST:,}, such as "
                f"(600, 400), not {self.size!r}."
            )
        if self.limit is not None and not (is_finite(self.limit) and self.limit > 0):
            raise EffectsError(f"limit is an effect above 0, not {self.limit!r}.")

    def on(self, figure: go.Figure) -> go.Figure:
        """The figure in this look; the one given stays as it is.

        Raises:
            EffectsError: there is no such colour scale.
        """
        made = go.Figure(figure)
        if self.labels:
            made = translated(made, {str(k): escaped(str(v)) for k, v in self.labels.items()})
        if self.size is not None:
            width, height = map(single, self.size)
            made.update_layout(width=width, height=height)
        if self.title is not None or self.size is not None:
            given = made.layout.title.text or ""
            title = given.replace("<br>", " ") if self.title is None else escaped(self.title)
            style.entitle(made, title, made.layout.width)
        self._color(made)
        return made

    def _color(self, made: go.Figure) -> None:
        heatmaps = [trace for trace in made.data if trace.type == "heatmap"]
        if self.colors is not None:
            scale = _scale(self.colors)
            for trace in heatmaps:
                trace.update(colorscale=scale, meta=None)
            if not heatmaps:
                made.update_traces(line_color=scale[-1][1], selector={"mode": "lines+markers"})
        if self.limit is not None:
            for trace in heatmaps:
                trace.update(zmin=-self.limit, zmax=self.limit)
            if not heatmaps:
                made.update_yaxes(range=[-self.limit, self.limit])


def _is_size(given: object) -> bool:
    if not isinstance(given, tuple | list) or len(given) != 2:
        return False
    return all(isinstance(n, int | float) and LEAST <= n <= MOST for n in map(single, given))


def _scale(given: str | Sequence[str]) -> list[list[float | str]]:
    """A colour scale in colours that both plotly and matplotlib read."""
    try:
        if isinstance(given, str):
            return [[float(at), _hex(color)] for at, color in scales.get_colorscale(given)]
        colors = [_hex(color) for color in given]
        return [[n / (len(colors) - 1), color] for n, color in enumerate(colors)]
    except (PlotlyError, ValueError, TypeError, ZeroDivisionError):
        known = [name for name in dir(scales.sequential) + dir(scales.diverging)
                 if name[0].isupper()]  # fmt: skip
        hint = (
            did_you_mean(given, [*known, *(n.lower() for n in known)])
            if (isinstance(given, str))
            else ""
        )
        raise EffectsError(
            f"There is no colour scale {given!r}: give plotly's name of one, such as 'viridis' or "
            f"'RdBu_r', or at least two colours from low to high, ['#ffffff', '#b2182b'].{hint}"
        ) from None


def _hex(color: str) -> str:
    if color.startswith("rgb("):
        red, green, blue = scales.unlabel_rgb(color)
        return str(to_hex((red / 255, green / 255, blue / 255)))
    return str(to_hex(color))
