"""The page around the panels: its head, how far the model is, and which panel is open."""

from __future__ import annotations

import json
import secrets
import traceback
from collections.abc import Mapping
from typing import Any

from dash import (
    ALL,
    ClientsideFunction,
    Dash,
    Input,
    Output,
    State,
    dcc,
    html,
    no_update,
    set_props,
)
from dash.development.base_component import Component

from microtome.errors import MicrotomeError
from microtome.frontends.lab.panels import ASK, MAP, PANELS, TABS, Context, Panel
from microtome.frontends.lab.panels.ask import tokens
from microtome.frontends.lab.panels.panel import (
    GROWING,
    MORE,
    ORDER,
    QUESTION,
    SEVERAL,
    grown_for,
    ready_for,
    seen,
)
from microtome.frontends.lab.panels.parts import beat, notice
from microtome.frontends.lab.panels.refusing import refused
from microtome.frontends.lab.state import View
from microtome.texts import LANGUAGES, Texts

BEAT = 400
"""Milliseconds between two looks at what is on its way."""


def page(words: Texts, context: Context) -> Component:
    """The whole page in one language; its address says what is on it."""
    parts = [
        dcc.Location(id="address", refresh=False),
        dcc.Store(id="named"),
        dcc.Store(id="question"),
        *(dcc.Store(id=seen(one.name)) for one in TABS),
        *(dcc.Store(id=ready_for(one.name)) for one in TABS),
        *(dcc.Store(id=grown_for(name)) for name in GROWING),
        dcc.Store(id="ready"),
        dcc.Store(id="grown"),
        dcc.Store(id="asker", data=secrets.token_hex(8)),
        beat("pulse", BEAT),
        *_whole(words),
    ]
    made = html.Div(parts, id="page", lang=words.lang)
    beats = [one.id for one in made._traverse() if isinstance(one, dcc.Interval)]
    setattr(made, "data-keys", json.dumps({**_keys(context), "beats": beats}))
    return made


def _keys(context: Context) -> dict[str, Any]:
    """What stands in an address, as the page's own scripts have to know it."""
    names, first = [one.name for one in TABS], context.view("")
    more = {name: MORE[name] for name in names}
    unless = {name: str(getattr(first, name)) for name in ("model", "edit", "steps", "lang")}
    return {
        "order": ORDER, "several": dict(SEVERAL), "tabs": names, "question": QUESTION, "more": more,
        "unless": unless,
    }  # fmt: skip


def register(app: Dash, context: Context) -> None:
    """Put on the callbacks of the page, and those of every panel."""
    _address(app, context)
    _model(app, context)
    for panel in PANELS:
        panel.register(app, context)


def _address(app: Dash, context: Context) -> None:
    """What follows the address, all but one thing within the page."""
    search = Input("address", "search")
    parts = ["named", "question", *(seen(one.name) for one in TABS)]
    app.clientside_callback(
        ClientsideFunction("address", "parts"),
        *(Output(part, "data") for part in parts),
        search,
        *(State(part, "data") for part in parts),
    )
    heard = {"ready": [ready_for(one.name) for one in TABS], "grown": [*map(grown_for, GROWING)]}
    for name, stores in heard.items():
        app.clientside_callback(
            ClientsideFunction("address", "told"),
            *(Output(store, "data") for store in stores),
            search,
            Input(name, "data"),
            *(State(store, "data") for store in stores),
        )
    app.clientside_callback(
        ClientsideFunction("address", "languages"),
        *(Output(f"shell-{code}", "href") for code in LANGUAGES),
        search,
    )
    tab = {"type": "shell-tab", "name": ALL}
    app.clientside_callback(
        ClientsideFunction("address", "tabs"),
        *(Output(f"shell-{one.name}", "hidden") for one in TABS),
        Output(tab, "className"),
        Output(tab, "aria-pressed"),
        search,
    )

    @app.callback(Output("shell-problems", "children"), search)
    def complain(search: str | None) -> list[Component]:
        view = context.view(search)
        return _problems(view, context.words(view.lang))


def _model(app: Dash, context: Context) -> None:
    @app.callback(
        Output("ready", "data"),
        Output("shell-model", "children"),
        Input("named", "data"),
        Input("pulse", "n_intervals"),
        State("address", "search"),
        State("ready", "data"),
    )
    def look(
        _: str | None, __: int | None, search: str | None, ready: Mapping[str, str] | None
    ) -> tuple[object, ...]:
        view = context.view(search)
        words = context.words(view.lang)
        state = context.desk.state(view.model)
        found = {"model": view.model, "state": state.state, "why": state.why}
        told: Any = ""
        if state.state == "loading":
            told = words("shell.loading", model=view.model, seconds=state.seconds)
        elif state.state == "failed":
            told = refused(state.why, words)
        else:
            told = _about(context, view)
        return no_update if found == ready else found, told

    app.clientside_callback(
        ClientsideFunction("beat", "rests"),
        Output("pulse", "disabled"),
        Input("ready", "data"),
        Input("grown", "data"),
    )


def failed(error: Exception, words: Texts) -> object:
    """What a page does where a callback failed: it says why, and stays as it was."""
    said: Exception | str = error
    if not isinstance(error, MicrotomeError):
        traceback.print_exception(error)  # nobody foresaw it: whoever runs the server is told
        said = f"{type(error).__name__}: {error}"
    set_props("shell-problems", {"children": refused(said, words)})
    return no_update


def _whole(words: Texts) -> list[Component]:
    tabs = []
    if TABS:
        tabs = [
            html.Nav(
                [_tab(one, words) for one in TABS],
                id="shell-tabs",
                className="tabs",
                **{"aria-label": words("shell.tabs")},
            ),
            *(html.Div(one.layout(words), id=f"shell-{one.name}", hidden=True) for one in TABS),
        ]
    return [
        html.A(words("shell.to_map"), href="#map", className="skip"),
        html.Header(
            [html.H1(words("shell.title")), html.P(words("shell.subtitle")), *_langs(words)]
        ),
        html.Div(
            words("shell.lost"), id="shell-lost", className="wrong", role="alert", hidden=True
        ),
        html.Div(id="shell-problems"),
        html.Main(
            [
                html.Div(
                    [html.Div(id="shell-model", role="status"), ASK.layout(words)], className="side"
                ),
                html.Div([tokens(words), MAP.layout(words), *tabs], className="work"),
            ],
        ),
    ]


def _langs(words: Texts) -> list[Component]:
    """A link to the same view in each language: the page is made anew."""
    links = [
        html.A(
            name,
            id=f"shell-{code}",
            href="?",
            lang=code,
            className="chosen" if code == words.lang else "",
            **{"aria-current": "true" if code == words.lang else "false"},
        )
        for code, name in LANGUAGES.items()
    ]
    return [html.Nav(links, className="langs", **{"aria-label": words("shell.language")})]


def _tab(one: Panel, words: Texts) -> Component:
    return html.Button(
        words(f"{one.name}.title"),
        id={"type": "shell-tab", "name": one.name},
        **{"aria-pressed": "false", "data-opens": one.name},
    )


def _about(context: Context, view: View) -> str:
    model = context.desk.model(view.model)
    dims = model.anatomy.dims
    words = context.words(view.lang)
    return words(
        "shell.ready",
        model=view.model,
        family=model.anatomy.family.model_type,
        layers=dims.n_layers,
        heads=dims.n_heads,
        width=dims.d_model,
    )


def _problems(view: View, words: Texts) -> list[Component]:
    return [
        notice(words(f"shell.problem.{one.why}", part=one.part, given=one.given), "wrong")
        for one in view.problems
    ]
