"""The chosen cells: what their run answers, what they do together, where they look and write.

One part waits for the one before it, the quickest first: all of them want the same model. What
feeds a cell is last, and asked for, with its cost, unless it is small.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dash import Dash, Input, Output, State, dcc, html
from dash.development.base_component import Component

from microtome.errors import MicrotomeError
from microtome.frontends.importing import imported
from microtome.frontends.lab.asked import known_as, prompt_of
from microtome.frontends.lab.panels import feeding
from microtome.frontends.lab.panels.map import drawing_of
from microtome.frontends.lab.panels.panel import Context, Panel, grown_for, ready_for, seen
from microtome.frontends.lab.panels.parts import labelled, listed, select
from microtome.frontends.lab.panels.showing import (
    Remembered,
    Shown,
    answered,
    effect,
    graph,
    is_open,
    percent,
    table,
    token,
    value,
)
from microtome.frontends.lab.speaking import spoken
from microtome.frontends.lab.state import View
from microtome.texts import Texts, brief

NAME = "cell"
MOST_PATTERNS = 8
"""Heads whose patterns can be looked at, of the chosen cells."""


def layout(words: Texts) -> Component:
    """The panel."""
    return html.Section(
        id=NAME,
        className=NAME,
        **{"aria-label": words("cell.title")},
        children=[
            html.Div(
                id="cell-chosen",
                className="chips",
                role="group",
                **{"aria-label": words("cell.chosen")},
            ),
            labelled(words("cell.pick"), select("cell-pick"), words("cell.how")),
            html.Div(id="cell-answer", **{"aria-live": "polite"}),
            html.Div(id="cell-together"),
            html.Div(id="cell-shares"),
            html.Div(
                [
                    labelled(words("cell.head"), select("cell-head")),
                    dcc.Loading(html.Div(id="cell-pattern")),
                ],
                id="cell-looks",
                hidden=True,
            ),
            feeding.layout(NAME, words),
        ],
    )


def register(app: Dash, context: Context) -> None:
    """Put the callbacks on."""
    answers = Remembered()
    _choosing(app, context)
    _answer(app, context, answers)
    _together(app, context, answers)
    _shares(app, context, answers)
    _looks(app, context, answers)
    feeding.register(app, context, NAME, readers, after=["cell-pattern"])


def _choosing(app: Dash, context: Context) -> None:
    """The chosen cells, each to be let go; and a list of the strongest, for one more."""

    @app.callback(
        Output("cell-chosen", "children"),
        Output("cell-pick", "data-lines"),
        Input(seen(NAME), "data"),
        Input(grown_for(NAME), "data"),
        prevent_initial_call=True,
    )
    def offer(search: str | None, _: Mapping[str, Any] | None) -> tuple[Shown, str]:
        view = context.view(search)
        words = context.words(view.lang)
        try:
            drawing = drawing_of(context, view)
        except MicrotomeError:  # the map says it
            drawing = None
        strong = [] if drawing is None else drawing.strongest
        options = [
            {"label": f"{one.edit}   {one.effect}", "value": one.edit}
            for one in strong
            if one.edit not in view.chosen
        ]
        first = {"label": words("cell.add" if view.chosen else "cell.none"), "value": ""}
        return [_chip(cell, words) for cell in view.chosen], listed([first, *options], "")


def _chip(cell: str, words: Texts) -> Component:
    return html.Button(
        [html.Span(brief(cell), className="mono"), " ×"],
        className="chosen",
        title=words("cell.drop"),
        **{"aria-label": f"{words('cell.drop')}: {cell}", "data-drops": cell},
    )


def _of_chosen(
    context: Context,
    search: str | None,
    ready: Mapping[str, str] | None,
    show: Callable[[View, Texts], Shown],
) -> Shown:
    """What is shown of the chosen cells, where there are any and the panel is open."""
    view = context.view(search)
    if not is_open(view, NAME, ready) or not view.chosen:
        return []
    words = context.words(view.lang)
    return answered(lambda: show(view, words), words)


def _answer(app: Dash, context: Context, answers: Remembered) -> None:
    def changed(view: View, words: Texts) -> Shown:
        prompt, model = prompt_of(view), context.desk.model(view.model)
        key = ("changed", known_as(model), prompt, view.chosen)
        found = answers.get(key, lambda: _cell().changed(model, prompt, view.chosen))
        return [_words(found, words), _receipts(found, words)]

    @app.callback(
        Output("cell-answer", "children"),
        Input(seen(NAME), "data"),
        Input(ready_for(NAME), "data"),
        prevent_initial_call=True,
    )
    def answer(search: str | None, ready: Mapping[str, str] | None) -> Shown:
        return _of_chosen(context, search, ready, changed)


def _words(found: Any, words: Texts) -> Component:
    """What was most probable before, and is now, each with both probabilities."""
    tables = [
        table(
            [words("cell.token"), words("cell.clean"), words("cell.edited"), words("cell.rank")],
            [
                [
                    token(one.token),
                    percent(one.clean_prob),
                    percent(one.prob),
                    f"{one.clean_rank} → {one.rank}",
                ]
                for one in some
            ],
            words(title),
        )
        for title, some in (("cell.before", found.before), ("cell.after", found.after))
    ]
    return html.Div(tables, className="pair")


def _receipts(found: Any, words: Texts) -> Component:
    rows = [
        [
            brief(one.edit),
            f"{one.changed:,} / {one.selected:,}",
            value(one.norm),
            ", ".join(map(str, one.layers)) or "–",
        ]
        for one in found.receipts
    ]
    heads = [words(f"cell.{name}") for name in ("edit", "values", "norm", "layers")]
    return table(heads, rows, words("cell.receipts"))


def _together(app: Dash, context: Context, answers: Remembered) -> None:
    def joined(view: View, words: Texts) -> Shown:
        prompt, model = prompt_of(view), context.desk.model(view.model)
        key = ("together", known_as(model), prompt, view.chosen, view.measured)
        found = answers.get(
            key, lambda: _cell().together(model, prompt, view.chosen, view.measured)
        )
        return _joined(found, words)

    @app.callback(
        Output("cell-together", "children"),
        Input(seen(NAME), "data"),
        Input(ready_for(NAME), "data"),
        Input("cell-answer", "children"),
        prevent_initial_call=True,
    )
    def together(search: str | None, ready: Mapping[str, str] | None, _: object) -> Shown:
        return _of_chosen(context, search, ready, joined)


def _joined(found: Any, words: Texts) -> Shown:
    one = found.value
    said = words(
        "cell.metric",
        metric=one.metric,
        unit=one.unit,
        clean=value(one.clean),
        edited=value(one.edited),
        effect=effect(one.effect),
    )
    noise = words("cell.noise", noise=value(one.noise)) if abs(one.effect) <= one.noise else ""
    told: list[Component] = [html.P([said, " ", noise])]
    if len(found.alone) < 2:
        return told
    rows = [[brief(each.edit), effect(each.effect)] for each in found.alone]
    rows += [
        [words("cell.sum"), effect(found.summed)],
        [words("cell.joint"), effect(one.effect)],
        [words("cell.only"), effect(found.joint)],
    ]
    heads = [words("cell.edit"), words("cell.effect", metric=one.metric)]
    return [*told, table(heads, rows, words("cell.several"))]


def _shares(app: Dash, context: Context, answers: Remembered) -> None:
    def written(view: View, words: Texts) -> Shown:
        if not view.target:
            return [html.P(words("cell.no_target"), className="quiet")]
        prompt, model = prompt_of(view), context.desk.model(view.model)
        key = ("shares", known_as(model), prompt, view.chosen)
        found = answers.get(key, lambda: _cell().shares(model, prompt, view.chosen))
        return _written(found, words)

    @app.callback(
        Output("cell-shares", "children"),
        Input(seen(NAME), "data"),
        Input(ready_for(NAME), "data"),
        Input("cell-together", "children"),
        prevent_initial_call=True,
    )
    def share(search: str | None, ready: Mapping[str, str] | None, _: object) -> Shown:
        return _of_chosen(context, search, ready, written)


def _written(found: Any, words: Texts) -> Shown:
    own = [[one.writer, effect(one.share)] for one in found.own]
    largest = [[one.writer, effect(one.share)] for one in found.largest]
    heads = [words("cell.writer"), words("cell.share")]
    title = words("cell.shares", metric=found.metric, logit=value(found.logit))
    drawn = words("figure.shares", metric=found.metric)
    rest = [
        html.Summary(words("cell.others")),
        table(heads, largest, words("cell.largest")),
        graph(spoken(found.figure, words, drawn, title), "cell-shares-map", title),
    ]
    if not own:
        return [html.P(words("cell.no_share"), className="quiet"), html.Details(rest)]
    return [table(heads, own, title), html.Details(rest)]


def _looks(app: Dash, context: Context, answers: Remembered) -> None:
    @app.callback(
        Output("cell-head", "data-lines"),
        Output("cell-looks", "hidden"),
        Input(seen(NAME), "data"),
        Input(ready_for(NAME), "data"),
        State("cell-head", "data-value"),
        prevent_initial_call=True,
    )
    def offer(
        search: str | None, ready: Mapping[str, str] | None, now: str | None
    ) -> tuple[str, bool]:
        view = context.view(search)
        if not is_open(view, NAME, ready):
            return "", True
        heads = _heads(context, view)
        return listed([{"label": one, "value": one} for one in heads], now or ""), not heads

    @app.callback(
        Output("cell-pattern", "children"),
        Input("cell-head", "data-value"),
        Input(seen(NAME), "data"),
        Input(ready_for(NAME), "data"),
        Input("cell-shares", "children"),
        prevent_initial_call=True,
    )
    def look(
        now: str | None, search: str | None, ready: Mapping[str, str] | None, _: object
    ) -> Shown:
        view = context.view(search)
        if not is_open(view, NAME, ready):
            return []
        words = context.words(view.lang)

        def work() -> Shown:
            heads = _heads(context, view)
            if not heads:
                return []
            node = now if now in heads else heads[0]
            prompt, model = prompt_of(view), context.desk.model(view.model)
            layer, head = imported("microtome.frontends.lab.answers.nodes").head_of(node)
            key = ("looked", known_as(model), prompt, layer, head)
            figure = answers.get(key, lambda: _cell().looked(model, prompt, layer, head))
            title = words("figure.looks", head=f"L{layer}.h{head}")
            drawn = spoken(figure, words, title)
            return [graph(drawn, "cell-pattern-map", words("cell.looks"))]

        return answered(work, words)


def _heads(context: Context, view: View) -> list[str]:
    """The heads that chosen cells are of; none where the prompt is none, as the answer says."""
    nodes_of_all = imported("microtome.frontends.lab.answers.nodes").nodes_of_all
    try:
        nodes = nodes_of_all(context.desk.model(view.model), prompt_of(view), view.chosen)
    except MicrotomeError:
        return []
    return [node for node in nodes if node.startswith("a")][:MOST_PATTERNS]


def readers(context: Context, view: View) -> Sequence[str]:
    """What the chosen cells read by.

    Raises:
        PromptError: the prompt is none.
    """
    nodes = imported("microtome.frontends.lab.answers.nodes")
    if not view.chosen:
        return ()
    found: Sequence[str] = nodes.readers_of_all(
        context.desk.model(view.model), prompt_of(view), view.chosen
    )
    return found


def _cell() -> Any:
    return imported("microtome.frontends.lab.answers.cell")


CELL = Panel(NAME, layout, register)
