"""What is written at an axis: numbers, and the text of tokens beside positions."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import xarray as xr

MOST_TICKS = 24
MOST_TOKENS = 64
MOST_NUMBERS = 6
"""Numbers of a list that are written out."""
DECADES = 100.0
"""A parameter whose largest value is this many times its least gets a logarithmic axis."""

_SHOWN = {" ": "·", "\n": "↵", "\t": "⇥", "\r": "␍"}


def visible(token: str) -> str:
    """A token's text with its white space to be seen.

    >>> visible(" Berlin"), visible("\\n\\n"), visible("")
    ('·Berlin', '↵↵', '∅')
    """
    return "".join(_SHOWN.get(letter, letter) for letter in token) or "∅"


def escaped(text: str) -> str:
    """Text that plotly is to show as it is: it reads tags such as ``<b>`` and ``<a>``.

    >>> escaped("<b>")
    '&lt;b&gt;'
    """
    return html.escape(text, quote=False)


def shown(value: object) -> str:
    """A coordinate as it is written.

    >>> shown(3), shown(0.6), shown(10.0), shown("add")
    ('3', '0.6', '10', 'add')
    """
    return f"{value:.6g}" if isinstance(value, float) else brief(str(value), 40)


def brief(text: str, longest: int = 120) -> str:
    """An edit's text, or a coordinate's, with long lists of numbers cut to their first and length.

    >>> brief(f"add({[0.5] * 768}) L5.resid_post")
    'add([0.5, 0.5, … 768 numbers]) L5.resid_post'
    >>> brief("scale(0.6) L2.resid_post")
    'scale(0.6) L2.resid_post'
    """

    def cut(found: re.Match[str]) -> str:
        numbers = re.findall(r"[^\[\],\s]+", found[0])
        if len(numbers) <= MOST_NUMBERS:
            return found[0]
        return f"[{', '.join(numbers[:2])}, … {len(numbers):,} numbers]"

    short = re.sub(r"\[[^A-Za-z\"]*(?:[eE][^A-Za-z\"]*)*\]", cut, text)
    if len(short) <= longest:
        return short
    return short[: longest * 2 // 3] + " … " + short[-longest // 3 + 3 :]


@dataclass(frozen=True)
class Axis:
    """A dimension as a figure shows it.

    Attributes:
        name: the dimension's.
        values: its coordinates.
        tokens: for positions, the text of each token, where all prompts shown agree on it.
    """

    name: str
    values: tuple[Any, ...]
    tokens: tuple[str, ...] | None = None

    @classmethod
    def of(cls, array: xr.DataArray | xr.Dataset, name: str) -> Axis:
        """The axis of a dimension of labelled data."""
        size = array.sizes[name]
        values = array[name].values.tolist() if name in array.coords else range(size)
        beside = "token" if name == "pos" else f"{name}_token"
        return cls(name, tuple(values), _tokens(array, beside, size))

    @property
    def counted(self) -> bool:
        """Whether the coordinates are 0 … n − 1."""
        return self.values == tuple(range(len(self.values)))

    @property
    def numeric(self) -> bool:
        """Whether every coordinate is a number."""
        return all(isinstance(v, int | float) and not isinstance(v, bool) for v in self.values)

    @property
    def spans_decades(self) -> bool:
        """Whether a logarithmic axis shows it better."""
        if self.counted or not self.numeric or min(self.values) <= 0:
            return False
        return bool(max(self.values) / min(self.values) >= DECADES)

    @property
    def labels(self) -> tuple[str, ...]:
        """Each coordinate in words, escaped: ``"3 ·Berlin"``."""
        if self.tokens is None:
            return tuple(escaped(shown(value)) for value in self.values)
        pairs = zip(self.values, self.tokens, strict=True)
        return tuple(escaped(f"{shown(value)} {visible(token)}") for value, token in pairs)

    @property
    def ticks(self) -> dict[str, Any]:
        """Where plotly is to write what, along an axis that counts the coordinates."""
        most = MOST_TOKENS if self.tokens is not None else MOST_TICKS
        step = max(1, math.ceil(len(self.values) / most))
        at = list(range(0, len(self.values), step))
        return {"tickmode": "array", "tickvals": at, "ticktext": [self.labels[n] for n in at]}


def _tokens(array: xr.DataArray | xr.Dataset, coordinate: str, size: int) -> tuple[str, ...] | None:
    if coordinate not in array.coords or array[coordinate].ndim == 0:
        return None
    texts = array[coordinate].values
    rows: Sequence[Sequence[str]] = texts.tolist() if texts.ndim == 2 else [texts.tolist()]
    if any(len(row) != size for row in rows):
        return None
    found = []
    for column in zip(*rows, strict=True):
        distinct = {text for text in column if text}
        if len(distinct) > 1:
            return None
        found.append(distinct.pop() if distinct else "")
    return tuple(found)
