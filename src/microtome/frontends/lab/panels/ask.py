"""Ask: the model, the prompt as its tokens, its donor, and what is expected behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dash import ALL, ClientsideFunction, Dash, Input, Output, State, ctx, dcc, html, no_update
from dash.development.base_component import Component

import microtome as mt
from microtome.errors import MicrotomeError
from microtome.frontends.lab.choosing import is_at, is_readable, position_of, with_position
from microtome.frontends.lab.examples import EXAMPLES
from microtome.frontends.lab.panels.panel import Context, Panel, is_ready, moved
from microtome.frontends.lab.panels.parts import labelled, listed, notice, select, token_text
from microtome.frontends.lab.panels.refusing import refused
from microtome.frontends.lab.reading import Reading, Token, encoded, read
from microtome.frontends.lab.state import LONGEST, SHORT, View
from microtome.texts import Texts

FIELDS = ("text", "donor", "target", "contrast")
TASKS = ("capitals", "greater_than", "induction", "ioi", "quotes")


def layout(words: Texts) -> Component:
    """The fields; `tokens` is what becomes of them."""
    return html.Section(
        id="ask",
        className="ask",
        **{"aria-label": words("ask.title")},
        children=[
            labelled(words("ask.model"), select("ask-model"), html.Small(id="ask-lacking")),
            html.Details(
                [html.Summary(words("ask.other")), _word("ask-path", words("ask.other_about"))],
                id="ask-others",
                hidden=True,
            ),
            labelled(words("ask.text"), _text("ask-text", words("ask.text_example"))),
            labelled(words("ask.donor"), _text("ask-donor"), words("ask.donor_about")),
            html.Div(
                className="pair",
                children=[
                    labelled(words("ask.target"), _word("ask-target"), html.Small(id="ask-is")),
                    labelled(
                        words("ask.contrast"), _word("ask-contrast"), html.Small(id="ask-not")
                    ),
                ],
            ),
            html.Div(id="ask-problems"),
            _begin(words),
        ],
    )


def tokens(words: Texts) -> Component:
    """The prompt's tokens in a row, with what a click on one does."""
    kinds = [{"label": words(f"ask.{kind}"), "value": kind} for kind in ("position", "role")]
    return html.Section(
        className="read",
        **{"aria-label": words("ask.tokens")},
        children=[
            html.Div(id="ask-tokens", className="tokens", **{"aria-live": "polite"}),
            html.Div(
                className="clicking",
                children=[
                    html.Label(words("ask.click"), htmlFor="ask-click"),
                    select("ask-click", kinds, "position"),
                    html.Div(
                        dcc.Input(
                            id="ask-role",
                            value="subject",
                            maxLength=30,
                            placeholder=words("ask.role_name"),
                        ),
                        id="ask-naming",
                        hidden=True,
                    ),
                ],
            ),
        ],
    )


def _text(name: str, example: str = "") -> Component:
    return dcc.Textarea(
        id=name,
        rows=2,
        maxLength=LONGEST,
        placeholder=example,
        className="commits",
        spellCheck="false",
    )


def _word(name: str, example: str = "") -> Component:
    return dcc.Input(
        id=name, maxLength=SHORT, placeholder=example, className="commits", spellCheck=False
    )


def _begin(words: Texts) -> Component:
    """Where somebody with an empty page begins."""
    examples = [
        html.Button(words(f"ask.example.{name}"), id={"type": "ask-example", "name": name})
        for name in EXAMPLES
    ]
    made = [
        html.Button(words(f"ask.task.{name}"), id={"type": "ask-task", "name": name})
        for name in TASKS
    ]
    return html.Details(
        id="ask-begin",
        children=[
            html.Summary(words("ask.begin")),
            html.P(words("ask.examples")),
            html.Div(examples, className="chips"),
            html.P(words("ask.tasks")),
            html.Div(made, className="chips"),
            html.Div(id="ask-task-problem"),
        ],
    )


def register(app: Dash, context: Context) -> None:
    """Put the callbacks on."""
    _shown(app, context)
    _typed(app, context)
    _committed(app, context)
    _clicked(app, context)
    _begun(app, context)


def _shown(app: Dash, context: Context) -> None:
    """The fields follow the address."""

    app.clientside_callback(
        ClientsideFunction("microtome", "fields"),
        *(Output(f"ask-{name}", "value") for name in FIELDS),
        Input("address", "search"),
        *(State(f"ask-{name}", "value") for name in FIELDS),
    )

    @app.callback(
        Output("ask-model", "data-lines"),
        Output("ask-lacking", "children"),
        Output("ask-others", "hidden"),
        Input("question", "data"),
    )
    def show(search: str | None) -> tuple[str, str, bool]:
        view = context.view(search)
        options: list[dict[str, Any]] = [
            {"label": one.name, "value": one.name, "disabled": bool(one.lacks), "title": one.lacks}
            for one in context.desk.offers
        ]
        if view.model not in [one["value"] for one in options]:
            options.append({"label": view.model, "value": view.model})
        lacking = " ".join(one.lacks for one in context.desk.offers if one.lacks)
        return listed(options, view.model), lacking, not context.desk.typed


def _typed(app: Dash, context: Context) -> None:
    """Tokens while somebody types."""

    @app.callback(
        Output("ask-tokens", "children"),
        Output("ask-problems", "children"),
        Output("ask-is", "children"),
        Output("ask-not", "children"),
        *(Input(f"ask-{name}", "value") for name in FIELDS),
        Input("ready", "data"),
        Input("question", "data"),
    )
    def read_it(*given: Any) -> tuple[object, ...]:
        *values, ready, search = given
        view = context.view(search)
        if not is_ready(ready, view):
            return [], [], "", ""
        texts = _texts(values)
        typed = replace(view, **texts, roles=view.roles if texts["text"] == view.text else ())
        found = read(context.desk.model(view.model), typed)
        words = context.words(view.lang)
        told = [refused(one, words) for one in found.problems]
        told += [notice(words("shell.says", error=one)) for one in found.notes]
        return _rows(found, _now(view), words), told, found.target, found.contrast


def _committed(app: Dash, context: Context) -> None:
    """What was typed goes into the address once somebody leaves the field."""

    @app.callback(
        Output("address", "search", allow_duplicate=True),
        *(Input(f"ask-{name}", "n_blur") for name in FIELDS),
        *(State(f"ask-{name}", "value") for name in FIELDS),
        State("address", "search"),
        prevent_initial_call=True,
    )
    def commit(*given: Any) -> object:
        values, search = given[len(FIELDS) : -1], given[-1]
        view = context.view(search)
        texts = _texts(values)
        if all(getattr(view, name) == text for name, text in texts.items()):
            return no_update
        roles = view.roles if texts["text"] == view.text else ()
        return moved(view, **texts, roles=roles, chosen=())

    @app.callback(
        Output("address", "search", allow_duplicate=True),
        Input("ask-model", "data-value"),
        State("address", "search"),
        prevent_initial_call=True,
    )
    def choose_model(name: str | None, search: str | None) -> object:
        view = context.view(search)
        return no_update if name in (None, view.model) else moved(view, model=name, chosen=())

    @app.callback(
        Output("address", "search", allow_duplicate=True),
        Output("pulse", "n_intervals"),
        Input("ask-path", "n_blur"),
        Input("ask-path", "n_submit"),
        State("ask-path", "value"),
        State("address", "search"),
        prevent_initial_call=True,
    )
    def name_model(_: int, __: int, path: str | None, search: str | None) -> tuple[object, object]:
        view, name = context.view(search), (path or "").strip()
        if not name:
            return no_update, no_update
        context.desk.name(name)
        if name == view.model:  # it stands in an address that nobody typed: look again
            return no_update, 0
        return moved(view, model=name, chosen=()), no_update


def _clicked(app: Dash, context: Context) -> None:
    """A click on a token names a position, or gives it a role."""

    @app.callback(
        Output("address", "search", allow_duplicate=True),
        Input({"type": "ask-token", "at": ALL}, "n_clicks"),
        State("ask-click", "data-value"),
        State("ask-role", "value"),
        State("address", "search"),
        prevent_initial_call=True,
    )
    def click(
        clicks: list[int | None], kind: str | None, role: str | None, search: str | None
    ) -> object:
        if not any(clicks) or not ctx.triggered_id:
            return no_update
        at, view = int(ctx.triggered_id["at"]), context.view(search)
        if kind == "role":
            return moved(view, roles=_with_role(view, (role or "").strip(), at))
        if not is_readable(view.edit):
            return no_update
        return moved(view, edit=with_position(view.edit, str(at)), chosen=())

    @app.callback(
        Output("ask-naming", "hidden"),
        Input("ask-click", "data-value"),
        prevent_initial_call=True,
    )
    def name(kind: str | None) -> bool:
        return kind != "role"


def _begun(app: Dash, context: Context) -> None:
    """An example, or a prompt from a template."""

    @app.callback(
        Output("address", "search", allow_duplicate=True),
        Output("ask-task-problem", "children"),
        Input({"type": "ask-example", "name": ALL}, "n_clicks"),
        Input({"type": "ask-task", "name": ALL}, "n_clicks"),
        State("address", "search"),
        prevent_initial_call=True,
    )
    def begin(
        one: list[int | None], other: list[int | None], search: str | None
    ) -> tuple[object, object]:
        if not (any(one) or any(other)) or not ctx.triggered_id:
            return no_update, no_update
        view, name = context.view(search), ctx.triggered_id["name"]
        if ctx.triggered_id["type"] == "ask-example":
            return EXAMPLES[name](view).to_query(), ""
        try:
            return _from_task(context, view, name, sum(n or 0 for n in other)), ""
        except MicrotomeError as error:
            return no_update, refused(error, context.words(view.lang))

    @app.callback(Output("ask-begin", "open"), Input("question", "data"))
    def fold(search: str | None) -> bool:
        return not context.view(search).text


def _from_task(context: Context, view: View, name: str, seed: int) -> str:
    """Another prompt of a task each time, in the words of the model's tokenizer.

    Raises:
        LoadError, TaskError: there is no such model, or its tokenizer lacks the words.
    """
    model = context.desk.model(view.model)
    [prompt] = mt.tasks.TASKS[name](1, seed, tokenizer=model.tokenizer)
    at = encoded(model, prompt).tokens
    roles = tuple((role, at.role(role)) for role in prompt.roles)
    return moved(
        view,
        text=prompt.text,
        donor=prompt.donor or "",
        target=str(prompt.target or ""),
        contrast=str(prompt.contrast or ""),
        roles=roles,
        chosen=(),
    )


def _texts(values: Sequence[str | None]) -> dict[str, Any]:
    """What stands in the fields, by their names."""
    return {name: value or "" for name, value in zip(FIELDS, values, strict=True)}


def _with_role(view: View, name: str, at: int) -> tuple[tuple[str, int], ...]:
    """The roles with another; of one that is there already at this place, without it."""
    others = tuple(one for one in view.roles if one[0] != name)
    if not name.isidentifier() or (name, at) in view.roles:
        return others
    return (*others, (name, at))


def _now(view: View) -> str:
    return position_of(view.edit) if is_readable(view.edit) else ""


def _rows(found: Reading, now: str, words: Texts) -> list[Component]:
    """The tokens in a row, each a button, with what the donor has in its place."""
    n = len(found.tokens)
    columns = [_column(one, is_at(now, one.position, n), words) for one in found.tokens]
    beside = [html.P([words("ask.other_length"), " ", *_plain(found.donor)])] if found.donor else []
    return [html.Div(columns, className="row"), *beside]


def _column(one: Token, chosen: bool, words: Texts) -> Component:
    label = words("ask.token", position=one.position, text=one.text)
    own = [html.Small(str(one.position)), html.Span(token_text(one.text), className="piece")]
    if one.donor is not None:
        kind = "donor differs" if one.differs else "donor"
        own.append(html.Span(token_text(one.donor), className=kind))
    own += [html.Small(f"@{role}", className="role") for role in one.roles]
    return html.Button(
        own,
        id={"type": "ask-token", "at": one.position},
        className="token chosen" if chosen else "token",
        **{"aria-label": label, "aria-pressed": str(chosen).lower()},
    )


def _plain(texts: tuple[str, ...]) -> list[Component]:
    return [html.Span(token_text(one), className="piece") for one in texts]


ASK = Panel("ask", layout, register)
