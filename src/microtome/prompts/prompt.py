"""A prompt: what the model reads, what it is expected to say, and names for its tokens."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np

from microtome.errors import PromptError

BUILT_IN = ("last", "mask")
"""Roles that prompts have by themselves."""

Spot = str | int | tuple[str | int, str | int]
"""A role's place: a word, a position, or a pair of them, in the text and in the donor."""

Known = str | int | float | bool
"""What is known of a prompt besides its fields."""


@dataclass(frozen=True)
class Prompt:
    """A recipient text, with what belongs to it.

    Args:
        text: what the model reads.
        donor: the text whose activations `patch` puts into this one's run.
        target: the token whose prediction is measured, with its leading space (``" Germany"``);
            at a mask, which has its space in front of it, the space may be left out.
        contrast: the token that the target is compared with.
        roles: names of positions: ``{"subject": "Berlin"}`` makes ``@subject`` the last token of
            that word. A pair gives the place in the text and in the donor. ``last`` is built in,
            and ``mask`` in a masked-language model.
        meta: what else is known of it, by name, such as its template: kept with the results, where
            prompts can be grouped by it. Nothing is computed from it.

    >>> Prompt("Berlin is the capital of", target=" Germany", contrast=" France").target
    ' Germany'
    """

    text: str
    donor: str | None = field(default=None, kw_only=True)
    target: str | None = field(default=None, kw_only=True)
    contrast: str | None = field(default=None, kw_only=True)
    roles: Mapping[str, Spot] = field(default_factory=dict, kw_only=True, hash=False)
    meta: Mapping[str, Known] = field(default_factory=dict, kw_only=True, hash=False)

    def __post_init__(self) -> None:
        for name in ("text", "donor", "target", "contrast"):
            given = getattr(self, name)
            if not isinstance(given, str) and (given is not None or name == "text"):
                raise PromptError(f"A prompt's {name} must be text, not {given!r}.")
        for name in ("text", "donor"):
            given = getattr(self, name)
            if given is not None and not given.strip():
                raise PromptError(f"A prompt's {name} is empty: there is no token to run.")
        for name in ("text", "donor", "target", "contrast"):
            whole(getattr(self, name) or "", f"A prompt's {name}")
        object.__setattr__(self, "roles", MappingProxyType(_roles(self.roles)))
        object.__setattr__(self, "meta", MappingProxyType(_meta(self.meta)))

    def as_dict(self) -> dict[str, Any]:
        """Its fields as plain values, those that are set."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values |= {"roles": dict(self.roles), "meta": dict(self.meta)}
        return {name: value for name, value in values.items() if value not in (None, {})}

    def __reduce__(self) -> tuple[Callable[[], Prompt], tuple[()]]:
        # To copy and to pickle: the read-only view of the roles can do neither.
        return partial(Prompt, **self.as_dict()), ()


def whole(text: str, what: str) -> None:
    r"""Raise `PromptError` if a text has half a character, which no tokenizer can read.

    >>> whole("half a cat \ud83d", "A prompt's text")
    Traceback (most recent call last):
    microtome.errors.PromptError: A prompt's text has half a character, '\ud83d', at its place 11...
    """
    half = re.search("[\ud800-\udfff]", text)
    if half is not None:
        around = text[max(0, half.start() - 20) : half.end() + 20]
        raise PromptError(
            f"{what} has half a character, {half[0]!r}, at its place {half.start()}, in "
            f"{around!r}: it was cut in the middle of a character, or it is no UTF-8."
        )


def _roles(given: object) -> dict[str, Spot]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise PromptError(
            f"A prompt's roles are names with their places, {{'subject': 'Berlin'}}, not {given!r}."
        )
    for name in given:
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_]\w*", name) or name in BUILT_IN:
            raise PromptError(
                f"{name!r} cannot be the name of a role: use letters, digits and _, "
                "and not 'last' or 'mask', which are always the last token and the mask."
            )
    return {name: _place(name, place) for name, place in given.items()}


def _meta(given: object) -> dict[str, Known]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise PromptError(
            f"A prompt's meta is names with values, {{'template': 'ABBA'}}, not {given!r}."
        )
    for name, value in given.items():
        if not isinstance(name, str) or not name.strip() or not isinstance(value, Known):
            raise PromptError(
                f"In a prompt's meta, {name!r} is {value!r}: names are words, and values text, "
                "numbers, true or false."
            )
        whole(name, "A name in a prompt's meta")
        whole(str(value), f"{name!r} in a prompt's meta")
    return dict(given)


def _place(role: str, given: object) -> Spot:
    if isinstance(given, tuple | list) and len(given) == 2:
        return _spot(role, given[0]), _spot(role, given[1])
    return _spot(role, given)


def _spot(role: str, given: object) -> str | int:
    if isinstance(given, str):
        if not given.strip():
            raise PromptError(
                f"The word of role {role!r} is {given!r}, which stands nowhere: give a word of the "
                "text, or a position."
            )
        whole(given, f"The word of role {role!r}")
        return given
    if isinstance(given, int | np.integer) and not isinstance(given, bool):
        return int(given)
    raise PromptError(
        f"The place of role {role!r} is {given!r}; it can be a word, a whole number, or a pair of "
        "those, for the text and for its donor."
    )
