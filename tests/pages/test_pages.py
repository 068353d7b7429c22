"""Every block of Python on the pages runs, in order, and gives what stands under it."""

from __future__ import annotations

import plotly.graph_objects as go
import pytest
from recipes.pages import ROOT, blocks, run

REAL, SLOW = 'load("smollm2")', ('load("smollm2")', "circuits.score(", "head_card(")
"""What a page has that takes a real model, and one that takes long."""
PAGES = sorted(
    page
    for name in (
        "README.md",
        "docs/index.md",
        "docs/errors.md",
        "docs/file-forms.md",
        "docs/when-edits-mislead.md",
        "docs/tutorials/*.md",
        "docs/coming-from/*.md",
    )
    for page in ROOT.glob(name)
)


def cases():
    for page in PAGES:
        text, name = page.read_text(encoding="utf-8"), page.relative_to(ROOT).as_posix()
        marks = [pytest.mark.slow] if any(one in text for one in SLOW) else []
        yield pytest.param(page, REAL in text, id=name, marks=marks)


@pytest.mark.parametrize(("page", "real"), [*cases()])
def test_the_code_of_a_page_runs(page, real, request, tmp_path, monkeypatch):
    if real:
        request.getfixturevalue("smollm2")  # skips where it is not installed
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(go.Figure, "show", lambda figure: None)
    assert run(page, {}) > 0


def test_a_page_whose_session_gives_something_else_fails(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\nx = 1\n```\n\n```pycon\n>>> x\n2\n```\n", encoding="utf-8")
    with pytest.raises(AssertionError, match="Expected:\n    2\nGot:\n    1"):
        run(page, {})


def test_an_error_in_a_page_has_the_pages_line(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# a\n\n```python\nx = 1\nx / 0\n```\n", encoding="utf-8")
    with pytest.raises(ZeroDivisionError) as error:
        run(page, {})
    assert error.traceback[-1].lineno + 1 == 5


def test_a_fence_with_a_title_is_somebody_elses(tmp_path):
    page = tmp_path / "page.md"
    page.write_text('```python title="pyvene"\n    import nowhere\n```\n', encoding="utf-8")
    assert run(page, {}) == 0
    [block] = blocks(page)
    assert (block.title, block.line) == ("pyvene", 2)
