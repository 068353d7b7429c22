"""The page: whole, escaped, without a network."""

from __future__ import annotations

import html
import json
import re

import pandas as pd
import pytest

from microtome import figures
from microtome.errors import EffectsError
from microtome.report import Document, Finding, Picture, Section, Snippet, Table, TokenRow, render

EVIL = '</script><script>alert("1")</script><b>&'
FIGURE = figures.series({EVIL: ([0, 1], [1.0, 2.0])}, x_title="x", y_title="y", title=EVIL)


@pytest.fixture(scope="module")
def page() -> str:
    return render(
        Document(
            title=EVIL,
            question=EVIL,
            method=f"{EVIL}\n\nSecond paragraph.",
            sections=(
                Section(
                    EVIL,
                    (EVIL,),
                    (Picture("one", FIGURE, EVIL), Picture("two", FIGURE, "Caption.")),
                    (
                        Table(
                            EVIL,
                            pd.DataFrame({EVIL: [EVIL], "n": [-0.25], "gone": [float("nan")]}),
                            EVIL,
                        ),
                        Table("Nothing", pd.DataFrame({"n": []})),
                    ),
                ),
            ),
            findings=(
                Finding(EVIL, EVIL, "holds", EVIL),
                Finding("b", "b", "does not hold"),
                Finding("c", "c", "not judged"),
            ),
            snippets=(Snippet(EVIL, EVIL),),
            provenance={"model": {"name": EVIL, EVIL: [1, 2]}},
            tokens=(TokenRow("recipient", (EVIL, " a\n")), TokenRow("donor", ("b",))),
        )
    )


def without_scripts(page: str) -> str:
    return re.sub(r"<script[^>]*>.*?</script>", "", page, flags=re.DOTALL)


def test_text_from_outside_is_shown_and_never_run(page):
    assert "<script>alert" not in page
    assert html.escape(EVIL, quote=False)[:30] in without_scripts(page)
    assert "alert" in without_scripts(page)
    assert "<b>" not in without_scripts(page)


def test_a_figure_cannot_end_its_script(page):
    found = re.findall(r'<script type="application/json">(.*?)</script>', page, flags=re.DOTALL)
    assert len(found) == 2
    for text in found:
        assert json.loads(text)["layout"]["title"]["text"] == EVIL


def test_plotly_is_in_the_page_once(page):
    assert page.count("* plotly.js v") == 1


def test_a_page_without_figures_carries_no_plotly():
    page = render(Document("t", "q", "m", ()))
    assert len(page) < 20_000


def test_nothing_is_loaded_from_anywhere(page):
    assert not re.search(r'\b(?:src|href)\s*=\s*["\']?\s*(?:https?:)?//', without_scripts(page))
    assert not re.search(r"<(?:link|img|iframe)\b", without_scripts(page))
    assert "@import" not in without_scripts(page)
    assert "url(" not in without_scripts(page)
    assert '"sendChartToCloud"]' in page


def test_tokens_stand_with_their_positions_and_visible_white_space(page):
    assert "<li><code>·a↵</code><span>1</span></li>" in page
    assert page.index('class="text recipient"') < page.index('class="text donor"')


def test_verdicts_are_chips_of_their_color(page):
    assert '<span class="chip good">holds</span>' in page
    assert '<span class="chip bad">does not hold</span>' in page
    assert '<span class="chip open">not judged</span>' in page


def test_numbers_in_tables_are_short_and_what_is_absent_is_empty(page):
    assert '<td class="number">−0.25</td>' in page
    assert '<td class="number"></td>' in page
    assert "None." in page


def test_paragraphs_of_the_method_are_kept_apart(page):
    assert "<p>Second paragraph.</p>" in page


def test_provenance_is_flat(page):
    assert "<dt>model.name</dt>" in page
    assert "<dd>[1, 2]</dd>" in page


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Finding("c", "m", "true"), "'true' is no verdict; there are: 'holds'"),
        (lambda: Picture("../up", FIGURE, ""), "cannot name a picture's files"),
        (lambda: TokenRow("reader", ()), "a recipient or a donor, not 'reader'"),
        (
            lambda: Document("t", "q", "m", (Section("s", (), (Picture("a", FIGURE, ""),) * 2),)),
            "same name: a",
        ),
    ],
)
def test_a_document_that_cannot_be_written_is_refused(make, message):
    with pytest.raises(EffectsError, match=message):
        make()
