"""Many browsers on one server, and a server that is killed."""

from __future__ import annotations

import signal
import time

import numpy as np
import pytest

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
def test_ten_browsers_at_once_give_the_numbers_of_ten_runs_alone(tabs, nano):
    made = [tabs() for _ in range(10)]
    for n, tab in enumerate(made):  # none waits for another, and some look at a cell besides
        tab.page.set_default_timeout(400_000)
        more = {"panel": "compare"} if n % 3 else {"cell": cell_of(n)}
        address = tab.server.at(query(**question(n), **more))
        tab.page.goto(address, wait_until="commit")
    for n, tab in enumerate(made):
        tab.page.bring_to_front()  # what lies behind draws nothing, and nothing there is waited for
        tab.until("document.querySelectorAll('#map-strongest button').length > 0")
        tab.until("!!document.querySelector('#map-figure .js-plotly-plot')")
        np.testing.assert_allclose(shown(tab.page), alone(nano, **question(n)), atol=1e-5)
        assert tab.wrong == []
        if n % 3:
            continue
        tab.page.wait_for_selector("#cell-answer table >> nth=1")
        words = tab.page.locator("#cell-answer table").nth(1).locator("tbody th").all_inner_texts()
        asked = question(n)
        run = nano.run(mt.Prompt(asked["text"]), cell_of(n))
        assert words == [one.replace(" ", "·") for one in run.top(10)["token"]]


def in_units(stuck: int | None = None) -> str:
    """What has the server cut a map of some hundred cells in parts, as a map of millions is.

    It says which it has finished, and before it has finished one of them it stands still.
    """
    return f"""
import threading
from microtome.plan import units
from microtome.results.sinks import StoreSink

units.WORK, units.PASSES = 2e10, 0
take = StoreSink.take

def told(self, block):
    if block.unit == {stuck}:
        threading.Event().wait()
    take(self, block)
    print("finished unit", block.unit, flush=True)

StoreSink.take = told
"""


@pytest.mark.slow
def test_a_killed_server_loses_no_finished_unit_and_the_next_goes_on(tabs, nano, tmp_path):
    asked = query(**GIFT, edit="zero L*.z.h*@*")
    server = serving(tmp_path, models=("nano",), first=in_units(stuck=3))
    try:
        compute(tabs(server), asked)
        _wait(lambda: len([*tmp_path.glob("*.partial/units/*.zip")]) == 3)
    finally:
        server.end(signal.SIGKILL)
    assert not list(tmp_path.glob("*.zarr/.zattrs")), "it was killed in the middle"

    server = serving(tmp_path, models=("nano",), first=in_units())
    try:
        tab = tabs(server)
        compute(tab, asked)
        _wait(lambda: [*tmp_path.glob("*.zarr/.zattrs")])
        tab.page.wait_for_selector("#map-strongest button")
    finally:
        server.end()
    [found] = map(mt.open_effects, tmp_path.glob("*.zarr"))
    finished = [int(line.split()[-1]) for line in server.said if line.startswith("finished unit")]
    assert finished == [*range(3, found.provenance["predicted"]["units"])]
    assert len(finished) > 2
    expected = alone(nano, "zero L*.z.h*@*", **GIFT)
    np.testing.assert_allclose(found.delta("logit_diff").values[0], expected, atol=1e-5)


def compute(tab, asked: str) -> None:
    """Open a map, and have it computed: on a slow machine it is asked for."""
    tab.page.goto(tab.server.at(asked))
    asks = tab.page.locator("#map-compute:visible")
    tab.page.wait_for_selector("#map-compute:visible, #map-cancel:visible, #map-strongest button")
    if asks.count():
        asks.click()


def _wait(condition, patience: float = 300.0) -> None:
    until = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < until, "it never came to this"
        time.sleep(0.01)
