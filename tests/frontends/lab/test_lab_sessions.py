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


def alone(nano, edit: str, **prompt: str) -> np.ndarray:
    made = mt.sweep(nano, mt.Prompt(**prompt), edit, metrics="logit_diff", progress=False)
    return made.delta("logit_diff").values[0]


@pytest.mark.slow
def test_ten_browsers_at_once_give_the_numbers_of_ten_runs_alone(tabs, nano):
    made = [tabs() for _ in range(10)]
    for n, tab in enumerate(made):  # none waits for another
        tab.page.set_default_timeout(400_000)
        cell = f"zero L{n % 6}.z.h{n % 8}@-1"
        address = tab.server.at(query(**question(n), cell=cell))
        tab.page.goto(address, wait_until="commit")
    for n, tab in enumerate(made):
        tab.page.wait_for_selector("#map-strongest button")
        tab.until("!!document.querySelector('#map-figure .js-plotly-plot')")
        np.testing.assert_allclose(shown(tab.page), alone(nano, **question(n)), atol=1e-5)
        tab.page.wait_for_selector("#cell-answer table >> nth=1")
        words = tab.page.locator("#cell-answer table").nth(1).locator("tbody th").all_inner_texts()
        asked = question(n)
        run = nano.run(mt.Prompt(asked["text"]), f"zero L{n % 6}.z.h{n % 8}@-1")
        assert words == [one.replace(" ", "·") for one in run.top(10)["token"]]
        assert tab.wrong == []


SMALL_UNITS = "from microtome.plan import units\nunits.WORK, units.PASSES = 2e9, 0"
"""A map of some hundred cells in many parts, as a map of millions is."""


@pytest.mark.slow
def test_a_killed_server_loses_no_finished_unit_and_the_next_goes_on(tabs, nano, tmp_path):
    """Its units are known by their files: one that is computed again is another file."""
    asked = query(**GIFT, edit="zero L*.z.h*@*")
    server = serving(tmp_path, models=("nano",), first=SMALL_UNITS)
    try:
        compute(tabs(server), asked)
        _wait(lambda: len(_units(tmp_path)) >= 3)
    finally:
        server.end(signal.SIGKILL)
    kept = _units(tmp_path)
    assert len(kept) >= 3
    assert not list(tmp_path.glob("*.zarr/.zattrs")), "it was killed in the middle"

    server = serving(tmp_path, models=("nano",), first=SMALL_UNITS)
    try:
        tab = tabs(server)
        compute(tab, asked)
        again, looks = set(), 0
        while not list(tmp_path.glob("*.zarr/.zattrs")):
            now = _units(tmp_path)
            again |= {name for name, file in kept.items() if now and now.get(name) != file}
            looks += len(now) > len(kept)
            time.sleep(0.01)
        assert looks > 0, "it was seen at work"
        assert again == set(), f"{len(again)} of {len(kept)} units were computed again"
        tab.page.wait_for_selector("#map-strongest button")
        [found] = tmp_path.glob("*.zarr")
        expected = alone(nano, "zero L*.z.h*@*", **GIFT)
        np.testing.assert_allclose(
            mt.open_effects(found).delta("logit_diff").values[0], expected, atol=1e-5
        )
    finally:
        server.end()


def compute(tab, asked: str) -> None:
    """Open a map, and have it computed: on a slow machine it is asked for."""
    tab.page.goto(tab.server.at(asked))
    asks = tab.page.locator("#map-compute:visible")
    tab.page.wait_for_selector("#map-compute:visible, #map-cancel:visible")
    if asks.count():
        asks.click()


def _units(folder) -> dict[str, int]:
    """The finished units of the one sweep that is kept there, each with which file it is."""
    found = {}
    for path in folder.glob("*.partial/units/*.zip"):
        try:
            found[path.name] = path.stat().st_ino
        except FileNotFoundError:  # the sweep has just ended, and its units are put together
            return {}
    return found


def _wait(condition, patience: float = 120.0) -> None:
    until = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < until, "it never came to this"
        time.sleep(0.01)
