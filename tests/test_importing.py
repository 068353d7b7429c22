"""Importing: instant, without effects, and no torch for what computes nothing."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
import typing

import pytest

import microtome as mt

PURE = [f"microtome.{name}" for name in ("amounts", "errors", "notebook", "sheets", "textfiles")]


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_language_and_prompts_need_neither_torch_nor_transformers():
    found = python(
        "import importlib, pkgutil, sys\n"
        f"for name in {PURE}: importlib.import_module(name)\n"
        "for folder in ('language', 'prompts'):\n"
        "    own = importlib.import_module('microtome.' + folder)\n"
        "    for one in pkgutil.walk_packages(own.__path__, own.__name__ + '.'):\n"
        "        importlib.import_module(one.name)\n"
        "import microtome as mt\n"
        "prompt = mt.Prompt('Berlin is', target=' the')\n"
        "print(sorted({'torch', 'transformers', 'pandas', 'xarray'} & set(sys.modules)))\n"
    )
    assert found == "[]\n"


def test_importing_the_package_loads_nothing_of_it():
    code = "import sys, microtome\nprint([m for m in sys.modules if m.startswith('microtome')])"
    assert python(code) == "['microtome']\n"


@pytest.mark.parametrize("name", mt.__all__)
def test_each_public_name_is_there_and_listed(name):
    found = getattr(mt, name)
    assert name in dir(mt)
    if not inspect.ismodule(found):
        home = importlib.import_module(f"microtome.{mt._HOMES[name]}")
        assert getattr(home, name) is found


def test_the_table_and_what_type_checkers_see_are_one():
    source = inspect.getsource(mt)
    shown = {
        line.split(" as ")[1].strip()
        for line in source.splitlines()
        if line.startswith("    from microtome") and " as " in line
    }
    assert shown == set(mt.__all__)
    assert typing.TYPE_CHECKING is False


def test_modules_are_attributes_and_what_is_not_there_says_so():
    assert mt.tasks.TASKS
    assert mt.stats.mean([1.0, 3.0]).value == 2
    assert mt.errors.PromptError is importlib.import_module("microtome.errors").PromptError
    with pytest.raises(AttributeError, match="module 'microtome' has no attribute 'zeros'"):
        mt.zeros  # noqa: B018
    with pytest.raises(ImportError):
        exec("from microtome import zeros")


@pytest.fixture(scope="module")
def afresh(kernel) -> list[str]:
    """What the kernel said at its beginning, as here all modules are imported already."""
    return "".join(out.text for out in kernel.cells[0].outputs).splitlines()


@pytest.mark.slow
def test_names_of_the_first_versions_are_there_still(afresh):
    assert afresh[0].split() == ["microtome.prompts.alignment", "microtome.prompts.answers", "nano"]
    with pytest.raises(AttributeError, match=r"'microtome\.model' has no attribute 'loads'"):
        mt.model.loads  # noqa: B018


@pytest.mark.slow
def test_a_sweep_imports_nothing_that_it_can_do_without(afresh):
    """Some of it is in extras: a plain installation has none."""
    assert afresh[1] == "[]"


@pytest.mark.slow
def test_star_imports_and_help_know_every_name(afresh):
    assert afresh[2:] == ["microtome.verbs.sweep True", "True"]
