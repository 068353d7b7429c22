"""The two sides of a comparison: a view, and another that is like it but for one thing."""

from __future__ import annotations

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
    if against.kind == "prompt":
        return replace(view, **_texts_of(view, against.value), roles=(), against=None)
    return replace(view, **{against.kind: against.value}, against=None)


def _texts_of(view: View, value: str) -> dict[str, str]:
    if not value.startswith("?text="):
        return {name: getattr(view, name) for name in FIELDS} | {"text": value}
    given = View.from_query(value)
    return {name: getattr(given, name) for name in FIELDS}
