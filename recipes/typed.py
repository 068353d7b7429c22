"""What pages of Markdown tell a reader to type in a shell: commands, line by line."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("microtome", "make", "python", "pytest")
FENCE = re.compile(r"^( *)```([^\n]*)\n(.*?)^ *```$", re.M | re.S)
LANGUAGES = ("", "text", "console", "sh")
"""Of fences that hold commands, among other things."""
_SPAN = re.compile(rf"`((?:{'|'.join(PROGRAMS)})\s[^`]+)`")
_ANY = re.compile(r"[…\[\]|]")
"""``[MODEL …]`` stands for what one would give, and ``a | b`` for one of the two."""


@dataclass(frozen=True)
class Typed:
    """A command that a page shows.

    Attributes:
        line: of the page, on which it begins.
        words: as a shell cuts them.
        whole: whether it can be typed as it stands; what stands in a sentence may leave out what a
            command needs.
    """

    line: int
    words: tuple[str, ...]
    whole: bool

    def __str__(self) -> str:
        return f"line {self.line}: {shlex.join(self.words)}"


def commands(page: Path) -> Iterator[Typed]:
    """All commands of a page: lines of its fences, and what stands in backticks."""
    text = page.read_text(encoding="utf-8")
    for fence in FENCE.finditer(text):
        if fence[2] in LANGUAGES:
            yield from _lines(fence[3], _line_of(text, fence.start(3)))
    prose = FENCE.sub(lambda fence: "\n" * fence[0].count("\n"), text)
    for span in _SPAN.finditer(prose):
        yield _cut(span[1], _line_of(prose, span.start()), whole=False)


def _lines(text: str, first: int) -> Iterator[Typed]:
    """The commands of a fence; one that ends in a backslash goes on in the next line."""
    begun, joined = first, ""
    for number, line in enumerate(text.splitlines(), first):
        begun = begun if joined else number
        joined += line.removesuffix("\\")
        if line.endswith("\\"):
            continue
        if joined.startswith(tuple(f"{program} " for program in PROGRAMS)):
            yield _cut(joined, begun, whole=not _ANY.search(joined.partition(" #")[0]))
        joined = ""


def _cut(text: str, line: int, *, whole: bool) -> Typed:
    words = shlex.split(text.partition(" | ")[0], comments=True)
    return Typed(line, tuple(word for word in words if whole or not _ANY.search(word)), whole)


def _line_of(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1
