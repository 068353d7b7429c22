"""Pages for those who come from other tools: both sides are there, and a difference is found.

The other tools are not installed where tests run: `make bench-pages` runs both sides.
"""

from __future__ import annotations

import pytest
from benchmarks.side_by_side import PAGES, compared
from recipes.pages import blocks

THEIRS = '```python title="tool"\ntheirs = [1.0, {}]\n```\n\n'
BOTH = f"{THEIRS}Here:\n\n```python\nours = [[1.0, 2.0]]\n```\n"


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda page: page.stem)
def test_each_task_has_both_sides(page):
    sides = [
        "ours" if block.ours else "theirs"
        for block in blocks(page)
        if block.code.startswith(("theirs =", "ours =")) or "\ntheirs = " in block.code
        or "\nours = " in block.code
    ]  # fmt: skip
    assert len(sides) >= 16
    assert sides == ["theirs", "ours"] * (len(sides) // 2)
    assert len({block.title for block in blocks(page) if not block.ours}) == 1


def test_equal_answers_are_counted(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(2 * BOTH.format("2.0"), encoding="utf-8")
    assert compared(page) == 2


def test_answers_that_differ_are_an_error_with_the_pages_line(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(BOTH.format("2.1"), encoding="utf-8")
    with pytest.raises(AssertionError, match=r"page\.md, line 8"):
        compared(page)
