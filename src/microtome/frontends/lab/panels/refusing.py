"""What the library refuses, on a page: in its own English, behind a word in the page's language.

Its errors are those of Python and the command line, which a search finds: they stay as they are.
"""

from __future__ import annotations

from dash.development.base_component import Component

from microtome.frontends.lab.panels.parts import notice
from microtome.texts import Texts


def refused(error: Exception | str, words: Texts) -> Component:
    """An error as a notice."""
    return notice(words("shell.says", error=str(error)), "wrong")
