"""Pieces that panels are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dash import dcc, html
from dash.development.base_component import Component

from microtome.frontends.lab.choosing import Choice
from microtome.texts import Texts, visible


def labelled(words: str, control: Component, about: str | Component = "") -> Component:
    """A control with its label above it, and what is to be said of it below."""
    below = about if isinstance(about, Component) else html.Small(about) if about else None
    name = html.Label(words, htmlFor=_id_of(control))
    return html.Div([one for one in (name, control, below) if one is not None], className="field")


def select(name: str, label: str, options: Sequence[Any] = (), value: str | None = None) -> Any:
    """A list to choose one thing from; with a label that is spoken."""
    return dcc.Dropdown(
        id=name,
        options=list(options),
        value=value,
        clearable=False,
        searchable=False,
        className="select",
        labels={},
    )


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


def _id_of(control: Component) -> Any:
    found = getattr(control, "id", None)
    return found if isinstance(found, str) else None
