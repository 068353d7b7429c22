"""The lab's server: the app, put together, and served until somebody stops it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from dash import Dash
from dash.development.base_component import Component
from dash.exceptions import DependencyException
from flask import Response, has_request_context, request
from waitress import create_server, wasyncore
from waitress.server import BaseWSGIServer

from microtome.errors import MicrotomeError
from microtome.frontends.lab import guard, posts, shell
from microtome.frontends.lab.desk import Desk
from microtome.frontends.lab.guard import Gate
from microtome.frontends.lab.jobs import Jobs
from microtome.frontends.lab.panels import Context
from microtome.texts import Texts

THREADS = 12
"""Requests that are answered at once."""

PAGE = """<!DOCTYPE html>
<html lang="{%lang%}">
<head>
{%metas%}
<title>{%title%}</title>
{%favicon%}
{%css%}
</head>
<body>
{%app_entry%}
<footer>{%config%}{%scripts%}{%renderer%}</footer>
</body>
</html>"""


class Lab(Dash):
    """A Dash app whose page comes in the language of its address."""

    context: Context

    def layout_in(self, lang: str) -> Component:
        """The page in one language."""
        return shell.page(self.context.words(lang), self.context)

    def asked_for(self) -> Component:
        """The page in the language of the address that asks for it."""
        return self.layout_in(self.words.lang)

    @property
    def words(self) -> Texts:
        """All that is said, in the language of the page that asks."""
        return self.context.words(self.context.view(_asking()).lang)

    def interpolate_index(self, **parts: str) -> str:
        """The page's HTML."""
        made: str = super().interpolate_index(**parts)
        query = request.query_string.decode(errors="replace")
        return made.replace("{%lang%}", self.context.view(query).lang)


def _asking() -> str:
    """The query of the page that asks: what a page asks for names it."""
    try:
        return urlsplit(request.referrer or "").query if has_request_context() else ""
    except ValueError:  # no address at all: no page sends that
        return ""


def build_app(desk: Desk, jobs: Jobs, gate: Gate, lang: str = "en") -> Dash:
    """The lab as an app: everything that it shows is served from here, and nothing else.

    Args:
        desk: the models.
        jobs: the sweeps.
        gate: who is let in.
        lang: the language of a page that names none.
    """
    app: Lab = Lab(
        "microtome lab",
        assets_folder=str(Path(__file__).parent / "assets"),
        title="microtome lab",
        update_title="",
        index_string=PAGE,
        serve_locally=True,
        suppress_callback_exceptions=True,  # panels come with their language
        add_log_handler=False,
        on_error=lambda error: shell.failed(error, app.words),
        enable_mcp=False,
        hooks={
            "request_pre": "(asked) => dash_clientside.address.asks(asked)",
            "request_post": "(asked, answer) => dash_clientside.address.answered(asked, answer)",
        },
    )
    context = app.context = Context(desk, jobs, lang)

    app.layout = app.asked_for
    shell.register(app, context)
    guard.install(app.server, gate, guard.policy_of(app.csp_hashes()))
    posts.install(app)  # behind the gate: whoever is not let in hears nothing of the form
    app.server.register_error_handler(DependencyException, _absent)
    return app


def _absent(error: DependencyException) -> Response:
    """A file of Dash's that there is not, in an address that no page has."""
    return Response("There is no such file.\n", 404, mimetype="text/plain")


def serve(
    desk: Desk,
    jobs: Jobs,
    *,
    host: str = "127.0.0.1",
    port: int = 8050,
    lang: str = "en",
    started: Callable[[str], object] = lambda url: None,
    stop: threading.Event | None = None,
) -> None:
    """Serve the lab until it is stopped; then cancel what runs, and keep what is finished.

    Args:
        desk: the models.
        jobs: the sweeps.
        host: where to listen.
        port: 0 for any that is free.
        lang: the language of a page that names none.
        started: is told what to open, with the token where one is asked for.
        stop: ends it when it is set; an interrupt does as well.

    Raises:
        MicrotomeError: the place is taken, or may not be listened at.
    """
    wanted = stop or threading.Event()
    with _listening(host, port) as listener:
        gate = Gate.of(host, int(listener.getsockname()[1]))
        server = create_server(
            build_app(desk, jobs, gate, lang).server,
            sockets=[listener],
            threads=THREADS,
            ident="microtome lab",
            max_request_body_size=guard.MOST_BYTES,
            clear_untrusted_proxy_headers=True,
        )
        thread = threading.Thread(target=server.run, name="lab server", daemon=True)
        try:
            thread.start()
            desk.state(desk.default)  # begin to load it
            started(_url(gate))
            while not wanted.wait(0.5):  # a wait without end hears no signal on some systems
                pass
        finally:
            jobs.close()
            desk.close()
            _end(server, thread)


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        MicrotomeError: the place is taken, or may not be listened at.
    """
    try:
        [(family, *_, address), *_] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return socket.create_server(address, family=family)
    except (OSError, OverflowError) as error:
        raise MicrotomeError(
            f"Cannot listen at {host}:{port} ({error}): take another with --port, or --host."
        ) from None


def _end(server: BaseWSGIServer, thread: threading.Thread) -> None:
    """Close a server's connections, in the thread that looks after them."""
    server.trigger.pull_trigger(lambda: wasyncore.close_all(server._map))
    thread.join(5.0)
    server.task_dispatcher.shutdown()


def _url(gate: Gate) -> str:
    name = f"[{gate.host}]" if ":" in gate.host else gate.host
    token = f"?{guard.TOKEN}={gate.token}" if gate.token else ""
    return f"http://{name}:{gate.port}/{token}"
