"""Files of prompts, strictly: JSON lines and CSV in which nothing can be read in two ways.

A key or a column given twice is refused, as is CSV whose quotes do not pair up: other readers take
the second of two, or the rest of the file for one field, and say nothing. CSV is that of RFC 4180:
commas, quotes around whole fields alone, and a quote in quotes written twice.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from microtome.errors import PromptError, listing
from microtome.textfiles import read_text, shown

LISTS = frozenset(("ids", "donor_ids", "messages", "donor_messages", "targets", "contrasts"))
"""Columns of CSV that hold a list, written as JSON."""

OBJECTS = frozenset(("roles", "meta"))
"""Columns of CSV that hold a JSON object."""

Row = tuple[str, dict[str, Any]]
"""Where a prompt's fields stand, in words, and the fields."""


def rows_of(path: str | Path) -> list[Row]:
    """The rows of a ``.jsonl`` or ``.csv`` file, at least one.

    Raises:
        PromptError: it cannot be read, or is not of its form; the message says in which line.
    """
    read = READERS.get(Path(path).suffix.lower())
    if read is None:
        raise PromptError(f"{shown(path)}: prompts are read from .jsonl or .csv files.")
    rows = list(read(read_text(path, PromptError), shown(path)))
    if not rows:
        raise PromptError(f"{shown(path)} holds no prompts.")
    return rows


def _json_lines(text: str, name: str) -> Iterator[Row]:
    # Not splitlines: it also parts at line breaks of Unicode, which may stand inside a text.
    for number, line in enumerate(re.split("\r\n|\r|\n", text), 1):
        if line.strip():
            where = f"{name}, line {number}"
            yield where, json_object(line, where)


def json_object(text: str, where: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        PromptError: it is something else, or gives a key twice; ``where`` begins the message.

    >>> json_object('{"subject": "Berlin"}', "line 1")
    {'subject': 'Berlin'}
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        for key in _twice([key for key, _ in pairs]):
            raise PromptError(f"{where}: {key!r} is given twice.")
        return dict(pairs)

    try:
        value = json.loads(text, object_pairs_hook=once)
    except PromptError:
        raise
    except RecursionError:
        raise PromptError(f"{where}: not JSON for a prompt: too deeply nested.") from None
    except ValueError as error:  # a JSONDecodeError, or a number of 5,000 digits
        raise PromptError(f"{where}: not JSON ({error}).") from None
    if not isinstance(value, dict):
        raise PromptError(f"{where}: expected an object with a prompt's fields, found {value!r}.")
    return value


def _json_list(text: str, where: str) -> list[Any]:
    """A JSON list, of which no object gives a key twice."""
    found: Any = json_object(f'{{"list": {text}\n}}', where)["list"]
    if not isinstance(found, list):
        raise PromptError(f"{where}: expected a list in JSON, [1, 2], found {text!r}.")
    return found


def _twice(names: Sequence[str]) -> list[str]:
    return [name for name, times in Counter(names).items() if times > 1]


# ------------------------------------------------------------------------------------------- CSV

_FIELD = re.compile(
    r'(?:"(?P<quoted>(?:[^"]|"")*+)"|(?P<plain>[^",\r\n]*+))(?P<end>,|\r\n|\r|\n|\Z)'
)
_OPEN = re.compile(r'"(?:[^"]|"")*+\Z')
_BREAK = re.compile("\r\n|\r|\n")


def _csv(text: str, name: str) -> Iterator[Row]:
    lines = _csv_lines(text, name)
    _, header = next(lines, (1, []))
    for column in _twice(header):
        raise PromptError(f"{name}, line 1: two columns are called {column!r}.")
    if len(header) == 1 and re.search("[;\t]", header[0]):
        raise PromptError(
            f"{name}, line 1: one column, {header[0]!r}: fields are separated by commas. Save it "
            "as CSV with commas."
        )
    for number, fields in lines:
        where = f"{name}, line {number}"
        if len(fields) > len(header):
            raise PromptError(
                f"{where}: more values than the header has names: {len(fields)}, and "
                f"{listing(header)}. A value with a comma goes in quotes."
            )
        row: dict[str, Any] = {
            key: value for key, value in zip(header, fields, strict=False) if value
        }
        for name in OBJECTS & row.keys():
            row[name] = json_object(row[name], where)
        for name in LISTS & row.keys():
            row[name] = _json_list(row[name], f"{where}: {name}")
        yield where, row


def _csv_lines(text: str, name: str) -> Iterator[tuple[int, list[str]]]:
    """The fields of each line, and the number of the line where it begins; empty lines are none."""
    at, number = 0, 1
    first, fields = 1, list[str]()
    while at < len(text) or fields:
        found = _FIELD.match(text, at)
        if found is None:
            raise PromptError(_bad_quotes(text, at, f"{name}, line {number}"))
        quoted = found["quoted"]
        fields.append(found["plain"] if quoted is None else quoted.replace('""', '"'))
        number += len(_BREAK.findall(found[0]))
        at = found.end()
        if found["end"] != ",":
            if fields != [""] or quoted is not None:
                yield first, fields
            first, fields = number, []


def _bad_quotes(text: str, at: int, where: str) -> str:
    if text[at] != '"':
        return (
            f"{where}: not CSV: a quote inside a field, {text[at : at + 40].splitlines()[0]!r}. "
            "Put the whole field in quotes, and write a quote in it twice."
        )
    if _OPEN.match(text, at):
        return f"{where}: not CSV: the file ends inside the quotes that are opened there."
    return f"{where}: not CSV: text after the quotes of a field, {text[at : at + 40]!r}."


READERS = {".csv": _csv, ".jsonl": _json_lines}
"""A file's ending, in small letters → its reader."""
