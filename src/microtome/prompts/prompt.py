"""A prompt: what the model reads, what it is expected to say, and names for its tokens."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from types import MappingProxyType
from typing import Any

from microtome.amounts import single
from microtome.errors import PromptError, glimpse
from microtome.notebook import html_fields
from microtome.prompts.legible import whole
from microtome.prompts.turns import Message, options_of, turns_of
from microtome.spoken import spoken

BUILT_IN = ("last", "mask")
"""Roles that prompts have by themselves."""

Spot = str | int | tuple[str | int, str | int]
"""A role's place: a word, a position, or a pair of them, in the text and in the donor."""

Known = str | int | float | bool
"""What is known of a prompt besides its fields."""


TEXTS = ("text", "ids", "messages")
"""What a prompt may be given as, one of these; a donor likewise."""


@spoken
@dataclass(frozen=True, repr=False)
class Prompt:
    """A recipient text, with what belongs to it.

    Args:
        text: what the model reads.
        donor: the text whose activations `patch` puts into this one's run.
        target: what is expected to continue the text, and whose prediction is measured: with its
            leading space, where it has one (``" Germany"``); of one token or several. A number is
            a token's id. At a mask, which has its space in front of it, the space may be left out.
        contrast: what the target is compared with.
        targets: in the place of `target`, several of which any is expected; each is one token.
        contrasts: the same of the contrast.
        roles: names of positions: ``{"subject": "Berlin"}`` makes ``@subject`` the last token of
            that word. A pair gives the place in the text and in the donor. ``last`` is built in,
            and ``mask`` in a masked-language model.
        ids: the tokens themselves, in the place of a text: nothing is put in front of them.
        donor_ids: the same of the donor.
        messages: a chat, in the place of a text; see `chat`.
        donor_messages: the same of the donor.
        chat_options: what the model's chat template is told besides, in both: a variable that it
            reads (``{"enable_thinking": False}``), ``tools``, ``add_generation_prompt``.
        meta: what else is known of it, by name, such as its template: kept with the results, where
            prompts can be grouped by it. Nothing is computed from it.

    >>> Prompt("Berlin is the capital of", target=" Germany", contrast=" France").target
    ' Germany'
    >>> Prompt(ids=[5, 7, 5], target=7)
    Prompt(ids=[5, 7, 5], target=7)
    """

    text: str = ""
    donor: str | None = field(default=None, kw_only=True)
    target: str | int | None = field(default=None, kw_only=True)
    contrast: str | int | None = field(default=None, kw_only=True)
    roles: Mapping[str, Spot] = field(default_factory=dict, kw_only=True, hash=False)
    targets: Sequence[str | int] | None = field(default=None, kw_only=True)
    contrasts: Sequence[str | int] | None = field(default=None, kw_only=True)
    ids: Sequence[int] | None = field(default=None, kw_only=True)
    donor_ids: Sequence[int] | None = field(default=None, kw_only=True)
    messages: Sequence[Message] | None = field(default=None, kw_only=True, hash=False)
    donor_messages: Sequence[Message] | None = field(default=None, kw_only=True, hash=False)
    chat_options: Mapping[str, Any] = field(default_factory=dict, kw_only=True, hash=False)
    meta: Mapping[str, Known] = field(default_factory=dict, kw_only=True, hash=False)

    def __post_init__(self) -> None:
        for name in ("text", "donor"):
            self._set(name, _text(name, getattr(self, name)))
        for name in ("ids", "donor_ids"):
            self._set(name, _ids(name, getattr(self, name)))
        for name in ("messages", "donor_messages"):
            self._set(name, turns_of(name, getattr(self, name)))
        _check_one(self, TEXTS, "text")
        _check_one(self, ("donor", "donor_ids", "donor_messages"), "donor")
        if self.ids is None and self.messages is None:
            _check_empty("text", self.text)
        _check_empty("donor", self.donor)
        chats = (self.messages or self.donor_messages) is not None
        self._set("chat_options", options_of(self.chat_options, chats))
        for name in ("target", "contrast"):
            self._set(name, _answer(name, getattr(self, name)))
            self._set(f"{name}s", _answers(f"{name}s", getattr(self, f"{name}s")))
            _check_one(self, (name, f"{name}s"), name)
        self._set("roles", MappingProxyType(_roles(self.roles)))
        self._set("meta", MappingProxyType(_meta(self.meta)))

    @classmethod
    def chat(
        cls,
        messages: Sequence[Message],
        *,
        donor: Sequence[Message] | None = None,
        target: str | int | None = None,
        contrast: str | int | None = None,
        targets: Sequence[str | int] | None = None,
        contrasts: Sequence[str | int] | None = None,
        roles: Mapping[str, Spot] | None = None,
        meta: Mapping[str, Known] | None = None,
        chat_options: Mapping[str, Any] | None = None,
    ) -> Prompt:
        """A chat, as the model's own chat template writes it, up to where its answer begins.

        The tokens are those of ``apply_chat_template(…, tokenize=True,
        add_generation_prompt=True)``; words and roles are found in the text that the template
        makes, which ``microtome chat-prompt`` prints.

        Args:
            messages: the turns, ``{"role": "user", "content": "…"}``.
            donor: another chat, whose activations `patch` takes.
            target, contrast, targets, contrasts, roles, meta, chat_options: as a `Prompt` takes
                them.

        >>> Prompt.chat([{"role": "user", "content": "Hi"}], target="Hello")
        Prompt(messages=[{'role': 'user', 'content': 'Hi'}], target='Hello')
        """
        return cls(
            messages=messages,
            donor_messages=donor,
            target=target,
            contrast=contrast,
            targets=targets,
            contrasts=contrasts,
            roles=roles or {},
            meta=meta or {},
            chat_options=chat_options or {},
        )

    @property
    def shown(self) -> str:
        """What it is, in a line of a message: its text, its ids, or what is said last.

        >>> Prompt(ids=[5, 7]).shown
        'ids [5, 7]'
        """
        if self.messages is not None:
            return f"chat … {self.messages[-1].get('content')!r}"
        return f"ids {list(self.ids)}" if self.ids is not None else repr(self.text)

    @property
    def has_donor(self) -> bool:
        """Whether it has one, in whatever form."""
        given = (self.donor, self.donor_ids, self.donor_messages)
        return any(one is not None for one in given)

    def as_dict(self) -> dict[str, Any]:
        """Its fields as plain values, those that are set.

        >>> Prompt("Berlin is", targets=[" in", 7]).as_dict()
        {'text': 'Berlin is', 'targets': [' in', 7]}
        """
        values = {f.name: _plain(getattr(self, f.name)) for f in fields(self)}
        if self.ids is not None or self.messages is not None:
            del values["text"]
        return {name: value for name, value in values.items() if value not in (None, {})}

    def __repr__(self) -> str:
        own = self.as_dict()
        parts = [repr(own.pop("text"))] if "text" in own else []
        first = [name for name in TEXTS if name in own]
        named = {name: own[name] for name in first} | own
        parts += [f"{name}={value!r}" for name, value in named.items()]
        return f"Prompt({', '.join(parts)})"

    def _repr_html_(self) -> str:
        """In a notebook: its fields."""
        return html_fields(self.as_dict())

    def __reduce__(self) -> tuple[Callable[[], Prompt], tuple[()]]:
        # To copy and to pickle: the read-only view of the roles can do neither.
        return partial(Prompt, **self.as_dict()), ()

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)


def number(given: object) -> int | None:
    """A whole number as such, whoever made it; None where it is something else.

    >>> import numpy as np
    >>> number(np.int64(5)), number(True), number("5")
    (5, None, None)
    """
    own = single(given)
    return own if isinstance(own, int) and not isinstance(own, bool) else None


def _plain(value: object) -> object:
    """A field's value in plain types: lists and dicts."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple):
        return [dict(one) if isinstance(one, Mapping) else one for one in value]
    return value


# ----------------------------------------------------------------------------------------- texts


def _text(name: str, given: object) -> str | None:
    if given is None and name != "text":
        return None
    if not isinstance(given, str):
        hint = " Tokens go by ids=[…], a chat by Prompt.chat([…])." if name == "text" else ""
        raise PromptError(f"A prompt's {name} must be text, not {glimpse(given)}.{hint}")
    whole(given, f"A prompt's {name}")
    return str(given)  # numpy's texts are of a class of their own


def _check_one(prompt: Prompt, names: Sequence[str], what: str) -> None:
    """Raise unless at most one of some fields is given."""
    given = [name for name in names if getattr(prompt, name) not in (None, "")]
    if len(given) > 1:
        raise PromptError(
            f"A prompt has one {what}, and {' and '.join(given)} are given: leave one out."
        )


def _check_empty(what: str, text: str | None) -> None:
    if text is not None and not text.strip():
        raise PromptError(f"A prompt's {what} is empty: there is no token to run.")


def _ids(name: str, given: Any) -> tuple[int, ...] | None:
    if given is None:
        return None
    listed = given.tolist() if hasattr(given, "tolist") else given
    found = None
    if isinstance(listed, Sequence) and not isinstance(listed, str | bytes):
        found = [number(one) for one in listed]
    if not found or any(one is None or one < 0 for one in found):
        raise PromptError(
            f"A prompt's {name} are token ids, a list of whole numbers from 0, not "
            f"{glimpse(given)}."
        )
    return tuple(one for one in found if one is not None)


# --------------------------------------------------------------------------------------- answers


def _answer(name: str, given: object) -> str | int | None:
    """What is expected, as a text or as a token's id."""
    if isinstance(given, Mapping) and set(given) == {"id"}:  # as files have it
        given = number(given["id"])
        given = -1 if given is None else given
    own = number(given)
    if own is not None and own < 0:
        raise PromptError(
            f"A prompt's {name} as a token's id is a number from 0, not {glimpse(given)}."
        )
    if isinstance(given, str):
        whole(given, f"A prompt's {name}")
        return str(given)
    if own is None and given is not None:
        raise PromptError(f"A prompt's {name} must be text, or a token's id, not {glimpse(given)}.")
    return own


def _answers(name: str, given: Any) -> tuple[str | int, ...] | None:
    if given is None:
        return None
    listed = given.tolist() if hasattr(given, "tolist") else given
    if isinstance(listed, set | frozenset):
        listed = sorted(listed, key=str)
    if not isinstance(listed, Sequence) or isinstance(listed, str | bytes) or not listed:
        raise PromptError(
            f"A prompt's {name} are a list of tokens, at least one, as texts or ids, not "
            f"{glimpse(given)}."
        )
    found = [_answer(name, one) for one in listed]
    if None in found:
        raise PromptError(f"One of a prompt's {name} is None, which is no token: {given!r}.")
    return tuple(one for one in found if one is not None)


# ----------------------------------------------------------------------------------------- roles


def _roles(given: object) -> dict[str, Spot]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise PromptError(
            f"A prompt's roles are names with their places, {{'subject': 'Berlin'}}, not "
            f"{glimpse(given)}."
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
            f"A prompt's meta is names with values, {{'template': 'ABBA'}}, not {glimpse(given)}."
        )
    own: dict[Any, Any] = {single(name): single(value) for name, value in given.items()}
    for name, value in own.items():
        if not isinstance(name, str) or not name.strip() or not isinstance(value, Known):
            raise PromptError(
                f"In a prompt's meta, {name!r} is {glimpse(value)}: names are words, and values "
                "text, numbers, true or false."
            )
        whole(name, "A name in a prompt's meta")
        whole(str(value), f"{name!r} in a prompt's meta")
    return own


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
        return str(given)
    own = number(given)
    if own is None:
        raise PromptError(
            f"The place of role {role!r} is {glimpse(given)}; it can be a word, a whole number, or "
            "a pair of those, for the text and for its donor."
        )
    return own
