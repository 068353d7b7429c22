"""Tasks: prompts made from templates, in the words of the tokenizer at hand; one file a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

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

__all__ = ["TASKS", "capitals", "greater_than", "induction", "ioi", "quotes"]
