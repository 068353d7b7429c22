"""Windows, aggregates and workers on the command line and in files of experiments."""

from __future__ import annotations

import json
import sys

import pytest
import xarray as xr

import microtome as mt
from microtome.errors import ExperimentError
from microtome.frontends import cli
from microtome.plan import units

TEXTS = ("Berlin is the capital of", "Rome is the capital of", "Paris is the capital of")
PROMPTS = [mt.Prompt(text, target=" Germany") for text in TEXTS]
ASKED = {"model": "nano", "prompts": PROMPTS, "edits": "zero L*.z.h*@-1", "metrics": "prob"}


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    (tmp_path / "p.jsonl").write_text("\n".join(json.dumps(one.as_dict()) for one in PROMPTS))
    monkeypatch.chdir(tmp_path)

    def calling(*more: str) -> str:
        words = ["sweep", "nano", "--prompts", "p.jsonl", "-e", "zero L*.z.h*@-1", *more]
        monkeypatch.setattr(sys, "argv", ["microtome", *words])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        shown = capsys.readouterr()
        assert not stop.value.code, shown.err
        return shown.out

    return calling


def test_a_window_is_that_of_a_stream(call, nano):
    call("--window", "2", "-o", "out")
    stream = mt.Stream(PROMPTS, 2)
    wanted = mt.sweep(nano, stream, "zero L*.z.h*@-1", metrics="prob", progress=False)
    found = mt.open_effects("out")
    xr.testing.assert_identical(found.data.drop_attrs(), wanted.data.drop_attrs())


def test_aggregates_have_a_report_and_a_table(call, nano, tmp_path):
    told = json.loads(call("--keep", "aggregates", "-o", "out", "--json"))
    wanted = mt.sweep(
        nano, PROMPTS, "zero L*.z.h*@-1", metrics="prob", progress=False, keep="aggregates"
    )
    found = mt.open_aggregates(tmp_path / "out" / "effects.zarr")
    xr.testing.assert_identical(found.data.drop_attrs(), wanted.data.drop_attrs())
    [metric] = wanted.metrics
    first = wanted.top(1).to_dict(orient="records")[0]
    assert told["top_cells"][metric][0]["effect"] == pytest.approx(first["effect"])
    assert told["prompts"] == 3
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "over the prompts?" in page
    assert len(list((tmp_path / "out" / "figures").glob("*.png"))) == 1
    assert "Largest mean effects" in call("--keep", "aggregates", "-o", "map.svg")
    assert "<svg" in (tmp_path / "map.svg").read_text(encoding="utf-8")


def test_an_experiment_says_it_and_reads_back():
    experiment = mt.Experiment(**ASKED, window=2, keep="aggregates", workers="processes:2")
    assert mt.Experiment.from_yaml(experiment.to_yaml()) == experiment
    assert {"window", "keep", "workers"} <= experiment.plain().keys()


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("window", 0, "window: "),
        ("keep", "cell", "keep='cell' does not exist"),
        ("workers", "rai", "There are no workers 'rai'"),
        ("out", "s3://bucket/out", "out: s3://bucket/out is an address"),
    ],
)
def test_what_is_none_is_refused(field, value, says):
    with pytest.raises((ExperimentError, mt.MicrotomeError), match=says):
        mt.Experiment(**ASKED, **{field: value})


def test_who_computes_is_handed_on(monkeypatch, nano):
    asked = {}

    def sweep(*_, **how):
        asked.update(how)
        raise KeyboardInterrupt

    monkeypatch.setattr("microtome.frontends.experiment.experiment.sweep", sweep)
    with pytest.raises(KeyboardInterrupt):
        mt.Experiment(**ASKED, workers="ray:auto,gpus=1").run(nano)
    assert asked["workers"] == "ray:auto,gpus=1"


def test_a_plan_says_what_workers_would_bring(monkeypatch, capsys):
    def planned(*more: str) -> str:
        words = ["plan", "nano", "-p", TEXTS[0], "-e", "zero L*.z.h*@*", *more]
        monkeypatch.setattr(sys, "argv", ["microtome", *words])
        with pytest.raises(SystemExit):
            cli.main()
        return capsys.readouterr().out

    assert "1: workers would bring nothing" in planned()
    monkeypatch.setattr(units, "WORK", 1e9)
    monkeypatch.setattr(units, "PASSES", 0)
    told = json.loads(planned("--json"))
    assert told["units"] > 4
    assert told["seconds"] / 2 < told["workers"]["2"] < told["seconds"]
    assert told["workers"]["4"] < told["workers"]["2"]
    assert f"{told['units']}, the largest" in " ".join(planned().split())
