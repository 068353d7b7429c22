"""The circuit that is pinned: its edges with their notes, drawn, and weighed one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dash import ALL, Dash, Input, Output, State, ctx, dcc, html, no_update
from dash.development.base_component import Component

from microtome.frontends.importing import imported
from microtome.frontends.lab.asked import known_as, prompt_of
from microtome.frontends.lab.panels import judging
from microtome.frontends.lab.panels.panel import Context, moved, seen
from microtome.frontends.lab.panels.parts import labelled
from microtome.frontends.lab.panels.showing import (
    Remembered,
    Shown,
    answered,
    clicked,
    effect,
    graph,
    is_open,
    table,
)
from microtome.frontends.lab.state import SHORT, View
from microtome.texts import Texts

if TYPE_CHECKING:
    from microtome.circuits import Circuit

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
            html.Div(
                [html.Button(words("trace.weigh"), id="trace-weigh"), judging.layout(words)],
                id="trace-judging",
                hidden=True,
            ),
        ],
        className="circuit",
    )


def register(app: Dash, context: Context) -> None:
    """Put the callbacks on."""
    _shown(app, context, Remembered())
    _changed(app, context)
    judging.register(app, context)


def _shown(app: Dash, context: Context, answers: Remembered) -> None:
    @app.callback(
        Output("trace-pins", "children"),
        Output("trace-circuit", "children"),
        Output("trace-judging", "hidden"),
        Input(seen(NAME), "data"),
        Input("ready", "data"),
        Input("trace-weigh", "n_clicks"),
    )
    def show(
        search: str | None, ready: Mapping[str, str] | None, _: int | None
    ) -> tuple[Shown, Shown, bool]:
        view = context.view(search)
        if not is_open(view, NAME, ready) or not view.pins:
            return [], [], True
        words = context.words(view.lang)
        asks = ctx.triggered_id == "trace-weigh"

        def work() -> Shown:
            found = _circuit(context, view, answers, asks)
            figure = imported("microtome.frontends.lab.answers.pinned").drawn(found)
            told = words("trace.drawn", edges=len(found), nodes=len(found.nodes),
                         leading=len(found.pruned()))  # fmt: skip
            return [html.P(told), graph(figure, "trace-drawing", told), *_scores(found, words)]

        drawn = answered(work)
        return _pins(view, words), drawn, False


def _circuit(context: Context, view: View, answers: Remembered, weigh: bool) -> Circuit:
    """The circuit that is pinned; with the weight of each edge, where somebody asked for them."""
    model, prompt = context.desk.model(view.model), prompt_of(view)
    pinned = imported("microtome.frontends.lab.answers.pinned")
    found: Circuit = pinned.circuit_of(model, view.pins)
    key = ("weighed", known_as(model), prompt, found, view.measured, view.way)
    if not weigh and not answers.has(key):
        return found
    made: Circuit = answers.get(
        key, lambda: pinned.weighed(model, prompt, found, view.measured, view.way)
    )
    return made


def _scores(found: Circuit, words: Texts) -> Shown:
    if found.scores is None:
        return []
    rows = [
        [row["edge"].replace("->", " → "), effect(row["score"])]
        for row in found.to_dataframe().to_dict("records")
    ]
    heads = [words("trace.edge"), words("trace.score")]
    return [table(heads, rows, words("trace.scores"))]


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
