"""``microtome figure``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from microtome import open_effects
from microtome.errors import MicrotomeError, glimpse
from microtome.figures.pictures import check_picture
from microtome.frontends.arguments import Shown
from microtome.frontends.commands.keeping import answering
from microtome.frontends.looks import Looking
from microtome.frontends.shown import print_json, say
from microtome.sheets import value_of


def draw(result: Path, output: Path, looking: Looking, shown: Shown, overwrite: bool) -> None:
    """Draw a result's map to a file."""
    check_picture(output, overwrite)
    at = {name: value_of(text, f"--at {name}") for name, text in _pairs(looking.at, "--at")}
    only = {name: _chosen(text, name) for name, text in _pairs(looking.only, "--only")}
    with answering(shown):
        effects = open_effects(result)
        metric = looking.metric or effects.metrics[0]
        figure = effects.figure(
            metric,
            title=looking.title,
            labels=dict(_pairs(looking.label, "--label")),
            size=_size(looking.size),
            colors=looking.colors,
            limit=looking.limit,
            only=only or None,
            order=looking.order or None,
            **at,
        )
        figure.save(output)
    if shown.json:
        print_json({"picture": str(output), "metric": metric})
    elif not shown.quiet:
        say(f"Picture: {output}")


def _pairs(given: Iterable[str], option: str) -> Iterable[tuple[str, str]]:
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise MicrotomeError(f"{option} takes NAME=VALUE, not {glimpse(text)}.")
        yield name, value


def _chosen(text: str, name: str) -> Any:
    """``19:24``, ``3,5`` or one value."""
    if ":" in text:
        ends = [value_of(end, f"--only {name}") if end else None for end in text.split(":")]
        if len(ends) > 2:
            raise MicrotomeError(
                f"--only takes {name}=FROM:TO or {name}=VALUE,VALUE, not {glimpse(text)}."
            )
        return slice(*ends)
    return [value_of(part, f"--only {name}") for part in text.split(",")]


def _size(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    width, times, height = text.lower().replace("×", "x").partition("x")
    try:
        if not times:
            raise ValueError
        return float(width), float(height)
    except ValueError:
        raise MicrotomeError(
            f"--size takes WIDTHxHEIGHT, such as 600x400, not {glimpse(text)}."
        ) from None
