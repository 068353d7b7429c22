"""Names of files: legal wherever they may be copied to, and never two alike."""

from __future__ import annotations

import re
from collections.abc import Iterable

LONGEST = 100
"""Characters of a name: with a suffix, and a little beside it, any file system takes them."""

_LEGAL = re.compile(r"[a-z0-9][a-z0-9_-]*")
_DEVICES = re.compile(r"con|prn|aux|nul|(?:com|lpt)[0-9]")
"""What Windows takes for a device, whatever the suffix."""


def is_legal(name: str) -> bool:
    """Whether a file may be called this on any system, and no other case of it exists.

    >>> is_legal("prob-layer-head"), is_legal("Prob"), is_legal("../prob"), is_legal("con")
    (True, False, False, False)
    """
    named = _LEGAL.fullmatch(name) is not None and _DEVICES.fullmatch(name) is None
    return named and len(name) <= LONGEST


def slug(text: str) -> str:
    """The nearest legal name.

    >>> slug("std(L*.resid_post) layer"), slug("Ж"), slug("aux")
    ('std-l-resid-post-layer', 'unnamed', 'aux-0')
    """
    if is_legal(text):
        return text
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:LONGEST].strip("-") or "unnamed"
    return name if is_legal(name) else f"{name}-0"


def distinct(texts: Iterable[str]) -> tuple[str, ...]:
    """A legal name for each text, no two alike: the second of two is numbered.

    >>> distinct(["loss@2 layer", "loss@-2 layer", "Ж", "Я"])
    ('loss-2-layer', 'loss-2-layer-2', 'unnamed', 'unnamed-2')
    """
    taken: dict[str, None] = {}
    for text in texts:
        name = first = slug(text)
        number = 1
        while name in taken:
            number += 1
            name = f"{first[: LONGEST - len(str(number)) - 1]}-{number}"
        taken[name] = None
    return tuple(taken)
