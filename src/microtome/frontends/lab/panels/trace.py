"""Trace upstream: from what reads to what wrote it, edge by edge; pins become a circuit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dash import ALL, Dash, Input, Output, State, ctx, dcc, html, no_update
from dash.development.base_component import Component

from microtome.frontends.importing import imported
from microtome.frontends.lab.asked import prompt_of
from microtome.frontends.lab.panels import circuit, feeding
from microtome.frontends.lab.panels.cell import readers as readers_of_chosen
from microtome.frontends.lab.panels.panel import Context, Panel, moved, seen
from microtome.frontends.lab.panels.parts import labelled, listed, select
from microtome.frontends.lab.panels.showing import Shown, answered, clicked, is_open
from microtome.frontends.lab.state import WAYS, View
from microtome.texts import Texts

NAME = "trace"


def layout(words: Texts) -> Component:
    """The panel."""
    return html.Section(
        id=NAME,
        className=NAME,
        **{"aria-label": words("trace.title")},
        children=[
            html.P(words("trace.about"), className="quiet"),
            html.Div(
                [
                    labelled(words("trace.reader"), _reader(words)),
                    labelled(words("trace.way_label"), select("trace-way")),
                ],
                className="line",
            ),
            html.Datalist(id="trace-readers"),
            html.Div(id="trace-from", className="chips"),
            html.Div(id="trace-why"),
            feeding.layout(NAME, words),
            circuit.layout(words),
        ],
    )


def _reader(words: Texts) -> Component:
    return dcc.Input(
        id="trace-reader",
        list="trace-readers",
        placeholder=words("trace.choose"),
        maxLength=60,
        className="commits mono",
        autoComplete="off",
    )


def register(app: Dash, context: Context) -> None:
    """Put the callbacks on."""
    _shown(app, context)
    _changed(app, context)
    _pinned(app, context)
    feeding.register(app, context, NAME, _readers)
    circuit.register(app, context)


def _shown(app: Dash, context: Context) -> None:
    @app.callback(
        Output("trace-readers", "data-lines"),
        Output("trace-reader", "value"),
        Output("trace-way", "data-lines"),
        Output("trace-from", "children"),
        Output("trace-why", "children"),
        Input(seen(NAME), "data"),
        Input("ready", "data"),
    )
    def show(search: str | None, ready: Mapping[str, str] | None) -> tuple[object, ...]:
        view = context.view(search)
        words = context.words(view.lang)
        if not is_open(view, NAME, ready):
            return "", view.reader, "", [], []
        names: list[str] = []
        begin: dict[str, None] = {}

        def work() -> Shown:
            names.extend(_every(context, view))
            begin.update(dict.fromkeys([*readers_of_chosen(context, view), "logits"]))
            return _why(context, view, words)

        why = answered(work, words)
        ways = [{"label": words("trace.way.auto"), "value": ""}]
        ways += [{"label": words(f"trace.way.{way}"), "value": way} for way in WAYS]
        buttons = [feeding.go_button(one, words, "trace from") for one in begin]
        options = [{"value": one} for one in names]
        return listed(options, ""), view.reader, listed(ways, view.way), buttons, why


def _every(context: Context, view: View) -> Sequence[str]:
    """Everything that reads in the model.

    Raises:
        CircuitError: its stream is no sum.
    """
    graph = imported("microtome.circuits.graph").Graph.of(context.desk.model(view.model))
    return [one.name for one in graph.readers]


def _why(context: Context, view: View, words: Texts) -> Shown:
    """Why no edge can be patched, and what is done."""
    [encoded] = context.desk.model(view.model).encode(prompt_of(view))
    why = imported("microtome.frontends.lab.answers.upstream").why_no_patch(encoded)
    if not why or view.way not in ("", "patch"):
        return []
    return [html.P(words(f"trace.no_patch.{why}"), className="quiet")]


def _changed(app: Dash, context: Context) -> None:
    address = Output("address", "search", allow_duplicate=True)

    @app.callback(
        address,
        Input("trace-reader", "n_blur"),
        State("trace-reader", "value"),
        State("address", "search"),
        prevent_initial_call=True,
    )
    def read(_: int | None, name: str | None, search: str | None) -> object:
        view, name = context.view(search), (name or "").strip()
        return no_update if name == view.reader else moved(view, reader=name)

    @app.callback(
        address,
        Input("trace-way", "data-value"),
        State("address", "search"),
        prevent_initial_call=True,
    )
    def go(way: str | None, search: str | None) -> object:
        view = context.view(search)
        return no_update if way is None or way == view.way else moved(view, way=way)

    @app.callback(
        address,
        Input({"type": "edge-go", "reader": ALL, "by": ALL}, "n_clicks"),
        State("address", "search"),
        prevent_initial_call=True,
    )
    def go_on(clicks: list[int | None], search: str | None) -> object:
        if not clicked():
            return no_update
        return moved(context.view(search), reader=ctx.triggered_id["reader"], panel=NAME)


def _pinned(app: Dash, context: Context) -> None:
    @app.callback(
        Output("address", "search", allow_duplicate=True),
        Input({"type": "edge-pin", "edge": ALL, "by": ALL}, "n_clicks"),
        State("address", "search"),
        prevent_initial_call=True,
    )
    def pin(clicks: list[int | None], search: str | None) -> object:
        if not clicked():
            return no_update
        view, edge = context.view(search), str(ctx.triggered_id["edge"])
        if edge not in view.pins:
            return moved(view, pins=(*view.pins, edge))
        pins = tuple(one for one in view.pins if one != edge)
        return moved(view, pins=pins, notes=tuple(one for one in view.notes if one[0] != edge))


def _readers(context: Context, view: View) -> Sequence[str]:
    return (view.reader,) if view.reader else ()


TRACE = Panel(NAME, layout, register)
