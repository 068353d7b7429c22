"""The text form of an edit, ``name(parameters) address``, taken apart; nothing is computed."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from microtome.errors import EditError, did_you_mean, listing
from microtome.language.habits import EDITS, address_of

NAMES = (
    "zero", "mean", "scale", "noise", "patch", "replace", "add", "project", "clamp", "shuffle",
    "knockout", "apply",
)  # fmt: skip
"""The edits that there are."""


@dataclass(frozen=True)
class Call:
    """An edit's text in its parts.

    Attributes:
        name: of the edit.
        address: the text after the parameters.
        positional: parameters without a name.
        named: parameters with one.
    """

    name: str
    address: str
    positional: tuple[Any, ...] = ()
    named: dict[str, Any] = field(default_factory=dict)


def called(text: str, names: Collection[str] = NAMES) -> Call:
    """The parts of an edit's text.

    Args:
        text: such as ``"scale(0.6) L2.resid_post"``.
        names: the edits that there are.

    Raises:
        EditError: there is no such edit, its parameters cannot be read, or it has no address.

    >>> called("scale(0.6) L2.resid_post")
    Call(name='scale', address='L2.resid_post', positional=(0.6,), named={})
    """
    found = re.match(r"\s*([A-Za-z_]\w*)", text)
    if found is None:
        raise EditError(f"Cannot read the edit {text!r}. Form: name(parameters) address.")
    name = found[1]
    if name not in names:
        raise EditError(
            f"No edit is called {name!r}. Edits: {listing(names)}.{_hint(text, name, names)}"
        )
    call = _split(text.strip(), name)
    if not call.address:
        raise EditError(f"{text!r} lacks an address, such as '{text.strip()} L5.z.h3'.")
    return call


def _hint(text: str, name: str, names: Collection[str]) -> str:
    """What may be meant by an edit that there is not: an address alone, or another tool's word."""
    meant = EDITS.get(name.lower())
    if meant in names:
        return f" Did you mean {meant!r}?"
    elsewhere = address_of(text)
    if elsewhere or re.match(r"\s*(L[-\d*:{]|embed\b|logits\b)", text):
        return f" Say what is done there: 'zero L5.z.h3'. {elsewhere}".rstrip()
    return did_you_mean(name, names)


def _split(text: str, name: str) -> Call:
    if not text[len(name) :].startswith("("):
        return Call(name, text[len(name) :].strip())
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
            return Call(name, text[at + 1 :].strip(), *_arguments(call, text))
    raise EditError(f"Cannot read the parameters in {text!r}.")


def _arguments(call: ast.Call, text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    try:
        if any(map(_is_twice, (*call.args, *(one.value for one in call.keywords)))):
            raise ValueError("a key is given twice")
        positional = tuple(ast.literal_eval(argument) for argument in call.args)
        named = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
        if len(named) < len(call.keywords):
            raise ValueError("a parameter is given twice")
    except (ValueError, TypeError, RecursionError, MemoryError):
        raise EditError(
            "Parameters are numbers, quoted words and lists, each given once; cannot read "
            f"{text!r}."
        ) from None
    return positional, named


def _is_twice(node: ast.AST) -> bool:
    """Whether it is a dictionary with a key twice, such as a layer: the second would win."""
    keys = [*map(ast.dump, filter(None, node.keys))] if isinstance(node, ast.Dict) else []
    return len(set(keys)) < len(keys)
