"""The code in pages of Markdown, run as a reader would: block after block, in one namespace.

A fence of ``python`` is executed; one of ``pycon`` is a session whose answers have to come (by
`doctest`; an answer may be wrapped, and ``...`` stands for anything). One with the title of another
tool is that one's code.
"""

from __future__ import annotations

import doctest
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^( *)```(python|pycon)(?: title=\"([^\"]*)\")?\n(.*?)^ *```$", re.M | re.S)
COMPARED = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Block:
    """A fence of a page.

    Attributes:
        kind: ``python`` or ``pycon``.
        title: whose it is, where that is said.
        line: of the page, on which the code begins.
        code: what is in it, without the fence's indentation.
    """

    kind: str
    title: str
    line: int
    code: str

    @property
    def ours(self) -> bool:
        """Whether it is microtome's, and no other tool's."""
        return self.title in ("", "microtome")


def blocks(page: Path) -> Iterator[Block]:
    """All fences of Python, in order."""
    text = page.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        indent, kind, title, code = found.groups()
        line = text.count("\n", 0, found.start(4)) + 1
        yield Block(kind, title or "", line, re.sub(rf"^{indent}", "", code, flags=re.M))


def run(page: Path, names: dict[str, object]) -> int:
    """Run a page's own blocks, and say how many there were.

    Args:
        page: the file.
        names: the namespace, in which the page's names are afterwards.
    """
    chosen = [block for block in blocks(page) if block.ours]
    for block in chosen:
        execute(page, block, names)
    return len(chosen)


def execute(page: Path, block: Block, names: dict[str, object]) -> None:
    """Run one block; what is wrong with it is told by its line of the page."""
    if block.kind == "python":
        exec(compile("\n" * (block.line - 1) + block.code, str(page), "exec"), names)
    else:
        _session(page, block, names)


def _session(page: Path, block: Block, names: dict[str, object]) -> None:
    test = doctest.DocTestParser().get_doctest(
        block.code, names, page.name, str(page), block.line - 1
    )
    said: list[str] = []
    found = doctest.DocTestRunner(optionflags=COMPARED).run(
        test, out=said.append, clear_globs=False
    )
    names.update(test.globs)
    assert found.attempted, f"{page.name}, line {block.line}: a session without a prompt"
    assert not found.failed, "".join(said)
