"""The floors of the package as one picture, made from its imports: ``make floors``.

A folder stands as low as its imports let it, one floor above the highest that it imports from;
those that stand side by side do not know each other. An arrow is an import that no way round
through others implies. The lines of text are those of docs/architecture.md. All imports between
folders are written into the picture's own metadata, by which a test knows whether it is still true.
"""

from __future__ import annotations

import ast
import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "microtome"
PAGE = ROOT / "docs" / "architecture.md"
PICTURE = ROOT / "docs" / "images" / "floors.svg"
DESCRIPTION = "{http://purl.org/dc/elements/1.1/}description"

WIDE, NARROW, HEIGHT, STEP, GAP, BELOW = 6.5, 2.8, 0.62, 0.86, 0.3, 0.7
"""Inches: boxes of the first column and of the others, their height, from floor to floor, between
columns, and of the ground."""
INK, LINE, BOX, BANDS, GROUND = "#1f2933", "#52606d", "#ffffff", ("#eef3f8", "#e2eaf2"), "#e9dfd0"

Edges = Mapping[str, list[str]]
"""Folder → the folders that it imports from."""


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of the package, without the leading ``microtome``, and its file."""
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


@cache
def imports(path: Path) -> tuple[str, ...]:
    """Modules of ours that a file imports anywhere, without the leading ``microtome``."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "microtome":
            base = (node.module or "").partition(".")[2]
            for alias in node.names:
                inner = f"{base}.{alias.name}".lstrip(".")
                yield inner if inner in KNOWN else base
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("microtome."):
                    yield alias.name.partition(".")[2]


KNOWN = dict(modules())


def told() -> dict[str, str]:
    """The folders as docs/architecture.md tells of them, the lowest first."""
    block = PAGE.read_text(encoding="utf-8").rpartition("```\nlanguage")[2].partition("```")[0]
    lines = re.findall(r"^(\w+) +(.+)$", "language" + block, re.MULTILINE)
    return {name: re.sub(r" {2,}", " · ", line.strip()) for name, line in lines}


def ground() -> list[str]:
    """The modules that are in no folder: anybody may import them."""
    entries = {"", "__main__", "alignment", *told()}
    return sorted(name for name in KNOWN if "." not in name and name not in entries)


def edges() -> dict[str, list[str]]:
    """Which folder imports from which, as it is today."""
    found: dict[str, set[str]] = {name: set() for name in told()}
    for name, path in KNOWN.items():
        own = name.partition(".")[0]
        if own in found:
            found[own] |= {other.partition(".")[0] for other in imports(path)} & set(found) - {own}
    return {name: sorted(others) for name, others in found.items()}


def recorded(picture: Path = PICTURE) -> Edges:
    """Which folder imported from which when a picture was made."""
    written = ElementTree.parse(picture).getroot().find(f".//{DESCRIPTION}")
    if written is None or not written.text:
        raise ValueError(f"{picture} does not say what it shows: make floors")
    found: Edges = json.loads(written.text)
    return found


def needed(known: Edges) -> list[tuple[str, str]]:
    """The imports that no way round through other folders implies."""
    below: dict[str, set[str]] = {}
    for name, others in known.items():  # the lowest first
        below[name] = {deeper for other in others for deeper in {other} | below[other]}
    return [
        (name, other)
        for name, others in known.items()
        for other in others
        if not any(other in below[way] for way in others)
    ]


@dataclass(frozen=True)
class Place:
    """Where a folder is drawn."""

    column: int
    floor: int

    @property
    def left(self) -> float:
        """Its left edge."""
        return 0 if not self.column else WIDE + GAP + (self.column - 1) * (NARROW + GAP)

    @property
    def width(self) -> float:
        """From edge to edge."""
        return NARROW if self.column else WIDE

    @property
    def middle(self) -> tuple[float, float]:
        """The middle of its box."""
        return self.left + self.width / 2, BELOW + (self.floor + 0.5) * STEP


def places(known: Edges) -> dict[str, Place]:
    """Where each folder is drawn: the second of a floor has a column of its own."""
    found: dict[str, Place] = {}
    for name, others in known.items():
        floor = 1 + max((found[other].floor for other in others), default=-1)
        found[name] = Place(0, floor)
    taken: set[int] = set()
    column = len(found) - len({place.floor for place in found.values()})
    # One that many lean on is in the first column; the lowest of the others is furthest out.
    users = {name: sum(name in others for others in known.values()) for name in known}
    for name in sorted(found, key=lambda name: (found[name].floor, -users[name])):
        floor = found[name].floor
        if floor in taken:
            found[name] = Place(column, floor)
            column -= 1
        taken.add(floor)
    return found


def draw(known: Edges, lines: Mapping[str, str]) -> Figure:
    """The picture."""
    where = places(known)
    right = max(place.left + place.width for place in where.values())
    top = BELOW + STEP * (1 + max(place.floor for place in where.values()))
    edge = 2 * GAP
    figure = Figure(figsize=(right + 2 * edge, top))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(-edge, right + edge), ylim=(0, top))
    axes.set_axis_off()
    for floor in range(1 + max(place.floor for place in where.values())):
        _band(axes, right + 2 * edge, BELOW + floor * STEP, STEP, BANDS[floor % 2])
    _band(axes, right + 2 * edge, 0, BELOW, GROUND)
    ours = ", ".join(ground())
    axes.text(0, BELOW / 2, f"the ground, for all:  {ours}", va="center", color=INK, fontsize=11)
    for name, other in needed(known):
        _arrow(axes, where[name], where[other])
    for name, place in where.items():
        _box(axes, place, name, lines[name])
    return figure


def _band(axes: Axes, width: float, bottom: float, height: float, color: str) -> None:
    axes.add_patch(Rectangle((-2 * GAP, bottom), width, height, color=color, lw=0, zorder=0))


def _box(axes: Axes, place: Place, name: str, line: str) -> None:
    x, y = place.middle
    shape = FancyBboxPatch(
        (place.left, y - HEIGHT / 2),
        place.width,
        HEIGHT,
        boxstyle="round,pad=0,rounding_size=0.08",
        facecolor=BOX,
        edgecolor=LINE,
        zorder=2,
    )
    axes.add_patch(shape)
    if place.column:
        wrapped = textwrap.fill(line, 44)
        axes.text(
            x, y + 0.18, name, ha="center", va="center", weight="bold", color=INK, fontsize=11
        )
        axes.text(x, y - 0.08, wrapped, ha="center", va="center", color=INK, fontsize=8)
        return
    axes.text(0.15, y, name, va="center", weight="bold", color=INK, fontsize=12)
    axes.text(1.25, y, textwrap.fill(line, 68), va="center", color=INK, fontsize=9)


def _arrow(axes: Axes, upper: Place, lower: Place) -> None:
    """From a folder to one that it imports from, around the boxes in between."""
    (x, y), (x_low, y_low) = upper.middle, lower.middle
    half = HEIGHT / 2
    if upper.column == lower.column and upper.floor - lower.floor == 1:
        way = [(x, y - half), (x, y_low + half)]
    elif upper.column == lower.column:
        out = upper.left - GAP
        way = [(upper.left, y), (out, y), (out, y_low), (lower.left, y_low)]
    elif upper.column < lower.column:
        way = [(upper.left + upper.width, y), (x_low, y), (x_low, y_low + half)]
    else:
        way = [(x, y - half), (x, y_low), (lower.left + lower.width, y_low)]
    axes.plot(*zip(*way[:-1], strict=True), color=LINE, lw=1.4, zorder=1)
    style = {"arrowstyle": "-|>", "color": LINE, "lw": 1.4, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", way[-1], way[-2], arrowprops=style, zorder=1)


def main() -> None:
    """Write the picture of today's imports."""
    known = edges()
    # The same each time, and text as text.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "floors"}):
        figure = draw(known, told())
        figure.savefig(PICTURE, metadata={"Description": json.dumps(known), "Date": None})


if __name__ == "__main__":
    main()
