"""Who may ask the lab anything, and what a page of it may do in a browser.

On the loopback address whoever sits at the machine may; another site's page, open in the same
browser, may not: a request's ``Host`` has to be this server (so that no name of somebody else's
that was made to point here gets an answer), and its ``Origin`` the same. Elsewhere a token is
asked for besides, once: a cookie remembers it.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from flask import Flask, Response, redirect, request
from werkzeug.wrappers import Response as BaseResponse

MOST_BYTES = 512 * 1024
"""Of what a browser sends."""
LONGEST_ADDRESS = 64 * 1024
"""Letters of what it asks for."""
COOKIE, TOKEN = "microtome_lab", "token"
LOOPBACK = ("127.0.0.1", "localhost", "::1")

HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Gate:
    """Who is let in.

    Attributes:
        host: the address that is listened at.
        port: its port.
        token: what has to be known; "" where nothing has to.
        names: more names that the server goes by.
    """

    host: str
    port: int
    token: str = ""
    names: Sequence[str] = ()

    @classmethod
    def of(cls, host: str, port: int, names: Sequence[str] = ()) -> Gate:
        """The gate of an address: with a new token, unless only this machine reaches it."""
        token = "" if is_loopback(host) else secrets.token_urlsafe(24)
        return cls(host, port, token, names)

    @property
    def cookie(self) -> str:
        """The name of the cookie: one of its own for each port, as cookies know no ports."""
        return f"{COOKIE}_{self.port}"

    def refusal(self, host: str, origin: str | None) -> str:
        """Why a request is refused, by its headers ``Host`` and ``Origin``; "" where it is not."""
        if not self._knows(host):
            return (
                f"This server does not go by the name {host!r}. Open the address that "
                "'microtome lab' printed."
            )
        if origin is not None and _place(origin) != host:
            return f"A page of {origin!r} may not ask this server anything."
        return ""

    def admits(self, given: str | None) -> bool:
        """Whether a token is the one, in a time that says nothing of how near it is."""
        return not self.token or hmac.compare_digest((given or "").encode(), self.token.encode())

    def _knows(self, host: str) -> bool:
        try:
            parts = urlsplit(f"//{host}")
            name, port = parts.hostname or "", parts.port or 80
        except ValueError:
            return False
        if port != self.port:
            return False
        if name in LOOPBACK or name in (self.host, *self.names):
            return True
        # Only a name can be made to point here by somebody else: an address is what it says.
        return not is_loopback(self.host) and _is_address(name)


def install(server: Flask, gate: Gate, policy: str) -> None:
    """Put a gate in front of everything that a server answers.

    Args:
        server: the server.
        gate: who is let in.
        policy: what pages may do, as ``Content-Security-Policy`` says it.
    """
    server.config["MAX_CONTENT_LENGTH"] = MOST_BYTES

    @server.before_request
    def check() -> BaseResponse | None:
        refused = gate.refusal(request.host, request.headers.get("Origin"))
        if refused:
            return _plain(refused, 403)
        if len(request.path) + len(request.query_string) > LONGEST_ADDRESS:
            return _plain("The address is too long.", 414)
        if not _is_text(request.query_string):
            return _plain("The address is not in UTF-8.", 400)
        if (request.content_length or 0) > MOST_BYTES:
            return _plain(f"More than {MOST_BYTES // 1024} KiB are not taken.", 413)
        if not gate.admits(request.cookies.get(gate.cookie)):
            return _introduced(gate)
        # Once more with its token: it would stand in every link that is copied from the page.
        return _without_token() if gate.token and TOKEN in request.args else None

    @server.after_request
    def protect(response: Response) -> Response:
        response.headers.update(HEADERS)
        response.headers["Content-Security-Policy"] = policy
        return response


def policy_of(hashes: Sequence[str]) -> str:
    """What a page may do: run the scripts of this server, and reach nothing else.

    Args:
        hashes: of the scripts that stand in the page itself.
    """
    scripts = " ".join(f"'{one.strip(chr(39))}'" for one in hashes)
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src 'self' {scripts}".rstrip(),
            "style-src 'self' 'unsafe-inline'",  # plotly and React style what they draw
            "img-src 'self' data: blob:",
            "font-src 'self' data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )


def _introduced(gate: Gate) -> BaseResponse:
    """Let somebody in who has the token in the address, and take it out of there."""
    if not gate.admits(request.args.get(TOKEN)):
        return _plain("Open the address with the token that 'microtome lab' printed.", 401)
    response = _without_token()
    response.set_cookie(gate.cookie, gate.token, httponly=True, samesite="Strict")
    return response


def _without_token() -> BaseResponse:
    """The same address without the token."""
    pairs = parse_qsl(request.query_string.decode(), keep_blank_values=True)
    rest = urlencode([(key, value) for key, value in pairs if key != TOKEN])
    # Two slashes in front would lead to another site, and browsers take a backslash for one.
    here = "/" + quote(request.path.lstrip("/"))
    return redirect(here + ("?" + rest if rest else ""))


def _is_text(query: bytes) -> bool:
    try:
        query.decode()
    except UnicodeDecodeError:
        return False
    return True


def _place(origin: str) -> str:
    """Host and port of an origin; "" of what is none."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _plain(text: str, code: int) -> Response:
    return Response(text + "\n", code, mimetype="text/plain")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
