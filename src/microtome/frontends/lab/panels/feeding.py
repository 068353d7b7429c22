"""What feeds a part: edges into it, computed when asked for, each to be pinned or gone on from.

The cell's panel shows it of the chosen cells, the one that traces upstream of what it has come to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from dash import Dash, Input, Output, ctx, html
from dash.development.base_component import Component

from microtome.errors import Cancelled
from microtome.frontends.importing import imported
from microtome.frontends.lab.asked import Asked, known_as, prompt_of
from microtome.frontends.lab.costing import AT_ONCE, Cost, cost_of
from microtome.frontends.lab.panels.panel import Context, ready_for, seen
from microtome.frontends.lab.panels.parts import beat
from microtome.frontends.lab.panels.showing import (
    Shown,
    answered,
    effect,
    is_open,
    seconds,
    value,
)
from microtome.frontends.lab.panels.works import BEAT, PATIENCE, Work, Works, told
from microtome.frontends.lab.state import View
from microtome.texts import Texts

if TYPE_CHECKING:
    from microtome.engines.observer import Observer
    from microtome.frontends.lab.answers.upstream import Incoming, Upstream

MOST_READERS = 6
"""Readers whose edges are computed together."""
ROWS = 15
"""Edges that are shown."""

Readers = Callable[[Context, View], Sequence[str]]


def layout(name: str, words: Texts) -> Component:
    """The button with its cost, and what comes of it.

    Args:
        name: of the panel that it is in.
        words: of the page.
    """
    return html.Div(
        [
            html.Div(
                [
                    html.Button(words("trace.compute"), id=f"{name}-feed", hidden=True),
                    html.Small(id=f"{name}-cost"),
                    html.Button(words("trace.stop"), id=f"{name}-stop", hidden=True),
                ],
                className="line",
            ),
            html.Div(id=f"{name}-fed", **{"aria-live": "polite"}),
            beat(f"{name}-beat", BEAT, disabled=True),
        ]
    )


def register(
    app: Dash, context: Context, name: str, readers: Readers, after: Sequence[str] = ()
) -> None:
    """Put the callback on.

    Args:
        app: the app.
        context: what panels share.
        name: of the panel.
        readers: of whom the edges are shown, in a view.
        after: components that are waited for: what is quicker goes first.
    """
    works: Works[tuple[Upstream, ...]] = Works()

    @app.callback(
        Output(f"{name}-fed", "children"),
        Output(f"{name}-cost", "children"),
        Output(f"{name}-feed", "hidden"),
        Output(f"{name}-stop", "hidden"),
        Output(f"{name}-beat", "disabled"),
        Input(seen(name), "data"),
        Input(ready_for(name), "data"),
        Input(f"{name}-beat", "n_intervals"),
        Input(f"{name}-feed", "n_clicks"),
        Input(f"{name}-stop", "n_clicks"),
        *(Input(one, "children") for one in after),
        prevent_initial_call=True,
    )
    def feed(search: str | None, ready: Mapping[str, str] | None, *_: object) -> tuple[object, ...]:
        view = context.view(search)
        if not is_open(view, name, ready):
            return [], "", True, True, True
        by, is_running, cost = ctx.triggered_id, False, ""

        def work() -> Shown:
            nonlocal is_running, cost
            found = _Feeding(context, view, works, readers(context, view))
            stopped = works.stop(found.key) if by == f"{name}-stop" else None
            if by == f"{name}-beat":
                stopped = works.look(found.key)
            if stopped is None and by != f"{name}-feed" and (cost := found.cost()):
                return []
            shown, is_running = found.shown(name, stopped)
            return shown

        shown = answered(work, context.words(view.lang))
        return shown, cost, not cost, not is_running, not is_running


class _Feeding:
    """The edges into some readers of a view."""

    def __init__(
        self,
        context: Context,
        view: View,
        works: Works[tuple[Upstream, ...]],
        readers: Sequence[str],
    ) -> None:
        self.context, self.view, self.works = context, view, works
        self.words = context.words(view.lang)
        self.every, self.readers = len(readers), tuple(readers[:MOST_READERS])
        self.prompt = prompt_of(view)
        self.model = context.desk.model(view.model)
        self.key = (
            known_as(self.model), self.prompt, self.readers, view.measured, view.way,
        )  # fmt: skip

    def cost(self) -> str:
        """What it takes, where it is to be asked for first; else nothing."""
        if not self.readers or self.works.find(self.key) is not None:
            return ""
        time = sum(one.seconds for one in self._costs())
        said = self.words("trace.cost", edges=f"{self._cells:,}", time=seconds(time))
        return said if time > AT_ONCE else ""

    def shown(self, by: str, stopped: Work[tuple[Upstream, ...]] | None) -> tuple[Shown, bool]:
        """The strongest edges of all readers, and whether they are on their way yet."""
        if not self.readers:
            return [], False
        work = stopped or self.works.begin(self.key, self._cells, self._made)
        if not work.over.wait(PATIENCE):
            return told(work, self.words), True
        if isinstance(work.error, Cancelled):
            return told(work, self.words), False
        made = edges_table(work.answer, self.view, self.words, by)
        if self.every == len(self.readers):
            return made, False
        first = self.words("trace.first", n=len(self.readers), of=self.every)
        return [html.P(first), *made], False

    def _made(self, observer: Observer) -> tuple[Upstream, ...]:
        view, answer = self.view, imported("microtome.frontends.lab.answers.upstream").upstream
        return tuple(
            answer(self.model, self.prompt, one, view.measured, view.way, observer)
            for one in self.readers
        )

    @property
    def _cells(self) -> int:
        return sum(one.cells for one in self._costs())

    def _costs(self) -> list[Cost]:
        edits = imported("microtome.frontends.lab.answers.upstream").edits_into
        view = self.view
        return [
            cost_of(self.context.desk, Asked(view.model, self.prompt, edit, view.measured))
            for reader in self.readers
            for edit in edits(self.model, self.prompt, reader, view.way)
        ]


def edges_table(found: Iterable[Upstream], view: View, words: Texts, by: str) -> Shown:
    """The strongest edges, with what can be done with each.

    Args:
        found: the edges into one reader, or several.
        view: what is pinned.
        words: of the page.
        by: the panel, whose buttons are its own.
    """
    each = list(found)
    noise, largest = max(one.noise for one in each), _largest(each)
    edges = sorted((edge for one in each for edge in one.edges), key=lambda one: -_size(one.effect))
    rows = [_row(edge, view, words, by, noise, largest) for edge in edges[:ROWS]]
    first = each[0]
    title = words(
        f"trace.title_{first.way}",
        n=min(ROWS, len(edges)),
        of=f"{len(edges):,}",
        metric=first.metric,
        unit=first.unit,
    )
    heads = ("trace.edge", "trace.effect", "trace.size", "trace.do")
    head = html.Tr(
        [
            html.Th(words(key), scope="col", className="bars" if key == "trace.size" else None)
            for key in heads
        ]
    )
    made = html.Table([html.Caption(title), html.Thead(head), html.Tbody(rows)])
    return [
        html.Div(made, className="table", tabIndex=0, role="region", **{"aria-label": title}),
        html.P(words("trace.noise", noise=value(noise)), className="quiet"),
    ]


def _largest(each: Sequence[Upstream]) -> float:
    return max((_size(edge.effect) for one in each for edge in one.edges), default=0.0) or 1.0


def _size(given: float) -> float:
    return abs(given) if given == given else -1.0  # NaN, which is last


def _row(
    edge: Incoming, view: View, words: Texts, by: str, noise: float, largest: float
) -> Component:
    weak = _size(edge.effect) <= noise
    width = f"{100 * max(0.0, _size(edge.effect)) / largest:.1f}%"
    bar = html.Div(className="bar up" if edge.effect > 0 else "bar down", style={"width": width})
    cells = [
        html.Th(edge.name.replace("->", " → "), scope="row", className="mono"),
        html.Td(effect(edge.effect), className="number weak" if weak else "number"),
        html.Td(bar, className="bars"),
        html.Td(_buttons(edge, view, words, by), className="chips"),
    ]
    return html.Tr(cells)


def _buttons(edge: Incoming, view: View, words: Texts, by: str) -> list[Component]:
    """Pin the edge; go on from what wrote."""
    is_pinned = edge.name in view.pins
    pin = html.Button(
        words("trace.unpin" if is_pinned else "trace.pin"),
        id={"type": "edge-pin", "edge": edge.name, "by": by},
        className="chosen" if is_pinned else "",
        **{
            "aria-pressed": str(is_pinned).lower(),
            "aria-label": words("trace.pin_it", edge=edge.name),
        },
    )
    readers = imported("microtome.frontends.lab.answers.nodes").readers_of(edge.writer)
    where = f"{by} {edge.name}"
    return [pin, *(go_button(one, words, where, _part_of(one)) for one in readers)]


def _part_of(reader: str) -> str:
    """What a head reads for; of others their name.

    >>> _part_of("a5.h3<q>"), _part_of("m5")
    ('q', 'm5')
    """
    return reader.partition("<")[2].removesuffix(">") or reader


def go_button(reader: str, words: Texts, by: str, said: str = "") -> Component:
    """A button that traces what something reads.

    Args:
        reader: what reads.
        words: of the page.
        by: where the button is, as no two of a page are one.
        said: what stands on it; the reader's name unless given.
    """
    return html.Button(
        f"→ {said or reader}",
        id={"type": "edge-go", "reader": reader, "by": by},
        title=words("trace.go", reader=reader),
        **{"aria-label": words("trace.go", reader=reader)},
    )
