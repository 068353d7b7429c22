"""The text form of an edit, ``name(parameters) address``, read back into the edit."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Mapping
from typing import Any

from microtome.edits.base import Edit
from microtome.errors import EditError, did_you_mean, listing


def read(text: str, operations: Mapping[str, type[Edit]]) -> Edit:
    """The edit that a text names, out of the known operations.

    Raises:
        EditError: the operation does not exist or its parameters are wrong.
        AddressError: the address is.
    """
    found = re.match(r"\s*([A-Za-z_]\w*)", text)
    if found is None:
        raise EditError(f"Cannot read the edit {text!r}. Form: name(parameters) address.")
    name = found[1]
    if name not in operations:
        hint = did_you_mean(name, operations)
        raise EditError(f"No edit is called {name!r}. Edits: {listing(operations)}.{hint}")
    operation = operations[name]
    positional, named, address = _split(text.strip(), name, operation)
    if not address:
        raise EditError(f"{text!r} lacks an address, such as '{text.strip()} L5.z.h3'.")
    try:
        return operation(address, *positional, **named)  # type: ignore[arg-type]
    except TypeError:
        raise EditError(f"Wrong parameters in {text!r}. Form: {form(operation)}.") from None


def form(operation: type[Edit]) -> str:
    """How an operation is written, with its parameters and their defaults.

    >>> from microtome.edits import Scale
    >>> form(Scale)
    'scale(factor) address'
    """
    parameters = list(inspect.signature(operation).parameters.values())[1:]
    shown = [p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in parameters]
    return f"{operation.name}{'(' + ', '.join(shown) + ')' if shown else ''} address"


def _split(text: str, name: str, operation: type[Edit]) -> tuple[list[Any], dict[str, Any], str]:
    if not text[len(name) :].startswith("("):
        return [], {}, text[len(name) :].strip()
    for at, letter in enumerate(text):
        if letter != ")":
            continue
        try:
            call = ast.parse(text[: at + 1], mode="eval").body
        except SyntaxError:  # a parenthesis inside the parameters: try the next one
            continue
        except (ValueError, RecursionError, MemoryError):  # nothing that a person writes
            break
        if isinstance(call, ast.Call):
            return (*_arguments(call, text, operation), text[at + 1 :].strip())
    raise EditError(f"Cannot read the parameters in {text!r}. Form: {form(operation)}.")


def _arguments(
    call: ast.Call, text: str, operation: type[Edit]
) -> tuple[list[Any], dict[str, Any]]:
    try:
        positional = [ast.literal_eval(argument) for argument in call.args]
        named = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
        if len(named) < len(call.keywords):
            raise ValueError("a parameter is given twice")
    except (ValueError, TypeError, RecursionError, MemoryError):
        raise EditError(
            "Parameters are numbers, quoted words and lists, each given once; cannot read "
            f"{text!r}. Form: {form(operation)}."
        ) from None
    return positional, named
