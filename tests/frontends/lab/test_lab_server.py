"""The lab as a server: it starts, answers as its callbacks do, and ends cleanly."""

from __future__ import annotations

import json
import re
import socket
import threading
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
from calling import Caller
from dash import no_update

from microtome.errors import MicrotomeError
from microtome.frontends.lab import server as servers
from microtome.frontends.lab import shell
from microtome.frontends.lab.asked import Asked
from microtome.frontends.lab.desk import Desk
from microtome.frontends.lab.guard import Gate
from microtome.frontends.lab.jobs import DONE, Jobs
from microtome.frontends.lab.server import build_app, serve
from microtome.frontends.lab.state import View
from microtome.texts import LANGUAGES

HOST = {"Host": "127.0.0.1:8050"}
VIEW = View(
    model="nano",
    text="Berlin is the capital of",
    donor="Paris is the capital of",
    target=" Germany",
    contrast=" France",
)
READY = {"model": "nano", "state": "ready", "why": ""}


class Page(Caller):
    """A browser that only calls callbacks."""

    def __init__(self, app) -> None:
        self.client, self.app = app.server.test_client(), app
        super().__init__(self._asked)

    def _asked(self, path: str, body: object) -> tuple[int, str]:
        method = "GET" if body is None else "POST"
        answer = self.client.open(path, method=method, json=body, headers=HOST)
        return answer.status_code, answer.text


@pytest.fixture
def page(nano, tmp_path):
    desk = Desk(load=lambda name: nano)
    desk.model("nano")
    jobs = Jobs(desk, tmp_path)
    made = Page(build_app(desk, jobs, Gate.of("127.0.0.1", 8050)))
    made.jobs = jobs
    yield made
    jobs.close()


def test_the_page_runs_its_own_scripts_and_no_others(page):
    answer = page.client.get("/", headers=HOST)
    policy = answer.headers["Content-Security-Policy"]
    assert "script-src 'self' 'sha256-" in policy
    sources = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
    assert sources
    assert all(one.startswith("/") and not one.startswith("//") for one in sources)


def test_the_page_comes_in_the_language_of_its_address(page):
    assert '<html lang="vi">' in page.client.get("/?lang=vi", headers=HOST).text
    assert '<html lang="en">' in page.client.get("/?lang=<script>", headers=HOST).text
    headers = HOST | {"Referer": "http://127.0.0.1:8050/?lang=vi&text=a"}
    assert (
        "Mô hình"
        in page.client.get("/_dash-layout", headers=headers).text.encode().decode("unicode_escape")
        or "M\\u00f4 h\\u00ecnh" in page.client.get("/_dash-layout", headers=headers).text
    )


def ids(component) -> set[str]:
    """The ids of a layout that are words."""
    if isinstance(component, list | tuple):
        return set().union(*map(ids, component))
    if not hasattr(component, "to_plotly_json"):
        return set()
    own = getattr(component, "id", None)
    inner = ids(getattr(component, "children", None))  # what has no children itself is false
    return inner | ({own} if isinstance(own, str) else set())


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_callback_finds_its_components_on_the_page(page, lang):
    """One that does not is silently not called."""
    there = ids(page.app.layout_in(lang))
    parts = [part for one in page.callbacks.values() for part in (*one["inputs"], *one["state"])]
    asked = {part["id"] for part in parts if not part["id"].startswith("{")}
    for output in page.callbacks:
        asked |= set(re.findall(r"(?:^|\.\.)([a-z][a-z-]*)\.", output))
    assert len(asked) > 20
    assert asked <= there


def test_what_fails_is_said_and_the_page_stays(page, monkeypatch, capsys):
    said = {}
    monkeypatch.setattr(shell, "set_props", lambda name, props: said.update({name: props}))
    words = page.app.words
    assert shell.failed(MicrotomeError("no such thing"), words) is no_update
    assert said["shell-problems"]["children"].children == "no such thing"
    assert capsys.readouterr().err == ""
    shell.failed(ValueError("unforeseen"), words)
    assert said["shell-problems"]["children"].children == "ValueError: unforeseen"
    assert "unforeseen" in capsys.readouterr().err


def test_a_small_map_is_computed_as_it_is_looked_at(page):
    given = {"address.search": VIEW.to_query(), "ready.data": READY}
    first = page.call("map-status.children", **given)
    assert first["grown"]["data"]["state"] in ("waiting", "running", "done")
    [job] = page.jobs._jobs.values()
    assert job.over.wait(60)
    again = page.call("map-status.children", **given)
    assert again["grown"]["data"]["state"] == DONE
    assert "48 cells" in json.dumps(again["map-status"]["children"])
    drawn = page.call("map-figure.figure", **given | {"grown.data": again["grown"]["data"]})
    assert drawn["map-figure"]["figure"]["data"][0]["type"] == "heatmap"
    assert "noise" in json.dumps(drawn["map-strongest"]["children"]).lower()

    cells = json.loads(drawn["map-frame"]["data-cells"])
    assert (cells["rows"], cells["columns"]) == ([*range(6)], [*range(8)])


def test_a_map_that_lacked_its_last_unit_is_drawn_whole_once_it_is(page):
    """Its last unit is counted a moment before the whole map is there."""
    job = page.jobs.submit(Asked.of(VIEW))
    assert job.over.wait(60)
    given = {"address.search": VIEW.to_query(), "ready.data": READY}
    far = {"key": job.key, "units": 3}
    for state in ("running", DONE):
        drawn = page.call("map-figure.figure", **given, **{"grown.data": far | {"state": state}})
        assert "data" in drawn["map-figure"]["figure"]


@pytest.mark.parametrize("metric", ["top1"])
def test_a_map_that_cannot_be_drawn_leaves_no_other_in_its_place(page, metric):
    view = replace(VIEW, metric=metric)
    job = page.jobs.submit(Asked.of(view))
    assert job.over.wait(60)
    grown = {"key": job.key, "state": DONE, "units": 1}
    given = {"address.search": view.to_query(), "ready.data": READY, "grown.data": grown}
    told = page.call("map-figure.figure", **given)
    assert told["map-figure"] == {"style": {"display": "none"}}
    assert "cannot be subtracted" in json.dumps(told["map-strongest"]["children"])
    assert page.call("cell-chosen.children", **given)["cell-chosen"]["children"] == []


def test_what_costs_much_is_said_first_and_begins_when_it_is_asked_for(page, monkeypatch):
    monkeypatch.setattr("microtome.frontends.lab.costing.AT_ONCE", -1.0)
    given = {"address.search": VIEW.to_query(), "ready.data": READY}
    told = page.call("map-status.children", **given)
    assert "48 cells" in told["map-status"]["children"]
    assert "cell by cell: 49" in told["map-status"]["children"]
    assert not told["map-compute"]["hidden"]
    assert page.jobs.waiting("nano") == []
    begun = page.call("map-status.children", changed="map-compute.n_clicks", **given)
    assert begun["map-compute"]["hidden"]
    [job] = page.jobs._jobs.values()
    assert job.over.wait(60)


def test_what_is_wrong_with_an_edit_stands_where_the_map_would_be(page):
    query = View(**{**vars(VIEW), "edit": "zero L99.z.h*@-1"}).to_query()
    told = page.call("map-status.children", **{"address.search": query, "ready.data": READY})
    assert "L99" in json.dumps(told["map-status"]["children"])
    assert page.jobs.waiting("nano") == []


def test_tokens_are_buttons_and_the_edits_own_is_pressed(page):
    told = page.call(
        "ask-tokens.children",
        changed="ask-text.value",
        **{
            "ask-text.value": "Berlin <b>is</b> the capital of",
            "address.search": VIEW.to_query(),
            "ready.data": READY,
        },
    )
    row = told["ask-tokens"]["children"][0]["props"]["children"]
    assert row[-1]["props"]["aria-pressed"] == "true"
    assert {one["props"]["aria-pressed"] for one in row[:-1]} == {"false"}


def test_what_the_model_lacks_is_not_offered_and_says_why(page):
    told = page.call(
        "map-finer.children", **{"address.search": VIEW.to_query(), "ready.data": READY}
    )
    sites = {one["props"]["id"]["name"]: one["props"] for one in told["map-finer"]["children"]}
    assert sites["k_head"]["disabled"]
    assert "no two heads share one" in sites["k_head"]["title"]
    assert not sites["head_out"]["disabled"]
    without = View(**{**vars(VIEW), "donor": ""}).to_query()
    told = page.call("map-operation.data-lines", **{"address.search": without, "ready.data": READY})
    options = {one["value"]: one for one in json.loads(told["map-operation"]["data-lines"])}
    assert options["patch"]["disabled"]
    assert "needs a donor" in options["patch"]["label"]


def test_a_model_is_loaded_once_somebody_types_it_on_the_page(nano):
    desk = Desk(typed=True, load=lambda name: nano)
    page = Page(build_app(desk, Jobs(desk), Gate.of("127.0.0.1", 8050)))
    there = View(**{**vars(VIEW), "model": "/some/where"}).to_query()
    told = page.call("shell-model.children", **{"address.search": there})
    assert told["ready"]["data"]["state"] == "failed"
    assert "once it is typed" in json.dumps(told["shell-model"]["children"])
    typed = {"ask-path.value": " /some/where ", "address.search": there}
    again = page.call("address.search", changed="ask-path.n_blur", **typed)
    assert again == {"pulse": {"n_intervals": 0}}  # the page looks again
    assert desk.model("/some/where") is nano
    other = page.call("address.search", changed="ask-path.n_submit", **typed | {
        "address.search": VIEW.to_query()
    })  # fmt: skip
    assert View.from_query(other["address"]["search"]).model == "/some/where"


def test_it_listens_tells_where_and_ends(nano, tmp_path):
    desk = Desk(load=lambda name: nano)
    stop, there, told = threading.Event(), threading.Event(), []

    def started(url: str) -> None:
        told.append(url)
        there.set()

    thread = threading.Thread(
        target=serve,
        args=(desk, Jobs(desk, tmp_path)),
        kwargs={"port": 0, "started": started, "stop": stop},
    )
    thread.start()
    try:
        assert there.wait(60)
        with urllib.request.urlopen(told[0], timeout=30) as answer:
            assert b"microtome lab" in answer.read()
    finally:
        stop.set()
        thread.join(60)
    assert not thread.is_alive()
    port = int(told[0].rsplit(":", 1)[1].strip("/"))
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", port))


def test_a_place_that_is_taken_says_so(nano):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        desk = Desk(load=lambda name: nano)
        with pytest.raises(MicrotomeError, match=f"Cannot listen at 127.0.0.1:{port}"):
            serve(desk, Jobs(desk), port=port)


def test_all_that_a_page_needs_lies_with_it():
    assets = Path(servers.__file__).parent / "assets"
    for path in assets.iterdir():
        assert "http://" not in path.read_text(encoding="utf-8")
        assert "https://" not in path.read_text(encoding="utf-8")
