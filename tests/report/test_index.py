"""The page that leads to several reports."""

from __future__ import annotations

import re

import pytest

from microtome.report import Card, Finding, Index, render_index
from microtome.texts import LANGUAGES

EVIL = '<script>alert("1")</script>'
PNG = b"\x89PNG\r\n"


@pytest.fixture(scope="module")
def page() -> str:
    findings = (
        Finding(EVIL, "1", "holds"),
        Finding("b", "2", "holds"),
        Finding("c", "3", "not judged"),
    )
    return render_index(
        Index(
            EVIL,
            (
                Card(EVIL, EVIL, "one/report.html", PNG, EVIL, findings, 1234, 2.5),
                Card("Two", "Why?", failure="no layer 9"),
            ),
        )
    )


def test_text_from_outside_is_shown_and_never_run(page):
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 4


def test_it_needs_nothing_but_the_reports(page):
    assert re.findall(r'href="([^"]*)"', page) == ["one/report.html"] * 2
    assert re.findall(r'src="([^,]*),', page) == ["data:image/png;base64"]
    assert "http" not in page


def test_verdicts_are_counted(page):
    assert '<span class="chip good">2 holds</span>' in page
    assert '<span class="chip open">1 not judged</span>' in page
    assert "1,234 cells in 2.5 s" in page


def test_a_study_that_did_not_run_says_why(page):
    assert "no layer 9" in page
    assert "Did not run" in page


@pytest.mark.parametrize("lang", LANGUAGES)
def test_languages(lang):
    page = render_index(Index("nano", (), lang))
    assert f'<html lang="{lang}">' in page
