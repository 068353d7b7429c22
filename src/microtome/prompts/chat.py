"""Chats, written as texts by the template that a model's tokenizer brings along."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from microtome.errors import PromptError
from microtome.prompts.prompt import Message
from microtome.prompts.tokenizer import Tokenizer


def written(messages: Sequence[Message], tokenizer: Tokenizer) -> str:
    """A chat as the model's template writes it, up to where its answer begins.

    Raises:
        PromptError: the tokenizer has no template, or its template does not take this chat.
    """
    if not tokenizer.chat_template:
        raise PromptError(
            f"This model's tokenizer ({type(tokenizer).__name__}) has no chat template, so nobody "
            "knows how it writes a chat: give the text as the model was trained on it, "
            "Prompt('…'), or a tokenizer with a chat_template, load(…, tokenizer=…)."
        )
    turns = [dict(message) for message in messages]
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # a template is a program of the model's own, and may raise anything
        raise PromptError(
            f"The model's chat template does not take this chat of {len(turns)} turns "
            f"({', '.join(turn['role'] for turn in turns)}): {error}"
        ) from error
    return str(text)


def template_hash(tokenizer: Tokenizer) -> str:
    """sha256 of the template, or of all where a tokenizer has several, in hexadecimal digits."""
    text = json.dumps(tokenizer.chat_template, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
