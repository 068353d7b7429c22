"""``microtome study list``, without importing the studies: a file beside them says what they are.

``python -m recipes.listed`` (``make listed``) makes the file from the studies, and a test holds
that it is of today's.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from microtome.frontends.arguments import Shown
from microtome.frontends.shown import Table, print_json, print_table, say
from microtome.texts import Texts, catalogue

FILE = "listed.json"


@cache
def studies() -> dict[str, dict[str, Any]]:
    """Name → question, model and predicted cost of each study."""
    where = files("microtome") / "studies" / FILE
    found: dict[str, dict[str, Any]] = json.loads(where.read_text(encoding="utf-8"))
    return found


def words(lang: str) -> Texts:
    """What tables of the command line say, in a language."""
    return Texts(lang, catalogue("microtome.frontends", "words.yaml"))


def study_list(shown: Shown, lang: str) -> None:
    """Show the studies."""
    say_in = words(lang)
    if shown.json:
        fields = ("model", "cells", "flops", "passes", "reference_passes")
        answer = [
            {"study": name, "question": one["question"][lang], **{f: one[f] for f in fields}}
            for name, one in studies().items()
        ]
        print_json(answer)
        return
    headers = tuple(say_in(f"list.{c}") for c in ("study", "question", "model", "cost"))
    rows = tuple(
        (name, one["question"][lang], one["model"], _cost(one, say_in))
        for name, one in studies().items()
    )
    print_table(Table(headers, rows, names=(headers[0], headers[2])))
    if not shown.quiet:
        say(say_in("list.more"))


def _cost(one: dict[str, Any], say_in: Texts) -> str:
    return say_in(
        "list.takes",
        cells=f"{one['cells']:,}",
        flops=f"{one['flops'] / 1e9:,.0f}",
        passes=f"{one['passes']:,.0f}",
        single=f"{one['reference_passes']:,}",
    )
