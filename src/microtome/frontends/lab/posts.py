"""What a page posts: of the form that its callback takes, or it is told so and nothing is called.

A page posts what Dash has it post. Whoever writes a post by hand may send anything: another shape,
a component that there is not, a word in the place of a number. That is no fault of the server's,
and is answered by a sentence (400) before any callback sees it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from dash import Dash
from flask import Response, request

from microtome.frontends.lab.examples import EXAMPLES
from microtome.frontends.lab.panels.ask import TASKS
from microtome.frontends.lab.panels.keep import FORMS
from microtome.frontends.lab.panels.panel import GROWING, grown_for, ready_for, seen
from microtome.frontends.lab.panels.showing import TABS
from microtome.language.sites import SITES

PATH = "/_dash-update-component"
"""Where a page posts."""
LARGEST = 2**53
"""No number of clicks, and no token's, is larger: a browser cannot count further."""

Check = Callable[[Any], bool]


def install(app: Dash) -> None:
    """Look at every post before its callback is called.

    Args:
        app: with all its callbacks.
    """

    @app.server.before_request
    def check() -> Response | None:
        if request.path != PATH or request.method != "POST":
            return None
        wrong = complaint(_body(), app.callback_map) if request.is_json else NO_JSON
        return Response(wrong + "\n", 400, mimetype="text/plain") if wrong else None


NO_JSON = "A page posts JSON, and says so (Content-Type: application/json)."


def complaint(body: object, callbacks: Mapping[str, Mapping[str, Any]]) -> str:
    """What is wrong with a post, in a sentence; "" where nothing is.

    Args:
        body: what was posted.
        callbacks: as Dash keeps them: name → what it takes.

    >>> complaint([], {})
    'A post has fields: output, outputs, inputs, state and changedPropIds.'
    >>> complaint({"output": "nowhere.children"}, {})
    'Nothing here puts out what the field output names.'
    """
    if not isinstance(body, dict):
        return "A post has fields: output, outputs, inputs, state and changedPropIds."
    name = body.get("output")
    one = callbacks.get(name, {}) if isinstance(name, str) else {}
    if "callback" not in one:  # it is not there, or the browser's own
        return "Nothing here puts out what the field output names."
    for field in ("inputs", "state"):
        if not _are(body.get(field, []), one[field]):
            return f"The field {field} is not what is taken here: other components or values."
    if not _puts_out(body.get("outputs"), str(name)):
        return "The field outputs does not name what the field output does."
    changed = body.get("changedPropIds", [])
    if not isinstance(changed, list) or not all(_changes(each, one["inputs"]) for each in changed):
        return "The field changedPropIds names what is no input here."
    return ""


def _body() -> object:
    """What was posted; None of what is no JSON."""
    try:
        return json.loads(request.get_data())
    except (ValueError, RecursionError):
        return None


# ------------------------------------------------------------------------- components and values


def _are(given: object, wanted: list[dict[str, str]]) -> bool:
    """Whether values are those of the components that a callback takes, in order."""
    return (
        isinstance(given, list)
        and len(given) == len(wanted)
        and all(_is(own, one) for own, one in zip(given, wanted, strict=True))
    )


def _is(given: object, wanted: Mapping[str, str]) -> bool:
    """Whether it is a component's property and its value; or a list, of components of a type."""
    if not _is_type(wanted["id"]):
        return _is_one(given, wanted)
    return isinstance(given, list) and all(_is_one(each, wanted) for each in given)


def _is_one(given: object, wanted: Mapping[str, str]) -> bool:
    if not isinstance(given, dict) or given.get("property") != wanted["property"]:
        return False
    if not _is_named(given.get("id"), wanted["id"]):
        return False
    check = VALUES.get(f"{_called(wanted['id'])}.{wanted['property']}") or VALUES.get(
        wanted["property"], _anything
    )
    value = given.get("value")
    return value is None or check(value)


def _is_named(given: object, wanted: str) -> bool:
    """Whether an id is the wanted one, or of the wanted type."""
    if not _is_type(wanted):
        return given == wanted
    keys = json.loads(wanted)
    return (
        isinstance(given, dict)
        and given.keys() == keys.keys()
        and given["type"] == keys["type"]
        and all(PARTS.get(key, _text)(value) for key, value in given.items())
        and NAMES.get(keys["type"], _text)(given.get("name", ""))
    )


def _is_type(name: str) -> bool:
    """Whether an id stands for all components of a type."""
    return name.startswith("{")


def _called(name: str) -> str:
    return str(json.loads(name)["type"]) if _is_type(name) else name


def _puts_out(given: object, name: str) -> bool:
    """Whether outputs are those that a callback's name lists."""
    wanted = name.strip(".").split("...")
    several = given if name.startswith("..") else [given]
    return (
        isinstance(several, list)
        and len(several) == len(wanted)
        and all(_is_output(own, one) for own, one in zip(several, wanted, strict=True))
    )


def _is_output(given: object, wanted: str) -> bool:
    if not isinstance(given, dict):
        return False
    component, _, kind = wanted.rpartition(".")
    said = given.get("property")
    # Of several callbacks that put out the same, each has a mark of its own behind an @.
    same = isinstance(said, str) and said.partition("@")[0] == kind.partition("@")[0]
    return same and given.get("id") == component


def _changes(given: object, wanted: list[dict[str, str]]) -> bool:
    """Whether it names an input, such as ``"map-edit.n_blur"``."""
    if not isinstance(given, str):
        return False
    return any(
        kind == one["property"] and _is_named(name, one["id"])
        for one in wanted
        for name, kind in _split(given, one["id"])
    )


def _split(given: str, wanted: str) -> Iterator[tuple[object, str]]:
    """The id and the property that a text names, where it is of the wanted kind."""
    name, _, kind = given.rpartition(".")
    if not _is_type(wanted):
        yield name, kind
        return
    try:
        yield json.loads(name), kind
    except (ValueError, RecursionError):
        return


def _anything(value: object) -> bool:
    return True


def _text(value: object) -> bool:
    return isinstance(value, str)


def _number(value: object) -> bool:
    """A number that a browser can count to; a truth value is none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST


def _whole(value: object) -> bool:
    """A count, or a place."""
    return _number(value) and isinstance(value, int) and value >= 0


def _one_of(names: Collection[str]) -> Check:
    return lambda value: isinstance(value, str) and value in names


def _digits(value: object) -> bool:
    return isinstance(value, str) and value.isdecimal() and len(value) < 10


def _fields(**checks: Check) -> Check:
    """Fields that have to be there; others may be."""

    def check(value: Any) -> bool:
        return isinstance(value, dict) and all(
            name in value and one(value[name]) for name, one in checks.items()
        )

    return check


def _listed(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


PARTS: Mapping[str, Check] = {"at": _whole}
"""Part of an id → what it is; others are texts."""

NAMES: Mapping[str, Check] = {
    "ask-example": _one_of(EXAMPLES),
    "ask-task": _one_of(TASKS),
    "map-site": _one_of(SITES),
}
"""Type of components whose names the server looks up → what those can be."""

MODEL = _fields(model=_text, state=_text, why=_text)
MAP = _fields(key=_text, state=_text, units=_whole)

VALUES: Mapping[str, Check] = {
    "search": _text,
    "value": _text,
    "data-value": _text,
    "aria-pressed": _text,
    "n_clicks": _whole,
    "n_blur": _whole,
    "n_submit": _whole,
    "n_intervals": _whole,
    "id": _fields(type=_text),
    "write-steps.value": _number,
    "map-pick.data-value": _digits,
    "keep-form.value": _one_of(FORMS),
    **{f"{store}.data": MODEL for store in ("ready", *map(ready_for, TABS))},
    **{f"{store}.data": MAP for store in ("grown", *map(grown_for, GROWING))},
    **{f"{store}.data": _text for store in ("asker", "named", "question", *map(seen, TABS))},
    "keep-visited.data": _listed,
}
"""Property, or a component's, or a type's → whether a value can be its; others may be anything."""
