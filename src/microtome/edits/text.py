"""The text form of an edit, ``name(parameters) address``, read back into the edit."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from microtome.edits.base import Edit
from microtome.errors import EditError, did_you_mean, listing
from microtome.language.calls import Call, called


def read(text: str, operations: Mapping[str, type[Edit]]) -> Edit:
    """The edit that a text names, out of the known operations.

    Raises:
        EditError: the operation does not exist or its parameters are wrong.
        AddressError: the address is.
    """
    call = _called(text, operations)
    operation = operations[call.name]
    wrong = _wrong(call, operation)
    if wrong:
        raise EditError(f"Wrong parameters in {text!r}: {wrong} Form: {form(operation)}.")
    return operation(call.address, *call.positional, **call.named)  # type: ignore[arg-type]


def form(operation: type[Edit]) -> str:
    """How an operation is written, with its parameters and their defaults.

    >>> from microtome.edits import Scale
    >>> form(Scale)
    'scale(factor) address'
    """
    shown = [
        name if one.default is one.empty else f"{name}={one.default!r}"
        for name, one in _parameters(operation).items()
    ]
    return f"{operation.name}{'(' + ', '.join(shown) + ')' if shown else ''} address"


def _parameters(operation: type[Edit]) -> dict[str, inspect.Parameter]:
    return dict(list(inspect.signature(operation).parameters.items())[1:])


def _called(text: str, operations: Mapping[str, type[Edit]]) -> Call:
    try:
        return called(text, operations)
    except EditError as error:
        name = text.strip().partition("(")[0].strip()
        if name not in operations:
            raise
        raise EditError(f"{error} Form: {form(operations[name])}.") from None


def _wrong(call: Call, operation: type[Edit]) -> str:
    """Which parameter is unknown, too many, given twice or missing, in a sentence; or nothing."""
    known = _parameters(operation)
    in_order = [name for name, one in known.items() if one.kind is not one.KEYWORD_ONLY]
    placed = in_order[: len(call.positional)]
    for name in call.named:
        if name not in known:
            has = f"its parameters: {listing(known)}" if known else "it takes none"
            return f"there is no {name!r}; {has}.{did_you_mean(name, known)}"
        if name in placed:
            return f"{name} is given twice."
    if len(call.positional) > len(placed):
        return f"{call.positional[len(placed)]!r} is one too many."
    missing = [
        name
        for name, one in known.items()
        if one.default is one.empty and name not in {*placed, *call.named}
    ]
    return f"{listing(missing)} is missing." if missing else ""
