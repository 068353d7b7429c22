"""Compare: the map beside that of another prompt, model or edit, and their difference.

The other side is a part of the address; its map is one like any other, in the same line.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dash import Dash, Input, Output, State, ctx, dcc, html, no_update
from dash.development.base_component import Component

from microtome.errors import MicrotomeError
from microtome.frontends.importing import imported
from microtome.frontends.lab.asked import Asked
from microtome.frontends.lab.costing import cost_of
from microtome.frontends.lab.jobs import CANCELLED, DONE, FAILED, Progress
from microtome.frontends.lab.panels.panel import Context, Panel, moved, seen
from microtome.frontends.lab.panels.parts import beat, labelled, listed, select
from microtome.frontends.lab.panels.refusing import refused
from microtome.frontends.lab.panels.showing import (
    Shown,
    answered,
    effect,
    graph,
    is_open,
    seconds,
    table,
    value,
)
from microtome.frontends.lab.sides import FIELDS, other_of, texts_of, with_texts
from microtome.frontends.lab.speaking import spoken
from microtome.frontends.lab.state import KINDS, LONGEST, SHORT, Against, View
from microtome.texts import Texts, brief

if TYPE_CHECKING:
    from microtome import Effects
    from microtome.frontends.lab.answers.comparison import Comparison

NAME = "compare"
BEAT = 500
"""Milliseconds between two looks at the other map, while it is computed."""


def layout(words: Texts) -> Component:
    """The panel."""
    return html.Section(
        id=NAME,
        className=NAME,
        **{"aria-label": words("compare.title")},
        children=[
            html.P(words("compare.about"), className="quiet"),
            labelled(words("compare.kind"), select("compare-kind")),
            html.Div(_prompt(words), id="compare-prompt", hidden=True),
            html.Div(
                labelled(words("compare.model"), select("compare-model")),
                id="compare-models",
                hidden=True,
            ),
            html.Div(
                labelled(words("compare.edit"), _field("compare-edit")),
                id="compare-edits",
                hidden=True,
            ),
            html.Div(
                [
                    html.Div(id="compare-status", role="status", **{"aria-live": "polite"}),
                    html.Button(words("compare.compute"), id="compare-go", hidden=True),
                ],
                className="status",
            ),
            html.Div(id="compare-maps"),
            beat("compare-pulse", BEAT, disabled=True),
        ],
    )


def _prompt(words: Texts) -> list[Component]:
    fields = [labelled(words(f"ask.{name}"), _field(f"compare-{name}")) for name in FIELDS]
    return [
        *fields,
        html.Button(words("compare.swap"), id="compare-swap", title=words("compare.swap_about")),
    ]


def _field(name: str) -> Component:
    most = LONGEST // 4 if name in ("compare-text", "compare-donor") else SHORT
    return dcc.Input(id=name, maxLength=most, className="commits", spellCheck=False)


def register(app: Dash, context: Context) -> None:
    """Put the callbacks on."""
    _shown(app, context)
    _changed(app, context)
    _compared(app, context)


def _shown(app: Dash, context: Context) -> None:
    """The fields follow the address."""

    @app.callback(
        Output("compare-kind", "data-lines"),
        *(Output(f"compare-{name}", "hidden") for name in ("prompt", "models", "edits")),
        *(Output(f"compare-{name}", "value") for name in (*FIELDS, "edit")),
        Output("compare-model", "data-lines"),
        Input(seen(NAME), "data"),
    )
    def show(search: str | None) -> tuple[object, ...]:
        view = context.view(search)
        words = context.words(view.lang)
        other, kind = other_of(view) or view, view.against.kind if view.against else ""
        kinds = [{"label": words("compare.kinds.none"), "value": ""}]
        kinds += [{"label": words(f"compare.kinds.{one}"), "value": one} for one in KINDS]
        models = [
            {"label": one.name, "value": one.name, "disabled": bool(one.lacks), "title": one.lacks}
            for one in context.desk.offers
        ]
        return (
            listed(kinds, kind),
            *(kind != one for one in KINDS),
            *(getattr(other, name) for name in (*FIELDS, "edit")),
            listed(models, other.model),
        )


def _changed(app: Dash, context: Context) -> None:
    address = Output("address", "search", allow_duplicate=True)

    @app.callback(
        address,
        Input("compare-kind", "data-value"),
        State("address", "search"),
        prevent_initial_call=True,
    )
    def choose(kind: str | None, search: str | None) -> object:
        view = context.view(search)
        if kind not in ("", *KINDS) or kind == (view.against.kind if view.against else ""):
            return no_update
        return moved(view, against=_first(view, kind))

    @app.callback(
        address,
        *(Input(f"compare-{name}", "n_blur") for name in FIELDS),
        Input("compare-swap", "n_clicks"),
        *(State(f"compare-{name}", "value") for name in FIELDS),
        State("address", "search"),
        prevent_initial_call=True,
    )
    def prompt(*given: Any) -> object:
        *texts, search = given[len(FIELDS) + 1 :]
        view = context.view(search)
        if ctx.triggered_id == "compare-swap":
            return moved(view, against=_as_prompt(_swapped(view)))
        typed = dict(zip(FIELDS, (text or "" for text in texts), strict=True))
        other = other_of(view) or view
        if all(getattr(other, name) == text for name, text in typed.items()):
            return no_update
        return moved(view, against=_as_prompt(typed))

    @app.callback(
        address,
        Input("compare-model", "data-value"),
        State("address", "search"),
        prevent_initial_call=True,
    )
    def model(name: str | None, search: str | None) -> object:
        view = context.view(search)
        other = other_of(view)
        if not name or other is None or name == other.model:
            return no_update
        return moved(view, against=Against("model", name))

    @app.callback(
        address,
        Input("compare-edit", "n_blur"),
        State("compare-edit", "value"),
        State("address", "search"),
        prevent_initial_call=True,
    )
    def edit(_: int | None, text: str | None, search: str | None) -> object:
        view, text = context.view(search), (text or "").strip()
        other = other_of(view)
        if not text or other is None or text == other.edit:
            return no_update
        return moved(view, against=Against("edit", text))


def _first(view: View, kind: str) -> Against | None:
    """What a side is compared with before anything is said: what is most likely meant."""
    if kind == "prompt":
        return _as_prompt(_swapped(view)) if view.donor else _as_prompt(texts_of(view))
    return Against(kind, getattr(view, kind)) if kind else None


def _swapped(view: View) -> dict[str, str]:
    """The donor as the text, and what is expected of each exchanged."""
    own = texts_of(view)
    return dict(zip(FIELDS, (own[n] for n in ("donor", "text", "contrast", "target")), strict=True))


def _as_prompt(texts: Mapping[str, str]) -> Against | None:
    """A prompt as the other side; none where there is no text."""
    if not texts["text"].strip():
        return None
    return Against("prompt", with_texts(View(), texts).to_query())


def _compared(app: Dash, context: Context) -> None:
    @app.callback(
        Output("compare-status", "children"),
        Output("compare-go", "hidden"),
        Output("compare-maps", "children"),
        Output("compare-pulse", "disabled"),
        Input(seen(NAME), "data"),
        Input("ready", "data"),
        Input("grown", "data"),
        Input("compare-go", "n_clicks"),
        Input("compare-pulse", "n_intervals"),
        State("asker", "data"),
    )
    def compare(
        search: str | None, ready: Mapping[str, str] | None, *given: Any
    ) -> tuple[object, ...]:
        asker = given[-1] or ""
        view = context.view(search)
        other = other_of(view)
        if other is None or not is_open(view, NAME, ready):
            return "", True, [], True
        words = context.words(view.lang)
        try:
            sides = _Sides(context, view, other, words, asker)
            return sides.shown(ctx.triggered_id == "compare-go")
        except MicrotomeError as error:
            return refused(error, words), True, [], True


class _Sides:
    """The two maps, and how far they are."""

    def __init__(self, context: Context, view: View, other: View, words: Texts, asker: str) -> None:
        self.context, self.view, self.other, self.words = context, view, other, words
        self.asker = asker

    def shown(self, asks: bool) -> tuple[object, ...]:
        """Status, whether there is nothing to ask for, the maps, whether nothing is on its way."""
        desk, words = self.context.desk, self.words
        loading = desk.state(self.other.model)
        if loading.state == "failed":
            return refused(loading.why, words), True, [], True
        if not loading.is_ready:
            return words("compare.loading", model=self.other.model), True, [], False
        mine = self.context.jobs.progress(Asked.of(self.view))
        if mine is None or mine.state != DONE or mine.effects is None:
            return words("compare.first"), True, [], True
        asked = Asked.of(self.other)
        theirs = self._begun(asked, asks)
        if theirs is None or theirs.state == CANCELLED:
            cost = cost_of(desk, asked)
            told = words("compare.cost", cells=f"{cost.cells:,}", time=seconds(cost.seconds))
            return told, False, [], True
        if theirs.state == FAILED:
            return refused(theirs.why, words), True, [], True
        if theirs.state != DONE or theirs.effects is None:
            if not theirs.of_cells:
                return words("map.begun"), True, no_update, False
            done = words("compare.running", cells=f"{theirs.cells:,.0f}", of=f"{theirs.of_cells:,}")
            return done, True, no_update, False
        maps = self._maps(mine.effects, theirs.effects)
        return "", True, answered(lambda: maps, self.words), True

    def _begun(self, asked: Asked, asks: bool) -> Progress | None:
        """How far the other map is; one that is small, or kept, begins by itself."""
        jobs = self.context.jobs
        if asks or (
            jobs.find(asked) is None
            and (jobs.is_kept(asked) or cost_of(self.context.desk, asked).is_small)
        ):
            jobs.submit(asked, self.asker)
        return jobs.progress(asked, self.asker)

    def _maps(self, mine: Effects, theirs: Effects) -> Shown:
        answer = imported("microtome.frontends.lab.answers.comparison")
        names = self._names()
        sides = (answer.Side(name, one) for name, one in zip(names, (mine, theirs), strict=True))
        return _drawn(answer.compared(*sides, self.view.measured), names, self.words)

    def _names(self) -> tuple[str, str]:
        assert self.view.against is not None, "there is another side"
        field = {"prompt": "text"}.get(self.view.against.kind, self.view.against.kind)
        one, other = (brief(getattr(side, field)) for side in (self.view, self.other))
        return one, other


def _drawn(found: Comparison, names: tuple[str, str], words: Texts) -> Shown:
    """Both maps and their difference, then the cells that differ most."""
    figures = [
        graph(spoken(figure, words), f"compare-{side}", name)
        for side, figure, name in zip(
            ("left", "right", "difference"),
            (found.left, found.right, found.difference),
            (*names, words("compare.difference")),
            strict=True,
        )
        if figure is not None
    ]
    made: list[Component] = [html.Div(figures, className="sides")]
    if found.why_not:
        return [*made, html.P(words("compare.why_not", why=found.why_not), className="quiet")]
    rows = [
        [one.where or words("compare.cell"), effect(one.left), effect(one.right),
         effect(one.difference)]
        for one in found.rows
    ]  # fmt: skip
    heads = [words("compare.where"), *names, words("compare.difference")]
    title = words("compare.rows", metric=found.metric, unit=found.unit)
    noise = words("compare.noise", noise=value(found.noise))
    return [*made, table(heads, rows, title), html.P(noise, className="quiet")]


COMPARE = Panel(NAME, layout, register)
