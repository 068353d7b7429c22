"""A plugin: what the tests of families measure goes to a page, where it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest

MARK = "difference"
_found: dict[tuple[str, str, str], float] = {}


@pytest.fixture
def gap(record_property, name) -> Callable[[str, str, float], float]:
    """Notes a difference of some kind found at a site of the family, and hands it back."""

    def note(kind: str, site: str, difference: float) -> float:
        record_property(MARK, [kind, name, site, float(difference)])
        return float(difference)

    return note


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--families-page", metavar="FILE", help="write what families measured here")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call":
        for mark, given in report.user_properties:
            if mark == MARK:
                kind, name, site, difference = given
                before = _found.get((kind, name, site), 0.0)
                _found[kind, name, site] = max(before, difference)


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = session.config.getoption("--families-page", default=None)
    if path is not None and not hasattr(session.config, "workerinput"):
        page = importlib.import_module("families.page")  # with torch, which few runs need here
        Path(path).write_text(page.text_of(_found), encoding="utf-8")
