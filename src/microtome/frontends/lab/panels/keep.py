"""Keep: the link, the code and the files of a page, and the way that led to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from dash import ClientsideFunction, Dash, Input, Output, State, dcc, html
from dash.development.base_component import Component
from flask import Response, request

from microtome.errors import MicrotomeError
from microtome.frontends.lab.asked import Asked
from microtome.frontends.lab.code import Code, codes, parts
from microtome.frontends.lab.exports import KINDS, made, offered
from microtome.frontends.lab.jobs import DONE
from microtome.frontends.lab.panels.panel import Context, Panel, grown_for, ready_for, seen
from microtome.frontends.lab.panels.parts import labelled
from microtome.frontends.lab.panels.refusing import refused
from microtome.frontends.lab.panels.showing import Shown, is_open
from microtome.frontends.lab.state import View
from microtome.texts import Texts, brief

NAME = "keep"
FORMS = ("python", "shell", "yaml")
MOST = 20
"""Places that are listed."""
FILES = "/keep/"
"""Where files are asked for."""


def layout(words: Texts) -> Component:
    """The panel."""
    return html.Section(
        id=NAME,
        className=NAME,
        **{"aria-label": words("keep.title")},
        children=[
            html.Div(
                [
                    labelled(
                        words("keep.link"),
                        dcc.Input(id="keep-link", readOnly=True, className="link"),
                        words("keep.link_about"),
                    ),
                    _copies("keep-link", words("keep.link"), words),
                    html.Button(words("keep.undo"), **{"data-goes": "-1"}),
                    html.Button(words("keep.redo"), **{"data-goes": "1"}),
                    html.Button(words("keep.full"), **{"data-fills": "map"}),
                ],
                className="line",
            ),
            html.H3(words("keep.code")),
            html.P(words("keep.code_about"), className="quiet"),
            dcc.RadioItems(
                id="keep-form",
                options=[{"label": words(f"keep.{form}"), "value": form} for form in FORMS],
                value=FORMS[0],
                inline=True,
            ),
            html.Div(id="keep-code"),
            html.H3(words("keep.files")),
            html.Div(id="keep-files"),
            html.H3(words("keep.history")),
            html.P(words("keep.history_about"), className="quiet"),
            html.Ol(id="keep-history"),
            dcc.Store(id="keep-visited"),
        ],
    )


def register(app: Dash, context: Context) -> None:
    """Put the callbacks on, and the files where they are asked for."""
    _code(app, context)
    _files(app, context)
    _history(app, context)
    app.server.add_url_rule(
        f"{FILES}<name>", "keep", lambda name: _file(context, name), methods=["GET"]
    )


def _code(app: Dash, context: Context) -> None:
    @app.callback(
        Output("keep-code", "children"),
        Input(seen(NAME), "data"),
        Input(ready_for(NAME), "data"),
        Input("keep-form", "value"),
        prevent_initial_call=True,
    )
    def write(search: str | None, ready: Mapping[str, str] | None, form: str) -> Shown:
        view = context.view(search)
        if not is_open(view, NAME, ready):
            return []
        words = context.words(view.lang)
        return [one for part in parts(view) for one in _pieces(context, view, part, form, words)]


def _pieces(
    context: Context, view: View, part: str, form: str, words: Texts
) -> Iterator[Component]:
    """What one part of the page is in one form, or why it is not."""
    try:
        found: Sequence[Code] = codes(part, view, context.desk.model)
    except MicrotomeError as error:
        yield html.H4(words(f"keep.of.{part}"))
        yield refused(error, words)
        return
    for n, one in enumerate(found):
        title = words("keep.about", part=words(f"keep.of.{part}"), of=brief(one.about))
        shown = _text(getattr(one, form), f"keep-code-{part}-{n}", title, form, words)
        yield html.Details([html.Summary(title), *shown], open=part == "map")


def _text(text: str | None, name: str, title: str, form: str, words: Texts) -> list[Component]:
    """Code with what copies it; or why there is none."""
    if text is None:
        return [html.P(words(f"keep.no_{form}"), className="quiet")]
    code = html.Pre(text, id=name, tabIndex=0, **{"aria-label": title})
    return [code, _copies(name, title, words)]


def _copies(target: str, what: str, words: Texts) -> Component:
    """A button that copies what a component holds."""
    copy = words("keep.copy")
    return html.Button(copy, **{"data-copies": target, "aria-label": f"{copy}: {what}"})


# ------------------------------------------------------------------------------------------- files


def _files(app: Dash, context: Context) -> None:
    @app.callback(
        Output("keep-files", "children"),
        Input(seen(NAME), "data"),
        Input(ready_for(NAME), "data"),
        Input(grown_for(NAME), "data"),
        prevent_initial_call=True,
    )
    def offer(
        search: str | None, ready: Mapping[str, str] | None, grown: Mapping[str, Any] | None
    ) -> Shown:
        view = context.view(search)
        if not is_open(view, NAME, ready):
            return []
        words = context.words(view.lang)
        there = offered(view, (grown or {}).get("state") == DONE)
        links = [
            html.A(
                words(f"keep.file.{name}"),
                href=f"{FILES}{name}{view.to_query()}",
                download=f"microtome-{name}",
                className="file",
            )
            for name in there
        ]
        lacking = [
            html.P(words(f"keep.{why}"), className="quiet")
            for kind, why in (("map", "no_map"), ("circuit", "no_pins"))
            if not any(KINDS[name].of == kind for name in there)
        ]
        mixed = words.lang != "en" and "report.html" in there
        told = [html.P(words("keep.report_sentences"), className="quiet")] if mixed else []
        return [html.Div(links, className="chips"), *told, *lacking]


def _file(context: Context, name: str) -> Response:
    """A file of the view that the address names."""
    view = context.view(request.query_string.decode())
    try:
        model = context.desk.model(view.model)
        progress = context.jobs.progress(Asked.of(view)) if view.text else None
        done = progress is not None and progress.state == DONE
        effects = progress.effects if progress is not None and done else None
        data = made(name, view, model, effects, context.words(view.lang))
    except MicrotomeError as error:
        return Response(f"{error}\n", 404, mimetype="text/plain")
    # Never opened as a page of this server, whatever it holds.
    told = {"Content-Disposition": f'attachment; filename="microtome-{name}"'}
    return Response(data, mimetype=KINDS[name].type, headers=told)


# ----------------------------------------------------------------------------------------- history


def _history(app: Dash, context: Context) -> None:
    for name, output in (
        ("link", Output("keep-link", "value")),
        ("remember", Output("keep-visited", "data")),
    ):
        app.clientside_callback(
            ClientsideFunction("keep", name), output, Input("address", "search")
        )

    @app.callback(
        Output("keep-history", "children"),
        Input("keep-visited", "data"),
        State("address", "search"),
        prevent_initial_call=True,
    )
    def listed(visited: Sequence[str] | None, search: str | None) -> Shown:
        if context.view(search).panel != NAME or not visited:
            return []
        views = dict.fromkeys(_question(context.view(one)) for one in reversed(visited))
        shown = [(view, words) for view in views if (words := called(view))]
        return [
            html.Li(dcc.Link(words, href=f"/{view.to_query()}")) for view, words in shown[:MOST]
        ]


def _question(view: View) -> View:
    """A view without what is open of it."""
    return replace(view, panel="", problems=())


def called(view: View) -> str:
    """What a place is called; "" for an empty page."""
    if not view.text:
        return ""
    asked = " / ".join(filter(None, (view.target, view.contrast)))
    told = [*filter(None, (view.model, view.edit, view.metric)), view.text]
    told += [f"{asked} ?"] if asked else []
    told += [f"⇠ {view.donor}"] if view.donor else []
    told += [f"+ {len(view.chosen)}"] if view.chosen else []
    told += [f"→ {view.reader}"] if view.reader else []
    told += [f"↔ {view.against.kind}"] if view.against else []
    return " · ".join(brief(one, 60) for one in told)


KEEP = Panel(NAME, layout, register)
