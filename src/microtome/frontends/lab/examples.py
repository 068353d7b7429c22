"""Examples that open on a fresh machine: each is a view of the embedded model's own world."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from microtome.frontends.lab.state import View

GIFT = View(
    text="When Sam and Sally went to the park, Sam gave a gift to",
    donor="When Sam and Sally went to the park, Sally gave a gift to",
    target=" Sally",
    contrast=" Sam",
)
CAPITAL = View(  # two capitals that are of one length in smollm2's tokens, too
    text="Berlin is the capital of",
    donor="Vienna is the capital of",
    target=" Germany",
    contrast=" Austria",
)

QUESTIONS: Mapping[str, View] = MappingProxyType(
    {
        "heads": replace(GIFT, edit="zero L*.z.h*@-1"),
        "names": replace(GIFT, edit="patch L*.z.h*@-1"),
        "capital": replace(CAPITAL, edit="patch L*.resid_post@*"),
        "looks": replace(GIFT, edit="zero L*.pattern.h*@-1,:"),
    }
)
"""Name → what it shows."""


def _on(question: View) -> Callable[[View], View]:
    """The same on the model, and in the language, that somebody has."""
    return lambda view: replace(question, model=view.model, lang=view.lang)


EXAMPLES: Mapping[str, Callable[[View], View]] = MappingProxyType(
    {name: _on(question) for name, question in QUESTIONS.items()}
)
"""Name → the view that opens it, from another."""
