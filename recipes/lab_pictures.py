"""The pictures of docs/lab.md: ``python -m recipes.lab_pictures``, in a browser that is driven.

It takes the extra ``lab``, playwright, and a Chromium on the path. Each picture is a view by its
address, on the embedded model, so that it is of what the page shows today.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from microtome.frontends.lab.examples import CAPITAL, GIFT
from microtome.frontends.lab.state import Against, View

OUT = Path(__file__).parents[1] / "docs" / "images" / "lab"
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDTH, HEIGHT = 1280, 900
PATIENCE = 300_000
"""Milliseconds."""
LARGEST = 150_000
"""Bytes of a picture; one that is larger loses colours."""

HEAD = "patch L1.z.h6@-1"
CIRCUIT = ("m0->a1.h6<v>", "a1.h6", "m1", "m2", "m3", "m4", "m5")


@dataclass(frozen=True)
class Shot:
    """A picture of a view.

    Attributes:
        view: what is opened.
        until: what has to be seen.
        of: the part of the page; the whole of what is seen unless given.
        click: what is clicked before, where anything is.
        size: of the window.
    """

    view: View
    until: str
    of: str = ""
    click: str = ""
    size: tuple[int, int] = (WIDTH, HEIGHT)


MAP = "#map-strongest li button"

SHOTS: Mapping[str, Shot] = {
    "ask": Shot(View(), "#ask-begin button", size=(WIDTH, 640)),
    "map": Shot(replace(GIFT, edit="patch L*.z.h*@-1"), MAP, size=(WIDTH, 1000)),
    "cell": Shot(
        replace(GIFT, edit="patch L*.z.h*@-1", chosen=(HEAD, "patch L4.z.h5@-1"), panel="cell"),
        "#cell-fed table",
        of="#cell",
    ),
    "trace": Shot(
        replace(GIFT, reader="a1.h6<v>", pins=CIRCUIT, panel="trace",
                notes=(("a1.h6", "moves the other name"),)),
        "#trace-kept table", of="#trace", click="#trace-judge",
    ),
    "compare": Shot(
        replace(GIFT, against=Against("edit", "mean L*.z.h*@-1"), panel="compare"),
        "#compare-difference .js-plotly-plot",
        of="#compare",
    ),
    "write": Shot(
        replace(CAPITAL, chosen=("scale(0.2) L:.attn_out@last",), steps=12,
                panel="write"),
        "#write-texts .text", of="#write",
    ),
    "keep": Shot(
        replace(GIFT, chosen=(HEAD,), pins=CIRCUIT[:2], panel="keep"),
        "#keep-files a[href*='map.csv']",
        of="#keep",
    ),
    "vietnamese": Shot(replace(GIFT, lang="vi"), MAP, size=(WIDTH, 1000)),
    "phone": Shot(replace(GIFT, edit="patch L*.z.h*@-1"), MAP, size=(390, 1700)),
}  # fmt: skip
"""Name → picture."""


@contextmanager
def served() -> Iterator[str]:
    """The address of a lab that is there for a while."""
    with tempfile.TemporaryDirectory() as keep:
        program = [sys.executable, "-m", "microtome", "lab", "nano", "--port", "0", "--no-open"]
        process = subprocess.Popen(
            [*program, "--keep", keep], stdout=subprocess.PIPE, text=True, env=None
        )
        try:
            assert process.stdout is not None, "it is piped"
            said = next(line for line in process.stdout if "http://" in line)
            [address] = re.findall(r"http://\S+", said)
            yield address
        finally:
            process.terminate()
            process.wait()


def taken(page: Page, address: str, shot: Shot) -> bytes:
    """A picture as PNG."""
    page.set_viewport_size({"width": shot.size[0], "height": shot.size[1]})
    page.goto(address + shot.view.to_query())
    page.wait_for_selector(MAP if shot.view.text else shot.until)
    if shot.click:
        page.click(shot.click)
    page.wait_for_selector(shot.until)
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(1500)  # what is drawn last has no end to wait for
    found: bytes = page.locator(shot.of).screenshot() if shot.of else page.screenshot()
    return found


def small(png: bytes) -> bytes:
    """The same, as small as it comes; with few colours, where it is too large otherwise."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    found = _written(image)
    few = image.quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=3)
    return found if len(found) <= LARGEST else _written(few)


def _written(image: Image.Image) -> bytes:
    made = io.BytesIO()
    image.save(made, "PNG", optimize=True)
    return made.getvalue()


def main() -> None:
    """Take the pictures that are named, or all."""
    names = sys.argv[1:] or [*SHOTS]
    browser_path = next(filter(None, map(shutil.which, NAMES)))
    OUT.mkdir(parents=True, exist_ok=True)
    with served() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_context(locale="en-US").new_page()
        page.set_default_timeout(PATIENCE)
        for name in names:
            picture = small(taken(page, address, SHOTS[name]))
            (OUT / f"{name}.png").write_bytes(picture)
            sys.stdout.write(f"{name}: {len(picture) / 1024:.0f} KiB\n")
        browser.close()


if __name__ == "__main__":
    main()
