"""What the system itself refuses, and two processes in one place."""

from __future__ import annotations

import errno
import os
import pickle
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from injected import watched

import microtome as mt
from conftest import BERLIN, PARIS
from microtome import studies
from microtome.circuits import methods
from microtome.circuits.journal import kept
from microtome.errors import EffectsError
from microtome.report.folder import Folder
from microtome.results import disk
from microtome.results.sinks import StoreSink
from microtome.verbs import dose as dosing
from microtome.verbs import tracing
from results.samples import QUESTION, UNITS, bare, bits, block, sample

WRITER = """
import pathlib, pickle, sys, types
whole = types.ModuleType("microtome")  # without what its names stand for: torch takes seconds
whole.__path__ = [{package!r}]
sys.modules["microtome"] = whole
from microtome.results.sinks import StoreSink
block, question, units = pickle.loads(pathlib.Path({given!r}).read_bytes())
sink = StoreSink({path!r}, question, units)
sink.take(block)
print("ready", flush=True)
sys.stdin.read()
"""

WRITE = {
    "save": lambda path: bare().save(path),
    "sweep": lambda path: StoreSink(path, QUESTION, UNITS),
}.values()


def test_two_processes_in_one_place_the_second_is_refused_and_a_kill_frees_it(tmp_path):
    path = tmp_path / "e.zarr"
    given = tmp_path / "given"
    given.write_bytes(pickle.dumps((block(0), QUESTION, UNITS)))
    package = str(Path(mt.__file__).parent)
    program = WRITER.format(package=package, given=str(given), path=str(path))
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as first:
        assert first.stdout.readline() == b"ready\n"
        for second in WRITE:
            with pytest.raises(EffectsError, match=f"is being written by process {first.pid} on "):
                second(path)
        first.send_signal(signal.SIGKILL)
    with StoreSink(path, QUESTION, UNITS) as sink:
        assert sink.done == {0}
        assert [bits(one) for one in sink.blocks()] == [bits(block(0))]


def test_whoever_reads_meanwhile_has_the_older_or_the_newer_and_never_a_mixture(tmp_path):
    path = bare(0).save(tmp_path / "e.zarr")
    stop = threading.Event()
    errors = []

    def write() -> None:
        try:
            for seed in range(20):
                bare(seed % 2).save(path)
        except EffectsError as error:
            errors.append(error)
        finally:
            stop.set()

    writer = threading.Thread(target=write)
    writer.start()
    reads = 0
    try:
        while not stop.is_set() or not reads:
            opened = mt.open_effects(path)
            assert opened.data.identical(bare(opened.provenance["seed"]).data)
            reads += 1
    finally:
        writer.join()
    assert errors == []


def test_a_disk_that_is_full_is_a_reason_and_what_was_there_is_whole(tmp_path):
    path = bare().save(tmp_path / "e.zarr")
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))  # no file beyond a kilobyte
        with pytest.raises(EffectsError, match=r"could not be written: File too large.*Free some"):
            sample().save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert mt.open_effects(path).data.identical(bare().data)
    assert os.listdir(tmp_path) == ["e.zarr"]


@pytest.mark.parametrize("write", WRITE)
@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("file/e.zarr", "Not a directory|File exists"),
        ("file", "exists and is not a saved result; it is left alone"),
        ("folder", "exists and is not a saved result; it is left alone"),
        ("x" * 300, "cannot name a file or a folder on this machine"),
        ("nul\0", "cannot name a file"),
        ("/", "names no folder"),
    ],
)
def test_places_that_cannot_be_are_refused_before_anything_is_computed(
    tmp_path, place, message, write
):
    (tmp_path / "file").write_text("years of work")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis").write_text("years of work")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(EffectsError, match=message):
        write(tmp_path / place)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "file").read_text() == "years of work"


@pytest.mark.parametrize("why", ["this program runs", "a file system is mounted"])
def test_a_folder_that_nothing_can_take_the_place_of_is_refused_first(tmp_path, monkeypatch, why):
    """Were it replaced, a shell that is in it would be nowhere, and a mount cannot be."""
    if why == "this program runs":
        monkeypatch.chdir(tmp_path)
    else:
        monkeypatch.setattr(Path, "is_mount", lambda path: path == tmp_path)
    for write in WRITE:
        with pytest.raises(EffectsError, match=f"{why}.*name one in it, such as .*map.zarr"):
            write(tmp_path)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_folder_that_may_not_be_written_to_is_refused_with_the_reason(
    tmp_path, monkeypatch, number
):
    def about_to(operation: str, path: Path) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(disk, "about_to", about_to)
    for write in WRITE:
        with pytest.raises(EffectsError, match=f"{os.strerror(number)}.*that you may write to"):
            write(tmp_path / "e.zarr")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_what_is_finished_in_a_folder_that_may_only_be_read_is_given_back(
    tmp_path, monkeypatch, number, tiny
):
    prompts = [mt.Prompt(BERLIN, target=" the"), mt.Prompt(PARIS, target=" the")]

    def asked(name: str, edit: str, place: Path):
        given = mt.Stream(prompts, window=1) if name == "stream" else prompts
        keep = "aggregates" if name == "means" else "cells"
        return mt.sweep(tiny, given, edit, metrics="prob", out=place, keep=keep)

    edit, names = "zero L*.z.h*@-1", ("map", "means", "stream")
    wanted = {name: asked(name, edit, tmp_path / f"{name}.zarr") for name in names}

    def about_to(operation: str, path: Path) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(disk, "about_to", about_to)
    for name in names:
        place = tmp_path / f"{name}.zarr"
        xr.testing.assert_identical(asked(name, edit, place).data, wanted[name].data)
        with pytest.raises(EffectsError, match=r"another question"):
            asked(name, "zero L0.z.h*@-1", place)
        with pytest.raises(EffectsError, match=f"{os.strerror(number)}.*that you may write to"):
            asked(name, edit, tmp_path / "other.zarr")
    chunk = max(
        (tmp_path / "map.zarr").rglob("*"), key=lambda one: one.is_file() * one.stat().st_size
    )
    chunk.write_bytes(chunk.read_bytes()[:-1])
    with pytest.raises(EffectsError, match=f"{os.strerror(number)}.*that you may write to"):
        asked("map", edit, tmp_path / "map.zarr")


@pytest.mark.skipif(os.access("/", os.W_OK), reason="root may write anywhere")
def test_a_folder_that_is_read_only(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(EffectsError, match="Permission denied"):
            StoreSink(tmp_path / "e.zarr", QUESTION, UNITS)
    finally:
        tmp_path.chmod(0o700)


def test_folders_above_the_place_are_made(tmp_path):
    path = tmp_path / "a" / "b" / "e.zarr"
    with StoreSink(path, QUESTION, UNITS) as sink:
        sink.take(block(0))
    assert bare().save(path) == path


def test_a_relative_place_stays_where_it_was_when_the_folder_is_changed(tmp_path, monkeypatch):
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path)
    with StoreSink("e.zarr", QUESTION, UNITS) as sink:
        monkeypatch.chdir(tmp_path / "else")
        sink.take(block(0))
    assert os.listdir(tmp_path / "else") == []
    assert (tmp_path / "e.zarr.partial" / "units" / "000000.zip").is_file()


def test_so_do_a_report_and_a_journal(tmp_path, monkeypatch):
    """Results would be in one folder, and what belongs to them in another."""
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path)
    with Folder("own") as folder:
        monkeypatch.chdir(tmp_path / "else")
        folder.keep(bare(), "")
    monkeypatch.chdir(tmp_path)
    with kept("searched", {}) as journal:
        monkeypatch.chdir(tmp_path / "else")
        journal.step([], lambda: np.zeros((1, 1)))
    assert os.listdir(tmp_path / "else") == []
    assert (tmp_path / "own" / "effects.zarr").is_dir()
    assert (tmp_path / "searched" / "steps" / "000000.json").is_file()


FACT = mt.Prompt(
    BERLIN, donor=PARIS, target=" Germany", contrast=" France", roles={"subject": "Berlin"}
)


@pytest.mark.parametrize(
    ("runs", "several"),
    [
        (
            (methods, "sweep"),
            lambda model, out: mt.circuits.score(model, FACT, out=out, progress=False),
        ),
        (
            (tracing, "answered"),
            lambda model, out: mt.trace_facts(model, FACT, samples=1, verify=0, out=out),
        ),
        (
            (dosing, "sweep"),
            lambda model, out: mt.dose(
                model, "scale(2) L*.z", FACT, BERLIN, over={"factor": [1.0]}, out=out
            ),
        ),
    ],
    ids=["scores", "traces", "doses"],
)
def test_so_do_maps_that_are_several_sweeps(tiny64, runs, several, tmp_path, monkeypatch):
    """The second would be in another folder than the first."""
    monkeypatch.chdir(tmp_path)

    def told(*given, **how):
        [out] = [one for one in (*given, how.get("out")) if isinstance(one, Path)]
        raise InterruptedError(out)

    monkeypatch.setattr(*runs, told)
    with pytest.raises(InterruptedError) as stopped:
        several(tiny64, "own")
    assert Path(stopped.value.args[0]).parent == tmp_path / "own"


ONE_STUDY = [studies.STUDIES["ioi-levels"]]  # which does not run here: pages say so
WRITING = {
    "index.html": lambda model, tell: studies.run_all(ONE_STUDY, model, "own", tell=tell),
    "overview.html": lambda model, tell: studies.compare(
        "ioi-levels", [model, "nowhere"], "own", tell=tell
    ),
    "params.safetensors": lambda model, tell: mt.train_translators(
        model, [BERLIN, PARIS], steps=1, blocks=[0, 1], out="own", tell=tell
    ),
}


@pytest.mark.parametrize("file", WRITING)
def test_so_does_what_is_written_after_somebody_was_told(tiny64, file, tmp_path, monkeypatch):
    """Whoever is told how far it is may be the program that goes to another folder."""
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path)
    WRITING[file](tiny64, lambda line: monkeypatch.chdir(tmp_path / "else"))
    assert os.listdir(tmp_path / "else") == []
    assert (tmp_path / "own" / file).is_file()


def test_every_file_is_flushed_before_it_takes_its_place(tmp_path, monkeypatch):
    flushed, fsync = set(), os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda handle: (flushed.add(os.fstat(handle).st_ino), fsync(handle))
    )
    replaced = []

    def about_to(operation: str, path: Path) -> None:
        if operation == "rename" and path.name == "new":
            new = [path, *path.rglob("*")]
            assert {one.stat().st_ino for one in new} <= flushed
            replaced.extend(new)
        if operation == "rename" and path.name.endswith(disk.WRITING):
            replaced.append(path)
            assert path.stat().st_ino in flushed

    monkeypatch.setattr(disk, "about_to", about_to)
    with StoreSink(tmp_path / "e.zarr", QUESTION, 1) as sink:
        sink.take(block(0))
        sink.finish(bare().data)
    assert len(replaced) == 1 + 1 + (1 + 3 + 4 + 3 * 3)


def test_whatever_changes_the_disk_says_so(tmp_path):
    """Each name that appears or goes was announced: no write passes the place for faults by."""
    with watched() as steps, StoreSink(tmp_path / "e.zarr", QUESTION, 1) as sink:
        sink.take(block(0))
        sink.finish(bare().data)
    told = {name for _, name in steps}
    assert {"lock", "question.json.writing", "000000.zip.writing", "new", "units"} <= told
    assert {file.name for file in (tmp_path / "e.zarr").rglob("*")} <= told
