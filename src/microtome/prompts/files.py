"""Files of prompts, strictly: JSON lines and CSV in which nothing can be read in two ways.

A key or a column given twice is refused, as is CSV whose quotes do not pair up: other readers take
the second of two, or the rest of the file for one field, and say nothing. CSV is that of RFC 4180:
commas, quotes around whole fields alone, and a quote in quotes written twice; with tabs in the
place of commas it is ``.tsv``. A ``.json`` file is one list of what lines of JSON have, and read
at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from microtome.errors import PromptError, glimpse, listing
from microtome.prompts.tables import PARQUET, parquet_rows
from microtome.textfiles import json_of, read_lines, read_text, shown, twice

JSON = ".json"
SEPARATORS = {",": "comma", "\t": "tab"}
"""What stands between the fields of a line, in words."""

LISTS = frozenset(("ids", "donor_ids", "messages", "donor_messages", "targets", "contrasts"))
"""Columns of CSV that hold a list, written as JSON."""

OBJECTS = frozenset(("roles", "meta", "chat_options"))
"""Columns of CSV that hold a JSON object."""

Row = tuple[str, dict[str, Any]]
"""Where a prompt's fields stand, in words, and the fields."""


def rows_of(path: str | Path) -> Iterator[Row]:
    """The rows of a ``.jsonl``, ``.json``, ``.csv``, ``.tsv`` or ``.parquet`` file, at least one.

    They are read as they are asked for: a file may be larger than the machine (not ``.json``).

    Raises:
        PromptError: it cannot be read, or is not of its form; the message says in which line.
    """
    ending = Path(path).suffix.lower()
    if ending == PARQUET:
        rows = parquet_rows(path)
    elif ending == JSON:
        rows = _json_rows(read_text(path, PromptError), shown(path))
    elif ending in READERS:
        rows = READERS[ending](read_lines(path, PromptError), shown(path))
    else:
        known = listing([*READERS, JSON, PARQUET])
        raise PromptError(f"{shown(path)}: prompts are read from {known} files.")
    empty = True
    for row in rows:
        empty = False
        yield row
    if empty:
        raise PromptError(f"{shown(path)} holds no prompts.")


def _json_lines(pieces: Iterable[str], name: str) -> Iterator[Row]:
    number = 1
    for piece in pieces:
        # Not splitlines: it also parts at line breaks of Unicode, which may stand inside a text.
        lines = _BREAK.split(piece)
        for n, line in enumerate(lines, number):
            if line.strip():
                where = f"{name}, line {n}"
                yield where, json_object(line, where)
        number += len(lines) - 1


def _json_rows(text: str, name: str) -> Iterator[Row]:
    """Of one list of objects."""
    try:
        found = json_of(text, name, PromptError)
    except PromptError as error:
        if "Extra data" in str(error):
            lines = f"{error} If it has an object on each line, call it .jsonl."
            raise PromptError(lines) from None
        raise
    if not isinstance(found, list):
        raise PromptError(
            f"{name}: expected a list of objects with a prompt's fields, [{{…}}, {{…}}], found "
            f"{glimpse(found)}."
        )
    for number, row in enumerate(found, 1):
        where = f"{name}, row {number}"
        yield where, _object(row, where)


def json_object(text: str, where: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        PromptError: it is something else, or gives a key twice; ``where`` begins the message.

    >>> json_object('{"subject": "Berlin"}', "line 1")
    {'subject': 'Berlin'}
    """
    return _object(json_of(text, where, PromptError), where)


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise PromptError(
            f"{where}: expected an object with a prompt's fields, found {glimpse(value)}."
        )
    return value


def _json_list(text: str, where: str) -> list[Any]:
    """A JSON list, of which no object gives a key twice."""
    whole = json_object(f'{{"list": {text}\n}}', where)
    found: Any = whole["list"]
    if not isinstance(found, list) or len(whole) > 1:
        raise PromptError(f"{where}: expected a list in JSON, [1, 2], found {text!r}.")
    return found


# ------------------------------------------------------------------------------------------- CSV

_FIELDS = {
    apart: re.compile(
        rf'(?:"(?P<quoted>(?:[^"]|"")*+)"|(?P<plain>[^"{apart}\r\n]*+))'
        rf"(?P<end>{apart}|\r\n|\r|\n|\Z)"
    )
    for apart in (",", "\t")
}
"""What stands between two fields → a field and what ends it."""

_OPEN = re.compile(r'"(?:[^"]|"")*+\Z')
_BREAK = re.compile("\r\n|\r|\n")


def _csv(pieces: Iterable[str], name: str, apart: str = ",") -> Iterator[Row]:
    lines = _csv_lines(pieces, name, apart)
    _, header = next(lines, (1, []))
    for column in twice(header):
        raise PromptError(f"{name}, line 1: two columns are called {column!r}.")
    if len(header) == 1 and re.search("[,;\t]", header[0]):
        raise PromptError(
            f"{name}, line 1: one column, {header[0]!r}: fields are separated by commas in .csv "
            "files, by tabs in .tsv files. Save it as one of them, and name it so."
        )
    for number, fields in lines:
        where = f"{name}, line {number}"
        if len(fields) > len(header):
            raise PromptError(
                f"{where}: more values than the header has names: {len(fields)}, and "
                f"{listing(header)}. A value with a {SEPARATORS[apart]} goes in quotes."
            )
        row: dict[str, Any] = {
            key: value for key, value in zip(header, fields, strict=False) if value
        }
        if "" in row:
            raise PromptError(
                f"{where}: {row['']!r} is in a column without a name, as pandas writes its index: "
                "save it without, to_csv(…, index=False), or give the column a name."
            )
        for column in OBJECTS & row.keys():
            row[column] = json_object(row[column], where)
        for column in LISTS & row.keys():
            row[column] = _json_list(row[column], f"{where}: {column}")
        yield where, row


def _csv_lines(pieces: Iterable[str], name: str, apart: str) -> Iterator[tuple[int, list[str]]]:
    """The fields of each line, and the number of the line where it begins; empty lines are none."""
    number, held, quotes = 1, "", 0
    for piece in pieces:
        held, quotes = held + piece, quotes + piece.count('"')
        if quotes % 2:  # inside a quoted field, which may go over lines
            continue
        yield from _csv_of(held, number, name, apart)
        number += len(_BREAK.findall(held))
        held = ""
    yield from _csv_of(held, number, name, apart)


def _csv_of(text: str, number: int, name: str, apart: str) -> Iterator[tuple[int, list[str]]]:
    """The same of a text in which every quoted field ends, or which is the last."""
    at, first, fields = 0, number, list[str]()
    while at < len(text) or fields:
        found = _FIELDS[apart].match(text, at)
        if found is None:
            raise PromptError(_bad_quotes(text, at, f"{name}, line {number}"))
        quoted = found["quoted"]
        fields.append(found["plain"] if quoted is None else quoted.replace('""', '"'))
        number += len(_BREAK.findall(found[0]))
        at = found.end()
        if found["end"] != apart:
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


READERS: Mapping[str, Callable[[Iterable[str], str], Iterator[Row]]] = {
    ".jsonl": _json_lines,
    ".csv": _csv,
    ".tsv": partial(_csv, apart="\t"),
}
"""A text file's ending, in small letters → its reader, of pieces that end in whole lines."""
