"""A plugin: ``pytest --quick`` takes every kind of test and one of its cases, in a minute or so.

Of each test function it keeps one case, always the same, and not the first of all tables; of tests
of families, one of each of three that differ most; no test that is marked ``slow``. Of pictures in
reports each kind is drawn once. `make test` runs and draws all of them.
"""

from __future__ import annotations

import importlib
import zlib
from collections import defaultdict
from collections.abc import Iterator

import pytest

FAMILIES = ("gpt2", "llama, grouped", "bert")
"""Learnt positions and one projection for q, k and v; rotary, gated, shared keys; an encoder."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="every kind of test, one case of each")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--quick"):
        return
    cases: dict[tuple[str, str], list[pytest.Item]] = defaultdict(list)
    for item in items:
        family = _family(item)
        if not item.get_closest_marker("slow") and family in (*FAMILIES, ""):
            cases[item.nodeid.partition("[")[0], family].append(item)
    kept = {_chosen(name, group) for (name, _), group in cases.items()}
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]


@pytest.fixture(scope="session", autouse=True)
def pictures_of_a_kind_are_drawn_once(request: pytest.FixtureRequest) -> Iterator[None]:
    """Reports have some seven each, which take half of a study's time."""
    if not request.config.getoption("--quick"):
        yield
        return
    figures = importlib.import_module("microtome.figures")
    own, drawn = figures.png_of, {}

    def once(figure):
        traces = [trace.to_plotly_json() for trace in figure.data]
        kind = str([[trace.get(key) for key in ("type", "mode", "fill")] for trace in traces])
        if kind not in drawn:
            drawn[kind] = own(figure)
        return drawn[kind]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "png_of", once)
        yield


def _family(item: pytest.Item) -> str:
    """The family that a test is of; none where it is of no single one."""
    if "families" not in item.nodeid or not hasattr(item, "callspec"):
        return ""
    return str(item.callspec.params.get("name", ""))


def _chosen(name: str, group: list[pytest.Item]) -> pytest.Item:
    """One of some cases, by the test's name, so that tests of one table take different rows."""
    return group[zlib.crc32(name.encode()) % len(group)]
