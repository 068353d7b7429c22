"""The lab in a browser: how long until its first map, and from a click on a cell to its answer.

python -m benchmarks.lab --models nano smollm2 --out lab.json

In each round ``microtome lab`` is started anew, with nothing kept, and its page is opened in the
machine's Chromium. The first map is there once its strongest cells are listed: seconds from the
start of the process, its imports and the model's loading among them. Then cells of the map are
clicked, one after another, each once the page is at rest: seconds from the press to the moment
when its tokens and its receipt are on the page, by the page's own clock.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from playwright.sync_api import Browser, Page, Request, sync_playwright

from benchmarks.turns import environment, keep

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
PATIENCE = 300_000
"""Milliseconds that anything may take."""
REST = 800
"""Milliseconds without a question to the server after which a page is at rest."""
LOOK = 40
"""Milliseconds between two looks whether it asks anything."""
CLICKS = 5
"""Clicks in a round."""

ASKED = {"text": "When Mary and John went to the store, John gave a drink to", "target": " Mary",
         "contrast": " John"}  # fmt: skip
OF_NANO = {"text": "When Sam and Sally went to the park, Sam gave a gift to", "target": " Sally",
           "contrast": " Sam"}  # fmt: skip

WATCH = """cell => {
    window.answered = new Promise((resolve) => {
        const shown = document.querySelector("#cell-answer");
        let began = null;
        addEventListener("pointerdown", () => { began = performance.now(); },
            { capture: true, once: true });
        new MutationObserver((_, own) => {
            if (!shown.innerText.includes(cell)) { return; }
            own.disconnect();
            resolve((performance.now() - began) / 1000);
        }).observe(shown, { childList: true, subtree: true, characterData: true });
    });
}"""
"""Has a page measure from the next press on until a cell's receipt is shown."""

PLACE = """([row, column]) => {
    const plot = document.querySelector("#map-figure .js-plotly-plot");
    const { xaxis, yaxis } = plot._fullLayout, box = plot.getBoundingClientRect();
    return [box.left + xaxis._offset + xaxis.d2p(column),
            box.top + yaxis._offset + yaxis.d2p(row)];
}"""
"""Where a cell is on the screen."""


@dataclass(frozen=True)
class Timing:
    """How quick the lab was on a model: seconds, medians over rounds, and of clicks the slowest."""

    model: str
    first_map: float
    click: float
    slowest_click: float


def measure(model: str, rounds: int) -> Timing:
    """A model's page, opened so many times."""
    found = [_round(model) for _ in range(rounds)]
    clicks = [one for _, some in found for one in some]
    return Timing(
        model,
        statistics.median(first for first, _ in found),
        statistics.median(clicks),
        max(clicks),
    )


def record_of(timings: Sequence[Timing], rounds: int) -> dict[str, Any]:
    """What is kept."""
    rows = [asdict(one) for one in timings]
    load = round(os.getloadavg()[0], 1)  # what else runs makes all of it slower
    return {
        "rounds": rounds, "clicks": CLICKS, "cores": os.cpu_count(), "load": load, "rows": rows,
    }  # fmt: skip


def _round(model: str) -> tuple[float, list[float]]:
    """Seconds to the first map, and those of each click."""
    parts = OF_NANO if model == "nano" else ASKED
    query = "?" + "&".join(f"{key}={quote(value)}" for key, value in parts.items())
    with _browser() as browser:
        began = time.perf_counter()
        with _served(model) as address:
            page = browser.new_page(viewport={"width": 1400, "height": 1000})
            page.set_default_timeout(PATIENCE)
            asking = _asking(page)
            page.goto(address + query)
            _mapped(page)
            first = time.perf_counter() - began
            clicks = []
            for n in range(CLICKS):
                _rest(page, asking)
                clicks.append(_clicked(page, n + 1, n))
            return first, clicks


def _mapped(page: Page) -> None:
    """Wait for the map; on a slow machine it is asked for."""
    page.wait_for_selector("#map-strongest button, #map-compute:visible")
    if page.locator("#map-compute:visible").count():
        page.click("#map-compute")
    page.wait_for_selector("#map-strongest button")
    page.wait_for_selector("#map-figure .nsewdrag")


def _clicked(page: Page, layer: int, head: int) -> float:
    """Seconds from a press on a cell to its answer."""
    page.evaluate(WATCH, f"L{layer}.z.h{head}@")
    page.mouse.click(*page.evaluate(PLACE, [layer, head]))
    seconds: float = page.evaluate("window.answered")
    return seconds


def _asking(page: Page) -> set[Request]:
    """What a page has asked and not heard yet."""
    asking: set[Request] = set()
    page.on("request", lambda one: asking.add(one))  # playwright takes no methods of builtins
    for ended in ("requestfinished", "requestfailed"):
        page.on(ended, lambda one: asking.discard(one))
    return asking


def _rest(page: Page, asking: set[Request]) -> None:
    """Wait until a page asks nothing, and goes on asking nothing."""
    quiet = 0
    while quiet < REST // LOOK:
        page.wait_for_timeout(LOOK)
        quiet = 0 if asking else quiet + 1


@contextmanager
def _browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise SystemExit(f"No browser is on the path: none of {', '.join(BROWSERS)}.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found, args=["--no-sandbox", "--disable-gpu"]
        )
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def _served(model: str) -> Iterator[str]:
    """The address of a lab that has kept nothing yet."""
    command = [sys.executable, "-m", "microtome", "lab", model, "--port", "0", "--no-open"]
    with tempfile.TemporaryDirectory() as keep:
        process = subprocess.Popen(
            [*command, "--keep", keep],
            stdout=subprocess.PIPE,
            text=True,
            env=environment(COLUMNS="400"),
        )
        try:
            assert process.stdout is not None, "it is piped"
            yield _address(process.stdout)
        finally:
            process.terminate()
            process.wait()


def _address(said: IO[str]) -> str:
    for line in said:
        if "http://" in line:
            return "http" + line.partition("http")[2].strip()
    raise RuntimeError("the lab did not start")


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["nano"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    timings = []
    for model in asked.models:
        timings.append(measure(model, asked.rounds))
        own = timings[-1]
        print(
            f"{own.model}: first map {own.first_map:.1f} s, click {own.click:.2f} s, "
            f"the slowest {own.slowest_click:.2f} s",
            flush=True,
        )
    keep(record_of(timings, asked.rounds), asked.out)


if __name__ == "__main__":
    main()
