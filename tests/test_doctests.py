"""The examples in the package's documentation run and give what they show."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import microtome

ROOT = Path(microtome.__file__).parent
MODULES = sorted(
    ".".join(("microtome", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
    for path in ROOT.rglob("*.py")
    if path.name != "__main__.py" and ">>> " in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_show(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # what an example writes goes where nobody minds
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert found.attempted > 0, "the examples are in a place where doctest does not look"
    assert found.failed == 0, "see the captured output"
