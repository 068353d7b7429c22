"""What a chat is given as: its turns, and what its template is told besides."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from microtome.errors import PromptError, glimpse
from microtome.prompts.legible import whole

Message = Mapping[str, Any]
"""A turn of a chat: its role, its content, and what else a template reads."""

OURS = frozenset((
    "conversation", "messages", "tokenize", "padding", "truncation", "max_length", "return_tensors",
    "return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs",
))  # fmt: skip
"""Arguments of ``apply_chat_template`` that no template reads."""


def turns_of(name: str, given: object) -> tuple[Message, ...] | None:
    """The turns of a chat, as they were given, or none.

    Raises:
        PromptError: they are not turns, or have half a character.
    """
    if given is None:
        return None
    turns = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else []
    for turn in turns:
        if not isinstance(turn, Mapping) or not isinstance(turn.get("role"), str):
            turns = []
            break
        for text in _texts_in(dict(turn)):
            whole(text, "A message")
    if not turns:
        raise PromptError(
            f"A prompt's {name} are the turns of a chat, a list of "
            f"{{'role': 'user', 'content': '…'}}, not {glimpse(given)}."
        )
    return tuple(MappingProxyType(dict(turn)) for turn in turns)


def options_of(given: object, is_chat: bool) -> Mapping[str, Any]:
    """What a chat template is told besides the turns, as JSON has it.

    Raises:
        PromptError: it is no such thing, or there is no chat.

    >>> dict(options_of({"enable_thinking": False, "documents": ("a",)}, is_chat=True))
    {'enable_thinking': False, 'documents': ['a']}
    """
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise PromptError(
            "A prompt's chat_options are names with what the chat template is told, "
            f"{{'enable_thinking': False}}, not {glimpse(given)}."
        )
    if given and not is_chat:
        raise PromptError(
            "A prompt's chat_options are told to a chat template, and this is no chat: "
            "Prompt.chat([…], chat_options={…})."
        )
    for name in given:
        if name in OURS:
            raise PromptError(
                f"{name!r} is no option of a chat: its turns come first, and a prompt is read "
                "whole and unpadded. What a template reads is one: 'enable_thinking', 'tools'."
            )
    for text in _texts_in(given):
        whole(text, "A prompt's chat_options")
    try:
        found: dict[str, Any] = json.loads(json.dumps(dict(given)))
    except (TypeError, ValueError, RecursionError) as error:
        raise PromptError(
            f"A prompt's chat_options are plain values, and are kept with results: {error}. A "
            "function among the tools goes by its schema, transformers.utils.get_json_schema(…)."
        ) from error
    return MappingProxyType(found)


def _texts_in(value: object) -> Iterator[str]:
    """All texts of a message's content, which may have parts; names of fields too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from (*_texts_in(name), *_texts_in(inner))
    elif isinstance(value, Sequence) and not isinstance(value, bytes):
        for inner in value:
            yield from _texts_in(inner)
