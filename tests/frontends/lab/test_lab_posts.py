"""What is posted by hand, in any shape: a sentence (400), and no callback sees it."""

from __future__ import annotations

import copy
import json

import pytest

from microtome.frontends.lab.desk import Desk
from microtome.frontends.lab.guard import Gate
from microtome.frontends.lab.jobs import Jobs
from microtome.frontends.lab.posts import PATH
from microtome.frontends.lab.server import build_app
from microtome.frontends.lab.state import View

HOST = {"Host": "127.0.0.1:8050"}
NOTHING = View().to_query()
STRANGE = (5, True, "x", [[]], {"a": {}}, 10**400, "\ud800")
"""Values of every kind; which of them a component may have, is its own affair."""


@pytest.fixture(scope="module")
def app(nano):
    desk = Desk(load=lambda name: nano)
    desk.model("nano")
    return build_app(desk, Jobs(desk), Gate.of("127.0.0.1", 8050))


@pytest.fixture(scope="module")
def client(app):
    return app.server.test_client()


def filled(part, search):
    """A component's property, as a page posts it; of a type there are none."""
    if part["id"].startswith("{"):
        return []
    return {**part, "value": search if part["property"] == "search" else None}


def post_of(app, name, search=NOTHING):
    """What a page posts to a callback."""
    one = app.callback_map[name]
    outputs = [
        dict(zip(("id", "property"), each.rsplit(".", 1), strict=True))
        for each in name.strip(".").split("...")
    ]
    return {
        "output": name,
        "outputs": outputs if name.startswith("..") else outputs[0],
        "inputs": [filled(part, search) for part in one["inputs"]],
        "state": [filled(part, search) for part in one["state"]],
        "changedPropIds": [],
    }


@pytest.fixture(scope="module")
def names(app):
    return [name for name, one in app.callback_map.items() if "callback" in one]


@pytest.fixture(scope="module")
def good(app):
    """A post to the map's own callback."""
    [name] = [one for one in app.callback_map if one.startswith("..map-status.children")]
    return post_of(app, name)


def test_what_a_page_posts_is_answered(app, client, names):
    assert len(names) > 40
    for name in names:
        answer = client.post(PATH, json=post_of(app, name), headers=HOST)
        assert answer.status_code in (200, 204), name
        assert "Error" not in answer.text, name


def refused(client, **how):
    """Whether a post is refused in a sentence that says nothing of what is within."""
    answer = client.post(PATH, headers=HOST, **how)
    plain = answer.mimetype == "text/plain" and len(answer.text) < 120
    return answer.status_code == 400 and plain and "Traceback" not in answer.text


@pytest.mark.parametrize(
    "body", [None, 5, "x", [], [{}], {}, {"output": 5}, {"output": []}, {"output": "nowhere.x"}]
)
def test_what_is_no_post_is_refused(client, body):
    assert refused(client, json=body)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"output": nonsense}', b"null"]
)
def test_what_is_no_json_is_refused(client, data):
    assert refused(client, data=data, content_type="application/json")
    assert refused(client, data=data, content_type="text/plain")
    assert refused(client, data=data)


@pytest.mark.parametrize("field", ["outputs", "inputs", "state", "changedPropIds"])
@pytest.mark.parametrize("value", [None, 5, "x", {}, [5], [None], [{}], [[]], [{"id": 5}]])
def test_fields_of_another_shape_are_refused(client, good, field, value):
    assert refused(client, json={**good, field: value})


def test_a_part_too_few_or_too_many_or_another_is_refused(client, good):
    for field in ("inputs", "state", "outputs"):
        given = good[field]
        other = [{**given[0], "id": "nowhere"}, *given[1:]]
        third = [{**given[0], "property": "nothing"}, *given[1:]]
        for wrong in (given[:-1], [*given, given[0]], other, third):
            assert refused(client, json={**good, field: wrong})


def test_what_is_said_to_have_changed_is_an_input(app, client, good, names):
    for wrong in ("x", ".", "nowhere.children", "map-compute.value", '{"type":"x"}.n_clicks', "{."):
        assert refused(client, json={**good, "changedPropIds": [wrong]})
    [name] = [one for one in names if "ask-token" in json.dumps(app.callback_map[one]["inputs"])]
    many = post_of(app, name)
    for wrong in ('{"type":"ask-token"}', '{"at":"x","type":"ask-token"}', '{"at":1,"type":"y"}'):
        assert refused(client, json={**many, "changedPropIds": [f"{wrong}.n_clicks"]})
    right = '{"at":1,"type":"ask-token"}.n_clicks'
    clicked = {"id": {"at": 1, "type": "ask-token"}, "property": "n_clicks", "value": 1}
    post = {**many, "changedPropIds": [right], "inputs": [[clicked]]}
    assert client.post(PATH, json=post, headers=HOST).status_code in (200, 204)
    for strange in (5, [5], [{}], [{**clicked, "id": "ask-token"}], [{**clicked, "value": "x"}]):
        assert refused(client, json={**post, "inputs": [strange]})


def test_a_value_of_another_kind_is_refused_or_is_one_like_any_other(app, client, names):
    """No value of any component is a fault of the server's, nor tells what is within."""
    sent = 0
    for name in names:
        whole = post_of(app, name)
        for field in ("inputs", "state"):
            for n, part in enumerate(whole[field]):
                if isinstance(part, list):
                    continue
                for strange in STRANGE:
                    post = copy.deepcopy(whole)
                    post[field][n]["value"] = strange
                    answer = client.post(PATH, data=json.dumps(post), headers=HOST,
                                         content_type="application/json")  # fmt: skip
                    assert answer.status_code in (200, 204, 400), (name, part, strange)
                    assert "Error" not in answer.text, (name, part, strange, answer.text)
                    sent += 1
    assert sent > 500


def pressed(app, names, kind, of, value):
    """What a page posts where a component of a type is pressed, or chosen from."""
    [name] = [
        one for one in names if any(kind in part["id"] for part in app.callback_map[one]["inputs"])
    ]
    one, whole = app.callback_map[name], post_of(app, name)
    [n] = [n for n, part in enumerate(one["inputs"]) if kind in part["id"]]
    wanted = one["inputs"][n]
    whole["inputs"][n] = [{"id": of, "property": wanted["property"], "value": value}]
    written = json.dumps(of, sort_keys=True, separators=(",", ":"))
    return {**whole, "changedPropIds": [f"{written}.{wanted['property']}"]}


@pytest.mark.parametrize(
    ("kind", "name", "value", "code"),
    [
        ("ask-example", "heads", 1, 200),
        ("ask-example", "nothing", 1, 400),
        ("ask-task", "ioi", 1, 200),
        ("ask-task", "ioi", -1, 400),
        ("ask-task", "nothing", 1, 400),
        ("map-site", "mlp_out", 1, 200),
        ("map-site", "nothing", 1, 400),
        ("map-axis", "layer", "3", 200),
        ("map-axis", "pos", "3", 200),
        ("map-axis", "q_pos", "3", 200),
        ("map-pick", "layer", "3", 200),
        ("map-pick", "nothing", "3", 200),
    ],
)
def test_a_button_that_no_page_has_is_no_fault(app, client, names, capfd, kind, name, value, code):
    """Or one that a page had, before another edit was asked for."""
    post = pressed(app, names, kind, {"type": kind, "name": name}, value)
    answer = client.post(PATH, json=post, headers=HOST)
    assert answer.status_code in (code, 204)
    assert "Error" not in answer.text
    assert capfd.readouterr().err == ""


def test_code_is_asked_for_in_a_form_that_there_is(app, client, names):
    [name] = [one for one in names if one == "keep-code.children"]
    search = View(text="It is", panel="keep", model="nano").to_query()
    post = post_of(app, name, search)
    seen, ready, form = post["inputs"]
    seen["value"], ready["value"] = search, {"model": "nano", "state": "ready", "why": ""}
    for value, code in (("yaml", 200), ("about", 400), ("__class__", 400), ("x", 400)):
        form["value"] = value
        assert client.post(PATH, json=post, headers=HOST).status_code == code


@pytest.mark.parametrize("method", ["get", "put", "delete", "patch", "options"])
def test_nothing_that_is_asked_for_by_hand_is_a_fault(client, method):
    suites = "/_dash-component-suites"
    for path in (f"{suites}/x/y.js", f"{suites}/dash/../x", f"{suites}/dash/dash.py", "/keep/x",
                 "/x%00", "/_reload-hash", "/assets/../guard.py", PATH):  # fmt: skip
        answer = getattr(client, method)(path, headers=HOST)
        assert answer.status_code < 500, path
        assert "Traceback" not in answer.text


def test_an_address_that_is_none_is_no_fault(client):
    for referrer in ("http://[", "http://127.0.0.1:8050/?lang=\x00", "x" * 1000):
        answer = client.get("/_dash-layout", headers=HOST | {"Referer": referrer})
        assert answer.status_code == 200
