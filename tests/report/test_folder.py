"""Folders: checked first, effects first, each part whole or not at all, nothing outside touched."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go
import pytest

import effects_made_by_hand as by_hand
import microtome as mt
from microtome import figures, studies
from microtome.errors import EffectsError, ReportError
from microtome.report import (
    Document,
    Folder,
    Index,
    Picture,
    Section,
    check_folder,
    check_index,
    folder,
    kept_in,
    write_folder,
    write_index,
)
from microtome.report.layout import LOCK
from microtome.report.names import LONGEST, distinct, is_legal
from microtome.report.writing import write as write_file
from microtome.results import disk, form


class Killed(BaseException):
    """What a test raises in the place of a kill: nothing may catch it."""


def result(scale: float) -> mt.Effects:
    made = by_hand.heads()
    return mt.Effects(made.data.assign(prob=made.data["prob"] * scale))


OLD, NEW = result(1.0), result(2.0)


def document(title: str) -> Document:
    pictures = (Picture(f"map-{title}", go.Figure(), ""), Picture("both", go.Figure(), title))
    return Document(title, "?", "", (Section("s", (), pictures),))


@pytest.fixture(scope="session")
def saved() -> dict[str, dict[str, bytes]]:
    """The results as they are saved: encoding them takes long."""
    return {title: form.encode(one.data) for title, one in (("old", OLD), ("new", NEW))}


@pytest.fixture
def quick(monkeypatch, saved):
    """Pages and pictures that say only whose they are; effects that are encoded already."""

    def encode(data) -> dict[str, bytes]:
        return dict(saved["old" if data["prob"].equals(OLD.data["prob"]) else "new"])

    monkeypatch.setattr(form, "encode", encode)
    monkeypatch.setattr(folder, "render", lambda made: made.title)
    monkeypatch.setattr(figures, "page_of", lambda figure: "page")
    monkeypatch.setattr(figures, "png_of", lambda figure: b"png")
    monkeypatch.setattr(figures, "plotly_js", lambda: b"js")


@pytest.fixture
def stop_at(monkeypatch):
    """Raises an error at the k-th change on disk; gives the list of changes made."""

    def stopping(k: int, error: BaseException) -> list[str]:
        made: list[str] = []

        def about_to(change: str, path: Path) -> None:
            made.append(f"{change} {path.name}")
            # Nothing is changed any more by whoever is killed.
            if len(made) == k or (len(made) > k > 0 and isinstance(error, Killed)):
                raise error

        monkeypatch.setattr(disk, "about_to", about_to)
        return made

    return stopping


def write(out: Path, title: str) -> Path:
    return write_folder(out, OLD if title == "old" else NEW, document(title), {"title": title})


def killed(out: Path) -> None:
    """Write, and be killed; a process that is gone holds nothing any more."""
    try:
        write(out, "new")
    except Killed as stop:
        stop.__traceback__ = None
    else:
        pytest.fail("it was not killed")


def failure(out: Path) -> str:
    """Why results could not be written; nothing where they could."""
    try:
        write(out, "new")
    except EffectsError as error:
        return str(error)
    return ""


def state(out: Path) -> str:
    return json.loads((out / "summary.json").read_text(encoding="utf-8"))["state"]


def whose(out: Path) -> set[str]:
    """To which results the parts belong that are there."""
    found = set()
    effects = out / "effects.zarr"
    if effects.exists():
        prob = mt.open_effects(effects).data["prob"]
        found.add("old" if prob.equals(OLD.data["prob"]) else "new")
        assert found == {"old"} or prob.equals(NEW.data["prob"])
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    found |= {summary["title"]} if "title" in summary else set()
    if (out / "report.html").exists():
        found.add((out / "report.html").read_text())
    return found | {name for name in ("old", "new") if (out / f"figures/map-{name}.png").exists()}


def changes(stop_at, tmp_path, before: bool) -> list[int]:
    """The folder's own changes in a run, to that of an earlier one (``earlier``) or to none.

    Those inside the store of the effects are one here: its own tests take them one by one.
    """
    out = tmp_path / "counted"
    if before:
        shutil.copytree(write(tmp_path / "earlier", "old"), out)
    made = stop_at(0, Killed())
    write(out, "new")
    store = re.compile(r"(fill|write|make|flush|remove) (\.z\w+|[\d.]+|[a-z_]+|checksums\.json.*)")
    return [k for k, change in enumerate(made, 1) if not store.fullmatch(change)]


@pytest.mark.slow
def test_a_kill_at_any_write_leaves_a_result_and_a_summary_that_tells_the_truth(
    quick, stop_at, tmp_path
):
    steps = changes(stop_at, tmp_path, before=True)
    assert len(steps) > 15
    for k in steps:
        out = shutil.copytree(tmp_path / "earlier", tmp_path / str(k))
        made = stop_at(k, Killed())
        killed(out)
        assert len(made) >= k
        found = whose(out)
        if state(out) == "complete":  # of one, if only the word is left that somebody writes
            assert len(found) == 1, made
        mt.open_effects(out / "effects.zarr")  # between the two renames too
        stop_at(0, Killed())
        write(out, "new")
        assert (state(out), whose(out)) == ("complete", {"new"})
        assert not [*out.rglob("*.partial"), *out.rglob("*.writing"), *out.rglob("*.gone")]


@pytest.mark.slow
def test_a_kill_in_a_new_folder_does_not_have_the_next_run_refused(quick, stop_at, tmp_path):
    steps = changes(stop_at, tmp_path, before=False)
    for k in steps:
        out = tmp_path / str(k)
        stop_at(k, Killed())
        killed(out)
        stop_at(0, Killed())
        write(out, "new")
        assert (state(out), whose(out)) == ("complete", {"new"})


def test_a_full_disk_at_any_write_is_one_error_and_costs_no_earlier_result(
    quick, stop_at, tmp_path
):
    steps = changes(stop_at, tmp_path, before=True)
    for k in steps:
        out = shutil.copytree(tmp_path / "earlier", tmp_path / str(k))
        made = stop_at(k, OSError(errno.ENOSPC, "No space left on device"))
        said = failure(out)
        if not said:  # what is left to be removed is no reason to fail
            assert (state(out), whose(out)) == ("complete", {"new"})
            continue
        assert "No space left on device" in said
        stop_at(0, Killed())
        found = whose(out)
        assert state(out) != "complete" or found == {"old"}, made
        check_folder(out)


def test_a_full_disk_while_effects_are_written_leaves_all_as_it_was(quick, tmp_path, monkeypatch):
    write(tmp_path, "old")
    before = files(tmp_path)

    def full(operation: str, path: Path) -> None:
        if "new" in path.parts:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(disk, "about_to", full)
    with pytest.raises(EffectsError, match="No space left"):
        write(tmp_path, "new")
    assert files(tmp_path) == before
    assert "may belong to an earlier result" in state(tmp_path)


def files(out: Path) -> dict[Path, bytes]:
    """All but the summary, which tells what goes on."""
    found = (path for path in out.rglob("*") if path.is_file() and path.name != "summary.json")
    return {path: path.read_bytes() for path in found}


@pytest.mark.parametrize("broken", ["png_of", "page_of", "render", "document"])
def test_a_figure_or_report_that_fails_leaves_effects_and_says_so(
    quick, tmp_path, monkeypatch, broken
):
    def fail(*given):
        raise ZeroDivisionError("by zero")

    made = fail if broken == "document" else document("new")
    if broken != "document":
        monkeypatch.setattr(folder if broken == "render" else figures, broken, fail)
    if broken == "document":
        write(tmp_path, "old")
    with pytest.raises(
        ReportError, match=r"ZeroDivisionError: by zero.*Kept in .*effects\.zarr"
    ) as e:
        write_folder(tmp_path, NEW, made, {"title": "new"})
    assert isinstance(e.value.__cause__, ZeroDivisionError)
    assert mt.open_effects(tmp_path / "effects.zarr").data["prob"].equals(NEW.data["prob"])
    assert "title" in json.loads((tmp_path / "summary.json").read_text())
    assert "earlier result" in state(tmp_path)
    assert "effects.zarr (whole)" in kept_in(tmp_path)


def test_a_study_whose_drawing_fails_keeps_its_sweeps(tmp_path, monkeypatch, nano):
    study = studies.find("head-ablation")
    monkeypatch.setattr(type(study), "texts", lambda self, lang: Mute(lang))
    with pytest.raises(ReportError, match=r"no text.*Kept in .*zero\.zarr"):
        studies.run("head-ablation", model=nano, out=tmp_path / "out")
    assert mt.open_effects(tmp_path / "out" / "effects" / "zero.zarr").n_cells


@dataclass
class Mute:
    """The texts of a study, none of which can be said."""

    lang: str

    def __call__(self, key: str, **values: object) -> str:
        raise KeyError(f"no text {key}")


@pytest.mark.parametrize(
    "lie",
    [
        {"effects": [".."], "figures": ["../../precious"]},
        {"effects": ["../kept.zarr", "effects/../../kept.zarr", "effects/..zarr"]},
        {"effects": ["KEPT", ".", "", None, 3, ["x"]], "figures": [None, "..", "../precious"]},
        {"effects": "..", "figures": {"a": 1}, "before": {"effects": [".."], "figures": 3}},
        {"before": {"effects": ["../kept.zarr"], "figures": ["../../precious", "/precious"]}},
        {"before": [".."]},
    ],
)
def test_a_crafted_summary_removes_nothing_but_what_is_ours(quick, tmp_path, lie):
    kept = OLD.save(tmp_path / "kept.zarr")
    (tmp_path / ".zgroup").write_text("{}")
    (tmp_path / ".zattrs").write_text('{"format": 1, "provenance": ""}')
    (tmp_path / "precious.png").write_text("x")
    out = tmp_path / "out"
    out.mkdir()
    lie = {"microtome_folder": 1, **lie}
    text = json.dumps(lie).replace("KEPT", str(kept)).replace("/precious", f"{tmp_path}/precious")
    (out / "summary.json").write_text(text)
    before = {path: path.stat().st_size for path in tmp_path.rglob("*") if out not in path.parents}
    write(out, "new")
    write(out, "old")
    after = {path: path.stat().st_size for path in tmp_path.rglob("*") if out not in path.parents}
    assert {p: s for p, s in before.items() if p != out} == {
        p: s for p, s in after.items() if p != out
    }


@pytest.mark.parametrize(
    "place",
    ["report.html", "summary.json", "figures", "effects", "effects.zarr", "figures/both.png",
     "figures/plotly.min.js", "effects/a.zarr"],
)  # fmt: skip
def test_links_where_something_is_written_are_refused(quick, tmp_path, place):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "thesis.tex").write_text("years of work")
    out = tmp_path / "out"
    out.mkdir()
    if place != "summary.json":
        (out / "summary.json").write_text('{"microtome_folder": 1}')
        target = outside
    else:
        target = outside / "summary.json"
        target.write_text('{"microtome_folder": 1}')
    (out / place).parent.mkdir(exist_ok=True)
    (out / place).symlink_to(target)
    before = sorted((path, path.stat().st_size) for path in outside.rglob("*"))
    with pytest.raises(EffectsError, match="is a link"):
        check_folder(out)
    with pytest.raises(EffectsError, match="is a link"):
        write(out, "new")
    assert sorted((path, path.stat().st_size) for path in outside.rglob("*")) == before


def test_a_link_that_comes_later_is_not_written_through(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    for name in ("report.html", "page.writing"):
        (tmp_path / name).symlink_to(tmp_path / "thesis.tex")
    for name in ("report.html", "page"):
        with pytest.raises(EffectsError, match="link"):
            write_file(tmp_path / name, b"x")
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize(
    ("make", "name", "words"),
    [
        (lambda out: out.write_text("x"), "", "is a file; results are written to a folder"),
        (lambda out: out.write_text("x"), "/deep/er", "is a file; results"),
        (lambda out: out.symlink_to("nowhere"), "", "is a link to nothing"),
        (lambda out: (out / "report.html").mkdir(parents=True), "", "left alone"),
        (lambda out: None, "\0", "cannot name a folder"),
        (lambda out: None, "\ud800", "cannot name a folder"),
        (lambda out: None, "/deep/" + "x" * 300, "cannot name a folder"),
    ],
)
def test_what_is_in_the_way_is_said_before_anything_runs(tmp_path, make, name, words):
    make(tmp_path / "out")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(EffectsError, match=words):
        check_folder(f"{tmp_path / 'out'}{name}")
    with pytest.raises(EffectsError, match="named by a text, not by 5"):
        check_folder(5)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_place_that_cannot_be_written_to_is_said_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    for out in (tmp_path, tmp_path / "new" / "er"):
        with pytest.raises(EffectsError, match="cannot be written to"):
            check_folder(out)


def test_someone_elses_folders_in_ours_are_left_alone(quick, tmp_path):
    write(tmp_path, "old")
    (tmp_path / "effects" / "theirs.zarr").mkdir(parents=True)
    with pytest.raises(EffectsError, match=r"theirs\.zarr exists and is not a saved result"):
        write(tmp_path, "new")
    assert whose(tmp_path) == {"old"}


def test_a_check_changes_nothing(tmp_path):
    assert check_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert not list(tmp_path.iterdir())


def test_units_that_were_left_are_ours(tmp_path):
    (tmp_path / "effects.zarr.partial").mkdir()
    check_folder(tmp_path)
    assert kept_in(tmp_path) == "effects.zarr.partial (as far as it was done)"


def test_an_experiment_and_a_study_look_at_their_folder_before_the_model(tmp_path, monkeypatch):
    def load(*given, **more):
        raise AssertionError("loaded first")

    # By their names in the table of modules: packages show functions of the same names.
    for module in ("frontends.experiment.fields", "studies.perform", "studies.everything"):
        monkeypatch.setattr(sys.modules[f"microtome.{module}"], "load", load)
    (tmp_path / "thesis.tex").write_text("years of work")
    experiment = mt.Experiment(
        model="nano", prompts="Berlin is", edits="zero L0.z", metrics="kl", out=tmp_path
    )
    with pytest.raises(EffectsError, match="left alone"):
        experiment.run()
    with pytest.raises(EffectsError, match="left alone"):
        studies.run("head-ablation", model="nano", out=tmp_path)
    (tmp_path / "head-ablation").mkdir()
    (tmp_path / "head-ablation" / "mine").write_text("x")
    with pytest.raises(EffectsError, match="left alone"):
        studies.run_all([studies.find("head-ablation")], "nano", tmp_path)


@pytest.mark.parametrize("before", [True, False])
def test_a_folder_that_somebody_writes_to_is_nobody_elses_until_its_report_is_there(
    quick, tmp_path, before
):
    """One that took longer over its report would leave it beside another's numbers."""
    out = tmp_path / "out"
    if before:
        write(out, "old")

    def meanwhile() -> Document:
        with pytest.raises(EffectsError, match=rf"is being written by process {os.getpid()} on"):
            write(out, "old")
        return document("new")

    write_folder(out, NEW, meanwhile, {"title": "new"})
    assert (state(out), whose(out)) == ("complete", {"new"})
    assert not (out / LOCK).exists()


def test_an_experiment_a_circuit_and_a_study_are_refused_a_folder_that_somebody_has(
    quick, tmp_path, nano
):
    write(tmp_path, "old")
    asked = {"model": "nano", "prompts": "Berlin is", "out": tmp_path}
    tasks = [
        lambda: mt.Experiment(**asked, edits="zero L0.z", metrics="kl").run(nano, overwrite=True),
        lambda: mt.CircuitExperiment(**asked, circuit=["input->logits"]).run(nano, overwrite=True),
        lambda: studies.run("head-ablation", model=nano, out=tmp_path, overwrite=True),
    ]
    with Folder(tmp_path):
        for task in tasks:
            with pytest.raises(EffectsError, match="is being written by process"):
                task()
    assert (state(tmp_path), whose(tmp_path)) == ("complete", {"old"})


def test_results_have_legal_files_of_their_own_whatever_they_are_called(quick, tmp_path):
    names = ["con", "A b", "a-b", "../up"]
    write_folder(tmp_path, dict.fromkeys(names, OLD), document("old"), {})
    listed = json.loads((tmp_path / "summary.json").read_text())["effects"]
    assert listed == [
        "effects/con-0.zarr", "effects/a-b.zarr", "effects/a-b-2.zarr", "effects/up.zarr",
    ]  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "effects").iterdir()) == sorted(
        Path(path).name for path in listed
    )


def test_half_a_character_does_not_stop_a_summary(quick, tmp_path):
    write_folder(tmp_path, OLD, document("old"), {"title": "\ud83d"})
    assert json.loads((tmp_path / "summary.json").read_text())["title"] == "?"


def test_an_index_is_written_through_no_link(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    (tmp_path / "index.html").symlink_to(tmp_path / "thesis.tex")
    with pytest.raises(EffectsError, match="is a link"):
        check_index(tmp_path, [])
    with pytest.raises(EffectsError, match="is a link"):
        write_index(tmp_path, Index("nano", ()))


def test_a_result_is_there_before_its_report_is_begun(tmp_path):
    out = Folder(tmp_path, ["a", "b"])
    out.keep(OLD, "a")
    assert mt.open_effects(tmp_path / "effects" / "a.zarr").n_cells
    assert kept_in(tmp_path) == "effects/a.zarr (whole)"
    assert "being written" in state(tmp_path)


def test_names_are_legal_distinct_and_short():
    texts = ["loss@2", "loss@-2", "Ж", "Я", "std(L*.x)", "std(l*.x)", "nul", "x" * 300, "x" * 301]
    names = distinct(texts)
    assert len(set(names)) == len(texts)
    assert all(map(is_legal, names))
    assert max(map(len, names)) == LONGEST
    assert distinct(["a", "a-2", "a"]) == ("a", "a-2", "a-3")
