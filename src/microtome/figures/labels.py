"""What is written at an axis: numbers, and the text of tokens beside positions."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import xarray as xr

from microtome.texts import brief, visible

MOST_TICKS = 24
MOST_TOKENS = 64
DECADES = 100.0
"""A parameter whose largest value is this many times its least gets a logarithmic axis."""


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


@dataclass(frozen=True)
class Axis:
    """A dimension as a figure shows it.

    Attributes:
        name: the dimension's.
        values: its coordinates.
        tokens: for positions, the text of each token; where the prompts shown do not agree on it,
            the role that it has in all of them (``@subject``), or None; None for all of them where
            there is neither.
        counts: how many prompts each coordinate's cells are over, where that is not the same.
    """

    name: str
    values: tuple[Any, ...]
    tokens: tuple[str | None, ...] | None = None
    counts: tuple[int, ...] | None = None

    @classmethod
    def of(cls, array: xr.DataArray | xr.Dataset, name: str) -> Axis:
        """The axis of a dimension of labelled data."""
        size = array.sizes[name]
        values = array[name].values.tolist() if name in array.coords else range(size)
        tokens = _tokens(array, "token" if name == "pos" else f"{name}_token", size)
        roles = _tokens(array, "role" if name == "pos" else f"{name}_role", size)
        return cls(name, tuple(values), _or_roles(tokens, roles))

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
    def slanted(self) -> bool:
        """Whether its labels are words, which need room."""
        return self.tokens is not None or self.counts is not None

    @property
    def labels(self) -> tuple[str, ...]:
        """Each coordinate in words, escaped: ``"3 ·Berlin"``, ``"subject (n = 4)"``."""
        found = [shown(value) for value in self.values]
        for n, token in enumerate(self.tokens or ()):
            found[n] += "" if token is None else f" {visible(token)}"
        for n, count in enumerate(self.counts or ()):
            found[n] += f" (n = {count})"
        return tuple(map(escaped, found))

    @property
    def ticks(self) -> dict[str, Any]:
        """Where plotly is to write what, along an axis that counts the coordinates."""
        most = MOST_TOKENS if self.slanted else MOST_TICKS
        step = max(1, math.ceil(len(self.values) / most))
        at = list(range(0, len(self.values), step))
        return {"tickmode": "array", "tickvals": at, "ticktext": [self.labels[n] for n in at]}


def _tokens(
    array: xr.DataArray | xr.Dataset, coordinate: str, size: int
) -> tuple[str | None, ...] | None:
    if coordinate not in array.coords or array[coordinate].ndim == 0:
        return None
    texts = array[coordinate].values
    rows: Sequence[Sequence[str]] = texts.tolist() if texts.ndim == 2 else [texts.tolist()]
    if any(len(row) != size for row in rows):
        return None
    found: list[str | None] = []
    for column in zip(*rows, strict=True):
        distinct = {text for text in column if text}
        found.append(None if len(distinct) > 1 else next(iter(distinct), ""))
    return tuple(found) if any(text is not None for text in found) else None


def _or_roles(
    tokens: tuple[str | None, ...] | None, roles: tuple[str | None, ...] | None
) -> tuple[str | None, ...] | None:
    if roles is None:
        return tokens
    known = [None] * len(roles) if tokens is None else tokens
    return tuple(
        f"@{role}" if text is None and role else text
        for text, role in zip(known, roles, strict=True)
    )
