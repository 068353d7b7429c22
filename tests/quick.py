"""A plugin: ``pytest --quick`` takes every kind of test and few of its cases, in a minute or so.

Of each test function it keeps some of the cases, spread over them; of tests of families, those of
three that differ most; no test that is marked ``slow``. `make test` runs all of them.
"""

from __future__ import annotations

from collections import defaultdict

import pytest

CASES = 2
"""Cases of each test, of each family."""

FAMILIES = ("gpt2", "llama, grouped", "bert")
"""Learnt positions and one projection for q, k and v; rotary, gated, shared keys; an encoder."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="every kind of test, few cases of each")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--quick"):
        return
    cases: dict[tuple[str, str], list[pytest.Item]] = defaultdict(list)
    left_out = []
    for item in items:
        family = _family(item)
        if item.get_closest_marker("slow") or family not in (*FAMILIES, ""):
            left_out.append(item)
        else:
            cases[item.nodeid.partition("[")[0], family].append(item)
    kept = {item for group in cases.values() for item in _spread(group)}
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]


def _family(item: pytest.Item) -> str:
    """The family that a test is of; none where it is of no single one."""
    if "families" not in item.nodeid or not hasattr(item, "callspec"):
        return ""
    return str(item.callspec.params.get("name", ""))


def _spread(group: list[pytest.Item]) -> list[pytest.Item]:
    """The first of some cases, the last, and between them as many as are wanted."""
    if len(group) <= CASES:
        return group
    return [group[n * (len(group) - 1) // (CASES - 1)] for n in range(CASES)]
