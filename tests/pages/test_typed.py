"""Every command on the pages is one that there is: the program, its verbs, its options."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

import pytest
from recipes.pages import ROOT
from recipes.typed import Typed, commands

from microtome.frontends import (
    circuit_commands,
    cli,
    early,
    lab_command,
    reading_commands,
    steering_commands,
    study_commands,
)

PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("recipes/**/*.md"),
        *ROOT.glob("src/**/*.md"),
    ]
)
ANSWERING = (
    cli,
    circuit_commands,
    lab_command,
    reading_commands,
    steering_commands,
    study_commands,
)
LACKING = re.compile("^Missing |requires an argument|^Usage: ")
"""What is said of a command that is not whole."""
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.fixture
def nobody_answers(monkeypatch):
    """Commands are read, and what texts alone can decide is refused; nothing is imported or run."""
    for module in ANSWERING:
        monkeypatch.setattr(module, "_answering", lambda *name: mock.MagicMock())


def microtome(typed: Typed) -> None:
    """Read the command as the command line does, with its early refusals."""
    with nullcontext() if typed.whole else mock.patch.object(early, "check_study"):
        try:
            cli.app(list(typed.words[1:]), standalone_mode=False)
        except Exception as error:  # typer has click inside it or beside it
            if typed.whole or not LACKING.search(str(error)):
                raise AssertionError(f"{typed}: {error}") from error


def make(typed: Typed) -> None:
    for word in typed.words[1:]:
        name, equals, _ = word.partition("=")
        form = rf"^{name} :?=" if equals else rf"^{name}:"
        assert re.search(form, MAKEFILE, re.M), f"{typed}: the Makefile has no {name}"


def python(typed: Typed) -> None:
    """The script or module is there, and so are the options that are given to it."""
    first, *words = typed.words[1:]
    if first == "-c":
        return
    path = Path(first)
    if first == "-m":
        found = importlib.util.find_spec(words[0])
        assert found is not None, f"{typed}: there is no module {words[0]}"
        path = Path(found.origin)
    assert (ROOT / path).is_file(), f"{typed}: there is no {path}"
    code = (ROOT / path).read_text(encoding="utf-8")
    for word in words:
        assert not word.startswith("--") or f'"{word}"' in code, f"{typed}: {word} is no option"


def pytest_(typed: Typed) -> None:
    for word in typed.words[1:]:
        assert "/" not in word or (ROOT / word).exists(), f"{typed}: there is no {word}"


READ: dict[str, Callable[[Typed], None]] = {
    "microtome": microtome,
    "make": make,
    "python": python,
    "pytest": pytest_,
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_its_commands_are_there(page, nobody_answers):
    for typed in commands(page):
        READ[typed.words[0]](typed)


def test_commands_are_found_wherever_they_stand(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "Type `make demo`, or\n`microtome circuit find | draw`.\n\n"
        "```\nmicrotome run nano -p 'a b' \\\n  -e 'zero L0.z'  # see `make x`\nnothing else\n"
        "microtome sweep nano … -o out\n```\n\n```python\nmake = 1\n```\n"
    )
    assert [(one.line, one.words, one.whole) for one in commands(page)] == [
        (5, ("microtome", "run", "nano", "-p", "a b", "-e", "zero L0.z"), True),
        (8, ("microtome", "sweep", "nano", "-o", "out"), False),
        (1, ("make", "demo"), False),
        (2, ("microtome", "circuit", "find"), False),
    ]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("microtome swep nano", "swep"),
        ("microtome sweep nano --metrics prob", "--metrics"),
        ("microtome run nano -p Hi -e 'zero L9.z'", "layer 9 does not exist"),
        ("microtome study run ioi-head --model nano", "No study is called"),
        ("make dem", "the Makefile has no dem"),
        ("make bench SHAPE=large", "the Makefile has no SHAPE"),
        ("python -m benchmarks.nothing", "there is no module benchmarks.nothing"),
        ("python -m benchmarks.run --shade", "--shade is no option"),
        ("pytest tests/nowhere", "there is no tests/nowhere"),
    ],
)
def test_one_that_is_not_there_is_found(words, why, nobody_answers, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"```\n{words}\n```\n")
    [typed] = commands(page)
    with pytest.raises(AssertionError, match=re.escape(why)):
        READ[typed.words[0]](typed)
