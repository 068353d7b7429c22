"""``microtome generate``: what it shows is what Python gives."""

from __future__ import annotations

import json

import numpy as np
import pytest

import microtome as mt
from microtome.frontends.experiment.writing import Written

BERLIN = ["-p", "Berlin is the capital of"]
EDIT = "scale(0.2) L:.attn_out@last"


@pytest.fixture
def call(call):
    def run(*args: str) -> tuple[int, str, str]:
        own = [] if "--config" in args or "--no-model" in args else ["nano"]
        return call("generate", *own, *(one for one in args if one != "--no-model"))

    return run


def test_it_shows_both_texts_and_each_token_without_the_edits(call, nano):
    code, shown, _ = call(*BERLIN, "-e", EDIT, "--steps", "4")
    made = nano.generate("Berlin is the capital of", EDIT, steps=4)[0]
    assert code == 0
    assert f"With edits  {made.text}" in shown
    assert "Without   Germany." in shown
    for token in made.pieces:
        assert json.dumps(token) in shown or f" {token} " in shown
    assert "clean_token_logprob" in shown
    assert "max_new_tokens 4" in shown


def test_json_has_the_numbers(call, nano):
    asked = ["-e", EDIT, "--steps", "3", "--sample", "--temperature", "2", "--seed", "5", "--json"]
    code, shown, _ = call(*BERLIN, *asked)
    assert code == 0
    answer = json.loads(shown)
    made = nano.generate(
        "Berlin is the capital of", EDIT, steps=3, do_sample=True, temperature=2.0, seed=5
    )[0]
    [text] = answer["texts"]
    assert [one["id"] for one in text["tokens"]] == list(made.ids)
    assert [one["kl"] for one in text["tokens"]] == pytest.approx(made.kl.tolist())
    assert [one["step"] for one in text["receipts"]] == [0, 1, 2]
    assert answer["settings"]["temperature"] == 2.0


def test_tokens_come_as_they_are_written(call):
    code, shown, _ = call(*BERLIN, "--stream", "--steps", "3")
    assert code == 0
    assert shown.index("Berlin is the capital of Germany") < shown.index("Text")


def test_a_vector_file_steers(call, tmp_path):
    vector = mt.SteeringVector({2: np.full(192, 5.0)}).save(tmp_path / "v.safetensors")
    code, shown, _ = call(*BERLIN, "-e", f'add("{vector}", factor=3) L2.resid_post', "--steps", "2")
    assert code == 0
    assert "192 numbers]}, factor=3)" in shown
    asked = ["-e", f'add("{vector}", factor=3) L2.resid_post', "--steps", "2", "--json"]
    _, shown, _ = call(*BERLIN, *asked)
    answer = json.loads(shown)
    brief = "add({2: [5.0, 5.0, … 192 numbers]}, factor=3) L2.resid_post"
    assert answer["edits"] == [brief]
    assert {one["edit"] for one in answer["texts"][0]["receipts"]} == {brief}


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (["--when", "sometimes"], "when must be"),
        (["--chat"], "no chat template"),
        (["--chat", "--donor", "Paris"], "a chat too"),
        (["--system", "Be brief."], "say --chat as well"),
        (["-e", 'add("nowhere.gguf") L1.resid_post'], "cannot be read"),
        (["-e", "zero L0.zz"], "No site is called"),
    ],
)
def test_what_cannot_be_is_refused_in_one_message(call, asked, why):
    code, _, err = call(*BERLIN, *asked)
    assert code == 2
    assert why in err.replace("\n", " ")


FILE = """
model: nano
prompts:
  - text: Berlin is the capital of
edits: scale(0.2) L:.attn_out@last
steps: 3
when: generated
settings: {do_sample: true, temperature: 2.0}
"""


def test_a_file_asks_for_the_same_and_options_go_before_its_fields(call, tmp_path, nano):
    file = tmp_path / "writing.yaml"
    file.write_text(FILE)
    how = {"when": "generated", "do_sample": True, "temperature": 2.0}
    for options, more in (([], {"steps": 3}), (["--steps", "2", "--seed", "4"], {"steps": 2})):
        code, shown, err = call("--config", str(file), *options, "--json")
        assert code == 0, err
        seed = 4 if options else 0
        made = nano.generate("Berlin is the capital of", EDIT, seed=seed, **how, **more)[0]
        [text] = json.loads(shown)["texts"]
        assert [one["id"] for one in text["tokens"]] == list(made.ids)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("steps: none", "steps"),
        ("tempo: 3", "there is no such field"),
        ("edits: zero L0.zz", "No site is called"),
        ("settings: {temprature: 1.0}", "Did you mean 'temperature'"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(call, tmp_path, line, why):
    file = tmp_path / "writing.yaml"
    file.write_text(f"model: nano\nprompts: Berlin is\n{line}\n")
    code, _, err = call("--config", str(file))
    assert code == 2
    assert why in err.replace("\n", " ")


@pytest.mark.parametrize("asked", [["--chat"], ["--chat", "--system", "Be brief."]])
def test_a_chat_in_which_nothing_is_said_is_refused(call, tmp_path, asked):
    """The prompts of a file would be written behind as they are."""
    file = tmp_path / "writing.yaml"
    file.write_text(FILE)
    code, _, err = call("--config", str(file), *asked)
    assert code == 2
    assert "makes a chat of each -p, and none is given" in " ".join(err.split())


def test_a_model_and_a_prompt_are_needed(call):
    code, _, err = call(*BERLIN, "--no-model")
    assert code == 2
    assert "Give a model and a prompt" in err


def test_a_file_of_a_text_reads_back_equal():
    one = Written(model={"name": "nano", "dtype": "float64"}, prompts="Berlin is", steps=2,
                  edits="zero L1.z.h2@last", settings={"top_p": 0.9})  # fmt: skip
    assert Written.from_yaml(one.to_yaml()) == one
    assert Written.from_yaml(Written(model="nano", prompts="It is").to_yaml()).edits == ()
