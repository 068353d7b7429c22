"""``microtome chat-prompt``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from microtome import Prompt, load
from microtome.frontends.arguments import Shown
from microtome.frontends.commands.keeping import answering
from microtome.frontends.commands.planning import print_tokens
from microtome.frontends.experiment.options import named_of
from microtome.frontends.shown import print_json, say


def chat(
    model: str, messages: Sequence[dict[str, str]], options: Sequence[str], shown: Shown
) -> None:
    """Show what a model's chat template makes of a chat: its text, its tokens, its messages."""
    prompt = Prompt.chat(messages, chat_options=told(options))
    with answering(shown):
        [encoded] = load(model).encode(prompt)
    tokens = encoded.tokens
    if shown.json:
        found = {"text": tokens.text, "ids": tokens.ids, "tokens": tokens.pieces}
        print_json({"model": model, **found, **prompt.as_dict()})
        return
    say(tokens.text)
    print_tokens(encoded, [])
    say(heading="in a prompts file")
    say(json.dumps(prompt.as_dict(), ensure_ascii=False))


def told(options: Sequence[str]) -> dict[str, Any]:
    """What a chat template is told by ``--chat-option``."""
    return named_of(options, "--chat-option", "enable_thinking=false")
