"""What is nearly an address: what was probably meant, for the end of a refusal.

Nothing of it is accepted in the place of an address: a refusal says what it would be.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_LIST = r"-?\d+(?:\s*,\s*-?\d+)*"


def _lower(found: re.Match[str]) -> str:
    return found[0].lower()


_QUOTES: tuple[tuple[str, str], ...] = (
    ("[“”„‟«»]", '"'),
    (r"(?<=[@,{])\s*['‘’`]([^\"]+?)['‘’`](?=[,}]|$)", r'"\1"'),
)
"""How one quotes a word, as a pattern → how it is quoted."""

_MENDS: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"^l(?=[-\d*:{\[])", "L"),
    (r"(?<=\.)[A-Za-z_]+", _lower),
    (rf"^L\[?({_LIST})\]?(?=\.)", r"L{\1}"),
    (r"(?<=\.)([hnd])(?:eads?|eurons?|ims?)\.?(?=[-\d*:{\[])", r"\1"),
    (rf"(?<=\.)([zqkv])[.\[]\s*({_LIST}|\*)\s*\]?(?=@|$)", r"\1.h{\2}"),
    (rf"(?<=[hnd@])[\[(]\s*({_LIST})\s*[\])]", r"{\1}"),
    (rf"(?<=\.)([hnd])({_LIST})(?=@|$)", r"\1{\2}"),
    (r"\{\s*(-?\d+|\*)\s*\}", r"\1"),
)
"""How one writes what is an address nearly, as a pattern → how it is written; not in quotes."""


def mended(text: str) -> str:
    """An address as it would be written, if it was written in one of the ways that people try.

    >>> mended("L3.z.h2@'Sam'"), mended("l3.Z.H2 @ -1"), mended("L3.z.head[2, 3]@[-1]")
    ('L3.z.h2@"Sam"', 'L3.z.h2@-1', 'L3.z.h{2,3}@-1')
    >>> mended("L*.z.2"), mended("L1,2.z"), mended("L*.z.h*@-1")
    ('L*.z.h2', 'L{1,2}.z', 'L*.z.h*@-1')
    >>> mended("L3.Z.h2@'U.S.A'"), mended('L3.Z@"a{3}"'), mended("L3.z.h2 3")
    ('L3.z.h2@"U.S.A"', 'L3.z@"a{3}"', 'L3.z.h2 3')
    """
    place, at, rest = text.strip().partition("@")
    # Two numbers with nothing but a space between them do not become one.
    close = re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", place)
    text = close + at + rest.strip() if " as " not in text else text
    for pattern, instead in _QUOTES:
        text = re.sub(pattern, instead, text)
    return "".join(
        one if one.startswith('"') else _outside(one) for one in re.split('("[^"]*")', text)
    )


def _outside(text: str) -> str:
    for pattern, instead in _MENDS:
        text = re.sub(pattern, instead, text)
    return text
