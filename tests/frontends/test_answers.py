"""Every command as JSON, quiet, in a pipe that closes; pictures from the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import microtome as mt
from microtome.figures.view import cut
from microtome.frontends.commands import planning

BERLIN = ["-p", "Berlin is the capital of", "--target", " Germany"]
HEADS = [*BERLIN, "-e", "zero L*.z.h*", "-m", "prob"]


def test_run_as_json(call):
    asked = ["-p", "Berlin is", "-e", "zero L0.z.h3", "--top", "3", "--json"]
    code, out, err = call("run", "nano", *asked)
    answer = json.loads(out)
    assert (code, err) == (0, "")
    [prompt] = answer["prompts"]
    assert len(prompt["top"][0]["tokens"]) == 3
    assert answer["receipts"][0]["edit"] == "zero L0.z.h3"


def test_sweep_as_json_says_what_python_says(call, tmp_path, nano):
    code, out, _ = call("sweep", "nano", *HEADS, "-o", str(tmp_path / "map"), "--json", "-q")
    answer = json.loads(out)
    assert code == 0
    effects = mt.open_effects(tmp_path / "map")
    assert answer["cells"] == effects.n_cells == 48
    assert answer["top_cells"]["prob"][0]["effect"] == effects.top(1, "prob")["effect"][0]
    assert answer["report"] == str(tmp_path / "map" / "report.html")


def test_an_approximate_map_is_called_one_and_says_how_good_it_is(call, tmp_path):
    asked = ("sweep", "nano", *HEADS, "--method", "atp", "--audit", "16")
    code, out, err = call(*asked, "-o", str(tmp_path / "out"))
    assert code == 0, err
    assert "Strongest effects on prob, approximate" in out
    assert "which is not exact" in out + err
    assert "The largest miss is" in out + err
    code, out, _ = call(*asked, "-o", str(tmp_path / "out"), "--quiet")
    assert ", approximate" in out


def test_plan_as_json_has_seconds_by_the_pace_of_a_pass(call, monkeypatch, nano):
    times = iter([0.0, 1.0, 2.0, 2.25, 3.0, 3.5])  # others make a pass slower, never quicker

    prompts = nano.encode("Berlin is the capital of")
    experiment = mt.Experiment(
        model="nano", prompts="Berlin is the capital of", edits="zero L*.z.h*", metrics="kl"
    )
    plan = experiment.plan(nano)
    seconds = planning.seconds_of(nano, prompts, plan, lambda: next(times))
    assert seconds == pytest.approx(0.25 * plan.cost.passes)
    code, out, _ = call("plan", "nano", *HEADS, "--json")
    answer = json.loads(out)
    assert code == 0
    assert answer["seconds"] > 0
    assert answer["cells"] == 48
    assert answer["prompts"][0]["tokens"][0] == "Berlin"


def test_plan_shows_its_cost_before_the_prompts(call, tmp_path):
    rows = [json.dumps({"text": f"Berlin is the number {n}"}) for n in range(30)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(rows))
    asked = ["--prompts", str(tmp_path / "prompts.jsonl"), "-e", "zero L*.z.h*"]
    code, out, _ = call("plan", "nano", *asked)
    assert code == 0
    lines = out.splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith("prompt "))
    assert any(line.startswith("expected time") for line in lines[:first])
    assert sum(line.startswith("prompt ") for line in lines) == 10
    assert lines[-1] == "20 more prompts; --json has the tokens of all 30."


def test_sites_show_addresses_that_can_be_typed(call):
    code, out, _ = call("sites", "nano", "--json")
    answer = json.loads(out)
    assert code == 0
    assert {one["site"]: one["address"] for one in answer["sites"]}["z"] == "L*.z.h*@*"
    prompt = mt.Prompt("Berlin is", target=" the")
    for one in answer["sites"][:4]:
        mt.Experiment(model="nano", prompts=prompt, edits=f"zero {one['address']}", metrics="kl")
    code, out, _ = call("sites", "nano")
    assert "L*.pattern.h*@*,*" in out
    code, out, _ = call("sites", "nano", "--raw", "--json")
    assert json.loads(out)["returned"]


def test_studies_as_json_and_with_headers_in_their_language(call, tmp_path):
    _, out, _ = call("study", "show", "head-ablation", "--json")
    assert {one["parameter"] for one in json.loads(out)["parameters"]} >= {"prompt", "target"}
    _, out, _ = call("study", "list", "--lang", "vi")
    assert out.splitlines()[0].split("  ")[0] == "nghiên cứu"
    _, out, _ = call("study", "show", "head-ablation", "--lang", "vi")
    assert "như bản công bố" in out
    asked = ["study", "run", "head-ablation", "--model", "nano", "-q", "--lang", "vi"]
    code, out, err = call(*asked, "-o", str(tmp_path / "out"), "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["findings"]


def test_quiet_is_quiet(call, tmp_path):
    code, out, err = call("sweep", "nano", *HEADS, "-o", str(tmp_path / "map"), "--quiet")
    assert (code, err) == (0, "")
    assert "<Effects" not in out
    assert "Strongest effects" in out
    code, out, err = call("run", "nano", "-p", "", "-q")
    assert code == 2
    assert "empty" in err, "errors are said"


@pytest.mark.parametrize("name", ["map.svg", "map.PDF", "map.png", "map.html"])
def test_a_picture_that_is_asked_for_is_what_is_written(call, tmp_path, name):
    path = tmp_path / name
    code, out, _ = call("sweep", "nano", *HEADS, "-o", str(path))
    assert code == 0
    assert [one.name for one in tmp_path.iterdir()] == [name]
    assert path.is_file()
    assert f"Picture: {path}" in out
    code, _, err = call("sweep", "nano", *HEADS, "-o", str(path))
    assert code == 2
    assert "is there already" in err


def test_a_map_of_three_dimensions_is_drawn_through_its_strongest_cell(call, tmp_path, nano):
    asked = [*BERLIN, "-e", "zero L*.z.h*@*", "-m", "prob"]
    code, _, err = call("sweep", "nano", *asked, "-o", str(tmp_path / "map.svg"))
    assert (code, err) == (0, "")
    prompt = mt.Prompt("Berlin is the capital of", target=" Germany")
    effects = mt.sweep(nano, prompt, "zero L*.z.h*@*", metrics="prob", progress=False)
    top = effects.top(1, "prob").to_dict(orient="records")[0]
    assert cut(effects, "prob") == {"pos": top["pos"]}


def test_a_figure_is_drawn_from_what_a_sweep_left(call, tmp_path):
    call("sweep", "nano", *HEADS, "-o", str(tmp_path / "map"))
    svg = tmp_path / "heads.svg"
    looks = ["--title", "Heads", "--size", "500x300", "--only", "layer=2:5", "--order", "head",
             "--label", "head=attention head", "--colors", "PuOr", "--limit", "0.1"]  # fmt: skip
    code, out, _ = call("figure", str(tmp_path / "map"), "-o", str(svg), *looks)
    assert (code, out) == (0, f"Picture: {svg}\n")
    assert 'width="360pt"' in svg.read_text()
    bad = [
        (["--size", "big"], "--size takes WIDTHxHEIGHT"),
        (["--only", "layer"], "--only takes NAME=VALUE"),
        (["--only", "layer=1:2:3"], "FROM:TO"),
        (["-m", "kl"], "'kl' was not measured"),
    ]
    for arguments, words in bad:
        code, _, err = call("figure", str(tmp_path / "map"), "-o", str(tmp_path / "x.svg"),
                            *arguments)  # fmt: skip
        assert code == 2
        assert words in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sweep", "nano", *HEADS, "-o", "map.jpg"], "a figure is written as .png, .svg"),
        (["sweep", "nano", *HEADS, "-o", "map.csv"], "names a table"),
        (["study", "run", "ioi-levels", "--model", "nano", "-o", "x.svg"], "names one picture"),
        (["figure", "nowhere", "-o", "map.svg"], "nowhere"),
        (["sweep", "nano", *BERLIN, "-e", "zero L0.z.h*", "-m", "top1", "-o", "m.svg"],
         "Token ids have no effect to draw"),
    ],
)  # fmt: skip
def test_a_picture_that_cannot_be_is_refused(call, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    code, _, err = call(*arguments)
    assert code == 2
    assert words in err
    assert not list(tmp_path.iterdir())


def test_a_folder_with_several_results_says_which(call, tmp_path, nano):
    effects = mt.sweep(nano, "Berlin is", mt.zero("L*.z.h0"), metrics="kl", progress=False)
    for name in ("a", "b"):
        effects.save(tmp_path / "effects" / f"{name}.zarr")
    with pytest.raises(mt.errors.EffectsError, match=r"several results, a\.zarr, b\.zarr"):
        mt.open_effects(tmp_path)


def test_an_output_that_was_never_open_is_no_error():
    script = f"{sys.executable} -m microtome study list --json >&-"
    done = subprocess.run(["sh", "-c", script], stderr=subprocess.PIPE, env={**os.environ})
    assert (done.returncode, done.stderr) == (0, b"")


def test_wrong_options_are_told_plainly_where_nobody_sees_boxes():
    command = [sys.executable, "-m", "microtome", "study", "list", "--lnag", "vi"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 2
    assert "No such option: --lnag" in done.stderr
    assert "╭" not in done.stderr


@pytest.mark.parametrize("asked", [["study", "list"], ["study", "list", "--json"], ["--help"]])
def test_a_pipe_that_is_closed_is_no_error_to_tell_of(asked):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "microtome", *asked]
    try:
        done = subprocess.run(
            command, stdout=writing, stderr=subprocess.PIPE, env={**os.environ}, check=False
        )
    finally:
        os.close(writing)
    assert done.stderr == b""
    assert done.returncode == 141


@pytest.mark.parametrize("name", ["map.svg", "map.jpg", "map.csv", "map.JSON"])
def test_results_are_not_written_to_the_name_of_a_file(tmp_path, monkeypatch, nano, name):
    monkeypatch.chdir(tmp_path)
    effects = mt.sweep(nano, "Berlin is", mt.zero("L*.z.h0"), metrics="kl", progress=False)
    asked = {"model": "nano", "prompts": "Berlin is", "edits": "zero L*.z.h0", "metrics": "kl"}
    for attempt in (
        lambda: effects.save(name),
        lambda: mt.sweep(nano, "Berlin is", mt.zero("L*.z.h0"), metrics="kl", out=name),
        lambda: mt.Experiment(**asked, out=name).run(nano, progress=False),
        lambda: mt.studies.run("ioi-levels", nano, name),
    ):
        with pytest.raises(mt.errors.EffectsError, match="are written to a folder"):
            attempt()
    assert not list(tmp_path.iterdir())
