"""Which edits a page may ask for: an address comes from anywhere, and opens what it names.

An edit's text can name a function to import, or a file to read, on the machine that serves the
page. In Python and on the command line whoever writes it sits there; here that may be a link.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from microtome.errors import EditError
from microtome.language.calls import called

RUNS = ("apply",)
"""Edits that run a function of whoever writes them."""
READS = ("add", "project", "clamp", "replace")
"""Edits whose vector may be a file's."""


def is_allowed(edit: str) -> bool:
    """Whether an edit neither runs a function nor reads a file; of what is no edit, yes.

    >>> is_allowed("scale(0.5) L2.resid_post"), is_allowed('apply("os:abort") L0.z')
    (True, False)
    >>> is_allowed("add([1, 0], factor=2) L0.z"), is_allowed('add("v.safetensors") L0.resid_post')
    (True, False)
    """
    try:
        call = called(edit)
    except EditError:  # whoever reads it says what is wrong
        return True
    if call.name in RUNS:
        return False
    given = (call.positional, call.named)
    return call.name not in READS or not any(isinstance(one, str) for one in _leaves(given))


def _leaves(value: Any) -> Iterator[Any]:
    """What lists and tables hold, all the way down."""
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list | tuple | set):
        yield value
        return
    for one in value:
        yield from _leaves(one)
