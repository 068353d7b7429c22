"""Amounts that users give: numbers, whole numbers, and bytes with their unit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from types import MappingProxyType
from typing import Any

from microtome.errors import SweepError, glimpse, listing

UNITS: Mapping[str, int] = MappingProxyType(
    {
        "B": 1,
        **{unit: 1000**n for n, unit in enumerate(("kB", "MB", "GB", "TB"), 1)},
        **{unit: 1024**n for n, unit in enumerate(("KiB", "MiB", "GiB", "TiB"), 1)},
    }
)
"""Unit → bytes; written in small letters too."""

_BYTES = "expected bytes, such as 2GiB, 500MB or 1000000"
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ "


def single(given: Any) -> Any:
    """What a numpy scalar, or an array or tensor of no axes, holds; anything else as it is.

    >>> import numpy as np
    >>> single(np.int64(3)), single(np.array(0.5)), single(np.str_("a")), single([3])
    (3, 0.5, 'a', [3])
    """
    alone = getattr(given, "shape", None) == ()
    return given.item() if alone and hasattr(given, "item") else given


def whole_of(given: object, least: int | None = None, what: str = "") -> int:
    """A whole number, of at least this.

    Args:
        given: the number, a Python or numpy one, or a tensor of it.
        least: the smallest that is taken.
        what: the parameter's name, with which the complaint begins.

    Raises:
        SweepError: it is none, or smaller.

    >>> import numpy as np
    >>> whole_of(np.int64(3), least=0)
    3
    """
    begin = f"{what}={glimpse(given)}: " if what else ""
    end = "." if what else ""
    given = single(given)
    if not isinstance(given, int) or isinstance(given, bool):
        raise SweepError(f"{begin}expected a whole number, not {glimpse(given)}{end}")
    if least is not None and given < least:
        raise SweepError(f"{begin}expected a whole number of at least {least}, not {given}{end}")
    return given


def bytes_of(given: object, what: str = "") -> int:
    """A number of bytes, from a number or a text with its unit.

    Args:
        given: such as ``"2GiB"``, ``"1.5 MB"`` or 4096.
        what: the parameter's name, with which the complaint begins.

    Raises:
        SweepError: it is none, or less than one.

    >>> bytes_of("2GiB"), bytes_of("1.5 MB"), bytes_of(4096)
    (2147483648, 1500000, 4096)
    """
    if not isinstance(given, str):
        return whole_of(given, 1, what)
    digits = given.rstrip(_LETTERS)
    unit = given[len(digits) :].strip().lower()
    sizes = {name.lower(): size for name, size in UNITS.items()} | {"": 1}
    begin, end = (f"{what}={glimpse(given)}: ", ".") if what else ("", "")
    try:
        amount = float(digits) * sizes[unit]
    except (KeyError, ValueError):
        amount = math.nan
    if not math.isfinite(amount):
        units = listing(UNITS)
        raise SweepError(f"{begin}{_BYTES}, not {glimpse(given)}; units: {units}{end}")
    return whole_of(int(amount), 1, what)


def many(number: int, thing: str) -> str:
    """A number of things.

    >>> many(1, "prompt"), many(2048, "cell"), many(2, "pass")
    ('1 prompt', '2,048 cells', '2 passes')
    """
    plural = f"{thing}es" if thing.endswith("s") else f"{thing}s"
    return f"{number:,} {thing if number == 1 else plural}"


def is_finite(given: object) -> bool:
    """Whether something is a number, and one that a float holds.

    >>> is_finite(3), is_finite(True), is_finite(math.nan), is_finite(10**400)
    (True, False, False, False)
    """
    if isinstance(given, bool) or not isinstance(given, Real):
        return False
    try:
        return math.isfinite(given)
    except OverflowError:  # a whole number of more than 308 digits
        return False
