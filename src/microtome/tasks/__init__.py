"""Tasks: prompts made from templates, in the words of the tokenizer at hand; one file a task."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from microtome.errors import PromptError, there_are
from microtome.prompts.prompts import Prompts
from microtome.tasks.capitals import capitals
from microtome.tasks.greater_than import greater_than
from microtome.tasks.induction import induction
from microtome.tasks.ioi import ioi
from microtome.tasks.quotes import quotes

TASKS: Mapping[str, Callable[..., Prompts]] = MappingProxyType(
    {task.__name__: task for task in (capitals, greater_than, induction, ioi, quotes)}
)
"""Name → task."""

_NAMED = re.compile(r"(?P<task>\w+)(?::(?P<n>[1-9]\d{0,5}))?")
_LIKE_A_TASK = re.compile(r"[^./\\]+")  # no ending, and no folder
_PROMPTS = 16  # unless told


def named(text: str) -> tuple[str, int] | None:
    """The task that a text such as ``ioi:8`` names, and of how many prompts; None: it names none.

    >>> named("ioi:8"), named("capitals"), named("prompts.csv")
    (('ioi', 8), ('capitals', 16), None)
    """
    found = _NAMED.fullmatch(text)
    if found is None or found["task"] not in TASKS:
        return None
    return found["task"], int(found["n"] or _PROMPTS)


def named_by(path: str | os.PathLike[str]) -> tuple[str, int] | None:
    """The same of what stands for a file of prompts: a file of that name goes before a task.

    Raises:
        PromptError: it is neither, and has no ending that a file of prompts would have.
    """
    if os.path.exists(path):
        return None
    text = os.fspath(path)
    found = named(text)
    if found is None and _LIKE_A_TASK.fullmatch(text):
        raise PromptError(
            f"{text!r} is no file here, and no task with a number of prompts, such as ioi:16; of "
            f"tasks {there_are(text.partition(':')[0].lower(), TASKS)}"
        )
    return found


__all__ = ["TASKS", "capitals", "greater_than", "induction", "ioi", "quotes"]
