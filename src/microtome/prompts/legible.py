"""Texts that a tokenizer can read."""

from __future__ import annotations

import re

from microtome.errors import PromptError


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
