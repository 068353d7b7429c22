"""Write under the chosen cells' edits, with the unedited text beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from dash import Dash, Input, Output, State, ctx, dcc, html, no_update
from dash.development.base_component import Component

from microtome.frontends.importing import imported
from microtome.frontends.lab.asked import known_as, prompt_of
from microtome.frontends.lab.costing import AT_ONCE
from microtome.frontends.lab.panels.panel import Context, Panel, moved, ready_for, seen
from microtome.frontends.lab.panels.parts import beat, labelled
from microtome.frontends.lab.panels.showing import (
    Shown,
    answered,
    is_open,
    seconds,
    table,
    token,
    value,
)
from microtome.frontends.lab.panels.works import BEAT, LOOK, STOP, Works, shown
from microtome.frontends.lab.state import MOST_STEPS, View
from microtome.texts import Texts, brief, visible

if TYPE_CHECKING:
    from microtome.engines.observer import Observer
    from microtome.frontends.lab.answers.writing import Token, Written

NAME = "write"
SAYS = {"write-stop": STOP, "write-beat": LOOK, "write-go": "begin"}
"""Component → what it says of the work."""
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
                    html.Button(words("trace.stop"), id="write-stop", hidden=True),
                ],
                className="line",
            ),
            html.Div(id="write-texts", **{"aria-live": "polite"}),
            beat("write-beat", BEAT, disabled=True),
        ],
    )


def register(app: Dash, context: Context) -> None:
    """Put the callbacks on."""
    works: Works[Written] = Works()

    @app.callback(
        Output("write-steps", "value"),
        Output("write-edits", "children"),
        Input(seen(NAME), "data"),
        prevent_initial_call=True,
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
        Output("write-stop", "hidden"),
        Output("write-beat", "disabled"),
        Input(seen(NAME), "data"),
        Input(ready_for(NAME), "data"),
        Input("write-beat", "n_intervals"),
        Input("write-go", "n_clicks"),
        Input("write-stop", "n_clicks"),
        prevent_initial_call=True,
    )
    def write(
        search: str | None, ready: Mapping[str, str] | None, *_: object
    ) -> tuple[object, ...]:
        view, says = context.view(search), SAYS.get(str(ctx.triggered_id), "")
        if not is_open(view, NAME, ready):
            return [], "", True, True, True
        words, is_running, cost = context.words(view.lang), False, ""

        def work() -> Shown:
            nonlocal is_running, cost
            own = _Writing(context, view)
            price = words("write.cost", time=seconds(own.seconds))
            if not says and own.seconds > AT_ONCE and works.find(own.key) is None:
                cost = price
                return []
            found = works.heard(own.key, own.tokens, own.made, says)
            told, is_running = shown(found, words, lambda it: _texts(it, words), "write.running")
            cost = price if found.failed else ""  # cancelled: it can be begun again
            return told

        told = answered(work, words)
        return told, cost, not cost, not is_running, not is_running


class _Writing:
    """The texts of a view, to be written."""

    def __init__(self, context: Context, view: View) -> None:
        self.context, self.view = context, view
        self.model, self.prompt = context.desk.model(view.model), prompt_of(view)
        self.answer = imported("microtome.frontends.lab.answers.writing")
        self.key = (known_as(self.model), self.prompt, view.chosen, view.steps)

    @property
    def tokens(self) -> int:
        """How many are written at most."""
        found: int = self.answer.tokens_of(self.view.chosen, self.view.steps)
        return found

    @property
    def seconds(self) -> float:
        """About how long it takes: two texts are written, and the edited one is read twice more."""
        pace = self.context.desk.pace(self.view.model, self.prompt)
        return pace * STEP * (2 * self.view.steps + 6)

    def made(self, observer: Observer) -> Written:
        """Both texts."""
        view = self.view
        found: Written = self.answer.written(
            self.model, self.prompt, view.chosen, view.steps, observer
        )
        return found


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
