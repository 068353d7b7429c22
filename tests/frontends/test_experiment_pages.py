"""The example and the page about experiments: what they show runs and is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from recipes.pages import ROOT, run

import microtome as mt
from microtome.frontends.experiment.fields import Checkpoint
from microtome.frontends.experiment.reading import ReadTraces

PAGE = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")


SHEETS = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)


def test_the_pages_experiment_runs_as_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sheet, _ = SHEETS
    Path("experiment.yaml").write_text(sheet, encoding="utf-8")
    names: dict[str, object] = {}
    run(ROOT / "docs" / "experiments.md", names)
    effects, experiment = names["effects"], names["experiment"]
    assert dict(effects.data.sizes) == {"prompt": 1, "layer": 6, "head": 8, "factor": 3}
    assert mt.Experiment.from_yaml(experiment.to_yaml()) == experiment
    assert Path("out/berlin/report.html").is_file()


def test_the_pages_file_of_a_reading_runs(tmp_path, monkeypatch, nano):
    monkeypatch.chdir(tmp_path)
    _, sheet = SHEETS
    Path("trace.yaml").write_text(sheet, encoding="utf-8")
    traces = ReadTraces.read("trace.yaml").run(nano)
    assert dict(traces.data.sizes) | {"kind": 1, "sample": 2} == dict(traces.data.sizes)


def test_the_page_has_every_field_with_its_default():
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\|([^|]*)\|$", PAGE, flags=re.MULTILINE))
    rows = {name: default.strip() for name, default in rows.items()}
    assert list(rows) == list(mt.Experiment.model_fields)
    for name, field in mt.Experiment.model_fields.items():
        assert field.is_required() == (rows[name] == "needed")
    assert (rows["engine"], rows["verify"], rows["seed"]) == ("`auto`", "4", "0")
    assert f"{{{', '.join(Checkpoint.model_fields)}}}" in PAGE


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda p: p.name)
def test_examples_run(path, nano, tmp_path):
    experiment = mt.Experiment.read(path, out=tmp_path / "out")
    effects = experiment.run(nano, progress=False)
    assert effects.dims == ("prompt", "layer", "head")
    assert (tmp_path / "out" / "report.html").is_file()
    assert mt.Experiment.from_yaml(experiment.to_yaml()) == experiment
