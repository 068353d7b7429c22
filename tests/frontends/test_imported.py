"""What answers a command is imported once, and no garbage is looked for meanwhile."""

from __future__ import annotations

import gc
import importlib
import sys
from types import ModuleType

import pytest

from microtome.frontends import importing

HOME = "microtome.frontends.commands.imaginary"


@pytest.fixture
def asked(monkeypatch) -> list[bool]:
    """For each import whether garbage was looked for; nothing that tests have is frozen."""
    found: list[bool] = []

    def made(home: str) -> ModuleType:
        found.append(gc.isenabled())
        if home.endswith("broken"):
            raise ImportError(home)
        monkeypatch.setitem(sys.modules, home, ModuleType(home))
        return sys.modules[home]

    monkeypatch.setattr(importlib, "import_module", made)
    monkeypatch.setattr(gc, "freeze", lambda: None)
    return found


def test_no_garbage_is_looked_for_in_an_import_and_again_afterwards(asked):
    assert gc.isenabled()
    assert importing.imported(HOME).__name__ == HOME
    assert importing.imported(HOME) is sys.modules[HOME]
    assert (asked, gc.isenabled()) == ([False], True)


def test_what_cannot_be_imported_leaves_it_as_it_was(asked):
    with pytest.raises(ImportError):
        importing.imported(f"{HOME}.broken")
    assert gc.isenabled()
    gc.disable()
    try:
        importing.imported(HOME)
        assert not gc.isenabled()
    finally:
        gc.enable()
