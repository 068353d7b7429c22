"""Where an edit is made, by clicking: a drawing of one block, and a list for each axis."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dash import ALL, ClientsideFunction, Dash, Input, Output, State, ctx, dcc, html, no_update
from dash.development.base_component import Component

from microtome.frontends.importing import imported
from microtome.frontends.lab import choosing
from microtome.frontends.lab.choosing import Choice, Composed
from microtome.frontends.lab.panels.panel import Context, is_ready, moved
from microtome.frontends.lab.panels.parts import labelled, listed, options_of, select
from microtome.frontends.lab.reading import encoded
from microtome.frontends.lab.state import EDIT, SHORT, View
from microtome.language.sites import Site
from microtome.prompts.prompt import Prompt
from microtome.texts import Texts

if TYPE_CHECKING:
    from microtome import Model

STYLE = """
.stream{stroke:#8a9199;stroke-width:3;fill:none}.wire{stroke:#8a9199;stroke-width:1.5;fill:none}
.tip,.stream-tip{fill:#8a9199}.frame{fill:#f7f8f9;stroke:#e3e5e8}.box{fill:#fff;stroke:#b5bac0}
.plus{fill:#fff;stroke:#8a9199;stroke-width:1.5}
text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;
font-size:12px;fill:#24292f}.quiet{fill:#626a73}.sign{font-size:15px}
"""


def layout(words: Texts) -> Component:
    """The drawing, what is done, and the axes."""
    return html.Div(
        className="choose",
        children=[
            html.Div(
                [
                    html.Div(id="map-block", className="block"),
                    html.Div(id="map-finer", className="finer"),
                ]
            ),
            html.Div(
                className="lists",
                children=[
                    labelled(words("map.operation"), select("map-operation")),
                    labelled(words("map.metric"), select("map-metric")),
                    html.Div(id="map-axes", className="axes"),
                    labelled(
                        words("map.edit"),
                        dcc.Input(
                            id="map-edit",
                            maxLength=SHORT,
                            placeholder=EDIT,
                            className="commits mono",
                        ),
                    ),
                ],
            ),
        ],
    )


def register(app: Dash, context: Context) -> None:
    """Put the callbacks on."""
    _shown(app, context)
    _changed(app, context)


def _shown(app: Dash, context: Context) -> None:
    app.clientside_callback(
        ClientsideFunction("microtome", "edit"),
        Output("map-edit", "value"),
        Input("address", "search"),
        State("map-edit", "placeholder"),
        State("map-edit", "value"),
    )

    @app.callback(
        Output("map-operation", "data-lines"),
        Output("map-metric", "data-lines"),
        Output("map-axes", "children"),
        Output("map-block", "children"),
        Output("map-finer", "children"),
        Input("question", "data"),
        Input("ready", "data"),
    )
    def show(search: str | None, ready: Mapping[str, str] | None) -> tuple[object, ...]:
        view = context.view(search)
        words = context.words(view.lang)
        measures = choosing.metrics(bool(view.target), bool(view.contrast))
        measured = options_of(measures, words, "map.lacks")
        if view.measured not in [one.value for one in measures]:
            measured.append({"label": view.measured, "value": view.measured})
        if not choosing.is_readable(view.edit):
            nothing = listed(measured, view.measured)
            return "", nothing, [], no_update, no_update
        made = Composed.of(view.edit)
        site = None if made.address is None else made.address.site
        done = choosing.operations(site, bool(view.donor))
        options = options_of(done, words, "map.lacks")
        options = [one | {"label": _named(one, words)} for one in options]
        if made.name not in choosing.OPERATIONS:
            options.append({"label": made.name, "value": made.name, "disabled": False})
        model = context.desk.loaded(view.model) if is_ready(ready, view) else None
        drawn = [] if model is None else _drawing(model, _name_of(site), words)
        finer = [] if model is None else _finer(model, _name_of(site), words)
        axes = [] if model is None else _axes(model, view, words)
        lists = listed(options, made.name), listed(measured, view.measured)
        return *lists, axes, drawn, finer


def _changed(app: Dash, context: Context) -> None:
    address = Output("address", "search", allow_duplicate=True)

    def edited(search: str | None, text: str) -> object:
        view = context.view(search)
        return no_update if text == view.edit else moved(view, edit=text, chosen=(), at=())

    @app.callback(
        address,
        Input("map-edit", "n_blur"),
        Input("map-edit", "n_submit"),
        State("map-edit", "value"),
        State("address", "search"),
        prevent_initial_call=True,
    )
    def type_it(blurred: int, sent: int, text: str | None, search: str | None) -> object:
        return edited(search, (text or "").strip())

    @app.callback(
        address,
        Input("map-operation", "data-value"),
        State("address", "search"),
        prevent_initial_call=True,
    )
    def operate(name: str | None, search: str | None) -> object:
        edit = context.view(search).edit
        if name is None or not choosing.is_readable(edit) or Composed.of(edit).name == name:
            return no_update
        return edited(search, choosing.with_operation(edit, name))

    @app.callback(
        address,
        Input("map-metric", "data-value"),
        State("address", "search"),
        prevent_initial_call=True,
    )
    def measure(name: str | None, search: str | None) -> object:
        view = context.view(search)
        return no_update if name in (None, view.measured) else moved(view, metric=name)

    @app.callback(
        address,
        Input({"type": "map-site", "name": ALL}, "n_clicks"),
        State("address", "search"),
        prevent_initial_call=True,
    )
    def place(clicks: list[int | None], search: str | None) -> object:
        edit = context.view(search).edit
        if not any(clicks) or not ctx.triggered_id or not choosing.is_readable(edit):
            return no_update
        return edited(search, choosing.with_site(edit, ctx.triggered_id["name"]))

    @app.callback(
        address,
        Input({"type": "map-axis", "name": ALL}, "data-value"),
        State("address", "search"),
        prevent_initial_call=True,
    )
    def select(values: list[str | None], search: str | None) -> object:
        edit = context.view(search).edit
        if not ctx.triggered_id or len(ctx.triggered) != 1 or not choosing.is_readable(edit):
            return no_update
        value, axis = ctx.triggered[0]["value"], ctx.triggered_id["name"]
        return no_update if not value else edited(search, choosing.with_axis(edit, axis, value))


def _name_of(site: Site | None) -> str | None:
    return None if site is None else site.name


def _named(option: Mapping[str, Any], words: Texts) -> str:
    key = f"map.do.{option['value']}"
    label = str(option["label"])
    return label.replace(option["value"], words(key), 1) if key in words else label


def _axes(model: Model, view: View, words: Texts) -> list[Component]:
    positions = len(encoded(model, Prompt(view.text)).tokens) if view.text.strip() else 0
    return [
        labelled(
            words(f"map.axis.{one.axis}"),
            select(
                {"type": "map-axis", "name": one.axis},
                [{"label": _value(v, words), "value": v} for v in one.values],
                one.now,
            ),
        )
        for one in choosing.axes_of(view.edit, model.anatomy.dims, positions)
    ]


def _value(value: str, words: Texts) -> str:
    named = {"*": "each", ":": "all", "-1": "last", "last": "last"}
    return words(f"map.{named[value]}") if value in named else value


def _drawing(model: Model, now: str | None, words: Texts) -> list[Component]:
    """The block, with a button at each site."""
    places = imported("microtome.report.diagram")
    kinds = {one.value: one for one in choosing.sites(model.anatomy.dims)}
    marks = [
        _site(kinds[name], now, words, _at(places, name))
        for name in choosing.IN_DRAWING
        if not kinds[name].lacks
    ]
    return [html.Img(src=_picture(places, words, model), alt=words("map.block")), *marks]


def _finer(model: Model, now: str | None, words: Texts) -> list[Component]:
    every = [
        one for one in choosing.sites(model.anatomy.dims) if one.value not in choosing.IN_DRAWING
    ]
    lacking = [one for one in choosing.sites(model.anatomy.dims)
               if one.lacks and one.value in choosing.IN_DRAWING]  # fmt: skip
    return [_site(one, now, words) for one in (*every, *lacking)]


def _site(
    one: Choice, now: str | None, words: Texts, style: dict[str, str] | None = None
) -> Component:
    about = f"{one.value}: {one.about}" + (
        f" ({words('map.absent')}: {one.lacks})" * bool(one.lacks)
    )
    return html.Button(
        [html.Span(className="dot"), html.Span(one.value, className="name")],
        id={"type": "map-site", "name": one.value},
        className=f"site {one.value}" + " chosen" * (one.value == now),
        style=style,
        title=about,
        disabled=bool(one.lacks),
        **{"aria-label": about, "aria-pressed": str(one.value == now).lower()},
    )


def _at(places: Any, name: str) -> dict[str, str]:
    x, y = places.PLACES[name]
    return {"left": f"{100 * x / places.WIDTH:.2f}%", "top": f"{100 * y / places.HEIGHT:.2f}%"}


def _picture(places: Any, words: Texts, model: Model) -> str:
    texts = imported("microtome.report.html").texts_of(words.lang)
    drawn = str(places.diagram([], texts, model.anatomy.dims.is_parallel))
    drawn = drawn.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    drawn = drawn.replace("<title>", f"<style>{STYLE}</style><title>", 1)
    return "data:image/svg+xml;base64," + base64.b64encode(drawn.encode()).decode()
