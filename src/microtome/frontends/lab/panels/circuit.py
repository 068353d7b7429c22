"""The circuit that is pinned: its edges with their notes, drawn; then weighed, and judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dash import ALL, Dash, Input, Output, State, dcc, html, no_update
from dash.development.base_component import Component

from microtome.frontends.importing import imported
from microtome.frontends.lab.panels import judging, weighing
from microtome.frontends.lab.panels.panel import Context, moved, ready_for, seen
from microtome.frontends.lab.panels.parts import labelled
from microtome.frontends.lab.panels.showing import Shown, answered, clicked, graph, is_open
from microtome.frontends.lab.speaking import spoken
from microtome.frontends.lab.state import SHORT, View
from microtome.texts import Texts

NAME = "trace"


def layout(words: Texts) -> Component:
    """The part of the panel."""
    return html.Div(
        [
            html.H3(words("trace.pins")),
            html.P(words("trace.pins_about"), className="quiet"),
            labelled(
                words("trace.add"),
                dcc.Input(id="trace-add", maxLength=SHORT, className="commits mono"),
                words("trace.add_about"),
            ),
            html.Div(id="trace-pins"),
            html.Div(id="trace-circuit"),
            weighing.answer(),
            html.Div(
                [weighing.layout(words), judging.layout(words)],
                id="trace-judging",
                hidden=True,
            ),
        ],
        className="circuit",
    )


def register(app: Dash, context: Context) -> None:
    """Put the callbacks on."""
    _shown(app, context)
    _changed(app, context)
    weighing.register(app, context)
    judging.register(app, context)


def _shown(app: Dash, context: Context) -> None:
    @app.callback(
        Output("trace-pins", "children"),
        Output("trace-circuit", "children"),
        Output("trace-judging", "hidden"),
        Input(seen(NAME), "data"),
        Input(ready_for(NAME), "data"),
        prevent_initial_call=True,
    )
    def show(search: str | None, ready: Mapping[str, str] | None) -> tuple[Shown, Shown, bool]:
        view = context.view(search)
        if not is_open(view, NAME, ready) or not view.pins:
            return [], [], True
        words = context.words(view.lang)

        def work() -> Shown:
            pinned = imported("microtome.frontends.lab.answers.pinned")
            found = pinned.circuit_of(context.desk.model(view.model), view.pins)
            told = words("trace.drawn", edges=len(found), nodes=len(found.nodes),
                         leading=len(found.pruned()))  # fmt: skip
            title = words("figure.circuit", edges=len(found), nodes=len(found.nodes))
            figure = spoken(pinned.drawn(found), words, title)
            return [html.P(told), graph(figure, "trace-drawing", told)]

        drawn = answered(work, words)
        return _pins(view, words), drawn, False


def _pins(view: View, words: Texts) -> Shown:
    """Each pin with its note, which is typed beside it."""
    notes = dict(view.notes)
    rows = [
        html.Li(
            [
                html.Span(pin.replace("->", " → "), className="mono"),
                html.Label([html.Span(words("trace.note_of", edge=pin)), _note(pin, notes, words)]),
                html.Button(
                    words("trace.unpin"),
                    id={"type": "edge-pin", "edge": pin, "by": "pins"},
                    **{"aria-label": words("trace.unpin_it", edge=pin)},
                ),
            ]
        )
        for pin in view.pins
    ]
    return [html.Ul(rows, className="pins")]


def _note(pin: str, notes: Mapping[str, str], words: Texts) -> Component:
    return dcc.Input(
        id={"type": "trace-note", "pin": pin},
        value=notes.get(pin, ""),
        placeholder=words("trace.note"),
        maxLength=200,
        className="commits",
    )


def _changed(app: Dash, context: Context) -> None:
    address = Output("address", "search", allow_duplicate=True)

    @app.callback(
        address,
        Output("trace-add", "value"),
        Input("trace-add", "n_blur"),
        State("trace-add", "value"),
        State("address", "search"),
        prevent_initial_call=True,
    )
    def add(_: int | None, text: str | None, search: str | None) -> tuple[object, object]:
        view, pin = context.view(search), (text or "").strip()
        if not pin:
            return no_update, no_update
        return moved(view, pins=tuple(dict.fromkeys([*view.pins, pin]))), ""

    @app.callback(
        address,
        Input({"type": "trace-note", "pin": ALL}, "n_blur"),
        State({"type": "trace-note", "pin": ALL}, "value"),
        State({"type": "trace-note", "pin": ALL}, "id"),
        State("address", "search"),
        prevent_initial_call=True,
    )
    def note(
        _: Sequence[int | None],
        texts: Sequence[str | None],
        ids: Sequence[Mapping[str, str]],
        search: str | None,
    ) -> object:
        if not clicked():
            return no_update
        view = context.view(search)
        given = zip((one["pin"] for one in ids), texts, strict=True)
        notes = tuple((pin, text.strip()) for pin, text in given if text and text.strip())
        return no_update if notes == view.notes else moved(view, notes=notes)
