"""The map: what it will take, how far it is, and the cells that are chosen on it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dash import (
    ALL,
    ClientsideFunction,
    Dash,
    Input,
    Output,
    State,
    ctx,
    dcc,
    html,
    no_update,
)
from dash.development.base_component import Component

from microtome.errors import MicrotomeError
from microtome.frontends.lab.asked import Asked
from microtome.frontends.lab.costing import Cost, cost_of
from microtome.frontends.lab.drawing import Cut, Drawing, cut_of, drawn, in_words
from microtome.frontends.lab.jobs import CANCELLED, FAILED, RUNNING, WAITING, Progress
from microtome.frontends.lab.panels import choose
from microtome.frontends.lab.panels.panel import Context, Panel, is_ready, moved
from microtome.frontends.lab.panels.parts import labelled, select
from microtome.frontends.lab.panels.refusing import refused
from microtome.frontends.lab.state import View
from microtome.texts import Texts

if TYPE_CHECKING:
    from microtome import Effects

UNASKED = "unasked"
CONFIG = {"displayModeBar": False, "displaylogo": False, "responsive": True}


def layout(words: Texts) -> Component:
    """The panel."""
    return html.Section(
        id="map",
        className="map",
        **{"aria-label": words("map.title")},
        children=[
            choose.layout(words),
            html.Div(
                className="status",
                children=[
                    html.Div(id="map-status", role="status", **{"aria-live": "polite"}),
                    html.Button(
                        words("map.compute"), id="map-compute", className="main", hidden=True
                    ),
                    html.Button(words("map.cancel"), id="map-cancel", hidden=True),
                    html.Div(id="map-picks", className="picks"),
                    html.Button(
                        words("map.more"),
                        id="map-more",
                        title=words("map.more_about"),
                        **{"aria-pressed": "false"},
                    ),
                ],
            ),
            html.Div(
                className="seen",
                children=[
                    html.Div(
                        dcc.Graph(id="map-figure", config=CONFIG, style={"display": "none"}),
                        id="map-frame",
                        className="figure",
                        tabIndex=0,
                        role="application",
                        **{"aria-label": words("map.keys"), "data-cells": ""},
                    ),
                    html.Div(id="map-strongest", className="strongest"),
                ],
            ),
        ],
    )


def register(app: Dash, context: Context) -> None:
    """Put the callbacks on."""
    choose.register(app, context)
    _progress(app, context)
    _figure(app, context)
    _chosen(app)


def _progress(app: Dash, context: Context) -> None:
    @app.callback(
        Output("map-status", "children"),
        Output("map-compute", "hidden"),
        Output("map-cancel", "hidden"),
        Output("grown", "data"),
        Input("question", "data"),
        Input("ready", "data"),
        Input("pulse", "n_intervals"),
        Input("map-compute", "n_clicks"),
        Input("map-cancel", "n_clicks"),
        State("grown", "data"),
        State("asker", "data"),
    )
    def follow(
        search: str | None, ready: Mapping[str, str] | None, *given: Any
    ) -> tuple[object, ...]:
        *_, grown, asker = given
        view = context.view(search)
        words = context.words(view.lang)
        if not is_ready(ready, view):
            return "", True, True, None
        if not view.text.strip():
            return words("map.empty"), True, True, None
        try:
            asked = Asked.of(view)
            _act(context, asked, ctx.triggered_id, asker or "")
            progress = context.jobs.progress(asked, asker or "")
            if progress is None:
                return _offered(context, asked, words)
            told = _told(progress, words)
            state = {
                "key": asked.key(context.desk.model(view.model)),
                "state": progress.state,
                "units": progress.units,
            }
        except MicrotomeError as error:
            return refused(error, words), True, True, None
        again = progress.state in (CANCELLED, FAILED)
        changed = no_update if grown == state else state
        return told, not again, progress.is_over, changed


def _offered(context: Context, asked: Asked, words: Texts) -> tuple[object, ...]:
    told = _cost(cost_of(context.desk, asked), words)
    return told, False, True, {"key": "", "state": UNASKED, "units": 0}


def _act(context: Context, asked: Asked, by: object, asker: str) -> None:
    """Begin or cancel, as was asked; what is small, or lies on disk, begins by itself."""
    if by == "map-cancel":
        job = context.jobs.find(asked)
        if job is not None:
            job.leave(asker)
    elif by == "map-compute" or (
        context.jobs.find(asked) is None
        and (context.jobs.is_kept(asked) or cost_of(context.desk, asked).is_small)
    ):
        context.jobs.submit(asked, asker)


def _cost(cost: Cost, words: Texts) -> str:
    return words(
        "map.cost",
        cells=f"{cost.cells:,}",
        passes=f"{cost.passes:,.1f}",
        single=f"{cost.reference_passes:,}",
        time=_time(cost.seconds, words),
    )


def _time(seconds: float, words: Texts) -> str:
    if seconds < 100:
        return words("map.seconds", n=f"{seconds:.1f}" if seconds < 10 else f"{seconds:.0f}")
    return words("map.minutes", n=f"{seconds / 60:.0f}")


def _told(progress: Progress, words: Texts) -> list[Component | str]:
    if progress.state == WAITING:
        return [words("map.waiting", n=progress.place)]
    if progress.state == FAILED:
        return [refused(progress.why, words)]
    if progress.state == CANCELLED:
        return [words("map.cancelled", units=progress.units, of=max(1, progress.of_units))]
    if progress.state == RUNNING and not progress.of_cells:
        return [html.Progress(**{"aria-label": words("map.begun")}), words("map.begun")]
    if progress.state == RUNNING:
        share = progress.cells / progress.of_cells
        told = words("map.running", cells=f"{progress.cells:,.0f}", of=f"{progress.of_cells:,}")
        bar = html.Progress(value=f"{share:.3f}", max="1", **{"aria-label": told})
        return [bar, html.Span(told), html.Small(words("map.between"))]
    effects = progress.effects
    cells = 0 if effects is None else effects.n_cells
    return [words("map.done", cells=f"{cells:,}", n=f"{progress.seconds:.1f}")]


def _figure(app: Dash, context: Context) -> None:
    @app.callback(
        Output("map-figure", "figure"),
        Output("map-figure", "style"),
        Output("map-frame", "data-cells"),
        Output("map-strongest", "children"),
        Output("map-picks", "children"),
        Input("grown", "data"),
        Input("question", "data"),
    )
    def draw(grown: Mapping[str, Any] | None, search: str | None) -> tuple[object, ...]:
        view = context.view(search)
        words = context.words(view.lang)
        hidden = {"display": "none"}
        try:
            drawing = drawing_of(context, view) if grown else None
        except MicrotomeError as error:  # what was drawn before is of another question
            return no_update, hidden, "", [refused(error, words)], []
        if drawing is None:
            return no_update, hidden, "", [], []
        picks = [_pick(name, n, drawing.cut, words) for name, n in drawing.cut.picked.items()]
        side = _side(drawing, view, words)
        figure = in_words(drawing, words)
        if figure is None or drawing.grid is None:
            return no_update, hidden, "", side, picks
        # A figure that follows its column's width takes its height from its frame.
        height = {"height": f"{figure.layout.height}px"}
        return figure, height, json.dumps(drawing.grid.as_dict()), side, picks

    @app.callback(
        Output("address", "search", allow_duplicate=True),
        Input({"type": "map-pick", "name": ALL}, "data-value"),
        State("address", "search"),
        prevent_initial_call=True,
    )
    def pick(values: list[str | None], search: str | None) -> object:
        if not ctx.triggered_id or len(ctx.triggered) != 1 or ctx.triggered[0]["value"] is None:
            return no_update
        view = context.view(search)
        name, value = ctx.triggered_id["name"], int(ctx.triggered[0]["value"])
        effects = effects_of(context, view)
        picked = {} if effects is None else cut_of(effects, view.measured, dict(view.at)).picked
        if picked.get(name, value) == value:  # of a map that was drawn before there may be others
            return no_update
        others = tuple(one for one in view.at if one[0] != name)
        return moved(view, at=(*others, (name, value)))


def effects_of(context: Context, view: View) -> Effects | None:
    """The map of a view as far as it is computed; None where there is nothing of it."""
    if context.desk.loaded(view.model) is None or not view.text.strip():
        return None
    try:
        progress = context.jobs.progress(Asked.of(view))
    except MicrotomeError:  # the status line says it
        return None
    return None if progress is None else progress.effects


def drawing_of(context: Context, view: View) -> Drawing | None:
    """The same, drawn.

    Raises:
        MicrotomeError: it has no differences, or several numbers in a cell, and cannot be.
    """
    effects = effects_of(context, view)
    if effects is None:
        return None
    return drawn(effects, view.measured, view.edit, dict(view.at))


def _pick(name: str, now: int, cut: Cut, words: Texts) -> Component:
    options = [{"label": f"{name} {n}", "value": str(n)} for n in range(cut.sizes[name])]
    control = select({"type": "map-pick", "name": name}, options, str(now))
    return labelled(words("map.cut", name=name), control)


def _side(drawing: Drawing, view: View, words: Texts) -> list[Component]:
    """What the map says in words: the clean value, the noise floor, the strongest cells."""
    told = [html.P(words("map.clean", metric=view.measured, value=drawing.clean))]
    if drawing.alone:
        told.append(html.P(words("map.alone", value=drawing.alone)))
    if drawing.noise:
        told.append(html.P(words("map.noise", value=drawing.noise), className="quiet"))
    listed = [
        html.Li(
            html.Button(
                [html.Span(one.where), html.Span(one.effect, className="number")],
                id={"type": "map-strong", "edit": one.edit},
                **{"aria-pressed": "false", "data-chooses": one.edit},
            )
        )
        for one in drawing.strongest
        if one.above_noise
    ]
    return [*told, html.H3(words("map.strongest")), html.Ol(listed)]


def _chosen(app: Dash) -> None:
    """What shows which cells are chosen: the page does it by itself, and at once."""
    search = Input("address", "search")
    app.clientside_callback(
        ClientsideFunction("map", "framed"),
        Output("map-figure", "figure", allow_duplicate=True),
        search,
        Input("map-frame", "data-cells"),
        State("map-figure", "figure"),
        prevent_initial_call=True,
    )
    strong = {"type": "map-strong", "edit": ALL}
    app.clientside_callback(
        ClientsideFunction("map", "marked"),
        Output(strong, "className"),
        Output(strong, "aria-pressed"),
        search,
    )
    app.clientside_callback(
        ClientsideFunction("map", "several"),
        Output("map-more", "aria-pressed"),
        Output("map-more", "className"),
        Input("map-more", "n_clicks"),
        prevent_initial_call=True,
    )


MAP = Panel("map", layout, register)
