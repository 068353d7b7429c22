"""What a page of the lab shows: all of it stands in the address bar, and nothing else is kept.

A link opens what its sender saw; the browser's back and forward are undo and redo; and browsers
cannot get into each other's way, as the server remembers nothing of them.

=============  ========================================================================
key            what it is
=============  ========================================================================
``model``      its name
``text``       what the model reads
``donor``      the text whose activations a patch takes
``target``     what is expected to continue the text
``contrast``   what that is compared with
``role``       ``name:position``, once for each role
``edit``       what is done in each cell of the map, stars and all
``metric``     what is measured
``at``         ``dimension:coordinate``, once for each dimension that is not drawn
``cell``       the edit of a chosen cell, without stars, once for each
``pin``        a pinned edge, once for each
``note``       ``pin|words``, once for each pin that is written about
``reader``     what is traced upstream
``way``        what edges carry then: the donor's (``patch``), nothing (``zero``), their mean
               over the tokens (``mean``)
``against``    ``kind:value``: the other side of a comparison
``steps``      how many tokens are written
``panel``      what is open
``lang``       the language
=============  ========================================================================
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import TypeVar
from urllib.parse import parse_qsl, quote

from microtome.frontends.lab.allowed import is_allowed
from microtome.texts import LANGUAGES

LONGEST = 8_000
"""Letters of a text, at most."""
SHORT = 400
"""Letters of anything else."""
MOST = 200
"""Cells, pins, notes or roles, at most."""
MOST_STEPS = 200
LONGEST_QUERY = 60_000
"""Letters of a query that is read at all."""

EDIT = "zero L*.z.h*@-1"
"""What is done unless something is asked for: every head of every layer, at the last token."""

WAYS = ("patch", "zero", "mean")
"""What edges carry in the place of what was written."""

KINDS = ("prompt", "model", "edit")
"""What two sides of a comparison may differ in."""

Part = TypeVar("Part")

Pair = tuple[str, str]
Numbered = tuple[str, int]


@dataclass(frozen=True)
class Against:
    """The other side of a comparison.

    Attributes:
        kind: what differs, one of `KINDS`.
        value: the other text, model or edit.
    """

    kind: str
    value: str


@dataclass(frozen=True)
class Problem:
    """A part of an address that could not be used.

    Attributes:
        why: ``"long"``, ``"many"``, ``"unknown"`` or ``"unreadable"``; or ``"refused"``, of an edit
            that runs a function or reads a file.
        part: its key.
        given: what stood there, shortened.
    """

    why: str
    part: str
    given: str


@dataclass(frozen=True)
class View:
    """All that a page shows; see the module for each part.

    What is not said is as the server has it: the model that it was started with, its language.

    >>> view = View(text="Berlin is the capital of", target=" Germany")
    >>> view.to_query()
    '?text=Berlin%20is%20the%20capital%20of&target=%20Germany'
    >>> View.from_query(view.to_query()) == view
    True
    """

    model: str = ""
    text: str = ""
    donor: str = ""
    target: str = ""
    contrast: str = ""
    roles: tuple[Numbered, ...] = ()
    edit: str = EDIT
    metric: str = ""
    at: tuple[Numbered, ...] = ()
    chosen: tuple[str, ...] = ()
    pins: tuple[str, ...] = ()
    notes: tuple[Pair, ...] = ()
    reader: str = ""
    way: str = ""
    against: Against | None = None
    steps: int = 20
    panel: str = ""
    lang: str = ""
    problems: tuple[Problem, ...] = field(default=(), compare=False)

    @classmethod
    def from_query(cls, query: str | None) -> View:
        """The view that a query string names; whatever a browser sends, it gives one.

        What cannot be used is left out, and is among the ``problems``.
        """
        if not isinstance(query, str):  # nothing, or what no page sends
            query = ""
        if len(query) > LONGEST_QUERY:
            return cls(problems=(Problem("long", "", _brief(query)),))
        given: dict[str, list[str]] = {}
        for key, value in parse_qsl(query.removeprefix("?"), keep_blank_values=True):
            given.setdefault(key, []).append(value)
        reading = _Reading(given)
        found = {name: value for name, value in reading.all() if value is not None}
        return cls(**found, problems=tuple(reading.problems))  # type: ignore[arg-type]

    def to_query(self) -> str:
        """The query string that names it, as short as it can be; "" for the first page."""
        parts = [(key, value) for key, value in self._parts() if value is not None]
        return "?" * bool(parts) + "&".join(f"{key}={_quoted(value)}" for key, value in parts)

    @property
    def measured(self) -> str:
        """What the map shows: the metric that is asked for, or the first that the prompt allows."""
        if self.metric:
            return self.metric
        if self.target:
            return "logit_diff" if self.contrast else "prob"
        return "kl"

    def _parts(self) -> Iterator[tuple[str, str | None]]:
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name == "problems" or value == one.default:
                continue
            key = KEYS.get(one.name, one.name)
            if isinstance(value, Against):
                yield key, f"{value.kind}:{value.value}"
            elif isinstance(value, tuple):
                between = "|" if key == "note" else ":"
                yield from ((key, _joined(each, between)) for each in value)
            else:
                yield key, str(value)


KEYS: Mapping[str, str] = {"roles": "role", "chosen": "cell", "pins": "pin", "notes": "note"}
"""Field → its key, where that is another word."""


class _Reading:
    """What a query gives, part by part; what is wrong with it is collected."""

    def __init__(self, given: Mapping[str, list[str]]) -> None:
        self.given, self.problems = given, list[Problem]()

    def all(self) -> Iterator[tuple[str, object]]:
        """Fields with their values; None: as by default."""
        for name in ("text", "donor"):
            yield name, self.one(name, LONGEST)
        for name in ("model", "target", "contrast", "metric", "reader"):
            yield name, self.one(name, SHORT)
        yield "edit", self.allowed("edit", self.one("edit", SHORT))
        chosen = self.several("chosen", lambda text: text) or ()
        yield "chosen", tuple(one for one in chosen if self.allowed("cell", one) is not None)
        yield "pins", self.several("pins", lambda text: text)
        for name in ("roles", "at"):
            yield name, self.several(name, _numbered)
        yield "notes", self.several("notes", _note)
        yield "way", self.read("way", lambda text: text if text in WAYS else None)
        against = self.read("against", _against, LONGEST)
        if against is not None and against.kind == "edit":
            against = None if self.allowed("against", against.value) is None else against
        yield "against", against
        yield "steps", self.read("steps", _steps)
        yield "panel", self.read("panel", lambda text: re.fullmatch("[a-z]{1,20}", text) and text)
        yield "lang", self.read("lang", lambda text: text if text in LANGUAGES else None)

    def one(self, key: str, most: int = SHORT) -> str | None:
        """The last value of a key, unless it is too long."""
        value = self.given.get(key, [None])[-1]
        if value is not None and len(value) > most:
            self.problems.append(Problem("long", key, _brief(value)))
            return None
        return value

    def allowed(self, key: str, edit: str | None) -> str | None:
        """An edit, unless it runs a function or reads a file of this machine."""
        if edit is None or is_allowed(edit):
            return edit
        self.problems.append(Problem("refused", key, _brief(edit)))
        return None

    def read(self, key: str, read: Callable[[str], Part | None], most: int = SHORT) -> Part | None:
        """The value of a key as something else than a text."""
        value = self.one(key, most)
        found = None if value is None else read(value)
        if value is not None and not found:
            self.problems.append(Problem("unknown", key, _brief(value)))
        return found or None

    def several(self, name: str, read: Callable[[str], Part | None]) -> tuple[Part, ...] | None:
        """The values of a key that may stand there often, each once."""
        key = KEYS.get(name, name)
        every = list(dict.fromkeys(self.given.get(key, ())))
        if len(every) > MOST:
            self.problems.append(Problem("many", key, str(len(every))))
        return tuple(self._each(key, every[:MOST], read)) or None

    def _each(
        self, key: str, every: Iterable[str], read: Callable[[str], Part | None]
    ) -> Iterator[Part]:
        for value in every:
            found = read(value) if len(value) <= SHORT else None
            if found is None:
                self.problems.append(Problem("unreadable", key, _brief(value)))
            else:
                yield found


def _numbered(text: str) -> Numbered | None:
    found = re.fullmatch(r"([A-Za-z_]\w{0,60}):(-?[0-9]{1,9})", text)
    return None if found is None else (found[1], int(found[2]))


def _note(text: str) -> Pair | None:
    pin, bar, words = text.partition("|")
    return (pin, words) if bar else None


def _against(text: str) -> Against | None:
    kind, _, value = text.partition(":")
    return Against(kind, value) if kind in KINDS and value else None


def _steps(text: str) -> int | None:
    return int(text) if re.fullmatch("[0-9]{1,3}", text) and 1 <= int(text) <= MOST_STEPS else None


def _joined(value: object, between: str) -> str:
    return between.join(map(str, value)) if isinstance(value, tuple) else str(value)


def _quoted(text: str) -> str:
    # What an address is made of stays legible; half characters have no bytes.
    return quote(text, safe="*@.:,/(){}!~'", errors="replace")


def _brief(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"
