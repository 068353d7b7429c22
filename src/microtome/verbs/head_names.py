"""Heads by name: ``L23.h3``."""

from __future__ import annotations

import re

from microtome.errors import AddressError, glimpse
from microtome.language.addresses import parse
from microtome.language.selectors import Index
from microtome.language.sites import Dimensions

FORM = "L<layer>.h<head>, such as L5.h3"


def head_of(text: str, dims: Dimensions) -> tuple[int, int]:
    """The layer and the number of one head.

    Args:
        text: ``"L5.h3"``, or an address of one head, ``"L5.z.h3"``; negative counts from the end.
        dims: the model's.

    Raises:
        AddressError: it names no head of the model, or several.

    >>> head_of("L-1.h3", Dimensions(2, 4, 4, 16, 4, 64, 99))
    (1, 3)
    """
    if not isinstance(text, str):
        raise AddressError(f"A head goes by its name, {FORM}, not by {glimpse(text)}.")
    short = re.fullmatch(r"\s*L(-?\d+)\.h(-?\d+)\s*", text)
    if short is not None:
        given = int(short[1]), int(short[2])
    else:
        try:
            address = parse(text)
        except AddressError as error:
            raise AddressError(f"{text!r} names no head: {FORM}.") from error
        layer, head = address.layers, address.selectors[1] if len(address.selectors) > 1 else None
        whose = address.site.axes[1:2]
        if whose != ("head",) or not isinstance(layer, Index) or not isinstance(head, Index):
            raise AddressError(f"{text!r} does not name one head: {FORM}.")
        given = layer.value, head.value
    for what, number, size in zip(
        ("layer", "head"), given, (dims.n_layers, dims.n_heads), strict=True
    ):
        if not -size <= number < size:
            raise AddressError(f"{text!r}: there is no {what} {number}; there are {size}, from 0.")
    return given[0] % dims.n_layers, given[1] % dims.n_heads
