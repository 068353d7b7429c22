"""A page without a browser: it sends what a page sends, and takes what a page would show."""

from __future__ import annotations

import base64
import json
import re
import time
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from asked_panels import followed

Answer = tuple[int, str]
PATIENCE = 300.0
"""Seconds that anything may take on a busy machine."""


class Caller:
    """Calls callbacks by what they put out.

    Args:
        send: takes a path, and what is posted there or None, and gives the status and the text.
    """

    def __init__(self, send: Callable[[str, object], Answer]) -> None:
        self.send = send
        listed = json.loads(send("/_dash-dependencies", None)[1])
        self.callbacks = {one["output"]: one for one in listed}

    def call(self, output: str, changed: str = "", **given: Any) -> Any:
        """What the callback with this among its outputs gives, or None where it changes nothing.

        By what changed, or else by what it listens to first.

        ``given`` are properties by ``component.property``; the parts of an address follow it.
        """
        name, one = next(
            (key, one)
            for key, one in self.callbacks.items()
            if re.search(rf"(^|\.\.){re.escape(output)}(@|\.\.|$)", key)
            and changed in ("", *(f"{i['id']}.{i['property']}" for i in one["inputs"]))
        )
        changed = changed or "{id}.{property}".format(**one["inputs"][0])
        given = followed(given.get("address.search", "")) | given

        def filled(part):
            if "{" in part["id"]:
                return []
            key = f"{part['id']}.{part['property']}"
            return {**part, "value": given.get(key)}

        outputs = [
            {"id": i, "property": p}
            for i, p in re.findall(r"([^.@]+|\{[^}]+\})\.([\w-]+)(?:@[0-9a-f]+)?", name.strip("."))
        ]
        body = {
            "output": name,
            "outputs": outputs if name.startswith("..") else outputs[0],
            "inputs": [filled(part) for part in one["inputs"]],
            "state": [filled(part) for part in one["state"]],
            "changedPropIds": [changed],
        }
        status, answer = self.send("/_dash-update-component", body)
        assert status in (200, 204), answer
        return json.loads(answer)["response"] if status == 200 else None


class Visitor:
    """Somebody at an address of a server that runs, who sees what a browser there would."""

    def __init__(self, home: str, search: str, name: str) -> None:
        self.home, self.search, self.name = home, search, name
        self.caller = Caller(self._send)
        self.ready: Mapping[str, str] | None = None  # what a page knows of its model

    def mapped(self) -> Mapping[str, Any]:
        """What is drawn and listed of the map, once it is whole; a large one is asked for."""
        self.begun()
        return self.until(self._drawn)

    def begun(self) -> Mapping[str, Any]:
        """How far the map is, once it has begun."""
        self.ready = self.until(self._loaded)
        return self.until(self._begun)

    def asked(self, output: str) -> Any:
        """What a property becomes at this address."""
        name, _, kind = output.partition(".")
        return self._call(output)[name][kind]

    def until(self, look: Callable[[], Any]) -> Any:
        """Look again and again, as often as a page does, until something is there."""
        until = time.monotonic() + PATIENCE
        while (found := look()) is None:
            assert time.monotonic() < until, "it never came to this"
            time.sleep(0.4)
        return found

    def _loaded(self) -> Mapping[str, str] | None:
        told = self.caller.call("ready.data", **{"address.search": self.search})["ready"]["data"]
        assert told["state"] != "failed", told["why"]
        return told if told["state"] == "ready" else None

    def _begun(self) -> Mapping[str, Any] | None:
        told = self._call("grown.data")
        if not told["map-compute"]["hidden"]:
            told = self._call("grown.data", "map-compute.n_clicks")
        return told["grown"]["data"]

    def _drawn(self) -> Mapping[str, Any] | None:
        grown = self._call("grown.data")["grown"]["data"]
        assert grown["state"] in ("waiting", "running", "done"), grown
        if grown["state"] != "done":
            return None
        return self._call("map-figure.figure", **{"grown.data": grown})

    def _call(self, output: str, changed: str = "", **given: Any) -> Any:
        known = {"address.search": self.search, "ready.data": self.ready, "asker.data": self.name}
        return self.caller.call(output, changed, **known | given)

    def _send(self, path: str, body: object) -> Answer:
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(
            self.home.rstrip("/") + path, data, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()


def numbers(figure: Mapping[str, Any]) -> np.ndarray:
    """The numbers of a map as a page is sent them, ``[row, column]``."""
    told = figure["data"][0]["z"]
    if not isinstance(told, dict):
        return np.array(told, dtype=float)
    flat = np.frombuffer(base64.b64decode(told["bdata"]), dtype=told["dtype"])
    return flat.reshape([int(n) for n in str(told["shape"]).split(",")])
