"""Callbacks of the lab's panels, asked as a page asks them, without a browser."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dash import Dash
from dash.development.base_component import Component
from flask import Flask

from microtome.frontends.lab.panels import TABS, Context, Panel
from microtome.frontends.lab.panels.panel import seen
from microtome.frontends.lab.state import View

Given = Mapping[str, Any]
"""``"<id>.<property>"`` → its value; of components of a type, ``"<type>.<property>"`` → pairs of an
id and a value."""


def followed(search: str) -> dict[str, str]:
    """What a page's script makes of its address, for panels that are asked whether or not they are
    open: its parts, each with more than they look at."""
    stores = ("question", *(seen(one.name) for one in TABS))
    return {"address.search": search, **{f"{store}.data": search for store in stores}}


@dataclass
class Page:
    """The panels of answers, on models that are there."""

    app: Dash
    context: Context

    @classmethod
    def on(cls, context: Context, panels: Sequence[Panel] = TABS) -> Page:
        app = Dash("test", server=Flask("test"), suppress_callback_exceptions=True)
        app.layout = [panel.layout(context.words("en")) for panel in panels]
        for panel in panels:
            panel.register(app, context)
        return cls(app, context)

    def shown(
        self, output: str, view: View, given: Given | None = None, by: str = "address.search"
    ) -> Any:
        """What a component's property becomes in a view."""
        key = next(k for k in self.app.callback_map if output in _outputs(k))
        name, _, kind = output.partition(".")
        return self._called(key, view, given or {}, by)[name][kind]

    def change(self, by: str, view: View, given: Given) -> View | None:
        """The view that a change of a component leads to; None: it stays."""
        [key] = [
            k
            for k, one in self.app.callback_map.items()
            if by in map(_name, one["inputs"]) and "address.search" in _outputs(k)
        ]
        moved = self._called(key, view, given, by).get("address", {}).get("search")
        return None if moved is None else self.context.view(moved)

    def _called(self, key: str, view: View, given: Given, by: str) -> dict[str, Any]:
        view_model = self.context.view(view.to_query()).model
        ready = {"model": view_model, "state": "ready", "why": ""}
        values = {**followed(view.to_query()), "ready.data": ready, **given}
        one = self.app.callback_map[key]
        outputs = [
            dict(zip(("id", "property"), name.rsplit(".", 1), strict=True))
            for name in key.strip(".").split("...")
        ]
        body = {
            "output": key,
            "outputs": outputs if key.startswith("..") else outputs[0],
            "inputs": [_filled(each, values) for each in one["inputs"]],
            "state": [_filled(each, values) for each in one["state"]],
            "changedPropIds": [_changed(by, values)],
        }
        answer = self.app.server.test_client().post("/_dash-update-component", json=body)
        assert answer.status_code in (200, 204), answer.text
        return with_tables(answer.json["response"]) if answer.status_code == 200 else {}


def with_tables(node: Any) -> Any:
    """A part of a page with its tables, as the page's own script makes them."""
    if isinstance(node, list):
        return [with_tables(one) for one in node]
    if not isinstance(node, dict):
        return node
    if "data-table" not in node:
        return {name: with_tables(one) for name, one in node.items()}
    told = json.loads(node["data-table"])
    lines = [[_made(kind, one) for one in row] for kind, row in _lines(told)]
    head, *body = [_made("Tr", line) for line in lines]
    parts = [_made("Caption", told["title"]), _made("Thead", [head]), _made("Tbody", body)]
    return {**node, "children": _made("Table", parts)}


def _lines(told: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    yield "Th", told["heads"]
    for row in told["rows"]:
        yield "Td", [one["piece"] if isinstance(one, dict) else one for one in row]


def _made(kind: str, children: Any) -> dict[str, Any]:
    return {"type": kind, "props": {"children": children}}


def _outputs(key: str) -> list[str]:
    return [name.partition("@")[0] for name in key.strip(".").split("...")]


def _name(each: Mapping[str, str]) -> str:
    name = json.loads(each["id"])["type"] if each["id"].startswith("{") else each["id"]
    return f"{name}.{each['property']}"


def _filled(each: Mapping[str, str], values: Given) -> Any:
    value = values.get(_name(each))
    if not each["id"].startswith("{"):
        return {"id": each["id"], "property": each["property"], "value": value}
    return [{"id": of, "property": each["property"], "value": own} for of, own in value or ()]


def _changed(by: str, values: Given) -> str:
    """The component that calls, as the page names it: the first of a type that has a value."""
    value, kind = values.get(by), by.rpartition(".")[2]
    if not isinstance(value, list):
        return by
    of = next((of for of, own in value if own), value[0][0])
    return f"{json.dumps(of, sort_keys=True, separators=(',', ':'))}.{kind}"


def texts(node: Any) -> list[str]:
    """Every text of a part of a page, in order."""
    if isinstance(node, str):
        return [node]
    if isinstance(node, list):
        return [text for one in node for text in texts(one)]
    if isinstance(node, Component):
        return texts(getattr(node, "children", None))
    return texts(node["props"].get("children", [])) if isinstance(node, dict) else []


def within(node: Any, kind: str) -> list[dict[str, Any]]:
    """The properties of every component of a kind in a part of a page."""
    if isinstance(node, list):
        return [found for one in node for found in within(one, kind)]
    if not isinstance(node, dict):
        return []
    own = [node["props"]] if node.get("type") == kind else []
    return [*own, *within(node["props"].get("children", []), kind)]


def rows(node: Any) -> list[list[str]]:
    """The rows of all tables in a part of a page, without heads, each cell as a text."""
    return [
        ["".join(texts(cell)) for cell in row["children"]]
        for body in within(node, "Tbody")
        for row in within(body["children"], "Tr")
    ]
