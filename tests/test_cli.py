"""The command line: what it prints and leaves, and how it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from microtome import cli, studies

PROMPT = "When Sam and Sally went to the park, Sam gave a gift to"
DONOR = "When Sam and Sally went to the park, Sally gave a gift to"


@pytest.fixture
def call(monkeypatch, capsys):
    """Calls the command line; gives its exit code, output and error output."""

    def calling(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["microtome", *arguments])
        monkeypatch.setattr(cli.out, "_width", 200)
        code: int | str | None = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        shown = capsys.readouterr()
        return int(code or 0), shown.out, shown.err

    return calling


def test_run_shows_tokens_before_and_after_and_receipts(call):
    code, out, _ = call("run", "nano", "-p", PROMPT, "-e", "zero L0.z.h3", "--top", "3")
    assert code == 0
    for part in ("0:'When'", '" Sally"', "clean", "Receipts", "zero L0.z.h3", "changed"):
        assert part in out


def test_sweep_leaves_a_whole_folder(call, tmp_path):
    out = tmp_path / "map"
    asked = ["-p", PROMPT, "--target", " Sally", "--contrast", " Sam", "--donor", DONOR]
    code, shown, _ = call(
        "sweep", "nano", *asked, "-e", "patch L*.z.h*@-1", "-m", "logit_diff", "-o", str(out)
    )
    assert code == 0
    assert str(out / "report.html") in shown.replace("\n", "")
    assert {path.name for path in out.iterdir()} >= {
        "effects.zarr",
        "figures",
        "report.html",
        "summary.json",
    }
    summary = json.loads((out / "summary.json").read_text())
    assert summary["verification"]["cells"] == 4


def test_sweep_takes_a_file_of_prompts(call, tmp_path):
    file = tmp_path / "prompts.jsonl"
    rows = [{"text": PROMPT, "target": " Sally"}, {"text": DONOR, "target": " Sam"}]
    file.write_text("\n".join(map(json.dumps, rows)))
    asked = ["--prompts", str(file), "-e", "zero L*.z.h0@-1", "-m", "prob"]
    code, shown, _ = call("sweep", "nano", *asked, "-o", str(tmp_path / "map"))
    assert code == 0
    assert "prompt: 2" in shown


def test_plan_runs_nothing_and_says_what_it_would_take(call):
    code, out, _ = call("plan", "nano", "-p", PROMPT, "-e", "zero L*.z.h*@*")
    assert code == 0
    for part in ("0:'When'", "cells", "GFLOP", "MiB", "walk: one pass through the layers"):
        assert part in out
    code, out, _ = call("plan", "nano", "-p", PROMPT, "-e", 'apply("torch:sin") L0.z')
    assert "reference: one full forward pass per cell, since it is a function" in out


def test_sites_lists_what_can_be_addressed(call):
    code, out, _ = call("sites", "nano")
    assert code == 0
    for site in ("embed", "resid_mid", "mlp_post", "logits", "gpt2"):
        assert site in out


def test_study_list(call):
    code, out, _ = call("study", "list")
    assert code == 0
    for part in studies.STUDIES:
        assert part in out
    for part in ("gpt2-large", "756", "GFLOP", "forward passes"):
        assert part in out


def test_study_show(call):
    code, out, _ = call("study", "show", "hidden-scaling", "--lang", "vi")
    assert code == 0
    for part in ("Co giãn trạng thái ẩn", "factors", "'gpt2-medium'", "Đúng nếu"):
        assert part in out


def test_study_run_with_its_own_parameters_is_as_in_python(call, tmp_path, nano):
    given = {"layer": 1, "also": {3: 0.9}, "factors": [0.5, 1.0, 2.0]}
    sets = [part for name, value in given.items() for part in ("--set", f"{name}={value}")]
    out = ["-o", str(tmp_path / "out")]
    code, _, err = call("study", "run", "hidden-scaling", "--model", "nano", *sets, *out)
    assert code == 0
    assert "hidden-scaling: sweep factors" in err
    done = studies.run("hidden-scaling", nano, **given)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["edited"] == done.summary["edited"]
    assert summary["findings"][0]["measured"] == done.findings[0].measured


def test_study_run_from_a_file_in_vietnamese(call, tmp_path):
    rows = [{"text": PROMPT, "donor": DONOR, "target": " Sally", "contrast": " Sam"}] * 2
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "study.yaml").write_text(
        f"study: ioi-levels\nmodel: nano\nprompts: {tmp_path / 'prompts.jsonl'}\n"
    )
    out = tmp_path / "out"
    config = ["--config", str(tmp_path / "study.yaml"), "--lang", "vi", "-o", str(out)]
    code, shown, _ = call("study", "run", *config)
    assert code == 0
    assert "không so sánh được" in shown
    assert "Theo từng prompt" in (out / "report.html").read_text(encoding="utf-8")


def test_study_run_all(call, tmp_path, monkeypatch):
    chosen = {name: studies.STUDIES[name] for name in ("ioi-levels",)}
    monkeypatch.setattr(studies, "STUDIES", chosen)
    out = tmp_path / "results"
    code, shown, err = call("study", "run", "--all", "--model", "nano", "-o", str(out))
    assert code == 0
    assert "[1/1] ioi-levels" in err
    assert str(out / "index.html") in shown.replace("\n", "")
    assert (out / "ioi-levels" / "report.html").exists()


def test_study_run_with_another_prompt(call, tmp_path):
    code, out, _ = call(
        *["study", "run", "head-ablation", "--model", "nano", "-o", str(tmp_path / "study")],
        *["-p", "Paris is the capital of", "--target", " France", "--contrast", " Spain"],
    )
    assert code == 0
    assert "not comparable" in out
    summary = json.loads((tmp_path / "study" / "summary.json").read_text())
    assert summary["prompts"][0]["text"] == "Paris is the capital of"
    assert summary["parameters"]["target"] == " France"


BERLIN = ["-p", "Berlin is the capital of"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "nano", *BERLIN, "-e", "zero L9.z.h3"], "layer 9 does not exist"),
        (["run", "nano", *BERLIN, "-e", "zero L0.resid_pots"], "Did you mean 'resid_post'?"),
        (["run", "nano", *BERLIN, "-e", "zreo L0.z"], "Did you mean 'zero'?"),
        (["run", "nano", *BERLIN, "-e", "zero L*.z"], "which only a sweep can walk"),
        (["run", "nano", *BERLIN, "-e", "zero L0.pattern"], "not available yet"),
        (["run", "nano", *BERLIN, "-e", 'zero L0.z@"Paris"'], "'Paris' is not in the prompt"),
        (["run", "nano", "-p", " "], "empty"),
        (["run", "./nowhere", *BERLIN], "config.json"),
        (["plan", "nano", "-e", "zero L0.z"], "--prompts FILE"),
        (["study", "run", "head-ablatoin"], "Did you mean 'head-ablation'?"),
        (["study", "run"], "Name a study: hidden-scaling"),
        (["study", "run", "--all"], "give --model"),
        (["study", "run", "--all", "--model", "nano", "-p", "x"], "only --lang and -o"),
        (["study", "run", "hidden-scaling", "--set", "layr=1"], "Did you mean 'layer'?"),
        (["study", "run", "hidden-scaling", "--set", "layer"], "NAME=VALUE"),
        (["study", "run", "hidden-scaling", "--set", "also={"], "the value is not YAML"),
        (["study", "run", "hidden-scaling", "--model", "nano", "--set", "layer=6"], "0 … 5"),
        (["study", "run", "hidden-scaling", "--lang", "fr"], "'en' or 'vi'"),
        (["study", "run", "--config", "nowhere.yaml"], "Cannot read nowhere.yaml"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_bad_input_is_one_message_and_exit_code_2(call, arguments, words):
    code, _, err = call(*arguments)
    assert code == 2
    assert words in " ".join(err.split())
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["--target", "curious", "-m", "prob"], "Did you mean ' curious' with a leading space?"),
        (["--target", " Germany", "-m", "probb"], "Did you mean 'prob'?"),
        (["-m", "prob"], "needs a target"),
        (["--target", " Germany", "-m", "logit_diff"], "needs a contrast"),
        (["--target", " Germany", "-m", "prob", "--engine", "wlak"], "Did you mean 'walk'?"),
    ],
)
def test_bad_sweeps(call, tmp_path, changes, words):
    out = tmp_path / "map"
    code, _, err = call("sweep", "nano", *BERLIN, "-e", "zero L*.z.h*", "-o", str(out), *changes)
    assert code == 2
    assert words in " ".join(err.split())
    assert not out.exists()


def test_a_foreign_folder_is_left_alone(call, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    code, _, err = call(
        *["sweep", "nano", *BERLIN, "--target", " Germany", "-e", "zero L0.z.h*", "-m", "prob"],
        *["-o", str(tmp_path)],
    )
    assert code == 2
    assert str(tmp_path) in err.replace("\n", "")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_help_shows_examples(call):
    for command in (["run"], ["sweep"], ["plan"], ["sites"], ["study", "run"], ["study", "show"]):
        code, out, _ = call(*command, "--help")
        assert code == 0
        assert "Examples" in out
        assert "microtome " in out


def test_it_is_installed_as_a_command():
    command = Path(sys.executable).parent / "microtome"
    done = subprocess.run([command, "--help"], capture_output=True, text=True, check=True)
    assert "Which part of a transformer causes this prediction?" in done.stdout
