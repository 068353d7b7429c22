"""Who may ask the lab anything: Host, Origin, the token; and what its pages may do."""

from __future__ import annotations

import hmac

import pytest
from flask import Flask, request

from microtome.frontends.lab import guard
from microtome.frontends.lab.guard import Gate, install, is_loopback, policy_of

POLICY = policy_of(["sha256-abc"])


def served(gate: Gate):
    app = Flask("test")

    @app.route("/", methods=["GET", "POST"])
    def home() -> str:
        return request.get_data(as_text=True) or "home"

    install(app, gate, POLICY)
    return app.test_client()


LOCAL = Gate.of("127.0.0.1", 8050)
HERE = {"Host": "127.0.0.1:8050"}


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8050", "localhost:8050", "LOCALHOST:8050", "[::1]:8050"]
)
def test_on_this_machine_pages_open_without_a_token(host):
    assert LOCAL.token == ""
    answer = served(LOCAL).get("/", headers={"Host": host})
    assert (answer.status_code, answer.text) == (200, "home")


@pytest.mark.parametrize(
    "host",
    [
        "evil.test:8050",
        "evil.test",
        "127.0.0.1:8051",
        "127.0.0.1",
        "127.0.0.1.evil.test:8050",
        "192.168.1.5:8050",
        "localhost:x",
        "",
    ],
)
def test_a_name_that_somebody_made_to_point_here_gets_no_answer(host):
    answer = served(LOCAL).get("/", headers={"Host": host})
    assert answer.status_code in (400, 403)
    assert "home" not in answer.text


@pytest.mark.parametrize(
    "origin",
    ["https://evil.test", "http://127.0.0.1:8051", "null", "http://localhost:8050", "http://["],
)
def test_a_page_from_elsewhere_gets_no_answer(origin):
    headers = {"Host": "127.0.0.1:8050", "Origin": origin}
    assert served(LOCAL).post("/", headers=headers).status_code == 403


def test_a_page_of_ones_own_gets_its_answer():
    headers = {"Host": "127.0.0.1:8050", "Origin": "http://127.0.0.1:8050"}
    assert served(LOCAL).post("/", data="x", headers=headers).text == "x"


WIDE = Gate("0.0.0.0", 8050, token="the-token")
THERE = {"Host": "192.168.1.5:8050"}


def test_beyond_this_machine_a_token_is_made_and_asked_for():
    made = Gate.of("0.0.0.0", 1)
    assert len(made.token) >= 32
    assert made.token != Gate.of("0.0.0.0", 1).token
    client = served(WIDE)
    for path in ("/", "/?token=", "/?token=the-toke", "/?token=the-tokens"):
        answer = client.get(path, headers=THERE)
        assert answer.status_code == 401
        assert "the-token" not in answer.text
        assert "home" not in answer.text


def test_the_token_is_shown_once_and_a_cookie_remembers_it():
    client = served(WIDE)
    first = client.get("/?token=the-token&text=a%20b", headers=THERE)
    assert first.status_code == 302
    assert first.headers["Location"] == "/?text=a+b"
    cookie = first.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    known = {"HTTP_COOKIE": cookie.split(";")[0]}
    bare = served(WIDE).application.test_client(use_cookies=False)
    assert bare.get("/", headers=THERE, environ_overrides=known).text == "home"
    assert bare.get("/", headers=THERE).status_code == 401


@pytest.mark.parametrize(
    ("path", "leads"), [("//evil.test", "/evil.test"), ("/\\evil.test", "/%5Cevil.test")]
)
def test_the_way_in_leads_to_no_other_site(path, leads):
    there = {"PATH_INFO": path}
    answer = served(WIDE).get("/?token=the-token", headers=THERE, environ_overrides=there)
    assert answer.headers["Location"] == leads


def test_the_token_stands_in_no_link_of_whoever_is_known_already():
    client = served(WIDE)
    client.set_cookie(WIDE.cookie, "the-token", domain="10.0.0.7")
    answer = client.get("/?token=the-token&text=a", headers=THERE)
    assert (answer.status_code, answer.headers["Location"]) == (302, "/?text=a")
    assert client.get("/?text=a", headers=THERE).text == "home"


def test_letters_that_are_none_are_refused():
    for gate, host in ((LOCAL, HERE), (WIDE, THERE)):
        there = {"QUERY_STRING": "token=the-token&text=\xff"}
        answer = served(gate).get("/", headers=host, environ_overrides=there)
        assert (answer.status_code, answer.text) == (400, "The address is not in UTF-8.\n")


def test_tokens_are_compared_in_constant_time(monkeypatch):
    compared, plain = [], hmac.compare_digest

    def compare(one, other):
        compared.append((one, other))
        return plain(one, other)

    monkeypatch.setattr(guard.hmac, "compare_digest", compare)
    assert WIDE.admits("the-token")
    assert not WIDE.admits(None)
    assert not WIDE.admits("đ")
    assert len(compared) == 3


def test_beyond_this_machine_an_address_may_be_asked_for_and_a_strange_name_not():
    assert WIDE.refusal("10.0.0.7:8050", None) == ""
    assert "does not go by the name" in WIDE.refusal("evil.test:8050", None)
    named = Gate("0.0.0.0", 8050, "x", names=("lab.example",))
    assert named.refusal("lab.example:8050", None) == ""


def test_two_servers_of_one_machine_have_cookies_of_their_own():
    assert Gate("0.0.0.0", 1, "x").cookie != Gate("0.0.0.0", 2, "x").cookie


@pytest.mark.parametrize(
    ("host", "own"),
    [
        *((host, True) for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost")),
        *((host, False) for host in ("0.0.0.0", "::", "192.168.0.2", "localhost.evil.test")),
    ],
)
def test_which_addresses_are_this_machines_alone(host, own):
    assert is_loopback(host) is own


def test_what_is_too_large_is_not_read():
    client, here = served(LOCAL), {"Host": "127.0.0.1:8050"}
    large = client.post("/", data=b"x" * (guard.MOST_BYTES + 1), headers=here)
    assert large.status_code == 413
    long = client.get("/?" + "a" * guard.LONGEST_ADDRESS, headers=here)
    assert long.status_code == 414


def test_every_answer_says_what_a_page_may_do():
    for host in ("127.0.0.1:8050", "evil.test:8050"):
        headers = served(LOCAL).get("/", headers={"Host": host}).headers
        assert headers["Content-Security-Policy"] == POLICY
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
    assert "script-src 'self' 'sha256-abc';" in POLICY
    assert "unsafe-eval" not in POLICY
    assert "default-src 'none'" in POLICY
