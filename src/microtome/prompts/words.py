"""Where words begin and end, in any script.

A word is looked up whole: "cat" is not in "category". Whole means that no letter stands next to it;
but scripts that are written without spaces (Chinese, Japanese, Thai) have no such sign, so there a
word may stand anywhere, and a Korean one may have a particle behind it. A combining mark belongs to
the letter before it, however that is typed.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import lru_cache

UNSPACED = frozenset(
    (
        *("CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "HALFWIDTH"),
        *("BOPOMOFO", "YI", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN", "JAVANESE", "BALINESE"),
    )
)
"""How Unicode's names of letters begin in scripts that are written without spaces."""

AGGLUTINATED = "HANGUL"
"""The same of the script that puts spaces between words, and particles right behind them."""

JOINERS = "\u200c\u200d"
"""What joins two characters into one: letters in Persian or Hindi, faces in a family."""


def spans_of(word: str, text: str) -> Iterator[tuple[int, int]]:
    """Where a word stands in a text, as ranges of characters [start, end).

    >>> list(spans_of("cat", "a cat, no category")), list(spans_of("医生", "她是医生还是老师"))
    ([(2, 5)], [(2, 4)])
    """
    start = text.find(word)
    while start >= 0:
        end = start + len(word)
        if _is_edge(text, start, begins=True) and _is_edge(text, end, begins=False):
            yield start, end
        start = text.find(word, start + 1)


def words_of(text: str) -> Iterator[tuple[int, int]]:
    """A text's words as ranges of characters: signs by themselves, and letters without spaces too.

    >>> [text[a:b] for text in ["It's 他说 5"] for a, b in words_of(text)]
    ['It', "'", 's', '他', '说', '5']
    """
    start = 0
    for end in range(1, len(text) + 1):
        if end < len(text) and goes_on(text[end - 1], text[end]):
            continue
        if not text[start].isspace():
            yield start, end
        start = end


def goes_on(before: str, after: str) -> bool:
    """Whether no word ends between two characters."""
    if _is_mark(after) or before in JOINERS:
        return True
    return _is_letter(before) and _is_letter(after) and not is_unspaced(before, after)


def _is_edge(text: str, at: int, begins: bool) -> bool:
    """Whether a word may begin, or end, at a place in a text."""
    if not 0 < at < len(text):
        return True
    before, after = text[at - 1], text[at]
    if not begins and _script(before) == AGGLUTINATED == _script(after):
        return True
    if (after if begins else before) == "_":  # it joins others' words, and begins and ends its own
        return not _is_mark(after)
    return not goes_on(before, after)


def is_unspaced(before: str, after: str) -> bool:
    """Whether one of two characters is of a script in which no space stands between words."""
    return not UNSPACED.isdisjoint((_script(before), _script(after)))


def _is_mark(character: str) -> bool:
    """Whether it belongs to the character before it."""
    return unicodedata.category(character)[0] == "M" or character in JOINERS


def _is_letter(character: str) -> bool:
    return character == "_" or unicodedata.category(character)[0] in "LNM"


@lru_cache(maxsize=2**12)
def _script(character: str) -> str:
    """The script of a letter, as its name begins."""
    return unicodedata.name(character, "").partition(" ")[0]
