"""A map to click in a notebook: each click runs that cell, and shows what it did."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import plotly.graph_objects as go

from microtome.edits import Source, edit
from microtome.errors import EffectsError, MicrotomeError, listing
from microtome.figures.choice import Only, Order, chosen
from microtome.figures.labels import shown
from microtome.figures.view import View, squeezed, view, visible_line
from microtome.notebook import html_code, html_fields, html_line
from microtome.prompts.prompts import prompt_of
from microtome.report.code import cell_edits, rerun
from microtome.results.effects import Effects
from microtome.spoken import spoken
from microtome.stats.samples import PROMPT
from microtome.texts import number, signed
from microtome.verbs.model import Model
from microtome.verbs.run import Run

HINT = "Click a cell: it is run, and what it does to the prediction is shown here."
INK = {"color": "#111827", "width": 2}
"""Of the frame around the cell that is shown."""


@spoken
class Live:
    """A map whose cells are run when they are clicked; a notebook shows it by itself.

    Where no kernel is (a page, a preview) one sees what `Effects` show of themselves.

    Attributes:
        model, effects, metric: what runs, the map, and which effects are drawn.
        map: the plotly ``FigureWidget``.
        panel: the ``ipywidgets`` text under it.
        choice: of the prompt that is run, where the map is a mean over several; else None.
        cell: the coordinates of the cell that is shown; None before the first click, and after one
            that failed.
        run: what running it gave; likewise.
    """

    def __init__(
        self, model: Model, effects: Effects, metric: str, figure: go.Figure, drawn: View
    ) -> None:
        widgets = _widgets()
        self.model, self.effects, self.metric = model, effects, metric
        self.cell: dict[str, Any] | None = None
        self.run: Run | None = None
        self._drawn = drawn
        self._at: dict[str, Any] = {}  # what is shown, along the dimensions drawn
        self.map = go.FigureWidget(figure)
        self._lines = self.map.layout.shapes
        for trace in self.map.data:
            trace.on_click(self._on_click)
        self.panel = widgets.HTML(html_line(HINT))
        self.choice = None
        if drawn.n_prompts > 1:
            texts = zip(drawn.data["text"].values, drawn.data[PROMPT].values, strict=True)
            options = [(f"{n}: {visible_line(str(text))}", int(n)) for text, n in texts]
            self.choice = widgets.Dropdown(options=options, description="prompt")
            self.choice.observe(self._on_choice, names="value")
        parts = (self.map, self.choice, self.panel)
        self._box = widgets.VBox([part for part in parts if part is not None])

    def click(self, **at: Any) -> Run:
        """Run a cell, as a click on it does.

        Args:
            **at: a coordinate along each dimension that is drawn, such as ``layer=5, head=3``.
                ``prompt=`` too, where the map is a mean over several: else the one chosen.

        Returns:
            What it gave; `run` is that from now on.

        Raises:
            EffectsError: there is no such cell, or a coordinate is missing.
        """
        self.cell = self.run = None
        where, told = self._find(at)
        self.cell = {name: where[name] for name in self.effects.dims}
        spec = self.effects.provenance["spec"]
        edits = cell_edits(self.effects, self.cell)
        means = any(one.source is Source.REFERENCE for one in edits)
        others = (spec["reference"] or spec["prompts"]) if means else ()
        prompt = prompt_of(spec["prompts"][self.cell[PROMPT]])
        self.run = self.model.run(prompt, edits, reference=map(prompt_of, others))
        self.panel.value = "".join(
            [
                html_fields(
                    {"edit": ", ".join(map(str, edits)), f"{self.metric}, on the map": told}
                ),
                self.run._repr_html_(),
                html_code("Python for this cell", rerun(self.effects, self.cell)),
            ]
        )
        self._at = {name: where[name] for name in self._drawn.dims}
        self._frame(where)
        return self.run

    def _find(self, at: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        """All coordinates of an effect, its prompt's number among them; and itself, in words."""
        data, dims = self._drawn.data, self.effects.data[self.metric].dims
        fixed = {name: data[name].item() for name in map(str, dims) if name not in data.dims}
        picked = {} if self.choice is None else {PROMPT: self.choice.value}
        one = squeezed(view(self.effects, self.metric, {**fixed, **picked, **at}), 0)
        if one.dims:
            raise EffectsError(
                f"A cell has a coordinate along each dimension; missing: {listing(one.dims)}."
            )
        where = {str(name): one.data[name].item() for name in dims}
        clean, edited, effect = (float(one.data[name]) for name in ("clean", "edited", "effect"))
        if math.isnan(effect):
            place = listing(f"{name} {shown(value)}" for name, value in where.items())
            raise EffectsError(f"There is no cell at {place}.")
        return where, f"{number(clean)} → {number(edited)}, effect {signed(effect)}"

    def _on_click(self, trace: Any, points: Any, state: Any) -> None:
        """Where in the figure → the coordinates there."""
        if not points.point_inds:  # every trace is told of a click on one
            return
        if trace.type == "heatmap":
            numbers = [int(points.ys[0]), int(points.xs[0])]
        else:
            numbers = [int(points.point_inds[0])]
        axes = zip(self._drawn.axes, numbers, strict=True)
        self._show({axis.name: axis.values[n] for axis, n in axes})

    def _on_choice(self, change: Mapping[str, Any]) -> None:
        """Another prompt: the same cell there."""
        if self._at:
            self._show(self._at)

    def _show(self, at: Mapping[str, Any]) -> None:
        try:
            self.click(**at)
        except MicrotomeError as error:  # a page sends clicks, and nobody there could catch it
            self.panel.value = html_line(str(error))

    def _frame(self, where: Mapping[str, Any]) -> None:
        """Mark the cell in the figure."""
        axes = self._drawn.axes
        self.map.layout.shapes = self._lines
        if any(where[axis.name] not in axis.values for axis in axes):
            return  # only= leaves it out
        at = [axis.values.index(where[axis.name]) for axis in axes]
        if len(at) == 2:
            row, column = at
            mark = {"type": "rect", "x0": column - 0.5, "x1": column + 0.5,
                    "y0": row - 0.5, "y1": row + 0.5}  # fmt: skip
        else:
            [line] = [trace for trace in self.map.data if trace.customdata is not None]
            x = line.x[at[0]]
            mark = {"type": "line", "x0": x, "x1": x, "yref": "paper", "y0": 0, "y1": 1}
        self.map.layout.shapes = (*self._lines, {**mark, "line": INK})

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """The widgets, and for whoever has no kernel what the effects show of themselves."""
        self.map._repr_mimebundle_()  # what was clicked before it is shown goes along
        bundle: dict[str, Any] = self._box._repr_mimebundle_(**kwargs)
        return {**bundle, "text/plain": repr(self), "text/html": self.effects._repr_html_()}

    def __repr__(self) -> str:
        return f"<Live map of {self.effects!r}>"


@spoken
def live(
    model: Model,
    effects: Effects,
    metric: str | None = None,
    *,
    only: Only | None = None,
    order: Order | None = None,
    title: str | None = None,
    **at: Any,
) -> Live:
    """A map to click in a notebook: a click runs that cell on the model, and shows what it did.

    Under the map stand the prompt's tokens, the most probable tokens before and after, the
    receipts, and the Python that runs the cell by itself. ``pip install 'microtome[notebook]'``.

    Args:
        model: the one that was swept.
        effects: the map, fresh or opened.
        metric: the first one measured, unless given.
        only, order, title, **at: what is drawn, and how; see `Effects.figure`.

    Raises:
        EffectsError: as `Effects.figure`; the map is of another model's weights, or over roles;
            or what draws it is not installed.
        EditError: an edit has no text that parses back (a function made on the spot).

    >>> import microtome as mt
    >>> model = mt.load("nano")
    >>> prompt = mt.Prompt("Berlin is the capital of", target=" Germany")
    >>> effects = mt.sweep(model, prompt, mt.zero("L*.z.h*"), metrics="prob", progress=False)
    >>> clickable = mt.live(model, effects)
    >>> run = clickable.click(layer=4, head=6)  # as a click in the notebook
    >>> clickable.run is run, run.receipts[0].edit
    (True, 'zero L4.z.h6')
    """
    _check(model, effects)
    metric = metric or effects.metrics[0]
    part = effects
    if only is not None or order is not None:
        part = Effects(effects.data.isel(chosen(effects.delta(metric), only, order)))
    drawn = squeezed(view(part, metric, at), 2)
    return Live(model, effects, metric, part.figure(metric, title=title, **at), drawn)


def _check(model: Model, effects: Effects) -> None:
    """Raise where the cells of a map cannot be run on a model."""
    if not isinstance(effects, Effects):
        raise EffectsError(
            "A click runs a cell of mt.sweep's effects, and this is of type "
            f"{type(effects).__name__}."
        )
    swept = effects.provenance["model"]
    if swept["weight_hash"] != model.weight_hash:
        raise EffectsError(
            f"The map is of other weights ({swept['name']}, {swept['weight_hash'][:12]}…) than the "
            f"model has ({model.name}, {model.weight_hash[:12]}…): load the one that was swept."
        )
    roles = [name for name in effects.dims if name.endswith("role")]
    if roles:
        raise EffectsError(
            f"The map is over {listing(roles)}, which is another position in each prompt: give the "
            "effects that by_role() was made of, and pick one with prompt=0."
        )
    for text in effects.provenance["spec"]["edits"]:
        edit(text)


def _widgets() -> ModuleType:
    try:
        importlib.import_module("anywidget")  # plotly's widget is made of it
        return importlib.import_module("ipywidgets")
    except ImportError:
        raise EffectsError(
            "A map to click takes ipywidgets and anywidget: pip install 'microtome[notebook]'. "
            "effects.figure() shows the map without them."
        ) from None
