"""What a page can be kept as: files that the library writes, as they would be on disk."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from microtome.circuits import draw
from microtome.errors import EffectsError, did_you_mean, listing
from microtome.figures import Drawn
from microtome.figures.png import picture_of
from microtome.frontends.lab.answers.pinned import circuit_of
from microtome.frontends.lab.asked import prompt_of
from microtome.frontends.lab.drawing import cut_of
from microtome.frontends.lab.state import View
from microtome.report import document_of_sweep, render
from microtome.report.exports import MOST_ROWS, exports

if TYPE_CHECKING:
    from microtome import Effects, Model


@dataclass(frozen=True)
class Kind:
    """A file that a view can be kept as.

    Attributes:
        type: its media type.
        of: what has to be there, ``"map"`` or ``"circuit"``.
        make: its bytes, from the view, its model and its map.
    """

    type: str
    of: str
    make: Callable[[View, Model, Effects | None], bytes]


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


def made(name: str, view: View, model: Model, effects: Effects | None) -> bytes:
    """A file.

    Args:
        name: one of `KINDS`.
        view: what the page shows.
        model: its model.
        effects: its map, where that is computed, whole.

    Raises:
        EffectsError: there is no such file, or its map is not there.
        MicrotomeError: what the view names cannot be drawn or written.
    """
    if name not in KINDS:
        raise EffectsError(
            f"No view is kept as {name!r}; files: {listing(KINDS)}.{did_you_mean(name, KINDS)}"
        )
    return KINDS[name].make(view, model, effects)


def _whole(effects: Effects | None) -> Effects:
    if effects is None:
        raise EffectsError("The map of this view is not computed yet: run it, then keep it.")
    return effects


def _report(view: View, model: Model, effects: Effects | None) -> bytes:
    """The page that a sweep's folder has."""
    found = _whole(effects)
    return _utf8(render(document_of_sweep(found, model.run(prompt_of(view)))))


def _drawn(view: View, effects: Effects | None) -> Drawn:
    """The map as the page cuts it."""
    found = _whole(effects)
    metric = found.metrics[0]
    at: dict[str, Any] = dict(cut_of(found, metric, dict(view.at)).picked)
    return found.figure(metric, **at)


def _table(view: View, model: Model, effects: Effects | None) -> bytes:
    tables = exports(_whole(effects))
    if "cells" not in tables:
        raise EffectsError(
            f"The map has more than {MOST_ROWS:,} cells, too many for a table: repeat it with the "
            "code of this view, and take its effects.zarr."
        )
    return _utf8(tables["cells"].to_csv(index=False, lineterminator="\n"))


def _circuit(view: View, model: Model, effects: Effects | None) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "circuit.json"
        circuit_of(model, view.pins).save(path)
        return path.read_bytes()


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")


KINDS: Mapping[str, Kind] = {
    "report.html": Kind("text/html", "map", _report),
    "map.png": Kind("image/png", "map", lambda v, _, e: picture_of(_drawn(v, e), "png")),
    "map.svg": Kind("image/svg+xml", "map", lambda v, _, e: picture_of(_drawn(v, e), "svg")),
    "map.csv": Kind("text/csv", "map", _table),
    "circuit.json": Kind("application/json", "circuit", _circuit),
    "circuit.svg": Kind(
        "image/svg+xml", "circuit",
        lambda v, m, _: picture_of(draw(circuit_of(m, v.pins)), "svg"),
    ),
}  # fmt: skip
"""File → what it is."""
