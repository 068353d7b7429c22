"""``microtome steer`` and ``microtome dose``: what they leave is what Python gives."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

import microtome as mt

GOOD, BAD = "Berlin is in Germany", "Paris is in France"
ASKED = ["-p", "Berlin is the capital of", "--target", " Germany", "--contrast", " France"]


@pytest.fixture
def call(call, monkeypatch, tmp_path):
    """In a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return call


def test_a_vector_of_contrasts_is_kept_and_named(call, nano, tmp_path):
    code, shown, _ = call(
        "steer", "nano", "--positive", GOOD, "--negative", BAD, "-o", "v.safetensors"
    )
    assert code == 0
    assert 'add("v.safetensors") L5.resid_post' in shown
    vector = mt.steering.open_vector(tmp_path / "v.safetensors")
    wanted = mt.steering.contrast(nano, [GOOD], [BAD])
    np.testing.assert_allclose(vector[3], wanted[3], rtol=1e-6)
    code, _, err = call("steer", "nano", "--text", GOOD, "-o", "v.safetensors")
    assert code == 2
    assert "is there already" in err


def test_pairs_texts_and_tokens_make_vectors_too(call, nano, tmp_path):
    rows = [{"positive": GOOD, "negative": BAD}, {"positive": "Rome is in Italy", "negative": BAD}]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    made = {
        "pairs": ["--pairs", "pairs.jsonl", "--how", "pca"],
        "text": ["--text", GOOD, "--without", BAD, "--site", "mlp_out", "--at", ":"],
        "token": ["--token", " Germany", "--without", " France", "--normalise"],
    }
    for name, asked in made.items():
        code, shown, err = call("steer", "nano", *asked, "-o", f"{name}.safetensors", "--json")
        assert code == 0, err
        assert json.loads(shown)["norms"]["5"] > 0
    found = {name: mt.steering.open_vector(tmp_path / f"{name}.safetensors") for name in made}
    assert found["pairs"].norms[2] == pytest.approx(1, abs=1e-6)
    assert found["text"].site == "mlp_out"
    token = mt.steering.of_token(nano, " Germany", without=" France", normalise=True)
    np.testing.assert_allclose(found["token"][0], token[0], rtol=1e-5, atol=1e-8)


def test_a_control_vector_leaves_layer_0_out(call, tmp_path):
    code, _, _ = call("steer", "nano", "--text", GOOD, "-o", "v.gguf")
    assert code == 0
    assert mt.steering.open_vector(tmp_path / "v.gguf").layers == (1, 2, 3, 4, 5)


REFUSED = {
    "nothing": ([], "Say what the vector is made of"),
    "two things": (["--text", GOOD, "--token", " Germany"], "Say what the vector is made of"),
    "one side": (["--positive", GOOD], "two sides"),
    "another ending": (["--text", GOOD, "-o", "v.pt"], ".safetensors or .gguf"),
    "without": (["--positive", GOOD, "--negative", BAD, "--without", BAD], "of contrasts"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_vector_is_made_of_is_refused(call, case):
    asked, why = REFUSED[case]
    out = [] if "-o" in asked else ["-o", "v.safetensors"]
    code, _, err = call("steer", "nano", *asked, *out)
    assert code == 2
    assert why in err.replace("\n", " ")


def test_doses_leave_a_folder_with_maps_and_a_report(call, tmp_path, nano):
    vector = mt.steering.of_token(nano, " France", without=" Germany", normalise=True)
    vector.save(tmp_path / "v.safetensors")
    neutral = "Sam went to the park."
    edit = 'add("v.safetensors") L*.resid_post'
    code, shown, err = call(
        "dose", "nano", *ASKED, "-e", edit, "-m", "logit_diff", "--over", "factor=0,8,-8",
        "--neutral", neutral, "-o", "out",
    )  # fmt: skip
    assert code == 0, err
    assert "Best" in shown
    out = tmp_path / "out"
    names = {path.name for path in (out / "figures").iterdir()}
    assert names >= {"gain-0.png", "trade.png", "cost-kl.png", "cost-perplexity.png"}
    page = (out / "report.html").read_text()
    assert "What it costs" in page
    assert "microtome dose" in page
    assert "in all; the first" not in page
    summary = json.loads((out / "summary.json").read_text())
    prompt = mt.Prompt(ASKED[1], target=" Germany", contrast=" France")
    found = mt.dose(nano, mt.edit(edit.replace("v.", f"{tmp_path}/v.")), prompt, neutral,
                    over={"factor": [0, 8, -8]}, progress=False)  # fmt: skip
    rows = found.table()
    assert [one["kl"] for one in summary["doses"]] == pytest.approx(rows["kl"].tolist())
    assert summary["neutral"] == [neutral]
    again = mt.open_effects(out)
    assert again.data["logit_diff"].shape == (1, 6, 3)
    code, _, err = call("dose", "nano", *ASKED, "-e", edit, "--over", "factor=1",
                        "--neutral", neutral, "-o", "out")  # fmt: skip
    assert code == 2
    assert "holds an answer already" in err


def test_where_no_dose_costs_so_little_the_least_is_told(call):
    code, shown, err = call(
        "dose", "nano", *ASKED, "-e", "scale(1) L2.mlp_out", "-m", "logit_diff",
        "--over", "factor=-3,4", "--neutral", "Sam went to the park.", "--budget", "1e-9",
    )  # fmt: skip
    assert code == 0, err
    assert re.search(r"No dose costs so little: the least is \d\S* nat\. Try smaller", shown)


def test_one_layer_is_dosed_and_told_as_json(call):
    code, shown, err = call(
        "dose", "nano", *ASKED, "-e", "scale(1) L2.mlp_out", "-m", "logit_diff",
        "--over", "factor=0.5,2", "--neutral", "Sam went to the park.", "--json", "--budget", "9",
    )  # fmt: skip
    assert code == 0, err
    answer = json.loads(shown)
    assert len(answer["best"]) == len(answer["doses"]) == 2
    code, _, err = call("dose", "nano", *ASKED, "-e", "zero L2.mlp_out", "--neutral", "Sam went")
    assert code == 2
    assert "--over factor" in err
