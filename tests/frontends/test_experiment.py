"""Experiments: what they accept, how they come back, and how they complain."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import microtome as mt
from microtome.errors import ExperimentError, MicrotomeError, PromptError, SweepError, TaskError

BERLIN = mt.Prompt("Berlin is the capital of", target=" Germany", contrast=" France")
PARIS = mt.Prompt("Paris is the capital of", target=" France", contrast=" Germany")
ROLES = mt.Prompt(
    BERLIN.text, donor=PARIS.text, roles={"subject": ("Berlin", 0), "end": -1}, target=" Germany"
)
LEAST = {"model": "nano", "prompts": BERLIN, "edits": "zero L*.z.h*@-1", "metrics": "prob"}
LINES = {
    "model": "model: nano",
    "prompts": "prompts: [Berlin is the capital of]",
    "edits": "edits: [zero L*.z.h*]",
    "metrics": "metrics: [kl]",
}


def with_lines(**changes: str) -> str:
    return "\n".join(line for line in {**LINES, **changes}.values() if line)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"model": {"name": "gpt2", "revision": "1234567", "dtype": "float64", "device": "cpu"}},
        {"model": {"name": "gpt2", "attention": "eager"}},
        {"prompts": "Berlin is"},
        {"prompts": {"text": "Berlin is", "target": " in"}},
        {"prompts": [BERLIN, "no", {"text": " 010", "donor": "1e5"}]},
        {"prompts": mt.Prompts([BERLIN, ROLES])},
        {"prompts": ROLES},
        {"prompts": mt.Prompt("Berlin is", target=12, contrasts=[" in", 5])},
        {"prompts": [mt.Prompt(ids=[1, 2]), mt.Prompt.chat([{"role": "user", "content": "1e5"}])]},
        {"prompts": {"file": "prompts.jsonl"}},
        {"prompts": {"task": "ioi"}},
        {"prompts": {"task": {"name": "ioi", "n": 3, "seed": 7, "names": ["Sam", "Tom", "Ann"]}}},
        {"edits": [mt.zero("L*.z.h*"), 'mean(over="prompts") L*.attn_out@"is"']},
        {"edits": mt.add("L0.resid_post.d{0,1}", [1 / 3, -2])},
        {"edits": mt.apply("L0.z", torch.sign)},
        {"metrics": ["prob(contrast)", "loss@3", "std(L*.resid_post)", "cosine(L*.z.h0@1, 2)"]},
        {"over": {"factor": (0.1, 1e-7, np.float64(1 / 3), 10)}},
        {"over": {"how": ["add", "replace"], "relative": [True, False]}},
        {"over": {"vector": [torch.tensor([0.1, 0.2]), np.array([1, 2]), [3, 4]]}},
        {"reference": [PARIS, "Rome is"]},
        {"reference": {"task": {"name": "capitals", "n": 2}}},
        {"engine": "walk", "verify": 0, "memory": "1.5GiB", "seed": -3, "out": "out/a b"},
    ],
    ids=lambda fields: ", ".join(fields),
)
def test_an_experiment_reads_back_equal(fields, tmp_path):
    experiment = mt.Experiment(**{**LEAST, **fields})
    assert mt.Experiment.from_yaml(experiment.to_yaml()) == experiment
    elsewhere = tmp_path / "experiment.yaml"
    elsewhere.write_text(experiment.to_yaml(), encoding="utf-8")
    assert mt.Experiment.read(elsewhere) == experiment
    assert mt.Experiment(**experiment.plain()) == experiment


def test_what_is_at_its_default_is_not_written():
    assert list(mt.Experiment(**LEAST).plain()) == ["model", "prompts", "edits", "metrics"]


def test_experiments_differ_where_their_fields_do():
    assert mt.Experiment(**LEAST) != mt.Experiment(**{**LEAST, "seed": 1})
    assert mt.Experiment(**LEAST) != mt.Experiment(**{**LEAST, "edits": "zero L*.z.h*@-2"})


def test_it_gives_the_numbers_of_the_sweep_bit_for_bit(nano):
    prompts = [BERLIN, PARIS]
    more = {"over": {"factor": [0.1, 10]}, "verify": 1, "seed": 5, "memory": 10_000_000}
    edits, metrics = ["scale(1) L*.attn_out@-1"], ["prob", "kl", "std(L*.resid_post)"]
    swept = mt.sweep(nano, prompts, edits, metrics=metrics, progress=False, **more)
    experiment = mt.Experiment(model="nano", prompts=prompts, edits=edits, metrics=metrics, **more)
    again = mt.Experiment.from_yaml(experiment.to_yaml()).run(progress=False)
    assert again.data.drop_attrs(deep=False).identical(swept.data.drop_attrs(deep=False))
    assert again.provenance["spec"] == swept.provenance["spec"]


def test_a_task_is_made_in_the_words_of_the_model_at_hand(nano, tiny):
    fields = {"prompts": {"task": {"name": "capitals", "n": 2, "seed": 1}}}
    experiment = mt.Experiment(**{**LEAST, **fields})
    wanted = mt.tasks.capitals(2, 1, tokenizer=nano.tokenizer)
    assert list(experiment.prompts_for(nano)) == list(wanted)
    assert list(experiment.prompts_for(tiny)) == list(
        mt.tasks.capitals(2, 1, tokenizer=tiny.tokenizer)
    )


def test_reference_prompts_are_those_of_the_sweep(tiny):
    edit = 'mean(over="prompts") L*.attn_out'
    others = [PARIS, "Rome is the capital of"]
    fields = {"edits": edit, "reference": others, "engine": "reference"}
    found = mt.Experiment(**{**LEAST, **fields}).run(tiny, progress=False)
    wanted = mt.sweep(
        tiny, BERLIN, edit, metrics="prob", reference=others, engine="reference", progress=False
    )
    np.testing.assert_array_equal(found.data["prob"], wanted.data["prob"])


def test_a_file_of_prompts_lies_beside_the_experiment_wherever_one_runs(tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "prompts.jsonl").write_text('{"text": "Berlin is"}')
    (folder / "a.yaml").write_text(with_lines(prompts="prompts: {file: prompts.jsonl}"))
    monkeypatch.chdir(tmp_path)
    experiment = mt.Experiment.read("folder/a.yaml")
    monkeypatch.chdir("/")
    assert [p.text for p in experiment.prompts_for(None)] == ["Berlin is"]
    assert mt.Experiment.from_yaml(experiment.to_yaml()) == experiment


def test_out_is_a_folder_with_the_report(tiny, tmp_path):
    out = tmp_path / "map"
    effects = mt.Experiment(**LEAST, out=out).run(tiny, progress=False)
    assert (out / "report.html").is_file()
    saved = mt.open_effects(out / "effects.zarr")
    np.testing.assert_array_equal(saved.data["prob"], effects.data["prob"])


def test_fields_can_be_given_in_the_place_of_the_files():
    text = with_lines(model="model: {name: gpt2, revision: x}", metrics="")
    experiment = mt.Experiment.from_yaml(text, model="nano", metrics="prob")
    assert experiment.model.plain() == "nano"
    assert experiment.metrics == ("prob",)
    with pytest.raises(ExperimentError, match=r"^metrics\[0\]: No metric"):
        mt.Experiment.from_yaml(text, metrics=["prbo"])


def test_a_plan_is_that_of_the_sweep(tiny):
    plan = mt.Experiment(**LEAST, over={}).plan(tiny)
    assert plan.shape == (1, 3, 4)


def test_a_function_made_on_the_spot_runs_but_cannot_be_written(tiny):
    experiment = mt.Experiment(**{**LEAST, "edits": mt.apply("L*.attn_out", lambda x: -x)})
    assert experiment.run(tiny, progress=False).n_cells == 3
    with pytest.raises(ExperimentError, match="made on the spot"):
        experiment.to_yaml()


BAD = [
    ({"model": ""}, "t.yaml: the field 'model' is missing."),
    ({"model": "model: 5"}, "line 1, model: expected fields (name, revision, dtype,"),
    ({"model": "model: {nam: gpt2}"}, "line 1, model.nam: there is no such field"),
    ({"model": "model: {nam: gpt2}"}, "Did you mean 'name'?"),
    ({"model": "model: {name: a, revision: 123}"}, "line 1, model.revision: expected text, not 12"),
    ({"model": "model: {dtype: float32}"}, "line 1, model: the field 'name' is missing."),
    ({"model": "model: ' '"}, "line 1, model: the text is empty"),
    ({"extra": "edit: zero L0.z"}, "line 5, edit: there is no such field; there are: model,"),
    ({"extra": "edit: zero L0.z"}, "Did you mean 'edits'?"),
    ({"edits": "edits: zreo L*.z"}, "line 3, edits: No edit is called 'zreo'."),
    ({"edits": "edits: zreo L*.z"}, "Did you mean 'zero'?"),
    ({"edits": "edits:\n- zero L0.z\n- zero L0.zz"}, "line 5, edits[1]: "),
    ({"edits": "edits: [5]"}, "line 3, edits[0]: expected an edit such as"),
    ({"edits": "edits:\n- zero L2.z.h:"}, "put a text that ends in a colon in quotes"),
    ({"edits": "edits: []"}, "line 3, edits: give at least one."),
    ({"metrics": "metrics: [kl, prbo]"}, "line 4, metrics[1]: No metric is called 'prbo'."),
    ({"metrics": "metrics: [kl, kl]"}, "line 4, metrics: A metric is given twice: kl, kl."),
    ({"extra": "over: 5"}, "line 5, over: expected parameters with their values"),
    ({"extra": "over:\n  factor: 3"}, "line 6, over.factor: expected a list of values"),
    ({"extra": "over: {factor: []}"}, "line 5, over.factor: expected a list of values"),
    ({"extra": "over: {factor: [1, {a: 2}]}"}, "over.factor: expected numbers, words or lists of"),
    ({"extra": "over: {factor: [1, null]}"}, "over.factor: expected numbers, words or lists of"),
    ({"extra": "engine: wlak"}, "line 5, engine: engine='wlak' does not exist; there are: auto,"),
    ({"extra": "verify: -1"}, "line 5, verify: verify=-1: give how many cells"),
    ({"extra": "verify: true"}, "line 5, verify: verify=True: give how many cells"),
    ({"extra": "seed: '3'"}, "line 5, seed: expected a whole number, not '3'."),
    ({"extra": "memory: 2G"}, "line 5, memory: expected bytes, such as 2GiB, 500MB or 1000000"),
    ({"extra": "memory: 0"}, "line 5, memory: expected a whole number of at least 1, not 0."),
    ({"extra": "memory: 1.5"}, "line 5, memory: expected a whole number, not 1.5."),
    ({"prompts": "prompts: []"}, "line 2, prompts: there are no prompts."),
    ({"prompts": "prompts: 12"}, "line 2, prompts: expected prompts, {file: prompts.jsonl} or"),
    ({"prompts": "prompts: {fiel: x}"}, "Did you mean 'file'?"),
    ({"prompts": "prompts: {file: 3}"}, "line 2, prompts.file: expected text, not 3"),
    ({"prompts": "prompts: {file: x, n: 3}"}, "line 2, prompts.n: there is no such field"),
    ({"prompts": "prompts:\n- text: Hi\n  target: 12"}, "line 4, prompts[0].target: expected tex"),
    ({"prompts": "prompts:\n- text: Hi\n  target: 12"}, "or {id: 12} for a token's id"),
    ({"prompts": "prompts:\n- text: Hi\n  targets: [a, 12]"}, "line 4, prompts[0].targets: expec"),
    ({"prompts": "prompts:\n- text: Hi\n  traget: x"}, "line 4, prompts[0].traget: a prompt has"),
    ({"prompts": "prompts:\n- text: Hi\n  traget: x"}, "Did you mean 'target'?"),
    ({"prompts": "prompts:\n- Hi\n- null"}, "line 4, prompts[1]: expected a prompt's text or"),
    ({"prompts": "prompts:\n- target: ' a'"}, "line 3, prompts[0]: the field 'text' is missing."),
    ({"prompts": "prompts: {text: ''}"}, "line 2, prompts: A prompt's text is empty"),
    ({"prompts": "prompts: {text: a, roles: {last: 3}}"}, "'last' cannot be the name of a role"),
    ({"prompts": "prompts: {task: ioii}"}, "Did you mean 'ioi'?"),
    ({"prompts": "prompts: {task: {n: 6}}"}, "prompts.task: expected a task's name and arguments"),
    ({"prompts": "prompts: {task: {name: ioi, n: '6'}}"}, "prompts.task.n: expected a whole numbe"),
    ({"prompts": "prompts: {task: {name: ioi, sed: 1}}"}, "prompts.task.sed: there is no such fi"),
    ({"prompts": "prompts: {task: {name: ioi, sed: 1}}"}, "Did you mean 'seed'?"),
    ({"prompts": "prompts: {task: {name: ioi, templates: a}}"}, "templates: expected a list, not"),
    ({"prompts": "prompts: {task: {name: ioi, names: [a, 5]}}"}, "names[1]: expected text, not 5"),
    ({"prompts": "prompts: {task: {name: ioi, tokenizer: 5}}"}, "tokenizer: there is no such fie"),
    ({"extra": "reference: {task: {name: ioi, n: x}}"}, "line 5, reference.task.n: expected a wh"),
    ({"extra": "out: ''"}, "line 5, out: the text is empty"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), BAD, ids=lambda given: str(given))
def test_a_wrong_field_is_named_with_its_line(changes, message, tmp_path):
    file = tmp_path / "t.yaml"
    file.write_text(with_lines(**changes), encoding="utf-8")
    with pytest.raises(ExperimentError, match=re.escape(message)) as caught:
        mt.Experiment.read(file)
    assert str(caught.value).startswith(str(file))
    assert "pydantic" not in str(caught.value)


def test_every_wrong_field_is_named():
    with pytest.raises(ExperimentError) as caught:
        mt.Experiment(model="nano", edits=["zreo L0.z", "zero L0.z", 5], seed="x", metrics="kl")
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    assert {line.partition(":")[0] for line in lines} == {
        "edits[0]", "edits[2]", "seed", "The experiment",
    }  # fmt: skip


def test_the_error_is_one_of_the_librarys():
    assert issubclass(ExperimentError, MicrotomeError)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"over": {"fctor": [1]}}, SweepError),
        ({"prompts": {"file": "nowhere.jsonl"}}, PromptError),
        ({"prompts": {"task": {"name": "ioi", "names": ["a", "b"]}}}, TaskError),
    ],
)
def test_what_only_the_model_can_tell_is_refused_when_it_runs(tiny, fields, error):
    with pytest.raises(error):
        mt.Experiment(**{**LEAST, **fields}).run(tiny, progress=False)


@pytest.mark.parametrize(
    ("text", "size"),
    [("2GiB", 2**31), ("500MB", 5 * 10**8), ("1.5 kb", 1500), ("64", 64), (64, 64), ("7 B", 7)],
)
def test_memory_in_words(text, size):
    assert mt.Experiment(**LEAST, memory=text).memory == size


def test_paths_may_be_paths():
    experiment = mt.Experiment(
        **{**LEAST, "model": Path("./models/x")}, out=Path("o"), reference={"file": Path("p.csv")}
    )
    assert experiment.model.name == "models/x"
    assert mt.Experiment.from_yaml(experiment.to_yaml()) == experiment


def test_an_approximation_is_a_field_too():
    fields = {"model": "nano", "prompts": "Berlin is the capital of", "edits": "zero L*.z.h*@-1"}
    experiment = mt.Experiment(
        **fields, metrics="prob", method="atp_star(grad_drop=False)", audit=9
    )
    assert mt.Experiment.from_yaml(experiment.to_yaml()) == experiment
    assert "method: atp_star(grad_drop=False)" in experiment.to_yaml()
    assert "method" not in mt.Experiment(**fields, metrics="prob").to_yaml()
    for wrong, words in (
        ({"method": "atq"}, "there are: exact, atp"),
        ({"audit": 0}, "at least 1"),
        ({"audit": mt.Audit(8, refine=3)}, "and the others as refine"),
    ):
        with pytest.raises(ExperimentError, match=words):
            mt.Experiment(**fields, metrics="prob", **wrong)
