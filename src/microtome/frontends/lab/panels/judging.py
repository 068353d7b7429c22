"""How faithful the pinned circuit is, on request: each ablation, with its interval."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from dash import Dash, Input, Output, State, ctx, html
from dash.development.base_component import Component

import microtome as mt
from microtome.errors import Cancelled, MicrotomeError
from microtome.frontends.importing import imported
from microtome.frontends.lab.asked import known_as, prompt_of
from microtome.frontends.lab.panels.panel import Context, ready_for, seen
from microtome.frontends.lab.panels.parts import beat, labelled, select
from microtome.frontends.lab.panels.refusing import refused
from microtome.frontends.lab.panels.showing import Shown, answered, is_open, table, value
from microtome.frontends.lab.panels.works import BEAT, LOOK, STOP, Works, shown
from microtome.frontends.lab.state import View
from microtome.texts import Texts

if TYPE_CHECKING:
    from microtome.engines.observer import Observer
    from microtome.frontends.lab.answers.pinned import Kept

NAME = "trace"
TASKS = ("ioi", "capitals", "greater_than", "induction", "quotes")
PROMPTS = 16
"""Prompts of a task that a circuit is judged on."""
ABLATIONS = ("patch", "zero", "mean")
ALONE = ("patch", "zero")
"""Those of one prompt, whose mean would be its own; and of prompts of several lengths, as a mean is
of each position."""
THIS = "this"
ASKS = "trace-judge"
SAYS = {f"{ASKS}-stop": STOP, f"{ASKS}-beat": LOOK}
"""Component → what it says of the work."""


def layout(words: Texts) -> Component:
    """The part of the panel."""
    on = [{"label": words("trace.on_this"), "value": THIS}]
    on += [{"label": words("trace.on_task", n=PROMPTS, task=one), "value": one} for one in TASKS]
    return html.Div(
        [
            html.Div(
                [
                    labelled(words("trace.judge_on"), select("trace-on", on, THIS)),
                    html.Button(words("trace.judge"), id=ASKS),
                    html.Button(words("trace.stop"), id=f"{ASKS}-stop", hidden=True),
                ],
                className="line",
            ),
            html.Div(id="trace-kept", **{"aria-live": "polite"}),
            beat(f"{ASKS}-beat", BEAT, disabled=True),
        ]
    )


def register(app: Dash, context: Context) -> None:
    """Put the callback on."""
    works: Works[tuple[Kept | MicrotomeError, ...]] = Works()

    @app.callback(
        Output("trace-kept", "children"),
        Output(f"{ASKS}-stop", "hidden"),
        Output(f"{ASKS}-beat", "disabled"),
        Input(ASKS, "n_clicks"),
        Input(f"{ASKS}-stop", "n_clicks"),
        Input(f"{ASKS}-beat", "n_intervals"),
        Input(seen(NAME), "data"),
        State("trace-on", "data-value"),
        State(ready_for(NAME), "data"),
        prevent_initial_call=True,
    )
    def judge(*given: Any) -> tuple[Shown, bool, bool]:
        _, _, _, search, on, ready = given
        view, by = context.view(search), str(ctx.triggered_id)
        if not is_open(view, NAME, ready) or not view.pins or not by.startswith(ASKS):
            return [], True, True  # what is shown is of the circuit that is shown
        words, is_running = context.words(view.lang), False

        def work() -> Shown:
            nonlocal is_running
            trial = _Trial(context, view, on or THIS)
            found = works.heard(trial.key, trial.runs, trial.judged, SAYS.get(by, ""))
            told, is_running = shown(found, words, trial.table)
            return told

        return answered(work, words), not is_running, not is_running


class _Trial:
    """The circuit of a view, judged on some prompts."""

    def __init__(self, context: Context, view: View, on: str) -> None:
        self.words, self.on = context.words(view.lang), on
        self.metric, self.model = view.measured, context.desk.model(view.model)
        self.pinned = imported("microtome.frontends.lab.answers.pinned")
        self.circuit = self.pinned.circuit_of(self.model, view.pins)
        self.prompts = (prompt_of(view),) if on == THIS else self._task()
        lengths = {len(one.tokens.read) for one in self.model.encode(self.prompts)}
        self.ablations = ABLATIONS if on != THIS and len(lengths) == 1 else ALONE
        self.key = (known_as(self.model), self.prompts, self.circuit, self.metric)

    def _task(self) -> tuple[mt.Prompt, ...]:
        """Prompts of a task in the model's tokens.

        Raises:
            TaskError: there are not the words for so many.
        """
        if self.on not in TASKS:
            raise MicrotomeError(f"No circuit is judged on {self.on!r}: take {', '.join(TASKS)}.")
        return tuple(mt.tasks.TASKS[self.on](PROMPTS, 1, tokenizer=self.model.tokenizer))

    @property
    def runs(self) -> int:
        """Of the circuit, and of none, on each prompt under each ablation."""
        return len(self.ablations) * 2 * len(self.prompts)

    def judged(self, observer: Observer) -> tuple[Kept | MicrotomeError, ...]:
        """Each ablation; one that the prompts are not made for says why, and the other may do."""
        return tuple(self._each(observer))

    def _each(self, observer: Observer) -> Iterator[Kept | MicrotomeError]:
        for ablation in self.ablations:
            try:
                yield self.pinned.kept(
                    self.model, self.prompts, self.circuit, self.metric, ablation, observer
                )
            except Cancelled:
                raise
            except MicrotomeError as error:
                yield error

    def table(self, verdicts: Sequence[Kept | MicrotomeError]) -> Shown:
        """The verdicts."""
        words = self.words
        both = list(zip(self.ablations, verdicts, strict=True))
        rows = [_row(one, words) for _, one in both if not isinstance(one, MicrotomeError)]
        made: list[Component] = []
        if rows:
            keys = ("ablated", "faithful", "interval", "of", "values")
            heads = [words(f"trace.{key}") for key in keys]
            made.append(table(heads, rows, words("trace.kept", metric=self.metric)))
        if rows and self.on == THIS:
            made.append(html.P(words("trace.one_prompt"), className="quiet"))
        elif rows and self.ablations == ALONE:
            made.append(html.P(words("trace.no_mean"), className="quiet"))
        wrong = [(name, one) for name, one in both if isinstance(one, MicrotomeError)]
        return [*made, *(refused(f"{name}: {error}", words) for name, error in wrong)]


def _row(found: Kept, words: Texts) -> Sequence[Component | str]:
    """The ablation, f, its interval, prompts, and what it is made of."""
    interval = "–" if found.low != found.low else f"{value(found.low)} … {value(found.high)}"
    parts = words(
        "trace.made_of",
        circuit=value(found.circuit),
        empty=value(found.empty),
        full=value(found.full),
    )
    how = words(f"trace.by_{found.ablation}")
    return [how, value(found.faithfulness), interval, words("trace.n", n=found.n), parts]
