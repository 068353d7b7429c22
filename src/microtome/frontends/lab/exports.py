"""What a page can be kept as: files that the library writes, as they would be on disk."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from microtome.circuits import draw
from microtome.errors import EffectsError, did_you_mean, listing
from microtome.figures import Drawn
from microtome.figures.png import picture_of
from microtome.frontends.lab.answers.pinned import circuit_of
from microtome.frontends.lab.asked import prompt_of
from microtome.frontends.lab.drawing import cut_of
from microtome.frontends.lab.speaking import spoken
from microtome.frontends.lab.state import View
from microtome.report import document_of_sweep, render
from microtome.report.document import Document, Picture
from microtome.report.exports import MOST_ROWS, exports
from microtome.report.spreadsheets import csv_of
from microtome.texts import Texts, brief

if TYPE_CHECKING:
    from microtome import Effects, Model


@dataclass(frozen=True)
class Kind:
    """A file that a view can be kept as.

    Attributes:
        type: its media type.
        of: what has to be there, ``"map"`` or ``"circuit"``.
        make: its bytes, from what is seen.
    """

    type: str
    of: str
    make: Callable[[Seen], bytes]


@dataclass(frozen=True)
class Seen:
    """What a page shows.

    Attributes:
        view: what it asks for.
        model: its model.
        effects: its map, where that is computed, whole.
        words: of the page; None: all is in English.
    """

    view: View
    model: Model
    effects: Effects | None
    words: Texts | None = None

    @property
    def whole(self) -> Effects:
        """The map.

        Raises:
            EffectsError: it is not computed yet.
        """
        if self.effects is None:
            raise EffectsError("The map of this view is not computed yet: run it, then keep it.")
        return self.effects

    def spoken(self, figure: Drawn, key: str, **values: object) -> go.Figure:
        """A figure in the page's language, with the title of a key of the texts."""
        if self.words is None:
            return figure
        return spoken(figure, self.words, self.words(key, **values))


def offered(view: View, is_done: bool) -> tuple[str, ...]:
    """The names of the files that a view can be kept as.

    Args:
        view: what the page shows.
        is_done: whether its map is computed, whole.

    >>> offered(View(), is_done=True)
    ('report.html', 'map.png', 'map.svg', 'map.csv')
    >>> offered(View(pins=("m0->logits",)), is_done=False)
    ('circuit.json', 'circuit.svg')
    """
    there = {"map": is_done, "circuit": bool(view.pins)}
    return tuple(name for name, kind in KINDS.items() if there[kind.of])


def made(
    name: str, view: View, model: Model, effects: Effects | None, words: Texts | None = None
) -> bytes:
    """A file.

    Args:
        name: one of `KINDS`.
        view: what the page shows.
        model: its model.
        effects: its map, where that is computed, whole.
        words: in whose language pictures and the frame of a report are; English unless given.

    Raises:
        EffectsError: there is no such file, or its map is not there.
        MicrotomeError: what the view names cannot be drawn or written.
    """
    if name not in KINDS:
        raise EffectsError(
            f"No view is kept as {name!r}; files: {listing(KINDS)}.{did_you_mean(name, KINDS)}"
        )
    return KINDS[name].make(Seen(view, model, effects, words))


def _report(seen: Seen) -> bytes:
    """The page that a sweep's folder has."""
    document = document_of_sweep(seen.whole, seen.model.run(prompt_of(seen.view)))
    return _utf8(render(_said(document, seen.words)))


def _said(document: Document, words: Texts | None) -> Document:
    """A report in the page's language, as far as there are words; it says how far that is."""
    if words is None or words.lang == "en":
        return document
    sections = [
        replace(one, pictures=tuple(_figured(each, words) for each in one.pictures))
        for one in document.sections
    ]
    caveats = (*document.caveats, words("keep.report_sentences"))
    return replace(document, lang=words.lang, sections=tuple(sections), caveats=caveats)


def _figured(picture: Picture, words: Texts) -> Picture:
    return replace(picture, figure=spoken(picture.figure, words))


def _drawn(seen: Seen) -> go.Figure:
    """The map as the page cuts it."""
    found = seen.whole
    metric = found.metrics[0]
    at: dict[str, Any] = dict(cut_of(found, metric, dict(seen.view.at)).picked)
    figure = found.figure(metric, **at)
    return seen.spoken(figure, "figure.map", edit=brief(seen.view.edit), metric=metric)


def _table(seen: Seen) -> bytes:
    tables = exports(seen.whole)
    if "cells" not in tables:
        raise EffectsError(
            f"The map has more than {MOST_ROWS:,} cells, too many for a table: repeat it with the "
            "code of this view, and take its effects.zarr."
        )
    return _utf8(csv_of(tables["cells"]))


def _circuit(seen: Seen) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "circuit.json"
        circuit_of(seen.model, seen.view.pins).save(path)
        return path.read_bytes()


def _circuit_drawn(seen: Seen) -> go.Figure:
    found = circuit_of(seen.model, seen.view.pins)
    return seen.spoken(draw(found), "figure.circuit", edges=len(found), nodes=len(found.nodes))


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")


KINDS: Mapping[str, Kind] = {
    "report.html": Kind("text/html", "map", _report),
    "map.png": Kind("image/png", "map", lambda seen: picture_of(_drawn(seen), "png")),
    "map.svg": Kind("image/svg+xml", "map", lambda seen: picture_of(_drawn(seen), "svg")),
    "map.csv": Kind("text/csv", "map", _table),
    "circuit.json": Kind("application/json", "circuit", _circuit),
    "circuit.svg": Kind(
        "image/svg+xml", "circuit", lambda seen: picture_of(_circuit_drawn(seen), "svg")
    ),
}  # fmt: skip
"""File → what it is."""
