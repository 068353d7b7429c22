"""A real browser on a real server: fixtures for tests of the lab.

The server is ``microtome lab`` in a process of its own, one for all tests of a worker; the browser
is the machine's Chromium, driven by playwright, one for all tests that need it one after another:
as long as it runs, this thread has an event loop, which tests of other things may not like.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing import forkserver
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote

import numpy as np
import pytest

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from playwright.sync_api import Browser, BrowserContext, Page

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")
"""The first is the same without what nobody sees, which takes a fifth of a page's time."""
PATIENCE = 120_000
"""Milliseconds that anything may take on a busy machine."""

LOOKING = """async argument => {
    for (let n = 0; n < 300; n += 1) {
        if (HOLDS) { return true; }
        await new Promise(then => setTimeout(then, 30));
    }
}"""
"""Whether something comes to hold in a page within some ten seconds."""

PLANTED = (
    '<script>window.planted=1</script><img src=x onerror="window.planted=2">'
    "<svg/onload='window.planted=3'>"
)
"""Text that runs where it is taken for a page."""


FORKS = multiprocessing.get_context("forkserver")
IMPORTED = "frontends.lab.imported"
FORKS.set_forkserver_preload([IMPORTED])


@dataclass
class Server:
    """``microtome lab`` while it runs."""

    process: Any
    told: IO[str]
    said: list[str] = field(default_factory=list)
    url: str = ""
    reader: threading.Thread | None = None

    @property
    def port(self) -> int:
        return int(self.url.partition("://")[2].partition("/")[0].rpartition(":")[2])

    def at(self, query: str = "") -> str:
        return self.url.partition("?")[0] + query

    def end(self, by: signal.Signals = signal.SIGINT) -> int:
        """End it, and give how it ended."""
        if self.process.is_alive():
            os.kill(self.process.pid, by)
        self.process.join(60)
        self.process.kill()
        self.process.join()
        if self.reader is not None:
            self.reader.join()
        self.told.close()
        return self.process.exitcode


def serving(keep: Path, *more: str, models: tuple[str, ...] = (), first: str = "") -> Server:
    """Start it, and wait until it says where it is.

    Its process is a copy of one that has imported the lab, once for all servers of a worker.

    Args:
        keep: where maps are kept.
        *more: options.
        models: those that are offered first.
        first: Python that its process executes before anything else.
    """
    options = ["lab", *models, "--port", "0", "--no-open", "--keep", str(keep), *more]
    with pytest.MonkeyPatch.context() as patch:  # where what it imports is found
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        forkserver.ensure_running()
    reader, writer = FORKS.Pipe(duplex=False)
    process = FORKS.Process(target=_run, args=(options, first, writer))
    process.start()
    writer.close()
    server = Server(process, os.fdopen(os.dup(reader.fileno()), encoding="utf-8"))
    reader.close()
    for line in server.told:
        server.said.append(line)
        if "http://" in line:
            server.url = "http" + line.partition("http")[2].strip()
            break
    if not server.url:
        server.end()
        raise AssertionError(f"the lab did not start: {''.join(server.said)}")
    # What else it says is read, so that it never waits for a reader.
    server.reader = threading.Thread(target=server.said.extend, args=(server.told,), daemon=True)
    server.reader.start()
    return server


def _run(options: list[str], first: str, writer: Connection) -> None:
    """What a server's process does: the command, and all that it says goes to its writer."""
    assert IMPORTED in sys.modules, "Python says nothing of what cannot be imported"
    for handle in (1, 2):
        os.dup2(writer.fileno(), handle)
    sys.stdout, sys.stderr = (os.fdopen(one, "w", buffering=1, encoding="utf-8") for one in (1, 2))
    os.environ["COLUMNS"] = "400"
    # More threads would wait for each other, and for all else that is tested.
    importlib.import_module("torch").set_num_threads(1)
    sys.argv[1:] = options
    exec(first, {})
    importlib.import_module("microtome.__main__").main()


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that offers nano, and a model whose name is a page's worst."""
    pytest.importorskip("dash", reason="the extra 'lab' is not installed")
    server = serving(tmp_path_factory.mktemp("kept"), models=("nano", PLANTED))
    yield server
    assert server.end() in (0, 130), "".join(server.said)


@dataclass
class Hold:
    """Questions of a page that wait until they are let go."""

    routes: list[Any] = field(default_factory=list)
    is_over: bool = False

    def release(self) -> None:
        """Let them go, and hold no more."""
        self.is_over = True
        for route in self.routes:
            route.continue_()


@dataclass
class Tab:
    """A page, with what went wrong in it."""

    page: Page
    server: Server
    wrong: list[str] = field(default_factory=list)
    asked: set[Any] = field(default_factory=set)
    has_gift: bool = False

    def gift(self, **more: Any) -> Page:
        """The map of `GIFT`, and more in the address, which is gone to within the page where that
        map is there: to bring it again takes a browser a second or two.

        For tests that put back what no address holds.
        """
        if self.has_gift:
            self.go(query(**GIFT, **more))
        else:
            self.mapped(query(**GIFT, **more))
            self.has_gift = True
        self.until(HAS_GIFT)
        self.settle()
        return self.page

    def go(self, query: str) -> None:
        """Go to an address as the way back does, and wait until the page has taken it."""
        self.page.evaluate(
            "async there => { history.pushState({}, '', there); scrollTo(0, 0);"
            " dispatchEvent(new PopStateEvent('popstate'));"
            " await new Promise(requestIdleCallback); }",
            query,
        )

    def open(self, query: str = "") -> Page:
        """Open an address, and wait until the page is there."""
        self.has_gift = False
        self.page.goto(self.server.at(query))
        self.page.wait_for_selector("#ask-text")
        return self.page

    def mapped(self, query: str = "") -> Page:
        """The same, until its map is computed and drawn."""
        page = self.open(query)
        self.computed("#map-strongest button, #map-strongest h3", "#map-compute")
        return page

    def computed(self, shown: str, button: str) -> None:
        """Wait until something is there; where the machine is too slow to compute it by itself, a
        button asks for it."""
        self.page.wait_for_selector(f"{shown}, {button}:visible")
        if self.page.locator(f"{button}:visible").count():
            self.page.locator(button).click()
        self.page.wait_for_selector(shown)

    @property
    def search(self) -> str:
        return self.page.evaluate("window.location.search")

    def until(self, condition: str, argument: Any = None) -> None:
        """Wait until something holds in the page, which looks by itself: to be asked takes longer.

        Playwright's own way makes code of texts in the page, which its policy forbids.
        """
        holds = f"({condition})(argument)" if re.match(r"\w+ =>", condition) else condition
        patience = time.monotonic() + PATIENCE / 1000
        while time.monotonic() < patience:
            try:
                if self.page.evaluate(LOOKING.replace("HOLDS", holds), argument):
                    return
            except Exception as error:
                if "context was destroyed" not in str(error):  # it has gone to another page
                    raise
        at = f"{self.search}, waiting for {argument!r}"
        raise AssertionError(f"it never came to this: {condition}; at {at}")

    def settle(self) -> None:
        """Wait until the page asks the server nothing, and goes on asking nothing."""
        quiet = 0
        while quiet < 4:
            self.page.wait_for_timeout(40)
            quiet = 0 if self.asked else quiet + 1

    def hold(self, part: str) -> Hold:
        """From now on hold questions of callbacks that something has called whose id has a part."""
        held = Hold()

        def asked(route: Any) -> None:
            told = route.request.post_data_json
            if not held.is_over and any(part in one for one in told["changedPropIds"]):
                held.routes.append(route)
            else:
                route.continue_()

        self.page.route("**/_dash-update-component*", asked)
        return held

    def until_held(self, held: list[Any], n: int) -> None:
        """Wait until so many questions are held."""
        patience = time.monotonic() + PATIENCE / 1000
        while len(held) < n:
            assert time.monotonic() < patience, f"{len(held)} of {n} were asked"
            self.page.wait_for_timeout(30)

    def leave(self) -> None:
        """Go away from the page, and take away what it has kept; what goes wrong is over.

        Where it has the map of `GIFT`, as it was, it stays, with nothing else.
        """
        self.page.unroute_all()
        if self.has_gift:
            self.go(query(**GIFT))
            self.settle()
        else:  # to a page of the same place, of no code
            self.page.goto(self.server.at() + "assets/keep.js")
        self.page.evaluate("window.sessionStorage.clear()")
        self.page.context.clear_cookies()
        self.page.context.clear_permissions()
        self.asked.clear()
        self.wrong.clear()

    def until_address(self, part: str) -> None:
        """Wait until the address has a part."""
        self.until("part => window.location.search.includes(part)", part)


def watched(context: BrowserContext, server: Server) -> Tab:
    """A new page whose errors, dialogs and requests to elsewhere are written down."""
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    tab = Tab(page, server)
    page.on("pageerror", lambda error: tab.wrong.append(str(error)))
    page.on("dialog", lambda dialog: (tab.wrong.append(dialog.message), dialog.dismiss()))
    page.on("console", lambda one: tab.wrong.append(one.text) if one.type == "error" else None)
    home = server.at().partition("//")[2].partition("/")[0]

    def asked(request: Any) -> None:
        tab.asked.add(request)
        place = request.url.partition("//")[2].partition("/")[0]
        if request.url.startswith(("http", "ws")) and place != home:
            tab.wrong.append(f"asked for {request.url}")

    def answered(request: Any) -> None:
        tab.asked.discard(request)

    page.on("request", asked)
    page.on("requestfinished", answered)
    page.on("requestfailed", answered)
    return tab


@dataclass
class Browsing:
    """The machine's browser from the first test that needs it to the next that does not."""

    ends: ExitStack = field(default_factory=ExitStack)
    browser: Browser | None = None
    tab: Tab | None = None

    def open(self) -> Browser:
        """The browser."""
        if self.browser is None:
            self.browser = self.ends.enter_context(_launched())
        return self.browser

    def shared(self, server: Server) -> Tab:
        """A page that tests have one after another.

        To a new one a browser has to bring all code of the lab again: two to three seconds each.
        """
        if self.tab is None:
            size = {"width": 1280, "height": 1000}
            self.tab = watched(self.open().new_context(viewport=size, locale="en-US"), server)
        return self.tab

    def close(self) -> None:
        """Close it, where it is there."""
        self.browser = self.tab = None
        self.ends.close()


@contextmanager
def _launched() -> Iterator[Browser]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no browser is on the path: none of {', '.join(NAMES)}")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


BROWSING = Browsing()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if "browsing" not in item.fixturenames:
        BROWSING.close()


@pytest.fixture(scope="session")
def browsing() -> Iterator[Browsing]:
    """What a test needs that wants a browser: it is closed before one that does not."""
    yield BROWSING
    BROWSING.close()


@pytest.fixture
def chromium(browsing: Browsing) -> Browser:
    """The machine's browser."""
    return browsing.open()


@pytest.fixture
def one_tab(browsing: Browsing, lab: Server) -> Tab:
    """The page that tests share."""
    return browsing.shared(lab)


@pytest.fixture
def tab(one_tab: Tab, request: pytest.FixtureRequest) -> Iterator[Tab]:
    """A page as if it were new, which has to end without an error."""
    failed = request.session.testsfailed
    try:
        yield one_tab
        assert one_tab.wrong == []
    finally:
        one_tab.has_gift &= request.session.testsfailed == failed and one_tab.wrong == []
        one_tab.leave()


@pytest.fixture
def tabs(chromium: Browser, lab: Server) -> Iterator[Callable[..., Tab]]:
    """More pages, each in a browser session of its own."""
    contexts: list[BrowserContext] = []

    def make(server: Server = lab, **how: Any) -> Tab:
        contexts.append(chromium.new_context(locale="en-US", **how))
        return watched(contexts[-1], server)

    yield make
    for context in contexts:
        context.close()


def query(**parts: Any) -> str:
    """An address of the lab, written without its code: a list is a key several times."""
    pairs = [
        (key, str(one))
        for key, value in parts.items()
        for one in (value if isinstance(value, list) else [value])
    ]
    return "?" + "&".join(f"{key}={quote(one, safe='')}" for key, one in pairs)


GIFT = {
    "text": "When Sam and Sally went to the park, Sam gave a gift to",
    "target": " Sally",
    "contrast": " Sam",
}
"""A prompt that nano knows what to make of."""

HAS_GIFT = """(() => {
    const data = document.querySelector('#map-figure .js-plotly-plot')?._fullData?.[0];
    return document.querySelector('#map-edit').value === 'zero L*.z.h*@-1'
        && dash_component_api.getLayout('grown').props.data?.state === 'done'
        && data?.z?.length === 6 && data.z[0].length === 8;
})()"""
"""Whether a page has drawn its map, and no other."""


def site(name: str) -> str:
    return f'[id*=\'"name":"{name}","type":"map-site"\']'


def axis(name: str) -> str:
    return f'[id*=\'"name":"{name}","type":"map-axis"\']'


def token(at: int) -> str:
    return f'[id*=\'"at":{at},"type":"ask-token"\']'


def panel(name: str) -> str:
    return f'[id*=\'"name":"{name}","type":"shell-tab"\']'


def shown(page: Page, figure: str = "#map-figure") -> np.ndarray:
    """The numbers of a map as the browser has them, ``[row, column]``."""
    found = page.evaluate(
        "figure => Array.from(document.querySelector(figure + ' .js-plotly-plot')._fullData[0].z,"
        " row => Array.from(row))",
        figure,
    )
    return np.array(found, dtype=float)


def chosen_in(search: str) -> list[str]:
    """The cells that an address names."""
    return parse_qs(search.removeprefix("?")).get("cell", [])


def press_cells(page: Page, cells: list[tuple[int, int]], shift: bool = True) -> None:
    """Presses on the middles of cells, one after another, in no time."""
    page.evaluate(
        """([cells, shiftKey]) => cells.forEach(([row, column]) => {
            const area = document.querySelector('#map-figure .nsewdrag');
            const {xaxis, yaxis} = area.closest('.js-plotly-plot')._fullLayout;
            const box = area.getBoundingClientRect();
            const [clientX, clientY] = [box.left + xaxis.d2p(column), box.top + yaxis.d2p(row)];
            const where = {bubbles: true, isPrimary: true, button: 0, shiftKey, clientX, clientY};
            for (const name of ['move', 'down', 'up']) {
                area.dispatchEvent(new PointerEvent(`pointer${name}`, where));
                area.dispatchEvent(new MouseEvent(`mouse${name}`, where));
            }
        })""",
        [cells, shift],
    )


def click_cell(page: Page, layer: int, head: int, shift: bool = False) -> None:
    """A real click on the middle of a cell, where plotly has drawn it."""
    x, y = page.evaluate(
        """([row, column]) => {
            const plot = document.querySelector('#map-figure .js-plotly-plot');
            const {xaxis, yaxis} = plot._fullLayout, box = plot.getBoundingClientRect();
            return [box.left + xaxis._offset + xaxis.d2p(column),
                    box.top + yaxis._offset + yaxis.d2p(row)];
        }""",
        [layer, head],
    )
    if shift:
        page.keyboard.down("Shift")
    page.mouse.move(x, y)
    page.mouse.click(x, y)
    if shift:
        page.keyboard.up("Shift")
