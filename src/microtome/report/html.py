"""A document as one HTML page that needs nothing beside it and no network."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup
from plotly.io.json import to_json_plotly
from plotly.offline import get_plotlyjs

from microtome.figures import style
from microtome.report.diagram import diagram
from microtome.report.document import Document, Index, Table
from microtome.texts import Texts, catalogue, number, visible

MARKS: Mapping[str, str] = {
    "holds": "good",
    "does not hold": "bad",
    "holds here": "good",
    "does not hold here": "bad",
    "not comparable on this model": "open",
    "not judged": "open",
}
"""Verdict → class of its chip."""


def render(document: Document) -> str:
    """A document as one self-contained HTML page.

    Plotly's code is in the page once, and figures follow the reader's light or dark scheme.
    """
    say = texts_of(document.lang)
    return (
        environment()
        .get_template("template.html.jinja")
        .render(
            document=document,
            paragraphs=[p.strip() for p in document.method.split("\n\n") if p.strip()],
            plotlyjs=Markup(get_plotlyjs()) if document.pictures else "",
            themes=_json({"light": style.LIGHT, "dark": style.DARK}),
            config=_json(dict(style.CONFIG)),
            scales=_json({kind: _scales(kind) for kind in style.SCALES}),
            marks=MARKS,
            provenance=list(_flat(document.provenance)),
            say=say,
            copy=_json(say("copy")),
            copied=_json(say("copied")),
            drawing=(diagram(document.sites, say, document.parallel) if document.sites else ""),
            shown_prompts=sum(row.role == "recipient" for row in document.tokens),
        )
    )


def render_index(index: Index) -> str:
    """The page that leads to several reports, self-contained but for those."""
    return (
        environment()
        .get_template("index.html.jinja")
        .render(index=index, say=texts_of(index.lang), marks=MARKS)
    )


def texts_of(lang: str) -> Texts:
    """What reports say by themselves, in one language."""
    return Texts(lang, catalogue("microtome.report", "texts.yaml"))


@cache
def environment() -> jinja2.Environment:
    """Where the templates are, and what they can do."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("microtome.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"visible": visible, "figure": _figure, "cells": _cells}
    return made


def _figure(figure: Any) -> Markup:
    return _json({"data": figure.data, "layout": figure.layout})


def _json(value: object) -> Markup:
    """JSON for a script element: plotly writes <, > and / as escapes, so nothing ends it early."""
    return Markup(to_json_plotly(value))


def _scales(kind: str) -> dict[str, list[list[float | str]]]:
    return {
        page: [[n / (len(colors) - 1), color] for n, color in enumerate(colors)]
        for page, colors in style.SCALES[kind].items()
    }


def _cells(table: Table) -> list[list[tuple[str, bool]]]:
    """The rows of a table: each cell's text, and whether it is a number."""
    columns = [table.frame[name] for name in table.frame.columns]
    numbers = [pd.api.types.is_numeric_dtype(column) for column in columns]
    return [
        [(_cell(value), number) for value, number in zip(row, numbers, strict=True)]
        for row in zip(*columns, strict=True)
    ]


def _cell(value: object) -> str:
    if isinstance(value, float | np.floating):
        return "" if np.isnan(value) else number(float(value)).replace("-", "−")
    return str(value)


def _flat(values: Mapping[str, Any], under: str = "") -> Iterator[tuple[str, str]]:
    """Nested values as pairs of a dotted name and a text."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{under}{name}.")
        else:
            text = (
                value
                if isinstance(value, str)
                else json.dumps(value, ensure_ascii=False, default=str)
            )
            yield f"{under}{name}", text
