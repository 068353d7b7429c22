"""Pieces that panels are made of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from dash import dcc, html
from dash.development.base_component import Component

from microtome.frontends.lab.choosing import Choice
from microtome.texts import Texts, visible


def beat(name: str, every: int, *, disabled: bool = False) -> Component:
    """What has a page look again, some milliseconds after it has heard what it asked last.

    The page's own script beats (``assets/beat.js``), the first time too: no answer has to, which
    may be lost, nor its own clock, which would strike while something else is asked.
    """
    return dcc.Interval(id=name, interval=every, max_intervals=0, disabled=disabled)


def labelled(words: str, control: Component, about: str | Component = "") -> Component:
    """A control with its label above it, and what is to be said of it below."""
    below = about if isinstance(about, Component) else html.Small(about) if about else None
    name = html.Label(words, htmlFor=dom_id(control.id))
    return html.Div([one for one in (name, control, below) if one is not None], className="field")


def select(
    name: str | dict[str, str], options: Sequence[Mapping[str, Any]] = (), value: str = ""
) -> Component:
    """A browser's own list to choose one thing from; what was chosen is its ``data-value``."""
    return html.Select(id=name, className="native", **{"data-lines": listed(options, value)})


def listed(options: Sequence[Mapping[str, Any]], value: str) -> str:
    """The lines of a `select`, one of them chosen; those that cannot be are grey.

    The page's own script makes them of what is said here (``assets/made.js``): every component
    hears of whatever happens on a page, and lines would be a third of all.
    """
    keys = ("label", "value", "disabled", "title")
    return json.dumps(
        [
            {key: one[key] for key in keys if one.get(key)} | {"selected": one["value"] == value}
            for one in options
        ]
    )


def dom_id(name: str | dict[str, str]) -> str:
    """The id that a component has in the page.

    >>> dom_id({"type": "map-axis", "name": "head"})
    '{"name":"head","type":"map-axis"}'
    """
    if isinstance(name, str):
        return name
    return json.dumps(name, sort_keys=True, separators=(",", ":"))


def options_of(choices: Sequence[Choice], words: Texts, why: str) -> list[dict[str, Any]]:
    """Choices as a list takes them: those that cannot be made are grey and say why.

    Args:
        choices: in order.
        words: of the page.
        why: what keys of reasons begin with.
    """
    found = []
    for one in choices:
        reason = words(f"{why}.{one.lacks}") if f"{why}.{one.lacks}" in words else one.lacks
        label = f"{one.value} – {reason}" if one.lacks else one.value
        found.append({"label": label, "value": one.value, "disabled": bool(one.lacks)})
    return found


def token_text(text: str) -> str:
    """A token as it is shown in a row of them: its spaces are seen."""
    return visible(text)


def notice(text: str, kind: str = "note") -> Component:
    """A sentence that stands out: ``note`` or ``wrong``."""
    return html.P(text, className=kind, role="alert" if kind == "wrong" else "status")
