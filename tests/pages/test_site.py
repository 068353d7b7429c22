"""The docs site is built without a warning, leads to what is there, and needs no network."""

from __future__ import annotations

import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from recipes.docstrings import fenced
from recipes.pages import ROOT
from recipes.site import BROUGHT, COMMANDS, command_page, relinked

import microtome as mt
from microtome import errors

PATIENCE = 60_000
"""Milliseconds that a page may take on a busy machine."""
REFERENCE = ROOT / "docs" / "reference"
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
"""Elements that a browser fetches something for, and the attribute that says what."""
_URL = re.compile(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)")


@dataclass
class Seen(HTMLParser):
    """What a page fetches, leads to, and can be led to."""

    fetched: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag in LOADED and given.get(LOADED[tag]) and given.get("rel") != "canonical":
            self.fetched.append(given[LOADED[tag]])
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        self.fetched += inside(given.get("style", ""))


def inside(style: str) -> list[str]:
    """What a style sheet fetches."""
    return [first or second for first, second in _URL.findall(style)]


def seen(page: Path) -> Seen:
    found = Seen()
    found.feed(page.read_text(encoding="utf-8"))
    return found


def is_elsewhere(url: str) -> bool:
    return urlsplit(url).scheme in ("http", "https") or url.startswith("//")


def dead(site: Path) -> Iterator[str]:
    """Links between pages, and their anchors, that lead nowhere."""
    pages = {page: seen(page) for page in site.rglob("*.html")}
    for page, found in pages.items():
        for url in [*found.links, *found.fetched]:
            parts = urlsplit(url)
            if parts.scheme or url.startswith("//") or page.name == "404.html":
                continue
            to = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            to = to / "index.html" if to.is_dir() else to
            anchor = unquote(parts.fragment)
            known = pages[to].anchors if to in pages else set()
            if not to.is_file() or (anchor and anchor not in known | {"__top"}):
                yield f"{page.relative_to(site)}: {url}"


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.slow
class TestBuilt:
    def test_every_page_of_the_docs_is_on_it(self, site):
        for page in (ROOT / "docs").rglob("*.md"):
            assert (site / page.relative_to(ROOT / "docs").with_suffix(".html")).is_file()
        for page in (*BROUGHT.values(), COMMANDS):
            assert (site / page).with_suffix(".html").is_file()

    def test_links_and_anchors_lead_somewhere(self, site):
        assert [*dead(site)] == []

    def test_nothing_is_fetched_from_elsewhere(self, site):
        fetched = {url for page in site.rglob("*.html") for url in seen(page).fetched}
        sheets = (sheet.read_text(encoding="utf-8") for sheet in site.rglob("*.css"))
        fetched |= {url for sheet in sheets for url in inside(sheet)}
        assert len(fetched) > 10
        assert [url for url in fetched if is_elsewhere(url)] == []

    def test_what_can_be_searched_has_the_pages_words(self, site):
        index = (site / "search" / "search_index.json").read_text(encoding="utf-8")
        assert "head_circuit" in index
        assert "InertEditError" in index

    def test_it_is_searched_as_files_and_asks_nobody(self, site, chromium):
        page = chromium.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto((site / "index.html").as_uri())
        page.click(".md-search__input", timeout=PATIENCE)
        page.keyboard.type("InertEditError")
        page.wait_for_selector(".md-search-result__item a[href*='errors.html']", timeout=PATIENCE)
        assert len(asked) > 3
        assert [url for url in asked if is_elsewhere(url)] == []
        page.close()

    @pytest.mark.parametrize("name", ["index", "terminology", "benchmarks", "reference/results"])
    def test_a_phone_need_not_scroll_sideways(self, site, chromium, name):
        page = chromium.new_page(viewport={"width": 390, "height": 844})
        page.goto((site / f"{name}.html").as_uri())
        width = page.evaluate("document.scrollingElement.scrollWidth")
        page.close()
        assert width <= 390


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    (tmp_path / "a.html").write_text('<p id="x"><a href="b.html#y">b</a> <img src="c.png">')
    (tmp_path / "b.html").write_text('<a href="a.html#x">a</a> <a href="#z">z</a>')
    assert sorted(dead(tmp_path)) == ["a.html: b.html#y", "a.html: c.png", "b.html: #z"]


def test_what_a_page_fetches_is_found():
    page = Seen()
    page.feed(
        '<script src="https://a"></script><p style="background: url(//b)"><a href="//c">c</a>'
    )
    assert page.fetched == ["https://a", "//b"]
    assert all(is_elsewhere(url) for url in page.fetched)


@pytest.mark.parametrize(
    ("source", "page", "text", "there"),
    [
        ("README.md", "index.md", "[a](docs/edges.md#paths)", "[a](edges.md#paths)"),
        ("CHANGELOG.md", "changes.md", "![a](docs/images/a.png)", "![a](images/a.png)"),
        ("docs/guarantees.md", "guarantees.md", "[`t`](../tests/t.py)", "`t`"),
        ("docs/coming-from/x.md", "coming-from/x.md", "[a](../edges.md)", "[a](../edges.md)"),
        ("docs/x.md", "x.md", "[a](../CHANGELOG.md)", "[a](changes.md)"),
        ("docs/x.md", "x.md", "[a](https://b) [c](#d)", "[a](https://b) [c](#d)"),
    ],
)
def test_links_go_along_with_their_page(source, page, text, there):
    assert relinked(text, source, page) == there


def test_examples_in_docstrings_are_code():
    """Not quotations, which they are for Markdown."""
    docstring = "One.\n\nArgs:\n    a: b\n\n>>> f(1)\n2\n\nMore.\n\n>>> g(1)"
    code = "```pycon\n>>> f(1)\n2\n```\n\nMore.\n\n```pycon\n>>> g(1)\n```"
    assert fenced(docstring) == f"One.\n\nArgs:\n    a: b\n\n{code}"


def test_every_command_has_its_options():
    page = "".join(command_page())
    for name in ("sweep", "study run", "circuit score", "generate", "plan"):
        assert f"## microtome {name}\n" in page
    assert "| `-o`, `--out` |" in page
    assert "microtome sweep nano -p 'Berlin is the capital of'" in page


def shown_in_the_reference() -> set[int]:
    """The objects that pages of the reference are made of."""
    return {
        id(pkgutil.resolve_name(name))  # a module before what a package has of its name, as there
        for page in REFERENCE.glob("*.md")
        for name in re.findall(r"^::: ([\w.]+)$", page.read_text("utf-8"), re.M)
    }


@pytest.mark.parametrize(
    ("home", "names"),
    [
        (mt, [name for name in mt.__all__ if not isinstance(getattr(mt, name), ModuleType)]),
        (mt.circuits, [name for name in mt.circuits.__all__ if not name.isupper()]),
        (mt.stats, [name for name in mt.stats.__all__ if not name.isupper()]),
        (mt.steering, mt.steering.__all__),
        (mt.tasks, [name for name in mt.tasks.__all__ if not name.isupper()]),
        (mt.workers, mt.workers.__all__),
    ],
    ids=lambda home: getattr(home, "__name__", ""),
)  # fmt: skip
def test_every_public_name_is_in_the_reference(home, names):
    shown = shown_in_the_reference() | {id(one) for one in vars(errors).values()}
    assert [name for name in names if id(getattr(home, name)) not in shown] == []


def test_every_error_and_warning_has_an_example_of_its_own():
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    parts = dict(re.findall(r"^###? (\w+)\n(.*?)(?=^###? |\Z)", page, re.M | re.S))
    own = (
        one for one in vars(errors).values() if getattr(one, "__module__", "") == errors.__name__
    )
    for kind in own:
        if not isinstance(kind, type) or kind is errors.MicrotomeError:
            continue
        assert "*What to do*" in parts[kind.__name__]
        if not issubclass(kind, Warning):
            assert f"\nmicrotome.errors.{kind.__name__}: " in parts[kind.__name__]


def test_the_landing_page_has_the_readmes_ten_lines():
    pages = [(ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/index.md")]
    readme, landing = (re.search(r"```python\n(.*?)```", page, re.S) for page in pages)
    assert readme[1] == landing[1]


def test_the_contents_name_every_page_once():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = re.findall(r"[\w/-]+\.md$", yaml.dump(yaml.safe_load(text)["nav"]), re.M)
    there = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert sorted(named) == sorted(there | {*BROUGHT.values(), COMMANDS})
