"""What answers a command is imported once, and no garbage is looked for meanwhile."""

from __future__ import annotations

import builtins
import gc
import importlib
import sys
import threading
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
    assert (asked, gc.isenabled()) == ([False, True], True)  # the second time it is there already


def test_what_another_thread_is_importing_is_waited_for(tmp_path, monkeypatch):
    (tmp_path / "imaginary_slow.py").write_text(
        "import threading, time\nbegun.set()\ntime.sleep(0.2)\nwhole = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    begun = threading.Event()
    monkeypatch.setattr(builtins, "begun", begun, raising=False)
    monkeypatch.setattr(gc, "freeze", lambda: None)
    first = threading.Thread(target=importing.imported, args=("imaginary_slow",))
    first.start()
    assert begun.wait(300)
    try:
        assert importing.imported("imaginary_slow").whole
    finally:
        first.join()
        sys.modules.pop("imaginary_slow", None)


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
