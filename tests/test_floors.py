"""The floors of docs/architecture.md hold: imports go downwards, and none goes in a circle."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "microtome"

GROUND = ("amounts", "errors", "sheets", "stats", "textfiles", "texts")
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
    "figures",
    "results",
    "verbs",
    "report",
    "studies",
    "frontends",
)
PURE = ("language", "prompts", "plan")
"""Floors that load neither torch nor transformers."""


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(path: Path) -> Iterator[str]:
    """Modules of ours that a file imports anywhere, without the leading ``microtome``."""
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
INSIDE = {
    name: path for name, path in KNOWN.items() if name.partition(".")[0] in (*FLOORS, *GROUND)
}


def floor(name: str) -> int:
    first = name.partition(".")[0]
    return -1 if first in GROUND else FLOORS.index(first)


def test_every_module_is_on_a_floor():
    entries = {"", "__main__"}
    assert set(KNOWN) - set(INSIDE) - entries == set()


@pytest.mark.parametrize("name", INSIDE)
def test_imports_go_downwards(name):
    above = [other for other in imports(INSIDE[name]) if other and floor(other) > floor(name)]
    assert not above, f"{name} imports {above}, which are above it"


def test_no_module_imports_itself_by_a_way_round():
    graph = {name: {o for o in imports(path) if o in INSIDE} for name, path in INSIDE.items()}
    while True:
        ends = {name for name, others in graph.items() if not others & set(graph)}
        if not ends:
            break
        graph = {name: others for name, others in graph.items() if name not in ends}
    assert not graph, f"these import each other in a circle: {sorted(graph)}"


def test_the_page_and_the_picture_show_these_floors():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    block = page.rpartition("```\nlanguage")[2].partition("```")[0]
    shown = re.findall(r"^(\w+) ", "language" + block, re.MULTILINE)
    assert tuple(shown) == FLOORS


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
