"""Who is let in to the lab, and what is refused: asked by hand, header by header."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from frontends.lab.browsing import GIFT, PLANTED, query, serving


def asked(server, path="/", method="GET", body=None, **headers):
    """A request as it is written here, with nothing put in but ``Host`` where none is given."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=300)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        given = {"Host": f"127.0.0.1:{server.port}", **headers}
        for name, value in given.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()
    finally:
        connection.close()


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "", "[::1",
     "127.0.0.1.evil.example:{port}", "user@evil.example:{port}", "10.0.0.1:{port}"],
)  # fmt: skip
def test_a_host_of_another_name_is_refused(lab, host):
    status, _, said = asked(lab, Host=host.format(port=lab.port))
    assert status in (400, 403)
    assert "dash" not in said


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "[::1]"])
def test_this_machines_own_names_are_let_in(lab, name):
    assert asked(lab, Host=f"{name}:{lab.port}")[0] == 200


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "http://127.0.0.1:1", "http://localhost.evil.example:{port}",
     "file://", "http://evil.example#127.0.0.1:{port}"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_page_of_elsewhere_is_refused(lab, origin, method):
    path = "/" if method == "GET" else "/_dash-update-component"
    given = {"Origin": origin.format(port=lab.port), "Content_Length": "0"}
    assert asked(lab, path, method, **given)[0] == 403


def test_its_own_page_is_let_in(lab):
    assert asked(lab, Origin=f"http://127.0.0.1:{lab.port}")[0] == 200


def test_a_large_body_is_refused_unread(lab):
    for size in (20_000_000, 600_000):  # whoever sent it all could find the line cut
        given = {"Content_Length": str(size), "Content_Type": "application/json"}
        assert asked(lab, "/_dash-update-component", "POST", **given)[0] == 413


def test_a_long_address_is_refused(lab):
    assert asked(lab, "/?text=" + "a" * 70_000)[0] in (414, 431, 400)


def test_every_answer_says_that_a_page_reaches_nothing_but_this_server(lab):
    for path in ("/", "/_dash-layout", "/nothing", "/keep/map.png", "/assets/lab.js"):
        _, headers, _ = asked(lab, path)
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe-eval" not in policy
        assert "'unsafe-inline'" not in re.search("script-src[^;]*", policy)[0]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"


@pytest.mark.parametrize(
    "path",
    ["/assets/../server.py", "/assets/..%2fserver.py", "/keep/..%2f..%2fpyproject.toml",
     "/keep/%2e%2e/etc/passwd", "/keep/%3Cscript%3Ealert(1)%3C/script%3E", "/keep/map.jpg"],
)  # fmt: skip
def test_no_other_file_is_served_and_no_address_is_repeated(lab, path):
    status, headers, said = asked(lab, path)
    if status == 200:
        assert _page(said) == _page(asked(lab)[2])  # Dash answers what it does not know with that
    else:
        assert status == 404
        assert "import" not in said
    assert headers.get_content_type() != "text/html" or "alert" not in said


def _page(said):
    """The page without what is drawn by lot for each who asks."""
    return re.sub(r'"\w+":"[\w-]+~[0-9a-f]+"', "", said)


def test_a_file_is_saved_and_never_opened_as_a_page(lab):
    status, headers, said = asked(lab, "/keep/circuit.json" + query(pin="m0->logits", **GIFT))
    assert status == 200
    assert headers["Content-Disposition"] == 'attachment; filename="microtome-circuit.json"'
    assert json.loads(said)["edges"]["m0->logits"]["in_graph"] is True


def test_a_file_of_what_was_not_computed_says_so_as_plain_text(lab):
    status, headers, said = asked(lab, "/keep/map.png" + query(text=PLANTED))
    assert status == 404
    assert headers.get_content_type() == "text/plain"
    assert "not computed" in said


@pytest.mark.slow
def test_a_model_that_nobody_named_is_not_loaded_for_others(tmp_path):
    """Beyond this machine a path is not typed, and everything needs the token."""
    server = serving(tmp_path, "--host", "0.0.0.0")
    try:
        token = re.search(r"token=([\w-]+)", server.url)[1]
        assert len(token) >= 32
        assert sum(token in line for line in server.said) == 1
        pages = ("/", "/_dash-layout", "/assets/lab.js", "/keep/map.png")
        for path in (*pages, "/?token=", "/?token=x", f"/?token={token[:-1]}", f"/?token={token}x"):
            status, headers, said = asked(server, path)
            assert status == 401, path
            assert token not in said
            assert "Set-Cookie" not in headers
        for wrong in ("x", token[:-1], f"{token}%20"):
            assert asked(server, Cookie=f"microtome_lab={wrong}")[0] == 401

        status, headers, _ = asked(server, f"/?text=Berlin%20is&token={token}")
        assert status == 302
        assert headers["Location"] in ("/?text=Berlin+is", "/?text=Berlin%20is")
        cookie, *flags = headers["Set-Cookie"].split("; ")
        assert {"HttpOnly", "SameSite=Strict"} <= set(flags)
        assert asked(server, Cookie=cookie)[0] == 200
        assert asked(server, Cookie=cookie, Origin="http://evil.example")[0] == 403
        path = "/keep/circuit.json" + query(pin="m0->logits", model="/etc", text="It is")
        status, _, said = asked(server, path, Cookie=cookie)
        assert status == 404
        assert "'/etc' is not offered here" in said
    finally:
        ended = server.end()  # as Ctrl-C does it
    told = "".join(server.said)
    assert ended == 130
    assert "Interrupted." in told
    assert "Traceback" not in told


@pytest.mark.slow
def test_an_interpreter_of_its_own_serves_and_ends(tmp_path):
    """The servers of other tests are copies of one that has imported all: no user's is."""
    pytest.importorskip("dash", reason="the extra 'lab' is not installed")
    command = ["-m", "microtome", "lab", "nano", "--port", "0", "--no-open", "--keep"]
    with subprocess.Popen(
        [sys.executable, *command, str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8",
    ) as process:  # fmt: skip
        try:
            line = next(line for line in process.stdout if "http://" in line)
            port = int(re.search(r"127\.0\.0\.1:(\d+)", line)[1])
            assert asked(SimpleNamespace(port=port))[0] == 200
            process.send_signal(signal.SIGINT)
            said = process.stdout.read()
        finally:
            process.kill()
    assert process.returncode == 130
    assert "Traceback" not in said
