"""The floors of docs/architecture.md hold: imports go downwards, and none goes in a circle."""

from __future__ import annotations

import re
import subprocess
import sys
from xml.etree import ElementTree

import pytest
from recipes.floors import KNOWN, ROOT, imports

from recipes import floors

GROUND = (
    "amounts",
    "errors",
    "notebook",
    "paths",
    "sheets",
    "spoken",
    "stats",
    "textfiles",
    "texts",
)
FLOORS = (
    "language",
    "prompts",
    "model",
    "tasks",
    "passes",
    "edits",
    "readings",
    "plan",
    "engines",
    "workers",
    "figures",
    "results",
    "steering",
    "verbs",
    "circuits",
    "report",
    "studies",
    "frontends",
)
PURE = ("language", "prompts", "plan")
"""Floors that load neither torch nor transformers."""


INSIDE = {
    name: path for name, path in KNOWN.items() if name.partition(".")[0] in (*FLOORS, *GROUND)
}


def floor(name: str) -> int:
    first = name.partition(".")[0]
    return -1 if first in GROUND else FLOORS.index(first)


def test_every_module_is_on_a_floor():
    entries = {"", "__main__", "alignment"}  # the last one is a name of the first versions
    assert set(KNOWN) - set(INSIDE) - entries == set()


def test_imports_go_downwards():
    above = [
        (name, other)
        for name, path in INSIDE.items()
        for other in imports(path)
        if other and floor(other) > floor(name)
    ]
    assert not above, "imports of what is above: " + ", ".join(map(" of ".join, above))


def test_no_module_imports_itself_by_a_way_round():
    graph = {name: {o for o in imports(path) if o in INSIDE} for name, path in INSIDE.items()}
    while True:
        ends = {name for name, others in graph.items() if not others & set(graph)}
        if not ends:
            break
        graph = {name: others for name, others in graph.items() if name not in ends}
    assert not graph, f"these import each other in a circle: {sorted(graph)}"


def test_the_page_shows_these_floors():
    assert tuple(floors.told()) == FLOORS
    assert tuple(floors.ground()) == GROUND


def test_the_picture_is_of_todays_imports_and_of_the_pages_words():
    assert floors.recorded() == floors.edges(), "the picture is of other imports: make floors"
    shown = "".join(ElementTree.parse(floors.PICTURE).getroot().itertext())
    for name, line in floors.told().items():
        assert name in shown
        assert all(word in shown for word in line.split()), f"{line!r} is not shown: make floors"


def test_the_pictures_imports_are_those_of_the_files():
    """Held to what a search for lines finds, which is not how the picture was made."""
    for name, others in floors.edges().items():
        lines = "\n".join(
            line
            for path in (floors.SOURCE / name).rglob("*.py")
            for line in path.read_text(encoding="utf-8").splitlines()
        )
        found = set(re.findall(r"^\s*(?:from|import) microtome\.(\w+)", lines, re.MULTILINE))
        for names in re.findall(r"^\s*from microtome import (.+)$", lines, re.MULTILINE):
            found |= {name.split()[0] for name in names.split(", ")}
        assert set(others) == (found & set(FLOORS)) - {name}


def test_an_arrow_is_drawn_where_no_way_round_implies_it():
    known = {"low": [], "middle": ["low"], "high": ["low", "middle"], "beside": ["low"]}
    assert floors.needed(known) == [("middle", "low"), ("high", "middle"), ("beside", "low")]
    where = floors.places(known)
    assert {name: place.floor for name, place in where.items()} == {
        "low": 0,
        "middle": 1,
        "high": 2,
        "beside": 1,
    }
    assert where["middle"].column == 0 < where["beside"].column


@pytest.mark.parametrize("name", PURE)
def test_pure_floors_load_no_torch(name):
    """In a process of their own: everything on the floor, and none of these."""
    ours = [f"microtome.{module}" for module in INSIDE if module.partition(".")[0] == name]
    code = (
        f"import importlib, sys\nfor name in {ours!r}: importlib.import_module(name)\n"
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=ENVIRONMENT
    )
    assert done.stdout.strip() == "[]"


ENVIRONMENT = {"PYTHONPATH": str(ROOT / "src"), "PATH": ""}
