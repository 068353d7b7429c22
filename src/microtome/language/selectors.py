"""Selectors: which indices along one axis are meant, as an address writes it.

``str(selector)`` is its text, which `microtome.language.addresses` reads back; which indices that
are in a model and a prompt, `microtome.prompts.resolve` says.
"""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass(frozen=True)
class Everything:
    """All indices, together."""

    def __str__(self) -> str:
        return ":"


@dataclass(frozen=True)
class Star:
    """Each index separately: an axis of the map."""

    def __str__(self) -> str:
        return "*"


@dataclass(frozen=True)
class Index:
    """One index; a negative one counts from the end."""

    value: int

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True)
class Span:
    """A slice ``start:stop:step``, as Python's, but never clipped."""

    start: int | None
    stop: int | None
    step: int | None = None

    def __str__(self) -> str:
        start, stop = ("" if end is None else str(end) for end in (self.start, self.stop))
        return f"{start}:{stop}" + ("" if self.step is None else f":{self.step}")


@dataclass(frozen=True)
class Word:
    """The last token of a word, as it occurs in the prompt."""

    text: str

    def __str__(self) -> str:
        return json.dumps(self.text, ensure_ascii=False)


@dataclass(frozen=True)
class Role:
    """A position that the prompt gives a name to; ``last`` is always there."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Group:
    """A set of indices (for positions also words and roles), all together."""

    members: tuple[Index | Word | Role, ...]

    def __str__(self) -> str:
        return "{" + ",".join(map(str, self.members)) + "}"


Selector = Everything | Star | Index | Span | Word | Role | Group
