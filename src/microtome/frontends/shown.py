"""What the command line shows: texts and tables, for people, for pipes and for programs.

On a terminal a table has lines and colours, and prose is wrapped; what one may have to type, and
numbers, are in one piece at any width. In a pipe a table is plain text with aligned columns, the
same whatever the terminal: nothing is cut or wrapped. ``--json`` gives the answer alone.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Drawn

from microtome.texts import number

if TYPE_CHECKING:
    import pandas as pd

# No emoji: ``:smile:`` may stand in a prompt, a token or the name of a file, and is told as it is.
out = Console(emoji=False)
err = Console(stderr=True, emoji=False)

LONG = 24
"""A column with longer texts than this holds prose, unless it is said to hold names."""

NARROWEST = 14
"""Letters of a column of prose, at least."""


@dataclass(frozen=True)
class Table:
    """Rows under headers.

    Attributes:
        headers: of the columns.
        rows: values, of any type.
        names: columns of what one may have to type: never wrapped.
        prose: columns that may be wrapped however short they are.
        title: above it.
    """

    headers: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]
    names: Collection[str] = ()
    title: str = ""
    prose: Collection[str] = ()

    @classmethod
    def of(
        cls, frame: pd.DataFrame, names: Collection[str] = (), prose: Collection[str] = ()
    ) -> Table:
        """The rows of a frame, without its index."""
        columns = [frame[name].tolist() for name in frame.columns]
        rows = tuple(zip(*columns, strict=True))
        return cls(tuple(map(str, frame.columns)), rows, names, prose=prose)

    @cached_property
    def cells(self) -> tuple[tuple[str, ...], ...]:
        """The values as texts."""
        return tuple(tuple(map(_text, row)) for row in self.rows)

    def numeric(self, column: int) -> bool:
        """Whether a column holds numbers."""
        values = [row[column] for row in self.rows]
        return bool(values) and all(
            v is None or (isinstance(v, int | float) and not isinstance(v, bool)) for v in values
        )

    def whole(self, column: int) -> bool:
        """Whether a column's texts stay in one piece."""
        if self.headers[column] in (*self.names, *self.prose):
            return self.headers[column] in self.names
        return max((cell_len(row[column]) for row in self.cells), default=0) <= LONG

    @property
    def records(self) -> list[dict[str, object]]:
        """A row each, by header, for JSON."""
        return [dict(zip(self.headers, row, strict=True)) for row in self.rows]


def say(text: str = "", *, heading: str = "") -> None:
    """A line, with a heading in bold before it; in a pipe it is never wrapped."""
    begin = f"[bold]{escape(heading)}[/bold]" + ("  " if text else "") if heading else ""
    out.print(begin + escape(text), highlight=False, soft_wrap=True)


def tell(text: str) -> None:
    """Sentences: on a terminal wrapped between words, in a pipe a line each."""
    out.print(escape(text), highlight=False, soft_wrap=not out.is_terminal)


def print_table(table: Table) -> None:
    """Rows and columns; see the module for how."""
    drawn = _drawn(table) if out.is_terminal else None
    if drawn is not None:
        out.print(drawn)
        return
    for line in _plain(table):
        out.print(line, markup=False, highlight=False, soft_wrap=True)


def print_fields(fields: Mapping[str, str]) -> None:
    """Names with their values, a line each."""
    width = max(map(cell_len, fields), default=0)
    for name, value in fields.items():
        say(value, heading=name + " " * (width - cell_len(name)))


def print_json(answer: object) -> None:
    """An answer for programs: JSON, in ASCII where standard output has no more."""
    ascii_only = not (getattr(sys.stdout, "encoding", None) or "").lower().startswith("utf")
    text = json.dumps(plain(answer), indent=2, ensure_ascii=ascii_only, allow_nan=False)
    sys.stdout.write(text + "\n")


def plain(value: Any) -> Any:
    """A value in JSON's own types; what is no number is null.

    >>> plain({"p": float("nan"), "at": (1, 2)})
    {'p': None, 'at': [1, 2]}
    """
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if hasattr(value, "tolist"):  # numpy's
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | int | float):
        return value
    return None if _is_absent(value) else str(value)


def _drawn(table: Table) -> Drawn | None:
    """A table with lines; None where what must stay whole does not fit."""
    made = Drawn(title=escape(table.title) or None)
    needed = 1
    for column, header in enumerate(table.headers):
        lines = header.replace("_", "\n", 1).splitlines() or [""]
        whole = table.whole(column)
        widest = max(
            [*(cell_len(line) for line in lines), *(cell_len(row[column]) for row in table.cells)]
        )
        width = widest if whole else min(widest, NARROWEST)
        needed += width + 3
        made.add_column(
            escape("\n".join(lines)),
            justify="right" if table.numeric(column) else "left",
            no_wrap=whole,
            min_width=width,
            overflow="fold",
        )
    for row in table.cells:
        made.add_row(*map(escape, row))
    return made if needed <= out.width else None


def _plain(table: Table) -> Iterator[str]:
    if table.title:
        yield table.title
    lines = [tuple(" ".join(cell.split("\n")) for cell in row) for row in table.cells]
    widths = [max(map(cell_len, texts)) for texts in zip(table.headers, *lines, strict=True)]
    for row in (table.headers, *lines):
        yield "  ".join(
            _padded(cell, width, table.numeric(column))
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()


def _padded(text: str, width: int, right: bool) -> str:
    space = " " * (width - cell_len(text))
    return space + text if right else text + space


def _is_absent(value: object) -> bool:
    """None, no number, or pandas' own, whose name tells it: asking it needs pandas."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or type(value).__name__ == "NAType"


def _text(value: object) -> str:
    """A value in a table; a text in quotes where its white space would be lost."""
    if _is_absent(value):
        return ""
    if isinstance(value, float):
        return number(value)
    if isinstance(value, str) and (not value or value != value.strip()):
        return json.dumps(value, ensure_ascii=False)
    return str(value)
