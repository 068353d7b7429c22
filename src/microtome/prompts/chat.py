"""Chats, written as texts by the template that a model's tokenizer brings along."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from microtome.amounts import many
from microtome.errors import PromptError, did_you_mean
from microtome.prompts.tokenizer import Tokenizer
from microtome.prompts.turns import Message

CONTINUES = "continue_final_message"
BEGINS = "add_generation_prompt"

OUTSIDE = frozenset(("chat_template", CONTINUES))
"""Options that transformers reads itself, and no template."""


def written(
    messages: Sequence[Message], tokenizer: Tokenizer, options: Mapping[str, Any] | None = None
) -> str:
    """A chat as the model's template writes it, up to where its answer begins.

    Args:
        messages: the turns.
        tokenizer: the model's.
        options: what the template is told besides (`Prompt.chat_options`).

    Raises:
        PromptError: the tokenizer has no template, its template does not take this chat, or reads
            nothing by the name of an option.
    """
    how = dict(options or {})
    if not tokenizer.chat_template and "chat_template" not in how:
        raise PromptError(
            f"This model's tokenizer ({type(tokenizer).__name__}) has no chat template, so nobody "
            "knows how it writes a chat: give the text as the model was trained on it, "
            "Prompt('…'), or a tokenizer with a chat_template, load(…, tokenizer=…)."
        )
    turns = [dict(message) for message in messages]
    try:
        _check_read(how, tokenizer)
        begun = {BEGINS: begins_an_answer(how)}
        text = tokenizer.apply_chat_template(turns, tokenize=False, **{**begun, **how})
    except PromptError:
        raise
    except Exception as error:  # a template is a program of the model's own, and may raise anything
        raise PromptError(
            f"The model's chat template does not take this chat of {many(len(turns), 'turn')} "
            f"({', '.join(turn['role'] for turn in turns)}): {error}"
        ) from error
    return str(text)


def begins_an_answer(options: Mapping[str, Any]) -> bool:
    """Whether a template is told to begin an answer behind the last turn: unless told otherwise."""
    return bool(options.get(BEGINS, not options.get(CONTINUES)))


def template_hash(tokenizer: Tokenizer) -> str:
    """sha256 of the template, or of all where a tokenizer has several, in hexadecimal digits."""
    text = json.dumps(tokenizer.chat_template, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _check_read(options: Mapping[str, Any], tokenizer: Tokenizer) -> None:
    """Raise for an option that the template does not read: it would change nothing."""
    if not options:
        return
    named, tools = options.get("chat_template"), options.get("tools")
    known = set(re.findall(r"[A-Za-z_]\w*", tokenizer.get_chat_template(named, tools)))
    for name in options:
        if name not in known | OUTSIDE:
            raise PromptError(
                f"The model's chat template reads no {name!r}, so it would change nothing: leave "
                f"it out of chat_options.{did_you_mean(name, known)}"
            )
