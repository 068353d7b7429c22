"""docs/guarantees.md: every promise names tests, and every test that it names is there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "guarantees.md"
LINK = re.compile(r"\[`(tests/[^`]+)`\]\(\.\./([^)]+)\)")


def promises() -> Iterator[str]:
    """Each item of the page's lists, as one text."""
    for item in re.split(r"^- ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        yield " ".join(item.partition("\n\n")[0].split())


def collected(body: list[ast.stmt], before: str) -> Iterator[str]:
    """The tests of a file or a class, as pytest names them within the file."""
    for node in body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield before + node.name
        elif isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            yield from collected(node.body, f"{before}{node.name}::")


@cache
def collected_in(path: str) -> frozenset[str]:
    """The tests of a file; none where there is no such file."""
    file = ROOT / path
    if not file.is_file():
        return frozenset()
    return frozenset(collected(ast.parse(file.read_text(encoding="utf-8")).body, ""))


PROMISES = [*promises()]


def test_the_page_has_promises_of_every_kind():
    kinds = re.findall(r"^## (.+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(PROMISES) > 50
    for word in ("Exactness", "Verification", "Results on disk", "Threads", "Records", "Refusals"):
        assert any(kind.startswith(word) for kind in kinds), word


def test_each_promise_is_a_sentence_with_tests_that_exist():
    for promise in PROMISES:
        sentence = promise.partition("[`")[0].strip()
        assert sentence.endswith("."), f"a promise is a sentence: {promise}"
        links = LINK.findall(promise)
        assert links, f"no test holds this: {promise}"
        assert promise.count("[`") == len(links), f"a link is not to a test: {promise}"
        for name, path in links:
            file, _, test = name.partition("::")
            assert file == path
            assert test in collected_in(file), f"{name} is not there"


def test_what_pytest_does_not_collect_is_no_test():
    body = ast.parse(
        "def test_a(): ...\n"
        "def helper(): ...\n"
        "class TestB:\n    def test_c(self): ...\n    def d(self): ...\n"
        "class Other:\n    def test_e(self): ...\n"
    ).body
    assert set(collected(body, "")) == {"test_a", "TestB::test_c"}
    assert collected_in("tests/nowhere.py") == frozenset()
