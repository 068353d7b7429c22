"""What tests do to the machine they run on, and what whoever hands them out needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import common
import conftest
import microtome as mt
from microtome.model import cache

PLUGINS = "import conftest, quick, families.measuring, sys; print('torch' in sys.modules)"


def test_the_users_cache_is_not_written_to(tmp_path_factory):
    base = tmp_path_factory.getbasetemp()
    assert cache.directory().parent in (base, base.parent)
    assert os.environ[cache.VARIABLE] == str(cache.directory())  # programs that tests start too


def test_whoever_hands_out_tests_needs_no_torch():
    tests = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", PLUGINS],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(tests)},
    )
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(("quick", "workers"), [(False, 3), (True, 2)])
def test_where_tests_wait_there_is_a_worker_more_than_cores(quick, workers):
    asked = conftest.pytest_xdist_auto_num_workers(SimpleNamespace(getoption=lambda name: quick))
    next(asked)
    with pytest.raises(StopIteration) as told:
        asked.send(2)
    assert told.value.value == workers


def test_each_worker_begins_with_files_of_its_own(tmp_path, monkeypatch):
    """Of four files three workers take each once; one that fails is left for its collection."""
    files = [f"test_begun_with_{letter}" for letter in "abcd"]
    for name in files:
        (tmp_path / f"{name}.py").write_text("1 / 0" if name.endswith("c") else "assert True")
    monkeypatch.setattr(sys, "path", [*sys.path])
    session = SimpleNamespace(config=SimpleNamespace(args=[str(tmp_path)]))
    begun = []
    for worker in ("gw0", "gw1", "gw2", "master"):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
        monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", "3")
        common.pytest_collection(session)
        begun.append([name for name in files if sys.modules.pop(name, None)])
    assert begun == [[files[0], files[3]], [files[1]], [], []]


def test_whoever_loads_nano_has_one_of_their_own(nano):
    """It is read once, and copied."""
    one, other = mt.load("nano"), mt.load("nano", dtype="float64")
    assert len({nano.hf, one.hf, other.hf}) == 3
    assert one.tokenizer is not nano.tokenizer
    assert (one.dtype, other.dtype) == (torch.float32, torch.float64)
    before = nano.weight_hash
    assert one.weight_hash == before
    with torch.no_grad():
        one.hf.transformer.h[0].mlp.c_proj.weight += 1
    assert one.weight_hash != before
    assert nano.weight_hash == mt.load("nano").weight_hash == before
