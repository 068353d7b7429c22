"""Write under the chosen cells' edits, with the unedited text beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from dash import Dash, Input, Output, State, ctx, dcc, html, no_update
from dash.development.base_component import Component

from microtome.frontends.importing import imported
from microtome.frontends.lab.asked import known_as, prompt_of
from microtome.frontends.lab.costing import AT_ONCE
from microtome.frontends.lab.panels.panel import Context, Panel, moved, seen
from microtome.frontends.lab.panels.parts import labelled
from microtome.frontends.lab.panels.showing import (
    Remembered,
    Shown,
    answered,
    is_open,
    seconds,
    table,
    token,
    value,
)
from microtome.frontends.lab.state import MOST_STEPS, View
from microtome.texts import Texts, brief, visible

if TYPE_CHECKING:
    from microtome.frontends.lab.answers.writing import Token, Written

NAME = "write"
STEP = 5.0
"""Tokens of a long pass that take as long as a step for one."""
FULL = 2.0
"""Nats of divergence at which a token's background is as strong as it gets."""


def layout(words: Texts) -> Component:
    """The panel."""
    return html.Section(
        id=NAME,
        className=NAME,
        **{"aria-label": words("write.title")},
        children=[
            html.P(words("write.about"), className="quiet"),
            html.P(id="write-edits"),
            html.Div(
                [
                    labelled(
                        words("write.steps"),
                        dcc.Input(
                            id="write-steps",
                            type="number",
                            min=1,
                            max=MOST_STEPS,
                            step=1,
                            className="commits",
                        ),
                    ),
                    html.Button(words("write.write"), id="write-go", hidden=True),
                    html.Small(id="write-cost"),
                ],
                className="line",
            ),
            dcc.Loading(html.Div(id="write-texts", **{"aria-live": "polite"})),
        ],
    )


def register(app: Dash, context: Context) -> None:
    """Put the callbacks on."""
    answers = Remembered()

    @app.callback(
        Output("write-steps", "value"),
        Output("write-edits", "children"),
        Input(seen(NAME), "data"),
    )
    def show(search: str | None) -> tuple[int, str]:
        view = context.view(search)
        words = context.words(view.lang)
        if not view.chosen:
            return view.steps, words("write.none")
        return view.steps, words("write.under", edits="; ".join(map(brief, view.chosen)))

    @app.callback(
        Output("address", "search", allow_duplicate=True),
        Input("write-steps", "n_blur"),
        State("write-steps", "value"),
        State("address", "search"),
        prevent_initial_call=True,
    )
    def count(_: int | None, steps: int | None, search: str | None) -> object:
        view = context.view(search)
        if not isinstance(steps, int) or not 1 <= steps <= MOST_STEPS or steps == view.steps:
            return no_update
        return moved(view, steps=steps)

    @app.callback(
        Output("write-texts", "children"),
        Output("write-cost", "children"),
        Output("write-go", "hidden"),
        Input(seen(NAME), "data"),
        Input("ready", "data"),
        Input("write-go", "n_clicks"),
    )
    def write(
        search: str | None, ready: Mapping[str, str] | None, _: int | None
    ) -> tuple[Shown, str, bool]:
        view = context.view(search)
        if not is_open(view, NAME, ready):
            return [], "", True
        words, told = context.words(view.lang), [""]
        asks = ctx.triggered_id == "write-go"

        def work() -> Shown:
            time = _seconds(context, view)
            if not asks and time > AT_ONCE and not answers.has(_key(context, view)):
                told[0] = words("write.cost", time=seconds(time))
                return []
            return _texts(_written(context, view, answers), words)

        return answered(work), told[0], not told[0]


def _key(context: Context, view: View) -> tuple[object, ...]:
    weights = known_as(context.desk.model(view.model))
    return ("written", weights, prompt_of(view), view.chosen, view.steps)


def _written(context: Context, view: View, answers: Remembered) -> Written:
    answer = imported("microtome.frontends.lab.answers.writing").written
    model = context.desk.model(view.model)
    found: Written = answers.get(
        _key(context, view), lambda: answer(model, prompt_of(view), view.chosen, view.steps)
    )
    return found


def _seconds(context: Context, view: View) -> float:
    """About how long it takes: both texts are written, and the edited one is read twice more."""
    return context.desk.pace(view.model, prompt_of(view)) * STEP * (2 * view.steps + 6)


def _texts(found: Written, words: Texts) -> Shown:
    edited = [
        html.Span(found.prompt, className="given"),
        *(_token(one, words) for one in found.tokens),
    ]
    plain = [html.Span(found.prompt, className="given"), html.Span("".join(found.plain))]
    return [
        html.Div(
            [
                html.Div([html.H3(words("write.edited")), html.P(edited, className="text")]),
                html.Div([html.H3(words("write.unedited")), html.P(plain, className="text")]),
            ],
            className="pair",
        ),
        html.P(words(f"write.ended.{found.ended}"), className="quiet"),
        html.Details([html.Summary(words("write.tokens")), _table(found, words)]),
    ]


def _token(one: Token, words: Texts) -> Component:
    """A token, the darker the more the edits changed what was predicted there."""
    told = words("write.instead", token=visible(one.instead), kl=value(one.kl))
    strength = min(one.kl / FULL, 1.0)
    return html.Span(
        one.token,
        title=told,
        className="written changed" if one.instead != one.token else "written",
        style={"backgroundColor": f"rgba(224, 142, 40, {0.65 * strength:.3f})"},
    )


def _table(found: Written, words: Texts) -> Component:
    keys = ("token", "logprob", "clean_logprob", "without", "kl", "changed")
    rows = [
        [
            token(one.token),
            value(one.logprob),
            value(one.clean_logprob),
            token(one.instead),
            value(one.kl),
            f"{one.changed:,}",
        ]
        for one in found.tokens
    ]
    return table([words(f"write.{key}") for key in keys], rows, words("write.each"))


WRITE = Panel(NAME, layout, register)
