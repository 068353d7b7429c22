"""The two sides of a comparison: a view, and another that is like it but for one thing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from microtome.frontends.lab.state import View

FIELDS = ("text", "donor", "target", "contrast")
"""What a prompt is made of."""


def other_of(view: View) -> View | None:
    """The view that a view is compared with; None where there is none.

    Another prompt is a text alone, or the query of a view with what belongs to it.

    >>> from microtome.frontends.lab.state import Against
    >>> other_of(View(text="a", target=" b", against=Against("edit", "zero L*.z.h*"))).edit
    'zero L*.z.h*'
    >>> other_of(View(text="a", target=" b", against=Against("prompt", "c"))).target
    ' b'
    """
    against = view.against
    if against is None:
        return None
    alone = replace(view, against=None)
    if against.kind == "model":
        return replace(alone, model=against.value)
    if against.kind == "edit":
        return replace(alone, edit=against.value)
    return replace(with_texts(alone, _texts_of(view, against.value)), roles=())


def texts_of(view: View) -> dict[str, str]:
    """What a view's prompt is made of."""
    return {name: getattr(view, name) for name in FIELDS}


def with_texts(view: View, texts: Mapping[str, str]) -> View:
    """A view with another prompt."""
    text, donor, target, contrast = (texts[name] for name in FIELDS)
    return replace(view, text=text, donor=donor, target=target, contrast=contrast)


def _texts_of(view: View, value: str) -> dict[str, str]:
    if not value.startswith("?text="):
        return texts_of(view) | {"text": value}
    return texts_of(View.from_query(value))
