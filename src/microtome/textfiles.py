"""Text that users hand in: regular files of UTF-8, not too large; and JSON that is one thing only.

A named pipe would wait for a writer that never comes, and a device may have no end, so what a path
leads to is looked at before it is opened.
"""

from __future__ import annotations

import codecs
import json
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from microtome.amounts import many
from microtome.errors import MicrotomeError
from microtome.paths import at_home

LARGEST = 2**30
"""Bytes that a file of prompts may have, unless told otherwise."""

_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def read_text(path: str | Path, error: type[MicrotomeError], largest: int = LARGEST) -> str:
    """The text of a file, without the byte order mark that spreadsheets put in front.

    Line ends stay as they are.

    Args:
        path: the file.
        error: what to raise.
        largest: bytes that it may have.

    Raises:
        MicrotomeError: of the kind given: it is not there, is no regular file, cannot be read, is
            too large, or is not UTF-8.
    """
    try:
        _refuse_others(at_home(path), error)
        with open(at_home(path), "rb") as stream:
            raw = stream.read(largest + 1)
    except OSError as problem:
        raise error(f"Cannot read {shown(path)}: {problem.strerror}.") from None
    except ValueError as problem:  # a null character in the path
        raise error(f"Cannot read {shown(path)}: {problem}.") from None
    if len(raw) > largest:
        raise error(f"{shown(path)} is larger than the {many(largest, 'byte')} that are read.")
    _refuse_wide(path, raw, error)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = raw.count(b"\n", 0, problem.start) + 1
        raise error(_no_utf8(path, line, problem.start, problem.reason)) from None


def read_lines(path: str | Path, error: type[MicrotomeError]) -> Iterator[str]:
    """The same text line by line, of a file of any size: what was read is forgotten.

    Lines end as they do in the file, in a line feed; a carriage return alone ends none.

    Raises:
        MicrotomeError: as `read_text`, but for the size; what is no UTF-8 when it is met.
    """
    done = 0
    try:
        _refuse_others(at_home(path), error)
        with open(at_home(path), "rb") as stream:
            for number, raw in enumerate(stream, 1):
                if number == 1:
                    _refuse_wide(path, raw, error)
                try:
                    yield raw.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as problem:
                    at = done + problem.start
                    raise error(_no_utf8(path, number, at, problem.reason)) from None
                done += len(raw)
    except OSError as problem:
        raise error(f"Cannot read {shown(path)}: {problem.strerror}.") from None
    except ValueError as problem:  # a null character in the path
        if isinstance(problem, MicrotomeError):
            raise
        raise error(f"Cannot read {shown(path)}: {problem}.") from None


def json_of(text: str, where: str | Path, error: type[MicrotomeError]) -> Any:
    """What a text says in JSON, of which no object gives a key twice.

    Args:
        text: the text.
        where: begins the message.
        error: what to raise.

    Raises:
        MicrotomeError: of the kind given: it is no JSON, or gives a key twice.

    >>> json_of('{"subject": "Berlin"}', "line 1", MicrotomeError)
    {'subject': 'Berlin'}
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        for key in twice(key for key, _ in pairs):
            raise error(f"{where}: {key!r} is given twice.")
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=once)
    except error:
        raise
    except RecursionError:
        raise error(f"{where}: not JSON that can be read: too deeply nested.") from None
    except ValueError as problem:  # a JSONDecodeError, or a number of 5,000 digits
        raise error(f"{where}: not JSON ({problem}).") from None


def twice(names: Iterable[str]) -> list[str]:
    """Names that are given more than once."""
    return [name for name, times in Counter(names).items() if times > 1]


def _refuse_wide(path: str | Path, raw: bytes, error: type[MicrotomeError]) -> None:
    if raw[:2] in _WIDE or 0 in raw[:2]:  # without a mark, UTF-8 reads letters with zeros between
        raise error(
            f"{shown(path)} is not UTF-8 text but UTF-16 or UTF-32, as some spreadsheets and "
            "terminals write: save it as UTF-8."
        )


def _no_utf8(path: str | Path, line: int, byte: int, reason: str) -> str:
    return (
        f"{shown(path)} is not UTF-8 text (line {line}, byte {byte}: {reason}): save it as UTF-8."
    )


def _refuse_others(path: Path, error: type[MicrotomeError]) -> None:
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        kind = next((name for is_one, name in _KINDS if is_one(mode)), "no regular file")
        raise error(f"Cannot read {shown(path)}: it is {kind}, and a regular file is needed.")


def shown(text: str | Path) -> str:
    r"""A text that can be printed anywhere: bytes of a name that are no UTF-8 are escaped.

    >>> shown("caf\udce9.csv")
    'caf\\udce9.csv'
    """
    return str(text).encode("utf-8", "backslashreplace").decode("utf-8")
