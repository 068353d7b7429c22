"""What objects show of themselves in a notebook: compact tables, in HTML, escaped."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping, Sequence

from microtome.texts import number, visible

MOST_ROWS = 20
"""Rows of a table; of more, the first are shown and the others counted."""

MOST_TOKENS = 200
"""Tokens of a text, likewise."""
LONGEST = 300
"""Letters of a cell; of more, the middle is left out."""

_CELL = "text-align:left;vertical-align:top;white-space:pre-wrap"
_TOKEN = (
    "display:inline-block;margin:1px;padding:0 3px;border:1px solid #9995;border-radius:3px;"
    "font-family:monospace"
)


def html_table(headers: Sequence[str], rows: Iterable[Sequence[object]], caption: str = "") -> str:
    """A table, escaped.

    >>> html_table(["token"], [["<b>"]])
    '<table><thead><tr><th>token</th></tr></thead><tbody><tr><td style="text-align:left;\
vertical-align:top;white-space:pre-wrap">&lt;b&gt;</td></tr></tbody></table>'
    """
    listed = list(rows)
    named = "".join(f"<th>{escaped(name)}</th>" for name in headers)
    head = f"<thead><tr>{named}</tr></thead>" if named else ""
    body = "".join(
        "<tr>" + "".join(f'<td style="{_CELL}">{escaped(shown(v))}</td>' for v in row) + "</tr>"
        for row in listed[:MOST_ROWS]
    )
    title = f"<caption>{escaped(caption)}</caption>" if caption else ""
    made = f"<table>{title}{head}<tbody>{body}</tbody></table>"
    more = len(listed) - MOST_ROWS
    return made + (html_line(f"… and {more:,} more") if more > 0 else "")


def html_fields(named: Mapping[str, object]) -> str:
    """Names with their values, those that are there; columns have no names.

    >>> html_fields({"layers": 6, "groups": None}).count("<t")
    5
    """
    rows = [(name, value) for name, value in named.items() if value not in (None, "", {})]
    return html_table((), rows)


def html_line(text: str) -> str:
    """A line of text."""
    return f"<p>{escaped(text)}</p>"


def html_tokens(pieces: Iterable[str]) -> str:
    """Tokens in boxes with their positions, white space to be seen."""
    listed = list(pieces)
    boxes = "".join(
        f'<span style="{_TOKEN}" title="{position}">{escaped(visible(piece))}</span>'
        for position, piece in enumerate(listed[:MOST_TOKENS])
    )
    more = len(listed) - MOST_TOKENS
    return f"<div>{boxes}{f' … and {more:,} more' if more > 0 else ''}</div>"


def html_code(title: str, text: str) -> str:
    """Code under a title, folded away.

    >>> html_code("Python", "a < b")
    '<details><summary>Python</summary><pre>a &lt; b</pre></details>'
    """
    return f"<details><summary>{escaped(title)}</summary><pre>{escaped(text)}</pre></details>"


def html_picture(png: bytes, width: int) -> str:
    """A picture, in the page itself."""
    data = base64.b64encode(png).decode("ascii")
    return f'<img src="data:image/png;base64,{data}" style="max-width:100%;width:{width}px"/>'


def shown(value: object) -> str:
    """A value as a table shows it."""
    if value is None:
        return ""
    text = number(value) if isinstance(value, float) else str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST * 2 // 3]} … {text[-LONGEST // 4 :]}"


def escaped(text: str) -> str:
    """Text that a page shows as it is, half characters as question marks."""
    return html.escape(text.encode("utf-8", "replace").decode("utf-8"))
