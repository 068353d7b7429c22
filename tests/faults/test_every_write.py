"""A fault at every single change to the disk: nothing that was complete is lost, or mixed.

Each scenario runs once to count its steps, then once for each step that fails or is the last.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import xarray as xr
from injected import Killed, full_at, interrupted_at, killed_at, watched

import microtome as mt
from microtome.errors import EffectsError
from microtome.results import form, sinks
from microtome.results.sinks import StoreSink
from microtome.results.stores import Beside
from microtome.results.units import pack, unpack
from results.samples import QUESTION, UNITS, bare, bits, block

OLD, NEW = 1, 2
FAILURES = {
    "killed": ("Killed",),
    "full once": ("No space left on device", ""),
    "full from then on": ("No space left on device", ""),
}
"""What may be told of each fault; nothing, where only clearing up failed."""


@pytest.fixture(autouse=True)
def encoded_once(monkeypatch) -> None:
    """The disk is what fails here: nothing is encoded, decoded or flushed again and again."""
    made = {seed: form.encode(bare(seed).data) for seed in (OLD, NEW)}
    packed = cache(lambda unit, question: pack(block(unit), question))

    def encode(data: xr.Dataset) -> dict[str, bytes]:
        return dict(made[json.loads(data.attrs["provenance"])["seed"]])

    def decode(files: dict[str, bytes]) -> xr.Dataset:
        return next(bare(seed).data for seed, wanted in made.items() if files == wanted)

    monkeypatch.setattr(form, "encode", encode)
    monkeypatch.setattr(form, "decode", decode)
    monkeypatch.setattr(sinks, "pack", lambda one, question: packed(one.unit, question))
    monkeypatch.setattr(sinks, "unpack", cache(unpack))


def save(path: Path) -> None:
    bare(NEW).save(path)


def sweep(path: Path) -> None:
    """A whole sweep that replaces what is there, or what is left to do of it."""
    with StoreSink(path, QUESTION, UNITS, overwrite=True) as sink:
        for unit in sorted(set(range(UNITS)) - sink.done):
            sink.take(block(unit))
        if not sink.finished:
            assert [bits(one) for one in sink.blocks()] == [bits(block(n)) for n in range(UNITS)]
        sink.finish(bare(NEW).data)


SCENARIOS = {"save": (save, False), "save over": (save, True), "sweep over": (sweep, True)}
"""What is run into a path, and whether an older result is there."""


def seed_of(path: Path) -> int | None:
    """Which result opens, every byte of it proved; none where none is there."""
    beside = Beside(path)
    if not path.exists() and not beside.old.exists():
        return None
    seed: int = mt.open_effects(path).provenance["seed"]
    return seed


def asked(path: Path) -> None:
    """A sweep that workers write for, given up."""
    with StoreSink(path, QUESTION, UNITS) as sink:
        sink.delivery()


def test_an_interrupt_at_any_step_leaves_no_lock_though_its_traceback_is_kept(tmp_path):
    with watched() as steps:
        asked(tmp_path / "counted.zarr")
    kept = []
    for step in range(len(steps)):
        path = tmp_path / f"{step}.zarr"
        with interrupted_at(step):
            try:
                asked(path)
            except KeyboardInterrupt as error:
                kept.append(error)  # as a notebook does, with all that is in its frames
        asked(path)
    assert len(kept) > len(steps) / 2


@pytest.mark.parametrize(
    ("name", "way"),
    [
        *(("save", way) for way in ("killed", "full once")),
        *(("save over", way) for way in FAILURES),
        *(("sweep over", way) for way in ("killed", "full once")),
    ],
)
def test_nothing_complete_is_lost_at_any_step_and_the_next_run_is_not_refused(tmp_path, name, way):
    run, over = SCENARIOS[name]
    older = bare(OLD).save(tmp_path / "older.zarr")

    def prepared(folder: str) -> Path:
        path = tmp_path / folder / "e.zarr"
        path.parent.mkdir()
        if over:
            shutil.copytree(older, path)
        return path

    path = prepared("counted")
    with watched() as steps:
        run(path)
    assert len(steps) > 30
    found = set()
    for step in range(len(steps)):
        path = prepared(str(step))
        error = error_of(run, path, way, step)
        seed = seed_of(path)
        found.add(seed)
        assert seed in ((OLD, NEW) if over else (None, NEW)), steps[step]
        assert error or seed == NEW, steps[step]
        assert error in FAILURES[way], steps[step]
        run(path)
        assert seed_of(path) == NEW, steps[step]
        assert os.listdir(path.parent) == ["e.zarr"], steps[step]
    assert len(found) == 2


def test_a_kill_between_the_two_renames_and_another_at_any_step_of_clearing_up(tmp_path):
    older = bare(OLD).save(tmp_path / "older.zarr")
    shutil.copytree(older, tmp_path / "counted.zarr")
    with watched() as steps:
        save(tmp_path / "counted.zarr")
    between = steps.index(("rename", "new"))
    for step in range(len(steps)):
        path = tmp_path / f"{step}.zarr"
        shutil.copytree(older, path)
        with pytest.raises(Killed), killed_at(between):
            save(path)
        assert not path.exists()
        assert seed_of(path) == NEW
        with contextlib.suppress(Killed), killed_at(step):
            save(path)
        assert seed_of(path) == NEW


def error_of(run: Callable[[Path], None], path: Path, way: str, step: int) -> str:
    """What comes of a fault at a step; nothing, where it is hidden from the caller."""
    try:
        with fault(way, step):
            run(path)
    except Killed:
        return "Killed"
    except EffectsError as error:
        return str(error).partition("could not be written: ")[2].partition(".")[0]
    return ""


def fault(way: str, step: int) -> contextlib.AbstractContextManager[None]:
    return killed_at(step) if way == "killed" else full_at(step, lasting=way != "full once")


def test_a_unit_that_was_taken_outlasts_whatever_comes_after(tmp_path):
    for step in range(100):
        path = tmp_path / f"{step}" / "e.zarr"
        taken = set()
        with contextlib.suppress(Killed), killed_at(step):
            sink = StoreSink(path, QUESTION, UNITS)
            for unit in range(UNITS):
                sink.take(block(unit))
                taken.add(unit)
            sink = None
        sink = None
        with StoreSink(path, QUESTION, UNITS) as again:
            assert taken <= again.done <= taken | {len(taken)}
        if len(taken) == UNITS:
            return
    pytest.fail("more steps than were tried")


def test_a_full_disk_costs_the_unit_on_its_way_and_the_sweep_goes_on_when_there_is_room(tmp_path):
    with StoreSink(tmp_path / "e.zarr", QUESTION, UNITS) as sink:
        sink.take(block(0))
        with full_at(1, lasting=True), pytest.raises(EffectsError, match="Free some space"):
            sink.take(block(1))
        assert sink.done == {0}
        sink.take(block(1))
        assert sink.done == {0, 1}
        assert [bits(one) for one in sink.blocks()] == [bits(block(0)), bits(block(1))]
