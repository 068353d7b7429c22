"""A plugin: ``pytest --quick`` takes every kind of test and one of its cases, in a minute or so.

Of each test function it keeps one case, always the same, and not the first of all tables; of tests
of families, one of each of three that differ most; no test that is marked ``slow`` or needs a
browser or a real model, and none that `dear.txt` lists: those that took long when they were last
weighed, all but the quickest of a file. `make test` runs all of them, and first the files of those
that are slow, before all those that need a browser: a worker takes them one after another, with one
browser, one server and one real model, while the others have the rest; and none of them is what all
others wait for at the end.

``pytest --quick --weigh -n 0`` weighs them and writes the list.
"""

from __future__ import annotations

import os
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

FAMILIES = ("gpt2", "llama", "bert")
"""Learnt positions and one projection for q, k and v; rotary, gated, shared keys; an encoder."""

NEEDS = {"browsing", "lab", "site", "smollm2"}
"""Fixtures that take seconds: a browser, a server, the built site, a real model."""

DEAR = Path(__file__).with_name("dear.txt")
LIMIT = 0.25
"""Seconds of a processor that a test may take, with those of processes that it started."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="every kind of test, one case of each")
    parser.addoption("--weigh", action="store_true", help=f"with --quick, alone: write {DEAR.name}")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--weigh"):
        if config.getoption("numprocesses", None) or not config.getoption("--quick"):
            raise pytest.UsageError("--weigh goes with --quick -n 0, one test at a time.")
        config.pluginmanager.register(Scale())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--quick"):
        ranks: dict[Path, int] = defaultdict(lambda: 2)
        for item in items:
            ranks[item.path] = min(ranks[item.path], _rank(item))
        items.sort(key=lambda item: ranks[item.path])
        return
    dear = set() if config.getoption("--weigh") else listed(DEAR.read_text("utf-8"))
    cases: dict[tuple[str, str], list[pytest.Item]] = defaultdict(list)
    for item in items:
        family, name = _family(item), _function(item)
        if not _is_long(item) and name not in dear and family in (*FAMILIES, ""):
            cases[name, family].append(item)
    kept = {_chosen(name, group) for (name, _), group in cases.items()}
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]


def listed(text: str) -> set[str]:
    """The tests of a list, a line each: what one took, and its name."""
    return {line.split(maxsplit=1)[1] for line in text.splitlines()}


def too_dear(weights: Mapping[str, float]) -> dict[str, float]:
    """Those of some tests that take too long, but for the quickest of each file."""
    files: dict[str, list[str]] = defaultdict(list)
    for name in weights:
        files[name.partition("::")[0]].append(name)
    quickest = {min(names, key=weights.__getitem__) for names in files.values()}
    return {
        name: seconds
        for name, seconds in sorted(weights.items())
        if seconds > LIMIT and name not in quickest
    }


class Scale:
    """Weighs each test with what is set up for it, and writes the list when all have run."""

    def __init__(self) -> None:
        self.weights: dict[str, float] = defaultdict(float)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        before = _processor()
        try:
            return (yield)
        finally:
            self.weights[_function(item)] += _processor() - before

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        if exitstatus == pytest.ExitCode.OK:
            dear = too_dear(self.weights)
            lines = [f"{seconds:.1f} {name}\n" for name, seconds in dear.items()]
            DEAR.write_text("".join(lines), "utf-8")


def _processor() -> float:
    """Seconds of a processor so far, those of processes that have ended too."""
    return sum(os.times()[:4])


def _is_long(item: pytest.Item) -> bool:
    """Whether a test is marked so, or needs a browser or a real model."""
    given = item.callspec.params if hasattr(item, "callspec") else {}  # a "site" of its own
    return bool(item.get_closest_marker("slow") or NEEDS & ({*item.fixturenames} - {*given}))


def _rank(item: pytest.Item) -> int:
    """0 where a test needs a browser, 1 where it is long for another reason, 2 where it is not."""
    return 0 if "browsing" in item.fixturenames else 1 if _is_long(item) else 2


def _function(item: pytest.Item) -> str:
    return item.nodeid.partition("[")[0]


def _family(item: pytest.Item) -> str:
    """The family that a test is of; none where it is of no single one."""
    if "families" not in item.nodeid or not hasattr(item, "callspec"):
        return ""
    return str(item.callspec.params.get("name", ""))


def _chosen(name: str, group: list[pytest.Item]) -> pytest.Item:
    """One of some cases, by the test's name, so that tests of one table take different rows."""
    return group[zlib.crc32(name.encode()) % len(group)]
