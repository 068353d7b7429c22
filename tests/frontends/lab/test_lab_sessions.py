"""Many browsers on one server, and a server that is killed."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from asked_panels import texts, with_tables, within
from calling import Visitor, numbers

import microtome as mt
from frontends.lab.browsing import GIFT, query, serving, shown

NAMES = ("Sam", "Tom", "Mary", "Sally", "John")
EDITS = ("zero L*.z.h*@-1", "mean L*.z.h*@-1")


def question(n: int) -> dict[str, str]:
    """One of ten, each of another prompt or edit."""
    text = GIFT["text"].replace("Sam", NAMES[n % 5]).replace("Sally", NAMES[(n + 1) % 5])
    return {"text": text, "target": " Sally", "contrast": " Sam", "edit": EDITS[n // 5]}


def cell_of(n: int) -> str:
    return f"zero L{n % 6}.z.h{n % 8}@-1"


def alone(nano, edit: str, **prompt: str) -> np.ndarray:
    made = mt.sweep(nano, mt.Prompt(**prompt), edit, metrics="logit_diff", progress=False)
    return made.delta("logit_diff").values[0]


@pytest.mark.slow
def test_ten_browsers_at_once_give_the_numbers_of_ten_runs_alone(tabs, lab, nano):
    """Two are real. The others send what a browser sends, all at the same time, each in a thread:
    to the server one is as the other, and what it mixed up, it would mix up for them."""
    asked = [query(**question(n), **more_of(n)) for n in range(10)]
    made = [tabs() for _ in asked[:REAL]]
    for tab, address in zip(made, asked, strict=False):  # none waits for another
        tab.page.goto(tab.server.at(address), wait_until="commit")
    with ThreadPoolExecutor(len(asked)) as threads:
        others = [threads.submit(visited, lab.at(), n, asked[n]) for n in range(REAL, len(asked))]
        for n, tab in enumerate(made):
            tab.page.bring_to_front()  # what lies behind draws nothing
            tab.until("document.querySelectorAll('#map-strongest button').length > 0")
            tab.until("!!document.querySelector('#map-figure .js-plotly-plot')")
            np.testing.assert_allclose(shown(tab.page), alone(nano, **question(n)), atol=1e-5)
            assert tab.wrong == []
            if "cell" in more_of(n):
                tab.page.wait_for_selector("#cell-answer table >> nth=1")
                table = tab.page.locator("#cell-answer table").nth(1)
                assert table.locator("tbody th").all_inner_texts() == words_of(nano, n)
        for n, (values, words) in enumerate((one.result() for one in others), REAL):
            np.testing.assert_allclose(values, alone(nano, **question(n)), atol=1e-5)
            assert words == (words_of(nano, n) if "cell" in more_of(n) else None)


REAL = 2
"""Of ten."""


def more_of(n: int) -> dict[str, str]:
    """What the page of a question shows besides: some look at a cell."""
    return {"panel": "compare"} if n % 3 else {"cell": cell_of(n)}


def words_of(nano, n: int) -> list[str]:
    """What is most probable with the cell of a question."""
    run = nano.run(mt.Prompt(question(n)["text"]), cell_of(n))
    return [one.replace(" ", "·") for one in run.top(10)["token"]]


def visited(home: str, n: int, search: str) -> tuple[np.ndarray, list[str] | None]:
    """The map at an address, and what is most probable with its cell, without a browser."""
    visitor = Visitor(home, search, f"visitor {n}")
    values = numbers(visitor.mapped()["map-figure"]["figure"])
    if "cell" not in more_of(n):
        return values, None
    _, after, _ = within(with_tables(visitor.asked("cell-answer.children")), "Tbody")
    return values, [texts(row["children"])[0] for row in within(after["children"], "Tr")]


def in_units(stuck: int | None = None) -> str:
    """What has the server cut a map of a hundred cells in parts, as a map of millions is.

    It says which it has finished, and before it has finished one of them it stands still.
    """
    return f"""
import threading
from microtome.plan import units
from microtome.results.sinks import StoreSink

units.WORK, units.PASSES = 4e9, 0
take = StoreSink.take

def told(self, block):
    if block.unit == {stuck}:
        threading.Event().wait()
    take(self, block)
    print("finished unit", block.unit, flush=True)

StoreSink.take = told
"""


@pytest.mark.slow
def test_a_killed_server_loses_no_finished_unit_and_the_next_goes_on(nano, tmp_path):
    asked = query(**GIFT, edit="zero L4.z.h*@*")
    server = serving(tmp_path, models=("nano",), first=in_units(stuck=3))
    try:
        Visitor(server.at(), asked, "first").begun()
        _wait(lambda: len([*tmp_path.glob("*.partial/units/*.zip")]) == 3)
    finally:
        server.end(signal.SIGKILL)
    assert not list(tmp_path.glob("*.zarr/.zattrs")), "it was killed in the middle"

    server = serving(tmp_path, models=("nano",), first=in_units())
    try:
        drawn = Visitor(server.at(), asked, "second").mapped()
    finally:
        server.end()
    assert len(within(drawn["map-strongest"]["children"], "Button")) > 0
    [found] = map(mt.open_effects, tmp_path.glob("*.zarr"))
    finished = [int(line.split()[-1]) for line in server.said if line.startswith("finished unit")]
    assert finished == [*range(3, found.provenance["predicted"]["units"])]
    assert len(finished) > 2
    expected = alone(nano, "zero L4.z.h*@*", **GIFT)
    np.testing.assert_allclose(found.delta("logit_diff").values[0], expected, atol=1e-5)


def _wait(condition, patience: float = 300.0) -> None:
    until = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < until, "it never came to this"
        time.sleep(0.01)
