"""Parts of a fact's text, and windows of layers: how causal tracing is averaged and made."""

from __future__ import annotations

HIDDEN = "hidden"
"""What is put back layer by layer; anything else, in windows of layers."""
PARTS = (
    "before the subject",
    "first subject token",
    "middle subject tokens",
    "last subject token",
    "first token behind",
    "further tokens",
    "last token",
)
"""Of a text, in its order. A subject of one token has a last one alone."""


def parts_of(subject: range, length: int) -> list[str]:
    """The part that each token of a text is.

    >>> parts_of(range(1, 4), 7)[:4]
    ['before the subject', 'first subject token', 'middle subject tokens', 'last subject token']
    >>> parts_of(range(0, 1), 4)
    ['last subject token', 'first token behind', 'further tokens', 'last token']
    """
    first, last = subject[0], subject[-1]
    found = []
    for position in range(length):
        if position < first:
            name = PARTS[0]
        elif position == last:
            name = PARTS[3]
        elif position < last:
            name = PARTS[1] if position == first else PARTS[2]
        elif position == length - 1:
            name = PARTS[6]
        else:
            name = PARTS[4] if position == last + 1 else PARTS[5]
        found.append(name)
    return found
