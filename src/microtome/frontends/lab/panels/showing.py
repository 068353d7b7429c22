"""What the panels of answers share: whether one is open, tables, numbers, and what went wrong."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from threading import Lock
from typing import Any, TypeVar

from dash import ctx, dcc, html
from dash.development.base_component import Component

from microtome.errors import MicrotomeError
from microtome.frontends.lab.panels.panel import is_ready
from microtome.frontends.lab.panels.refusing import refused
from microtome.frontends.lab.state import View
from microtome.texts import Texts, number, signed, visible

TABS = ("cell", "trace", "compare", "write", "keep")
"""Names of the panels of which one is open; the first, unless the address says another."""

CONFIG: Mapping[str, Any] = {"displayModeBar": False, "displaylogo": False, "responsive": True}

Answer = TypeVar("Answer")
Shown = Sequence[Component | str]


def is_open(view: View, name: str, ready: Mapping[str, str] | None) -> bool:
    """Whether a panel has something to show: it is open, the model is there, and a text."""
    opened = view.panel if view.panel in TABS else TABS[0]
    return opened == name and is_ready(ready, view) and bool(view.text.strip())


def answered(work: Callable[[], Shown], words: Texts) -> Shown:
    """What some work shows; what it refuses, with the reason and what to do."""
    try:
        return work()
    except MicrotomeError as error:
        return [refused(error, words)]


def clicked() -> bool:
    """Whether a callback is called by a click: buttons that only appear call it, too."""
    return bool(ctx.triggered_id) and any(one["value"] for one in ctx.triggered)


class Remembered:
    """Answers by what was asked, the last ones, shared by all browsers."""

    def __init__(self, most: int = 64) -> None:
        self._most, self._guard = most, Lock()
        self._answers: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable, work: Callable[[], Answer]) -> Answer:
        """The answer to a question, computed if nobody asked it lately."""
        with self._guard:
            if key in self._answers:
                self._answers.move_to_end(key)
                found: Answer = self._answers[key]
                return found
        made = work()
        with self._guard:
            self._answers[key] = made
            while len(self._answers) > self._most:
                self._answers.popitem(last=False)
        return made

    def has(self, key: Hashable) -> bool:
        """Whether the answer is there."""
        with self._guard:
            return key in self._answers


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], title: str) -> Component:
    """A table of texts with a caption; the first cell of a row is what the row is about.

    The page's own script makes it of what is said here (``assets/made.js``): with a component for
    each of its cells it would take longer to be shown than a run takes.
    """
    told = {"title": title, "heads": [*heads], "rows": [[*map(_cell, row)] for row in rows]}
    data = {"aria-label": title, "data-table": json.dumps(told)}
    return html.Div(className="table", tabIndex=0, role="region", **data)


def _cell(given: str) -> str | dict[str, str]:
    return {"piece": given} if isinstance(given, Piece) else given


def graph(figure: Any, name: Any, label: str) -> Component:
    """A figure, as wide as there is room, and as high as it was drawn to be."""
    figure.update_layout(width=None, autosize=True)
    # What follows its frame's width takes its height from there too.
    high = {"height": f"{figure.layout.height}px"}
    drawn = dcc.Graph(id=name, figure=figure, config=dict(CONFIG), responsive=True, style=high)
    return html.Div(drawn, className="figure", role="figure", **{"aria-label": label})


class Piece(str):
    """A token in a table, whose white space is to be seen."""


def token(text: str) -> Piece:
    """A token as a table shows it."""
    return Piece(visible(text))


def value(given: float) -> str:
    """A number; what is none is a dash."""
    return "–" if math.isnan(given) else number(given).replace("-", "−")


def effect(given: float) -> str:
    """An effect, with its sign."""
    return "–" if math.isnan(given) else signed(given)


def percent(given: float) -> str:
    """A probability.

    >>> percent(0.25), percent(0.000012)
    ('25.00 %', '0.0012 %')
    """
    return f"{100 * given:.2f} %" if given >= 0.0005 or given == 0 else f"{100 * given:.2g} %"


def seconds(given: float) -> str:
    """About how long something takes.

    >>> seconds(0.2), seconds(12.4), seconds(600)
    ('0.2 s', '12 s', '10 min')
    """
    if given < 100:
        return f"{given:.1f} s" if given < 10 else f"{given:.0f} s"
    return f"{given / 60:.0f} min"
