"""The command line: what it prints and leaves, and how it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import microtome as mt
from microtome import studies

PROMPT = "When Sam and Sally went to the park, Sam gave a gift to"
DONOR = "When Sam and Sally went to the park, Sally gave a gift to"
BERLIN_PROMPT = mt.Prompt("Berlin is the capital of", target=" Germany")


def test_run_shows_tokens_before_and_after_and_receipts(call):
    code, out, _ = call("run", "nano", "-p", PROMPT, "-e", "zero L0.z.h3", "--top", "3")
    assert code == 0
    for part in ("0:'When'", '" Sally"', "clean", "Receipts", "zero L0.z.h3", "changed"):
        assert part in out


def test_run_without_edits_shows_each_number_once(call):
    code, out, _ = call("run", "nano", "-p", PROMPT, "--top", "3")
    assert code == 0
    assert all(column in out for column in ("logit", "prob", "rank"))
    assert "clean" not in out
    assert "Receipts" not in out


def test_a_run_as_a_file_and_an_option_goes_before_its_field(call, tmp_path):
    file = tmp_path / "run.yaml"
    asked = "model: nano\nprompts: Berlin is\nedits: zero L0.z.h3\ntop: 2\n"
    file.write_text(asked, encoding="utf-8")
    _, filed, _ = call("run", "--config", str(file), "--json")
    options = ("-p", "Berlin is", "-e", "zero L0.z.h3", "--top", "2", "--json")
    assert filed == call("run", "nano", *options)[1]
    _, other, _ = call("run", "--config", str(file), "--json", "-p", "It is", "--top", "3")
    [one] = json.loads(other)["prompts"]
    assert (one["text"], len(one["top"][0]["tokens"])) == ("It is", 3)
    assert json.loads(other)["receipts"][0]["edit"] == "zero L0.z.h3"
    file.write_text(asked + "topp: 3\n", encoding="utf-8")
    code, _, err = call("run", "--config", str(file))
    assert (code, "Did you mean 'top'" in err.replace("\n", " ")) == (2, True)
    for command in ("run", "generate"):
        code, _, err = call(command, "--config", str(file), "--donor", "Paris is")
        assert (
            code,
            "--donor is of the prompts that --prompt gives" in err.replace("\n", " "),
        ) == (2, True)
    code, _, err = call("run", "nano")
    assert (code, "Give a model and a prompt" in err.replace("\n", " ")) == (2, True)


def test_a_sweep_of_many_prompts_shows_a_row_per_cell_and_what_is_sure(call, tmp_path):
    rows = [{"text": f"{name} went to the", "target": " park", "kind": "x"} for name in NAMES]
    rows.append({"text": "Then, Lily and Tom went to the", "target": " park"})
    file = tmp_path / "prompts.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    code, shown, _ = call(
        "sweep", "nano", "--prompts", str(file), "-e", "zero L*.attn_out@*", "-m", "logprob",
        "-o", str(tmp_path / "map"),
    )  # fmt: skip
    assert code == 0
    assert "Largest mean effects on logprob" in shown
    assert "The largest mean effect is at layer" in shown
    for column in ("role", "low", "high", "p", "n"):
        assert f" {column} " in shown
    assert " prompt " not in shown.partition("Largest")[2].partition("The largest")[0]
    table = pd.read_csv(tmp_path / "map" / "tables" / "prompts.csv")
    assert table["kind"].fillna("").tolist() == ["x"] * 6 + [""]


NAMES = ("Lily", "Tom", "Anna", "Sam", "Mary", "John")


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


def test_targets_are_texts_and_ids_one_or_any_of_several(call, tmp_path, nano):
    [sally] = nano.tokenizer(" Sally")["input_ids"]
    asked = ["sweep", "nano", "-p", PROMPT, "-e", "zero L*.z.h0@-1", "-m", "prob"]
    found = {}
    for name, given in {
        "text": ["--target", " Sally"],
        "id": ["--target-id", str(sally)],
        "any": ["--target", " Sally", "--target", " Sam", "--contrast-id", "5"],
        "several": ["--target", " Sally Sam"],
    }.items():
        code, _, err = call(*asked, *given, "-o", str(tmp_path / name))
        assert code == 0, err
        found[name] = mt.open_effects(tmp_path / name / "effects.zarr")
    clean = {name: float(one.data["clean_prob"][0]) for name, one in found.items()}
    assert clean["text"] == clean["id"] < clean["any"]
    assert clean["several"] < clean["text"]
    [prompt] = found["any"].provenance["spec"]["prompts"]
    assert prompt == {"text": PROMPT, "targets": [" Sally", " Sam"], "contrast": 5}
    assert "--target-id" in (tmp_path / "id" / "report.html").read_text()


def test_plan_shows_the_tokens_that_are_measured(call):
    asked = ["plan", "nano", "-p", PROMPT, "-e", "zero L*.z.h*@-1", "-m", "logit_diff"]
    code, out, _ = call(*asked, "--target", " Sally Sam", "--contrast", " Sam")
    assert code == 0
    assert "' Sally' (" in out
    assert "), then ' Sam' (" in out


def test_chat_prompt_shows_what_the_template_makes(call, tmp_path, nano):
    nano.hf.save_pretrained(tmp_path / "m")
    nano.tokenizer.save_pretrained(tmp_path / "m")
    (tmp_path / "m" / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }} {% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}{{ brief }}"
    )
    where = str(tmp_path / "m")
    more = ["--system", "Be brief.", "--answer", "Hello."]
    code, out, err = call("chat-prompt", where, "-p", "Hi", "-p", "Who gave it?", *more)
    assert code == 0, err
    assert "system: Be brief. user: Hi assistant: Hello. user: Who gave it? assistant:" in out
    assert "0:'" in out
    [line] = [one for one in out.splitlines() if one.startswith('{"messages"')]
    assert [m["role"] for m in json.loads(line)["messages"]] == [
        *("system", "user", "assistant", "user")
    ]
    told = ["--chat-option", "brief=yes", "--chat-option", "add_generation_prompt=false"]
    code, out, err = call("chat-prompt", where, "-p", "Hi", *told)
    assert code == 0, err
    assert "user: Hi yes" in out
    [line] = [one for one in out.splitlines() if one.startswith('{"messages"')]
    (tmp_path / "p.jsonl").write_text(line)
    code, out, err = call("generate", where, "--chat", "-p", "Hi", "--steps", "1", *told, "--json")
    assert code == 0, err
    [written] = json.loads(out)["texts"]
    assert written["prompt"].endswith("user: Hi yes")
    asked = ["--prompts", str(tmp_path / "p.jsonl"), "-e", "zero L1.z", "-m", "kl"]
    code, out, err = call("sweep", where, *asked, "-o", str(tmp_path / "out"))
    assert code == 0, err
    options = {"brief": "yes", "add_generation_prompt": False}
    record = mt.open_effects(tmp_path / "out").provenance
    assert record["spec"]["prompts"][0]["chat_options"] == options
    code, _, err = call("generate", where, "-p", "Hi", *told)
    assert code == 2
    assert "say --chat as well" in err
    code, _, err = call("chat-prompt", where, "-p", "Hi", "--chat-option", "brief")
    assert code == 2
    assert "--chat-option takes NAME=VALUE" in err
    code, _, err = call("chat-prompt", where, "-p", "Hi", "-p", "Bye")
    assert code != 0
    assert "between 2 there is 1 answer" in err
    code, _, err = call("chat-prompt", "nano", "-p", "Hi")
    assert code != 0
    assert "has no chat template" in err


SHEET = f"""\
model: nano
prompts: {{text: "{PROMPT}", donor: "{DONOR}", target: " Sally", contrast: " Sam"}}
edits: [patch L*.z.h*@-1]
metrics: [logit_diff]
"""


@pytest.fixture
def sheet(tmp_path):
    file = tmp_path / "experiment.yaml"
    file.write_text(SHEET, encoding="utf-8")
    return file


def test_sweep_takes_a_file_of_the_experiment(call, sheet, tmp_path):
    out = tmp_path / "map"
    code, shown, _ = call("sweep", "--config", str(sheet), "-o", str(out))
    assert code == 0
    assert str(out / "report.html") in shown.replace("\n", "")
    asked = ["-p", PROMPT, "--target", " Sally", "--contrast", " Sam", "--donor", DONOR]
    more = ["-e", "patch L*.z.h*@-1", "-m", "logit_diff", "-o", str(tmp_path / "again")]
    call("sweep", "nano", *asked, *more)
    found, wanted = (mt.open_effects(tmp_path / one / "effects.zarr") for one in ("map", "again"))
    assert found.data.drop_attrs(deep=False).identical(wanted.data.drop_attrs(deep=False))


def test_options_go_before_the_fields_of_the_file(call, sheet, tmp_path):
    out = tmp_path / "map"
    code, _, _ = call(
        *["sweep", "--config", str(sheet), "-p", "Berlin is the capital of", "-m", "kl"],
        *["-e", "scale(1) L*.attn_out", "--over", "factor=0.5,2", "--verify", "1", "-o", str(out)],
        *["--memory", "500MB", "--seed", "3"],
    )
    assert code == 0
    effects = mt.open_effects(out / "effects.zarr")
    assert effects.metrics == ("kl",)
    assert dict(effects.data.sizes) == {"prompt": 1, "layer": 6, "factor": 2}
    record = effects.provenance
    assert record["spec"]["prompts"] == [{"text": "Berlin is the capital of"}]
    assert (record["memory"], record["verify"], record["seed"]) == (500_000_000, 1, 3)
    assert record["verification"]["cells"] == 1


def test_the_options_say_what_python_says(call, tmp_path):
    others = [BERLIN_PROMPT, mt.Prompt("Paris is the capital of", target=" France")]
    rows = [json.dumps(prompt.as_dict()) for prompt in others]
    (tmp_path / "others.jsonl").write_text("\n".join(rows))
    edit = 'mean(over="prompts") L*.attn_out'
    code, _, _ = call(
        *["sweep", "nano", "-p", BERLIN_PROMPT.text, "--target", " Germany", "-e", edit],
        *["--reference", str(tmp_path / "others.jsonl"), "-o", str(tmp_path / "map")],
        *["--dtype", "float64", "--engine", "reference"],
    )
    assert code == 0
    wanted = mt.sweep(
        mt.load("nano", dtype="float64"), BERLIN_PROMPT, edit, metrics="prob", reference=others,
        engine="reference", progress=False,
    )  # fmt: skip
    found = mt.open_effects(tmp_path / "map" / "effects.zarr")
    assert found.data.drop_attrs(deep=False).identical(wanted.data.drop_attrs(deep=False))


def test_plan_of_a_file_counts_what_it_varies(call, sheet):
    sheet.write_text(SHEET.replace("patch", "scale(1)") + "over: {factor: [1, 2, 3]}")
    code, out, _ = call("plan", "--config", str(sheet))
    assert code == 0
    assert "factor 3" in out
    assert "cells" in out
    assert "144" in out


def test_sites_raw_shows_what_blocks_return(call):
    code, out, _ = call("sites", "nano", "--raw")
    assert code == 0
    for part in ("transformer.h.0.attn", "hidden states [1, 5, 192]", "eager", "[1, 8, 5, 5]"):
        assert part in out
    assert 'attn_implementation="eager"' in out


@pytest.mark.parametrize(
    ("changes", "arguments", "words"),
    [
        ("metrics: [prob]", ["-o", "x"], "line 5: 'metrics' is given twice; first on line 4."),
        ("sed: 1", ["-o", "x"], "line 5, sed: there is no such field"),
        ("sed: 1", ["-o", "x"], "Did you mean 'seed'?"),
        ("", [], "-o DIR"),
        ("", ["-o", "x", "-m", "prbo"], "metrics[0]: No metric is called 'prbo'"),
        ("", ["-o", "x", "--target", " Sam"], "Give the prompt with -p TEXT"),
        ("", ["-o", "x", "--dtype", "float64"], "--dtype needs the model's name beside it"),
        ("", ["-o", "x", "--over", "factor"], "--over takes NAME=VALUE,VALUE"),
        ("", ["-o", "x", "--over", "fctor=1", "-e", "scale(1) L0.z"], "Did you mean 'factor'?"),
        ("", ["-o", "x", "--over", "a=1", "--over", "a=2"], "--over a=… is given twice"),
        ("", ["-o", "x", "--memory", "2G"], "such as 2GiB"),
        ("", ["-o", "x", "--memory", "10kB"], "bytes are too few"),
        ("", ["-o", "x", "--verify", "-1"], "give how many cells"),
        ("", ["-o", "x", "--reference", "nowhere.csv"], "Cannot read nowhere.csv"),
    ],
)
def test_bad_experiments(call, sheet, tmp_path, monkeypatch, changes, arguments, words):
    monkeypatch.chdir(tmp_path)
    sheet.write_text(SHEET + changes, encoding="utf-8")
    code, _, err = call("sweep", "--config", str(sheet), *arguments)
    assert code == 2
    assert words in " ".join(err.split())
    assert "Traceback" not in err
    assert not (tmp_path / "x").exists()


def test_plan_shows_an_alignment_token_by_token(call):
    texts = ["-p", "The cat sat", "--donor", "The old cat sat"]
    code, out, _ = call("plan", "nano", *texts, "-e", 'patch(align="words") L*.resid_post@*')
    assert code == 0
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "aligned by words (prompt = donor)" in lines
    for part in ("0:'The' = 0:'The'", "1:' cat' = 2:' cat'", "· 1:' old'"):
        assert part in lines
    assert not any("do not exist" in line for line in lines)
    _, out, _ = call("plan", "nano", *texts, "-e", 'patch(align="roles") L*.resid_post@*')
    assert "1:' cat' · nothing" in " ".join(out.split())
    assert "(12 more do not exist: a position has no counterpart" in " ".join(out.split())


def test_plan_says_why_some_cells_do_not_exist(call):
    _, out, _ = call("plan", "nano", "-p", "Berlin is the capital of", "-e", "zero L0.pattern@*,*")
    assert "(10 more do not exist: no token attends to a later one)" in " ".join(out.split())


def test_plan_takes_what_a_sweep_does(call, tmp_path):
    others = tmp_path / "others.jsonl"
    texts = ["Berlin is the capital of", "Paris is the capital of"]
    others.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    means = ["-e", 'mean(over="prompts") L*.z.h*', "--reference", str(others)]
    code, out, err = call("plan", "nano", "-p", texts[0], *means, "--dtype", "float64")
    assert (code, err) == (0, "")
    assert 'mean(over="prompts") L*.z.h*' in " ".join(out.split())
    code, out, err = call("plan", "nano", "--prompts", "ioi:12", "-e", "zero L*.z.h*@S2")
    assert (code, err) == (0, "")
    assert "prompt 12 × layer 6 × head 8" in out

    def memory(*metrics):
        _, out, _ = call("plan", "nano", "-p", PROMPT, "-e", "zero L*.z.h*@*", *metrics)
        [line] = [line for line in out.splitlines() if "besides the weights" in line]
        return float(line.split()[-2])

    assert memory("-m", "norm(L*.mlp_post@*)") > memory("-m", "prob")


def test_plan_runs_nothing_and_says_what_it_would_take(call):
    code, out, _ = call("plan", "nano", "-p", PROMPT, "-e", "zero L*.z.h*@*")
    assert code == 0
    for part in ("0:'When'", "padding", "none: every prompt is run by itself", "cells", "GFLOP",
                 "MiB", "walk: one pass through the layers"):  # fmt: skip
        assert part in out
    code, out, _ = call("plan", "nano", "-p", PROMPT, "-e", 'apply("torch:sin") L0.z')
    assert "reference: one full forward pass per cell, since it is a function" in out


def test_sites_lists_what_can_be_addressed(call):
    code, out, _ = call("sites", "nano")
    assert code == 0
    said = " ".join(out.split())
    for part in ("embed", "resid_mid", "mlp_post", "logits", "gpt2, causal", "sequential",
                 "pre-norm", "8 heads of 24", "one projection: c_attn"):  # fmt: skip
        assert part in said


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
    assert "đúng ở đây" in shown
    assert "Theo từng prompt" in (out / "report.html").read_text(encoding="utf-8")


def test_study_run_all(call, tmp_path, monkeypatch):
    chosen = {name: studies.STUDIES[name] for name in ("ioi-levels", "noisy-bert")}
    monkeypatch.setattr(studies, "STUDIES", chosen)
    out = tmp_path / "results"
    code, shown, err = call("study", "run", "--all", "--model", "nano", "-o", str(out))
    assert code == 0
    assert "[1/2] ioi-levels" in err
    assert "noisy-bert is skipped: noisy-bert needs a masked-language model" in err
    assert str(out / "index.html") in shown.replace("\n", "")
    assert (out / "ioi-levels" / "report.html").exists()


def test_study_run_on_two_models_prints_which_claims_generalise(call, tmp_path):
    out = tmp_path / "out"
    models = ["--model", "nano", "--model", str(tmp_path / "nowhere")]
    code, shown, err = call("study", "run", "ioi-levels", *models, "-o", str(out))
    assert code == 2  # a model that is not there is told, and fails
    assert "holds on" in shown
    assert "holds here" in shown
    assert "did not run" in shown
    assert "1 of 1" in shown
    assert "The number in brackets is the one that decides:" in shown
    overview = json.loads((out / "overview.json").read_text())
    for row in overview["studies"][0]["claims"]:
        assert row["number"] in shown.replace("\n", " ")
    assert "model nano" in err
    assert (out / "nano" / "report.html").exists()
    assert json.loads((out / "overview.json").read_text())["models"][0] == "nano"
    assert str(out / "overview.html") in shown.replace("\n", "")


def test_study_run_with_another_prompt(call, tmp_path):
    code, out, _ = call(
        *["study", "run", "head-ablation", "--model", "nano", "-o", str(tmp_path / "study")],
        *["-p", "Paris is the capital of", "--target", " France", "--contrast", " Spain"],
    )
    assert code == 0
    assert "not comparable" in out
    assert "holds here" in out
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
        (["run", "nano", *BERLIN, "-e", "zero L0.pattern@0,1"], "attends to a later one"),
        (["run", "nano", *BERLIN, "-e", 'zero L0.z@"Paris"'], "'Paris' is not in the prompt"),
        (["run", "nano", "-p", " "], "empty"),
        (
            ["lens", "nano", *BERLIN, "--target", " Germany", "--target", " France"],
            "--target is given 2 times, and takes one value",
        ),
        (
            ["generate", "nano", *BERLIN, "--sample", "--greedy"],
            "--sample/--greedy is given 2 times, and takes one value",
        ),
        (["run", "./nowhere", *BERLIN], "config.json"),
        (["plan", "nano", "-e", "zero L0.z"], "--prompts FILE"),
        (["sweep", "-o", "out", *BERLIN], "Give a model and an edit"),
        (["sweep", "nano", "-o", "out", *BERLIN], "Give an edit, nano -e"),
        (["sweep", "-e", "zero L0.z", "-o", "out", *BERLIN], "Give a model, nano -e"),
        (["run", "nano", *BERLIN, "-e", "patch L0.z"], "on the command line --donor"),
        (["sweep", "nano", *BERLIN, "-e", "zero L0.z", "-m", "kl"], "-o DIR"),
        (["plan", "--config", "nowhere.yaml"], "Cannot read nowhere.yaml"),
        (
            ["plan", "nano", "--prompts", "m" * 300, "-e", "zero L0.z"],
            "is no file here, and no task",
        ),
        (["trace", "nano", "--task", "capitals:²"], "--task takes a task and how many prompts"),
        (["study", "run", "head-ablatoin"], "Did you mean 'head-ablation'?"),
        (["study", "run"], "Name a study: hidden-scaling"),
        (["study", "run", "--all"], "give --model"),
        (["study", "run", "--all", "--model", "nano", "-p", "x"], "only --lang and -o"),
        (
            ["study", "run", "ioi-levels", "--model", "nano", "--model", "nano", "-o", "out"],
            "'nano' is given twice",
        ),
        (["study", "run", "hidden-scaling", "--set", "layr=1"], "Did you mean 'layer'?"),
        (["study", "run", "hidden-scaling", "--set", "layer"], "NAME=VALUE"),
        (
            ["study", "run", "hidden-scaling", "--set", "also={"],
            "--set also, line 1, column 2: not YAML",
        ),
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
        (["-m", "prob"], "on the command line --target."),
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


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        ("0", "In 1 cell nothing changed: its effect is exactly 0."),
        ("*", "In 6 cells nothing changed: their effect is exactly 0."),
    ],
)
def test_cells_in_which_nothing_changed_are_counted_in_words(call, tmp_path, layers, says):
    options = ["--target", " Germany", "-e", f"scale(1) L{layers}.attn_out@-1", "-m", "prob"]
    options += ["--over", "factor=1,0.5", "-o", str(tmp_path / "map.svg")]
    code, told, _ = call("sweep", "nano", *BERLIN, *options)
    assert code == 0
    assert says in told


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


@pytest.mark.slow
def test_it_is_installed_as_a_command():
    command = Path(sys.executable).parent / "microtome"
    done = subprocess.run([command, "--help"], capture_output=True, text=True, check=True)
    assert "Which part of a transformer causes this prediction?" in done.stdout
