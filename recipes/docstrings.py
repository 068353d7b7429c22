"""Examples in docstrings as code on the site: an extension of griffe's, which reads the docstrings.

Markdown takes the ``>>>`` of an example for a quotation in a quotation in a quotation.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)


class Fenced(griffe.Extension):
    """Fences the examples of every docstring."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """A docstring that was just read."""
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(docstring: str) -> str:
    """A docstring with its examples in fences.

    >>> print(fenced("One.\\n\\n>>> 1 + 1\\n2").replace("`", "~"))
    One.
    <BLANKLINE>
    ~~~pycon
    >>> 1 + 1
    2
    ~~~
    """
    return _EXAMPLE.sub(lambda found: f"```pycon\n{found[0]}\n```", docstring)
