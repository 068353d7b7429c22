"""Each edge of the pinned circuit by itself, on request: how much worse it is without it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dash import Dash, Input, Output, ctx, html
from dash.development.base_component import Component

from microtome.errors import MicrotomeError
from microtome.frontends.importing import imported
from microtome.frontends.lab.asked import known_as, prompt_of
from microtome.frontends.lab.panels.panel import Context, ready_for, seen
from microtome.frontends.lab.panels.parts import beat
from microtome.frontends.lab.panels.showing import (
    Shown,
    answered,
    effect,
    graph,
    is_open,
    table,
)
from microtome.frontends.lab.panels.works import BEAT, LOOK, STOP, Works, shown
from microtome.frontends.lab.speaking import spoken
from microtome.frontends.lab.state import View
from microtome.texts import Texts

if TYPE_CHECKING:
    from microtome.circuits import Circuit
    from microtome.engines.observer import Observer

NAME = "trace"
ASKS = "trace-weigh"
SAYS = {f"{ASKS}-stop": STOP, f"{ASKS}-beat": LOOK, ASKS: "begin"}
"""Component → what it says of the work."""


def layout(words: Texts) -> Component:
    """What asks for it, and cancels it."""
    return html.Div(
        [
            html.Button(words("trace.weigh"), id=ASKS),
            html.Button(words("trace.stop"), id=f"{ASKS}-stop", hidden=True),
            beat(f"{ASKS}-beat", BEAT, disabled=True),
        ],
        className="line",
    )


def answer() -> Component:
    """Where the weighed circuit is drawn, in the place of the plain one."""
    return html.Div(id="trace-weighed", **{"aria-live": "polite"})


def register(app: Dash, context: Context) -> None:
    """Put the callback on."""
    works: Works[Circuit] = Works()

    @app.callback(
        Output("trace-weighed", "children"),
        Output("trace-circuit", "hidden"),
        Output(f"{ASKS}-stop", "hidden"),
        Output(f"{ASKS}-beat", "disabled"),
        Input(seen(NAME), "data"),
        Input(ready_for(NAME), "data"),
        Input(f"{ASKS}-beat", "n_intervals"),
        Input(ASKS, "n_clicks"),
        Input(f"{ASKS}-stop", "n_clicks"),
        prevent_initial_call=True,
    )
    def weigh(
        search: str | None, ready: Mapping[str, str] | None, *_: object
    ) -> tuple[Shown, bool, bool, bool]:
        view, says = context.view(search), SAYS.get(str(ctx.triggered_id), "")
        if not is_open(view, NAME, ready) or not view.pins:
            return [], False, True, True
        words = context.words(view.lang)
        is_running = is_drawn = False

        def drawn(found: Circuit) -> Shown:
            nonlocal is_drawn
            is_drawn = True
            return _drawn(found, words)

        def work() -> Shown:
            nonlocal is_running
            try:
                own = _Weighing.of(context, view)
            except MicrotomeError:  # the drawing says why
                return []
            if not says and works.find(own.key) is None:
                return []
            found = works.heard(own.key, len(own.circuit), own.made, says)
            told, is_running = shown(found, words, drawn, "trace.weighing")
            return told

        told = answered(work, words)
        return told, is_drawn, not is_running, not is_running


@dataclass(frozen=True)
class _Weighing:
    """The circuit of a view, to be weighed."""

    context: Context
    view: View
    circuit: Circuit

    @classmethod
    def of(cls, context: Context, view: View) -> _Weighing:
        pinned = imported("microtome.frontends.lab.answers.pinned")
        return cls(context, view, pinned.circuit_of(context.desk.model(view.model), view.pins))

    @property
    def key(self) -> Hashable:
        view, model = self.view, self.context.desk.model(self.view.model)
        return known_as(model), prompt_of(view), self.circuit, view.measured, view.way

    def made(self, observer: Observer) -> Circuit:
        pinned = imported("microtome.frontends.lab.answers.pinned")
        view, model = self.view, self.context.desk.model(self.view.model)
        found: Circuit = pinned.weighed(
            model, prompt_of(view), self.circuit, view.measured, view.way, observer
        )
        return found


def _drawn(found: Circuit, words: Texts) -> Shown:
    """The circuit in the colours of its scores, and each score."""
    pinned = imported("microtome.frontends.lab.answers.pinned")
    title = words("figure.circuit", edges=len(found), nodes=len(found.nodes))
    figure = spoken(pinned.drawn(found), words, title, words("figure.scored"))
    rows = [
        [row["edge"].replace("->", " → "), effect(row["score"])]
        for row in found.to_dataframe().to_dict("records")
    ]
    heads = [words("trace.edge"), words("trace.score")]
    return [
        graph(figure, "trace-weighed-drawing", title),
        table(heads, rows, words("trace.scores")),
    ]
