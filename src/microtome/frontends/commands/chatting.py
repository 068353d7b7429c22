"""``microtome chat-prompt``."""

from __future__ import annotations

import json
from collections.abc import Sequence

from microtome import Prompt, load
from microtome.frontends.arguments import Shown
from microtome.frontends.commands.keeping import answering
from microtome.frontends.commands.planning import print_tokens
from microtome.frontends.shown import print_json, say


def chat(model: str, messages: Sequence[dict[str, str]], shown: Shown) -> None:
    """Show what a model's chat template makes of a chat: its text, its tokens, its messages."""
    with answering(shown):
        [encoded] = load(model).encode(Prompt.chat(messages))
    tokens = encoded.tokens
    if shown.json:
        found = {"text": tokens.text, "ids": tokens.ids, "tokens": tokens.pieces}
        print_json({"model": model, **found, "messages": messages})
        return
    say(tokens.text)
    print_tokens(encoded, [])
    say(heading="in a prompts file")
    say(json.dumps({"messages": messages}, ensure_ascii=False))
