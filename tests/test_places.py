"""A ``~`` in front of a path is the home folder, wherever a path is taken."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import effects_made_by_hand as by_hand
import microtome as mt
from conftest import BERLIN
from microtome.errors import MicrotomeError
from microtome.figures import write_png
from microtome.frontends.cli import app
from microtome.frontends.experiment.experiment import Experiment
from microtome.report.layout import check_folder
from microtome.steering import SteeringVector, open_vector

EXPERIMENT = """
model: nano
prompts: {file: ~/prompts.jsonl}
edits: ["zero L*.z.h*"]
metrics: [prob]
out: ~/answer
"""


def test_a_tilde_is_the_home_folder(tiny, tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(tmp_path))
    effects, figure = by_hand.heads(), by_hand.heads().figure()
    (tmp_path / "prompts.jsonl").write_text('{"text": "Berlin"}\n')
    (tmp_path / "asked.yaml").write_text(EXPERIMENT)

    effects.save("~/a.zarr")
    assert mt.open_effects("~/a.zarr").data.equals(effects.data)
    swept = mt.sweep(tiny, BERLIN, "zero L1.z.h*", metrics="top1", verify=0, out=Path("~/b.zarr"))
    assert mt.open_effects(tmp_path / "b.zarr").data.equals(swept.data)
    assert figure.save("~/c.svg") == tmp_path / "c.svg"
    assert write_png(figure, "~/d.png").is_file()
    SteeringVector({1: np.ones(32)}).save("~/e.gguf")
    assert open_vector("~/e.gguf").layers == (1,)
    assert tiny.run(BERLIN, edits=mt.add("L1.resid_post", "~/e.gguf")).receipts[0].changed
    assert check_folder("~/f") == tmp_path / "f"
    [prompt] = mt.Prompts.read("~/prompts.jsonl")
    asked = Experiment.read("~/asked.yaml")
    assert (prompt.text, asked.out) == ("Berlin", tmp_path / "answer")
    assert str(asked.prompts.file) == str(tmp_path / "prompts.jsonl")
    with pytest.raises(MicrotomeError, match=f"There is no directory '{tmp_path}/model'"):
        mt.load("~/model")
    assert os.listdir(here) == []


def test_commands_look_at_home_for_what_they_would_replace(call, tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "kept").write_text("mine")
    (tmp_path / "kept.svg").write_text("mine")
    for asked in (
        ["steer", "nowhere", "--token", " France", "--out=~/kept"],
        ["circuit", "score", "nowhere", "-p", "Berlin", "--out=~/kept"],
        ["circuit", "find", "nowhere", "--out=~/kept"],
        ["circuit", "evaluate", "nowhere", "c.json", "-p", "Berlin", "--out=~/kept"],
        ["circuit", "draw", "c.json", "--out=~/kept.svg"],
        ["lab", "--no-open", "--keep=~/kept"],
    ):
        code, _, said = call(*asked)
        assert (code, f"{tmp_path}/kept" in said.replace("\n", "")) == (2, True), (asked, said)
    assert os.listdir(here) == []


def test_every_command_takes_the_home_folder_for_a_tilde():
    apps = [app, *(group.typer_instance for group in app.registered_groups)]
    for command in (one for each in apps for one in each.registered_commands):
        assert command.callback.__qualname__ == "folded.<locals>.unfolded", command.callback
