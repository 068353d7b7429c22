"""``microtome circuit``: what it shows and writes is what Python gives."""

from __future__ import annotations

import json
import signal
from functools import partial

import numpy as np
import pytest

import microtome as mt
from microtome.circuits import Circuit, open_scores
from microtome.circuits.checking import Check
from microtome.circuits.trial import Trial
from microtome.frontends.guard import Stopped

PROMPT = ["-p", "Berlin is the capital of", "--donor", "Paris is the capital of"]
ASKED = [*PROMPT, "--target", " Germany", "--contrast", " France"]
SAME = mt.Prompt(
    "Berlin is the capital of", donor="Paris is the capital of", target=" Germany",
    contrast=" France",
)  # fmt: skip


@pytest.fixture
def call(call):
    return partial(call, "circuit")


@pytest.fixture(scope="module")
def scores(nano, tmp_path_factory):
    """Of nodes: few cells."""
    path = tmp_path_factory.mktemp("scores") / "nodes.zarr"
    found = mt.circuits.score(nano, SAME, level="node", progress=False)
    found.save(path)
    return path


def test_scores_are_written_and_the_strongest_shown(call, scores, tmp_path):
    code, shown, _ = call("score", "nano", *ASKED, "--level", "node", "-o", tmp_path / "s.zarr")
    assert code == 0
    own = open_scores(tmp_path / "s.zarr")
    assert np.array_equal(own.mean, open_scores(scores).mean)
    assert own.top(1)["node"][0] in shown
    assert "s.zarr" in shown


def test_scores_by_gradients_say_how_good_they_are(call, nano, tmp_path):
    out, how = (
        tmp_path / "s.zarr",
        ["--level", "node", "--method", "atp", "--audit", 8, "--seed", 1],
    )
    code, shown, _ = call("score", "nano", *ASKED, *how, "-o", out)
    assert code == 0
    found = mt.circuits.score(
        nano, SAME, level="node", method="atp", audit=8, seed=1, progress=False
    )
    own = open_scores(out)
    assert own.audit == found.audit
    assert own.exact_cells().equals(found.exact_cells())
    said = " ".join(shown.split())
    assert f"of the {len(own) - 8} cells that are approximate no more than" in said
    code, shown, _ = call("score", "nano", *ASKED, *how, "-o", out, "--overwrite", "--json")
    assert json.loads(shown)["audit"]["cells"] == 8


def test_a_circuit_by_scores(call, scores, nano, tmp_path):
    code, shown, _ = call("find", "nano", "--scores", scores, "-n", 6, "-o", tmp_path / "c.json")
    assert code == 0
    assert Circuit.open(tmp_path / "c.json", nano) == open_scores(scores).circuit(6)
    assert "top(n=6)" in shown


@pytest.mark.parametrize(
    "by", [["greedy", "-n", 2, "--every", 4], ["acdc", "--threshold", 0.2, "--order", "first"]]
)
def test_a_circuit_by_a_search(call, scores, nano, tmp_path, by):
    code, shown, noted = call(
        "find", "nano", "--by", *by, "--scores", scores, "--start", 3, *ASKED, "-m", "logit_diff",
        "-o", tmp_path / "c.json", "--keep", tmp_path / "kept", "--json",
    )  # fmt: skip
    assert code == 0
    start = open_scores(scores).circuit(3)
    if by[0] == "greedy":
        found = mt.circuits.greedy(nano, SAME, n=2, every=4, start=start, progress=False)
    else:
        found = mt.circuits.acdc(
            nano, SAME, 0.2, "logit_diff", order="first", start=start, progress=False
        )
    answer = json.loads(shown)
    assert Circuit.open(tmp_path / "c.json") == found.circuit
    assert (answer["edges"], answer["method"]) == (len(found.circuit), found.method)
    assert "circuits on 1 prompt," in noted
    assert (tmp_path / "kept" / "steps").is_dir()


def test_a_circuit_is_judged_with_a_report(call, scores, nano, tmp_path):
    circuit = open_scores(scores).circuit(10)
    circuit.save(tmp_path / "c.json")
    code, shown, _ = call("evaluate", "nano", tmp_path / "c.json", *ASKED, "-o", tmp_path / "out")
    assert code == 0
    found = mt.circuits.faithfulness(nano, SAME, circuit, progress=False)
    assert f"Faithfulness {float(found['faithfulness']):.4f}" in shown
    page = (tmp_path / "out" / "report.html").read_text()
    assert f"A circuit of {len(circuit):,} edges, nano" in page
    assert {path.name for path in (tmp_path / "out" / "figures").iterdir()} == {
        "circuit.html", "circuit.png", "plotly.min.js",
    }  # fmt: skip


def test_circuits_of_growing_size_are_judged_with_a_report(call, scores, nano, tmp_path):
    code, shown, _ = call("evaluate", "nano", scores, *ASKED, "-o", tmp_path / "out", "--json")
    assert code == 0
    answer = json.loads(shown)
    curve = mt.circuits.curve(nano, SAME, open_scores(scores), progress=False)
    assert answer["cpr"] == pytest.approx(curve.cpr.value)
    assert [one["share"] for one in answer["sizes"]] == curve.shares
    page = (tmp_path / "out" / "report.html").read_text()
    assert "CPR" in page
    assert "in all; the first" not in page
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["cmd"] == pytest.approx(curve.cmd.value)


def test_a_circuit_is_drawn(call, scores, tmp_path):
    open_scores(scores).circuit(5).save(tmp_path / "c.json")
    for given, more in ((tmp_path / "c.json", []), (scores, ["-n", "4"])):
        code, _, _ = call("draw", given, *more, "-o", tmp_path / "c.png", "--overwrite")
        assert code == 0
        assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_an_answer_is_not_written_over_unless_asked(call, scores, tmp_path):
    circuit, out = tmp_path / "c.json", tmp_path / "out"
    asked = (
        ("find", "nano", "--scores", scores, "-n", "4", "-o", circuit),
        ("evaluate", "nano", circuit, *ASKED, "-o", out),
        ("score", "nano", *ASKED, "--level", "node", "-o", tmp_path / "s.zarr"),
    )
    for args in asked:
        assert call(*args)[0] == 0
        code, _, error = call(*args)
        assert (code, "already: name another place, or --overwrite" in error) == (2, True)
        assert call(*args, "--overwrite")[0] == 0


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (["find", "nano", "-o", "c.json"], "--scores scores.zarr"),
        (["find", "nano", "--by", "best", "-o", "c.json"], "No search is called 'best'"),
        (["find", "nano", "--by", "acdc", *ASKED, "-o", "c.json"], "--threshold 0.05"),
        (["score", "nano", "-o", "s.zarr"], "Give the prompt with -p TEXT"),
        (["score", "nano", "--prompts", "m" * 300, "-o", "s"], "is no file here, and no task"),
        (
            ["score", "nano", *PROMPT[:2], "--target", " a", "--contrast", " b", "-o", "s"],
            "no donor",
        ),
        (["draw", "nowhere.json", "-o", "c.png"], "Cannot read nowhere.json"),
    ],
)
def test_what_is_missing_is_said(call, args, complaint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, error = call(*args)
    assert code == 2
    assert complaint in error
    assert "Traceback" not in error


def test_a_tasks_prompts_are_the_tokenizers(call, nano, tmp_path):
    code, _, _ = call(
        "score", "nano", "--prompts", "ioi:2", "--level", "node", "-o", tmp_path / "s.zarr", "-q"
    )
    assert code == 0
    own = mt.circuits.score(nano, mt.tasks.ioi(2), level="node", progress=False)
    assert np.array_equal(open_scores(tmp_path / "s.zarr").mean, own.mean)


@pytest.mark.parametrize("by", ["greedy", "acdc"])
def test_scores_that_a_search_would_not_look_at_are_refused(call, scores, tmp_path, by):
    asked = [*ASKED, "--by", by, "--threshold", 0.1, "--scores", scores]
    code, _, said = call("find", "nano", *asked, "-o", tmp_path / "c.json")
    assert code == 2
    assert "--start 300" in said
    assert not (tmp_path / "c.json").exists()


@pytest.mark.parametrize(
    ("by", "given", "named"),
    [
        ("top", ["--workers", "processes:2"], "--workers"),
        ("top", ["--every", 2, "--prompts", "ioi:2", "--keep", "k"], "--every, --prompts, --keep"),
        ("top", ["-m", "kl", "--dtype", "float64"], "--metric"),
        ("greedy", ["--order", "first"], "--order"),
        ("acdc", ["-n", 4, "--tolerance", 0.1], "-n, --tolerance"),
    ],
)
def test_what_a_search_would_not_look_at_is_refused(call, scores, tmp_path, by, given, named):
    asked = ["--by", by, "--scores", scores, *(["--start", 3] if by != "top" else ["-n", 3])]
    code, _, said = call("find", "nano", *asked, *given, "-o", tmp_path / "c.json")
    assert code == 2
    assert f"{by} does not look at {named}; it takes: " in " ".join(said.split())
    assert not (tmp_path / "c.json").exists()


def stopping(monkeypatch, after: int):
    """Ctrl-C at some call of what measures circuits."""
    plain, calls = Trial.measure, []

    def measure(own, *args):
        calls.append(0)
        if len(calls) > after:
            raise Stopped(signal.SIGINT)
        return plain(own, *args)

    monkeypatch.setattr(Trial, "measure", measure)


def test_who_stops_a_search_hears_what_is_kept(call, scores, tmp_path, monkeypatch):
    asked = [*ASKED, "--by", "acdc", "--threshold", "0.5", "--scores", scores, "--start", 4]
    out = ["-o", tmp_path / "c.json"]
    with monkeypatch.context() as patched:
        stopping(patched, after=2)
        code, _, said = call("find", "nano", *asked, *out, "--keep", tmp_path / "kept")
    assert code == 130
    assert f"Kept in {tmp_path / 'kept'}: what 2 steps have measured." in said
    assert f"--keep {tmp_path / 'kept'}" in said.splitlines()[-1]
    assert call("find", "nano", *asked, *out, "--keep", tmp_path / "kept")[0] == 0
    assert call("find", "nano", *asked, "-o", tmp_path / "once.json")[0] == 0
    assert (tmp_path / "c.json").read_bytes() == (tmp_path / "once.json").read_bytes()


def test_who_stops_scoring_hears_what_is_kept(call, tmp_path, monkeypatch):
    asked = ["score", "nano", *ASKED, "--level", "node", "-o", tmp_path / "s.zarr"]

    def stop(self, effects, metric):
        raise Stopped(signal.SIGINT)

    monkeypatch.setattr(Check, "hear_of", stop)  # after the first sweep
    code, _, said = call(*asked, "--keep", tmp_path / "kept")
    assert code == 130
    assert f"Kept in {tmp_path / 'kept'}: embed.zarr (whole). To go on, the same again:" in said
    code, _, said = call(*asked)
    assert code == 130
    assert "Nothing is kept. With --keep DIR" in said
    assert said.splitlines()[-1].endswith("--keep DIR")


def test_workers_are_handed_on(call, scores, tmp_path):
    """As told by the one that takes none of this name."""
    with_them = [*ASKED, "--workers", "rai"]
    for asked in (
        ("score", "nano", *with_them, "--method", "removal", "-o", tmp_path / "s.zarr"),
        ("find", "nano", *with_them, "--by", "acdc", "--threshold", 1, "-o", tmp_path / "c.json"),
        ("evaluate", "nano", scores, *with_them),
    ):
        code, _, said = call(*asked)
        assert code == 2
        assert "There are no workers 'rai'" in " ".join(said.split())
