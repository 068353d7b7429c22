"""The code in pages of Markdown, run as a reader would: block after block, in one namespace.

A fence of ``python`` is executed; one of ``pycon`` is a session whose answers have to come (by
`doctest`; an answer may be wrapped, and ``...`` stands for anything). One with the title of another
tool is that one's code, and one with the title ``signature`` has the parameters and defaults of the
function that it names (``…`` stands for a default that is not told).

Two comments of HTML say what a reader need not see::

    <!-- python
    prompts = mt.tasks.ioi(2)  # run where it stands: what the page takes for granted
    -->

    <!-- not run: it takes a cluster -->

Behind the second one a fence is not run; that what it calls is there, and takes such arguments, is
looked at all the same.
"""

from __future__ import annotations

import ast
import doctest
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import microtome

ROOT = Path(__file__).parents[1]
FENCE = re.compile(
    r"(?:^<!-- not run: (?P<why>[^\n]+) -->\n+)?"
    r"^(?P<indent> *)```(?P<kind>python|pycon)(?: title=\"(?P<title>[^\"]*)\")?\n"
    r"(?P<code>.*?)^ *```$"
    r"|^<!-- python\n(?P<unseen>.*?)^-->$",
    re.M | re.S,
)
COMPARED = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
SIGNATURE = "signature"
PUBLIC = re.compile(r"mt(\.\w+)+")


@dataclass(frozen=True)
class Block:
    """A fence of a page, or a comment in its place.

    Attributes:
        kind: ``python`` or ``pycon``.
        title: whose it is, where that is said; or ``signature``.
        line: of the page, on which the code begins.
        code: what is in it, without the fence's indentation.
        why_not: why it is not run; empty where it is.
    """

    kind: str
    title: str
    line: int
    code: str
    why_not: str = ""

    @property
    def ours(self) -> bool:
        """Whether it is microtome's, and no other tool's."""
        return self.title in ("", "microtome", SIGNATURE)


def blocks(page: Path) -> Iterator[Block]:
    """All fences of Python, and what a reader does not see, in order."""
    text = page.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        part = "code" if found["unseen"] is None else "unseen"
        line = text.count("\n", 0, found.start(part)) + 1
        code = re.sub(rf"^{found['indent'] or ''}", "", found[part], flags=re.M)
        yield Block(found["kind"] or "python", found["title"] or "", line, code, found["why"] or "")


def run(page: Path, names: dict[str, object]) -> int:
    """Run a page's own blocks, and say how many there were.

    Args:
        page: the file.
        names: the namespace, in which the page's names are afterwards.

    Raises:
        AssertionError: a session gives something else, or a block that is not run calls what is not
            there.
    """
    chosen = [block for block in blocks(page) if block.ours]
    for block in chosen:
        if block.title == SIGNATURE:
            compare(page, block)
        elif block.why_not:
            look_at(page, block)
        else:
            execute(page, block, names)
    return len(chosen)


def execute(page: Path, block: Block, names: dict[str, object]) -> None:
    """Run one block; what is wrong with it is told by its line of the page."""
    if block.kind == "python":
        exec(compile("\n" * (block.line - 1) + block.code, str(page), "exec"), names)
    else:
        _session(page, block, names)


def look_at(page: Path, block: Block) -> None:
    """Hold a block that is not run to what there is: names, and the arguments that they take."""
    for call in ast.walk(ast.parse("\n" * (block.line - 1) + block.code, str(page))):
        if isinstance(call, ast.Call) and PUBLIC.fullmatch(ast.unparse(call.func)):
            given = {word.arg: word.value for word in call.keywords if word.arg}
            try:
                inspect.signature(_called(call.func)).bind_partial(*call.args, **given)
            except (AttributeError, TypeError) as error:
                where = f"{page.name}, line {call.lineno}: {ast.unparse(call)}"
                raise AssertionError(f"{where}: {error}") from error


def compare(page: Path, block: Block) -> None:
    """Hold a signature to the function's own: names, order, and the defaults that are told."""
    written = re.fullmatch(r"(?P<name>mt\.[\w.]+)\((?P<given>.*)\)\n", block.code, re.S)
    assert written, f"{page.name}, line {block.line}: this is no signature"
    shown: dict[str, Any] = {}
    exec(f"def {SIGNATURE}({written['given'].replace('…', '...')}): ...", shown)
    function = _called(ast.parse(written["name"], mode="eval").body)
    own, told = _defaults(function), _defaults(shown[SIGNATURE])
    told = {name: own.get(name) if value is ... else value for name, value in told.items()}
    where = f"{page.name}, line {block.line}: {written['name']}"
    assert [*told.items()] == [*own.items()], f"{where} has {own}, and not {told}"


def _called(name: ast.expr) -> Callable[..., object]:
    """What ``mt.circuits.score`` is, as attributes of the package."""
    found: object = microtome
    for part in ast.unparse(name).split(".")[1:]:
        found = getattr(found, part)
    assert callable(found), f"{ast.unparse(name)} is not called"
    return found


def _defaults(function: Callable[..., object]) -> dict[str, object]:
    return {name: one.default for name, one in inspect.signature(function).parameters.items()}


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
