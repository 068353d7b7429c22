"""The picture of a clicked map in docs/notebooks.md: ``python -m recipes.live_picture``.

It takes the extra ``notebook``, playwright, and a Chromium on the path. What a notebook shows below
one another, the map and what a click on it gave, is put on a page, of which a picture is taken.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

import microtome as mt
from recipes.lab_pictures import NAMES, small

OUT = Path(__file__).parents[1] / "docs" / "images" / "live.png"
WIDTH = 800
PAGE = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 12px; background: white; font: 13px sans-serif }} pre {{ font-size: 12px }}
table {{ margin: 6px 0; border-collapse: collapse }}
th, td {{ padding: 3px 8px; border: 1px solid #ddd; text-align: left }}
</style><div id="map">{map}</div><div id="panel">{panel}</div>"""


def page() -> str:
    """The map with a cell clicked, and what that shows, as HTML."""
    prompt = mt.Prompt(
        "When Sam and Sally went to the park, Sam gave a gift to", target=" Sally", contrast=" Sam"
    )
    model = mt.load("nano")
    effects = mt.sweep(model, prompt, "zero L*.z.h*", metrics="logit_diff", progress=False)
    clicked = mt.live(model, effects, "logit_diff")
    clicked.click(layer=0, head=3)
    figure = clicked.map.to_html(full_html=False, default_height=340)
    return PAGE.format(map=figure, panel=clicked.panel.value)


def main() -> None:
    """Take the picture."""
    browser_path = next(filter(None, map(shutil.which, NAMES)))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        shown = browser.new_context(viewport={"width": WIDTH, "height": 400}).new_page()
        shown.set_content(page())
        shown.wait_for_selector("#map .main-svg")
        shown.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        picture = small(shown.screenshot(full_page=True))
        browser.close()
    OUT.write_bytes(picture)
    sys.stdout.write(f"{OUT.name}: {len(picture) / 1024:.0f} KiB\n")


if __name__ == "__main__":
    main()
