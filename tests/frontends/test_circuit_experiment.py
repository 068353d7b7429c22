"""Circuits as files: what a file says is what Python does, resumed and refused alike."""

from __future__ import annotations

import json
import signal
from types import SimpleNamespace

import numpy as np
import pytest

import microtome as mt
from microtome.circuits import Circuit, open_scores
from microtome.circuits.trial import Trial
from microtome.errors import CircuitError, ExperimentError
from microtome.frontends.guard import Stopped

NODES = {"level": "node"}
IOI = {"task": {"name": "ioi", "n": 2}}
FILE = """
model: nano
prompts: {task: {name: ioi, n: 2}}
scores: {level: node}
search: {by: acdc, threshold: 0.5, start: 3}
judge: {task: {name: ioi, n: 3, seed: 1}}
"""


def test_a_search_is_what_python_gives(nano):
    prompts, others = mt.tasks.ioi(2), mt.tasks.ioi(3, seed=1)
    found = mt.CircuitExperiment.from_yaml(FILE).run(nano, progress=False)
    scores = mt.circuits.score(nano, prompts, level="node", progress=False)
    asked = {"start": scores.circuit(3), "progress": False}
    wanted = mt.circuits.acdc(nano, prompts, 0.5, "logit_diff", **asked)
    assert np.array_equal(found.scores.mean, scores.mean)
    assert found.found.circuit == wanted.circuit
    f = mt.circuits.faithfulness(nano, others, wanted.circuit, progress=False)
    assert found.summary()["faithfulness"] == float(f["faithfulness"])
    assert json.loads(found.judged.attrs["verification"])["runs"] == 2


def test_a_search_that_looks_at_no_scores_makes_none(nano, monkeypatch):
    monkeypatch.setattr(mt.circuits, "score", None)
    search = {"by": "greedy", "n": 3600, "every": 28}
    asked = {"model": "nano", "prompts": {"task": {"name": "ioi", "n": 1}}, "metric": "logit_diff"}
    monkeypatch.setattr(Trial, "measure", by_size)
    found = mt.CircuitExperiment(**asked, search=search).run(nano, progress=False)
    assert found.scores is None
    assert len(found.found.circuit) <= 3600


def by_size(trial, circuits, tick=None):
    """A measure that takes no time: how many edges there are."""
    sizes = np.array([[float(len(one)) for one in circuits]])
    return {str(reading): sizes for reading in trial.asked}


def test_scores_alone_are_judged_by_size(nano):
    asked = {"model": "nano", "prompts": IOI, "scores": NODES, "ablation": "zero"}
    found = mt.CircuitExperiment(**asked).run(nano, progress=False)
    prompts = mt.tasks.ioi(2)
    scores = mt.circuits.score(nano, prompts, level="node", ablation="zero", progress=False)
    curve = mt.circuits.curve(nano, prompts, scores, progress=False)
    assert found.summary()["cpr"] == curve.cpr.value
    assert found.found is None


def test_a_circuit_that_is_given_is_judged_and_nothing_is_scored_or_searched(
    nano, monkeypatch, tmp_path
):
    for name in ("score", "top", "greedy", "acdc"):
        monkeypatch.setattr(mt.circuits, name, None)
    edges = ["input->m0", "m0->logits"]
    asked = mt.CircuitExperiment(
        model="nano", prompts=IOI, ablation="zero", circuit=edges, out=tmp_path / "out"
    )
    found = asked.run(nano, progress=False)
    wanted = Circuit.of(nano, edges)
    alone = mt.circuits.faithfulness(nano, mt.tasks.ioi(2), wanted, ablation="zero", progress=False)
    assert found.summary()["faithfulness"] == float(alone["faithfulness"])
    assert (found.scores, found.found.circuit, found.found.method) == (None, wanted, "given")
    assert Circuit.open(tmp_path / "out" / "circuit.json", nano) == wanted
    assert mt.CircuitExperiment.from_yaml(asked.to_yaml()) == asked
    with pytest.raises(CircuitError, match="no edge 'm9->logits'"):
        mt.CircuitExperiment(model="nano", prompts=IOI, circuit="m9->logits").run(nano)


def test_it_reads_back_equal():
    experiment = mt.CircuitExperiment.from_yaml(FILE)
    again = mt.CircuitExperiment.from_yaml(experiment.to_yaml())
    assert again == experiment
    assert experiment.plain()["search"] == {"by": "acdc", "threshold": 0.5, "start": 3}
    rough = {"scores": {"method": "eap", "audit": 8, "seed": 3}}
    experiment = mt.CircuitExperiment(model="nano", prompts=IOI, **rough)
    assert mt.CircuitExperiment.from_yaml(experiment.to_yaml()).plain()["scores"] == rough["scores"]


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"search": {"by": "acdc"}}, "acdc keeps edges that cost at least τ"),
        ({"search": {"by": "top"}}, "top takes n or threshold, one of them"),
        ({"search": {"by": "acdc", "threshold": 10**400}}, "expected a number, not 1000"),
        ({"search": {"by": "top", "n": 5, "every": 2}}, "top does not look at it"),
        ({"search": {"by": "greedy", "threshold": 0.1}}, "greedy does not look at it"),
        ({"ablation": "patched"}, "no ablation is called 'patched'.*Did you mean 'patch'"),
        ({"scores": {"method": "exakt"}}, "No method is called 'exakt'"),
        ({"scores": {"method": "eap", "audit": 0}}, "audit"),
        ({"metric": "logit_dif"}, "logit_dif"),
        ({"circuit": []}, "circuit: give at least one"),
        (
            {"circuit": ["m0->logits"], "search": {"by": "top", "n": 5}},
            "circuit: the circuit is given.*leave search out",
        ),
        ({"circuit": ["m0->logits"], "scores": NODES}, "circuit: .*leave scores out"),
        ({"serach": {}}, "there is no such field.*Did you mean 'search'"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_field(fields, complaint):
    with pytest.raises(ExperimentError, match=complaint):
        mt.CircuitExperiment(model="nano", prompts=IOI, **fields)


def test_the_command_goes_on_from_where_it_was_stopped(tmp_path, monkeypatch, call, nano):
    """Stopped in the search; scores and steps are kept; and what comes is what would have."""
    config, out = tmp_path / "circuit.yaml", tmp_path / "out"
    config.write_text(FILE, encoding="utf-8")
    asked = ("run", "--config", config, "-o", out)
    plain, calls = Trial.measure, []

    def stopping(own, *args):
        calls.append(0)
        if len(calls) == 4:
            raise Stopped(signal.SIGINT)
        return plain(own, *args)

    with monkeypatch.context() as patched:
        patched.setattr(Trial, "measure", stopping)
        code, _, said = call("circuit", *asked)
    assert code == 130
    assert "of scores L-mlp_out.zarr" in said
    assert "of search what 3 steps have measured" in said
    code, shown, _ = call("circuit", *asked)
    assert code == 0
    assert "Faithfulness" in shown
    wanted = mt.CircuitExperiment.read(config).run(nano, progress=False)
    assert Circuit.open(out / "circuit.json", nano) == wanted.found.circuit
    assert np.array_equal(open_scores(out / "scores.zarr").mean, wanted.scores.mean)
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert summary["faithfulness"] == wanted.summary()["faithfulness"]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert f"microtome circuit run --config {config}" in page
    config.write_text(FILE.replace("acdc, threshold: 0.5, start: 3", "top, n: 3"), encoding="utf-8")
    code, _, said = call("circuit", *asked)
    assert code == 2
    assert "is of another experiment" in " ".join(said.split())
    assert call("circuit", *asked, "--overwrite")[0] == 0


def test_a_place_is_needed(tmp_path, call):
    config = tmp_path / "circuit.yaml"
    config.write_text(FILE, encoding="utf-8")
    code, _, said = call("circuit", "run", "--config", config)
    assert code == 2
    assert "Say where" in said


@pytest.mark.parametrize(
    ("asked", "method", "given"),
    [
        ("score", "exact", "processes:2"),
        ("score", "removal", "processes:2"),
        ("score", "atp", None),  # passes of this process
        ("greedy", "exact", "processes:2"),
        ("faithfulness", "exact", "processes:2"),
    ],
)
def test_who_computes_is_handed_on_and_is_no_part_of_what_is_asked(
    nano, tmp_path, monkeypatch, asked, method, given
):
    told = []

    def told_of(*_, workers, **how):
        told.append(workers)
        raise KeyboardInterrupt

    found = SimpleNamespace(circuit=Circuit.empty(nano))
    monkeypatch.setattr(mt.circuits, "greedy", lambda *_, **how: found)
    monkeypatch.setattr(mt.circuits, asked, told_of)
    search = {"scores": {"level": "node", "method": method}}
    if asked != "score":
        search = {"search": {"by": "greedy", "n": 3}}
    for workers in ("processes:2", None):
        how = {**search, "workers": workers, "out": tmp_path / "out"}
        with pytest.raises(KeyboardInterrupt):
            mt.CircuitExperiment(model="nano", prompts=IOI, **how).run(nano, progress=False)
    assert told == [given, None]
