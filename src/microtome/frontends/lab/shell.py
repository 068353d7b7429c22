"""The page around the panels: its head, how far the model is, and which panel is open."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import Any

from dash import ALL, Dash, Input, Output, State, ctx, dcc, html, no_update, set_props
from dash.development.base_component import Component

from microtome.errors import MicrotomeError
from microtome.frontends.lab.panels import ASK, MAP, PANELS, TABS, Context, Panel, moved
from microtome.frontends.lab.panels.ask import tokens
from microtome.frontends.lab.panels.parts import beat, notice
from microtome.frontends.lab.panels.refusing import refused
from microtome.frontends.lab.state import View
from microtome.texts import LANGUAGES, Texts

BEAT = 400
"""Milliseconds between two looks at what is on its way."""


def page(words: Texts) -> Component:
    """The whole page in one language; its address says what is on it."""
    return html.Div(
        [
            dcc.Location(id="address", refresh=False),
            dcc.Store(id="ready"),
            dcc.Store(id="grown"),
            beat("pulse", BEAT),
            *_whole(words),
        ],
        lang=words.lang,
    )


def register(app: Dash, context: Context) -> None:
    """Put on the callbacks of the page, and those of every panel."""
    _language(app, context)
    _model(app, context)
    _tabs(app, context)
    for panel in PANELS:
        panel.register(app, context)


def _language(app: Dash, context: Context) -> None:
    @app.callback(
        *(Output(f"shell-{code}", "href") for code in LANGUAGES), Input("address", "search")
    )
    def lead(search: str | None) -> tuple[str, ...]:
        view = context.view(search)
        return tuple(moved(view, lang=code) for code in LANGUAGES)


def _model(app: Dash, context: Context) -> None:
    @app.callback(
        Output("ready", "data"),
        Output("shell-model", "children"),
        Output("shell-problems", "children"),
        Input("address", "search"),
        Input("pulse", "n_intervals"),
        State("ready", "data"),
    )
    def look(
        search: str | None, _: int | None, ready: Mapping[str, str] | None
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
        return no_update if found == ready else found, told, _problems(view, words)

    @app.callback(Output("pulse", "disabled"), Input("ready", "data"), Input("grown", "data"))
    def rest(ready: Mapping[str, str] | None, grown: Mapping[str, Any] | None) -> bool:
        is_loading = ready is None or ready["state"] == "loading"
        return not is_loading and (grown or {}).get("state") not in ("waiting", "running")


def _tabs(app: Dash, context: Context) -> None:
    if not TABS:
        return

    @app.callback(
        Output("address", "search", allow_duplicate=True),
        Input({"type": "shell-tab", "name": ALL}, "n_clicks"),
        State("address", "search"),
        prevent_initial_call=True,
    )
    def open_one(clicks: list[int | None], search: str | None) -> object:
        if not any(clicks) or not ctx.triggered_id:
            return no_update
        return moved(context.view(search), panel=ctx.triggered_id["name"])

    @app.callback(
        *(Output(f"shell-{one.name}", "hidden") for one in TABS),
        Output("shell-tabs", "children"),
        Input("address", "search"),
    )
    def show(search: str | None) -> tuple[object, ...]:
        view = context.view(search)
        now = opened(view)
        words = context.words(view.lang)
        return *(one.name != now for one in TABS), [_tab(one, now, words) for one in TABS]


def failed(error: Exception, words: Texts) -> object:
    """What a page does where a callback failed: it says why, and stays as it was."""
    said: Exception | str = error
    if not isinstance(error, MicrotomeError):
        traceback.print_exception(error)  # nobody foresaw it: whoever runs the server is told
        said = f"{type(error).__name__}: {error}"
    set_props("shell-problems", {"children": refused(said, words)})
    return no_update


def opened(view: View) -> str:
    """Which panel of the tabs is open."""
    names = [one.name for one in TABS]
    return view.panel if view.panel in names else next(iter(names), "")


def _whole(words: Texts) -> list[Component]:
    tabs = []
    if TABS:
        tabs = [
            html.Nav(id="shell-tabs", className="tabs", **{"aria-label": words("shell.tabs")}),
            *(html.Div(one.layout(words), id=f"shell-{one.name}", hidden=True) for one in TABS),
        ]
    return [
        html.A(words("shell.to_map"), href="#map", className="skip"),
        html.Header(
            [html.H1(words("shell.title")), html.P(words("shell.subtitle")), *_langs(words)]
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


def _tab(one: Panel, now: str, words: Texts) -> Component:
    return html.Button(
        words(f"{one.name}.title"),
        id={"type": "shell-tab", "name": one.name},
        className="chosen" if one.name == now else "",
        **{"aria-pressed": str(one.name == now).lower()},
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
