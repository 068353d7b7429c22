"""Scores of edges and nodes: by sweeps, by circuits, and circuits by them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import microtome as mt
from conftest import BERLIN, CAT, PARIS
from microtome.circuits import Circuit, Exact, Graph, Removal, Scores, methods, open_scores
from microtome.circuits.trial import Trial
from microtome.errors import CircuitError, EffectsError
from microtome.frontends.experiment.circuit import scored_in
from oracles.families import FAMILIES

PROMPTS = [
    mt.Prompt(BERLIN, donor=PARIS, target=" Germany", contrast=" France"),
    mt.Prompt(CAT, donor="The dog sat", target=" on", contrast=" the"),
]
SHAPES = ("gpt2", "gemma2", "gpt_neox", "falcon, one key head")


@pytest.fixture(scope="module")
def scores(tiny64) -> Scores:
    return mt.circuits.score(tiny64, PROMPTS)


@pytest.mark.parametrize("name", SHAPES)
def test_one_edge_missing_is_that_edges_cell(name, of_family):
    """Circuits of all edges but one, against the sweep's reference path."""
    model = of_family(name)
    full, edges = Circuit.full(model), mt.edges(model)
    chosen = [
        edge for edge in edges.names if edge.endswith(("a1.h2<q>", "a2.h1<v>", "m1", "logits"))
    ]
    chosen += [edge for edge in edges.names if edge.endswith("a1.h3<k>")]
    for ablation in ("patch", "zero"):
        found = mt.circuits.run(
            model, PROMPTS[0], [full - Circuit.of(model, [edge]) for edge in chosen],
            metrics="logit_diff", ablation=ablation,
        )["logit_diff"][0]  # fmt: skip
        for edge, value in list(zip(chosen, found, strict=True))[::4]:
            cell = mt.sweep(
                model, PROMPTS[0], f"{ablation} {edges.edge(edge)}", metrics="logit_diff",
                engine="reference", progress=False,
            )  # fmt: skip
            size = max(1, abs(float(value)))
            assert abs(float(value) - cell.data["logit_diff"].item()) <= rounding(name) * size


def rounding(name: str) -> float:
    return max(1e-9, FAMILIES[name].rounding)


@pytest.mark.parametrize("ablation", ["patch", "zero", "mean"])
@pytest.mark.parametrize("level", ["edge", "node"])
def test_both_methods_give_the_same(tiny64, level, ablation):
    references = [BERLIN, PARIS, "Rome is the capital of"]
    one = PROMPTS[:1]
    exact, removal = (
        mt.circuits.score(
            tiny64, one, method=method, level=level, ablation=ablation,
            reference=references if ablation == "mean" else (),
        )
        for method in ("exact", "removal")
    )  # fmt: skip
    assert np.abs(exact.data["score"] - removal.data["score"]).max() < 1e-9
    assert np.isfinite(exact.mean).all()


def test_removals_that_were_stopped_are_gone_on_with(make_gpt2, tokenizer, tmp_path, monkeypatch):
    small = mt.load(make_gpt2(dtype=torch.float64, n_layer=1, n_head=2), tokenizer=tokenizer)
    monkeypatch.setattr(methods, "AT_ONCE", 1)
    asked = {"method": "removal", "level": "node", "progress": False}
    whole = mt.circuits.score(small, PROMPTS[:1], **asked).data
    own, ran = Trial.measure, []

    def counted(trial, circuits, *rest):
        if len(ran) == 2:
            raise KeyboardInterrupt
        ran.append(len(circuits))
        return own(trial, circuits, *rest)

    monkeypatch.setattr(Trial, "measure", counted)
    with pytest.raises(KeyboardInterrupt):
        mt.circuits.score(small, PROMPTS[:1], out=tmp_path, **asked)
    assert ran == [1, 1]
    ran[:] = [0]
    with pytest.raises(KeyboardInterrupt):
        mt.circuits.score(small, PROMPTS[:1], out=tmp_path, **asked)
    assert ran == [0, 1]
    assert scored_in(tmp_path) == "what 3 steps have measured"
    monkeypatch.setattr(Trial, "measure", own)
    told = Counting()
    found = mt.circuits.score(small, PROMPTS[:1], out=tmp_path, **{**asked, "progress": told}).data
    assert found.drop_attrs().identical(whole.drop_attrs())
    assert told.cells == told.of > 3, "what was there counts as done"


class Counting(mt.Observer):
    cells = of = 0.0

    def planned(self, cells, units):
        self.of = cells

    def advanced(self, cells):
        self.cells += cells


def test_names_are_those_of_the_graphs_edges(tiny64, scores):
    assert set(scores.data["edge"].values) == set(mt.edges(tiny64))
    assert list(scores.data["edge"].values) == list(Graph.of(tiny64).edges)
    assert scores.data["score"].dims == ("prompt", "edge")
    assert np.allclose(scores.mean, scores.data["score"].mean("prompt"))


def test_what_helps_is_above_zero(tiny64, scores):
    """The sign is that of the effect of a whole ablation, whichever way the metric goes."""
    edge = "m2->logits"
    cell = mt.sweep(
        tiny64, PROMPTS, f"patch {mt.edges(tiny64).edge(edge)}", metrics=["logit_diff", "loss"]
    )
    fewer = scores.data["score"].sel(edge=edge).values
    assert np.abs(fewer + cell.delta("logit_diff").values).max() < 1e-12
    loss = mt.circuits.score(tiny64, PROMPTS, "loss").data["score"].sel(edge=edge).values
    assert np.abs(loss - cell.delta("loss").values).max() < 1e-12


@pytest.mark.parametrize("metric", ["kl", "loss", "next_loss@-2", "rank"])
def test_of_what_is_better_small_more_is_worse(tiny64, metric):
    found = mt.circuits.score(tiny64, PROMPTS[:1], metric, level="node")
    zeroed = mt.sweep(tiny64, PROMPTS[:1], "patch L*.mlp_out", metrics=metric).delta(metric)[0]
    own = found.data["score"][0].sel(node=["m0", "m1", "m2"])
    assert np.abs(own.values - zeroed.values).max() < 1e-9
    parts = [
        mt.sweep(tiny64, PROMPTS[:1], f"patch {site}", metrics=metric).delta(metric).values
        for site in ("embed", "L*.z.h*", "L*.mlp_out")
    ]
    by_sweeps = Scores.of_nodes(Graph.of(tiny64), *parts, metric)
    assert np.abs(by_sweeps.mean - found.mean).max() < 1e-9


@pytest.mark.parametrize(
    ("metric", "sign"),
    [("rank", 1), ("kl@1", 1), ("loss", 1), ("next_loss@1", 1), ("prob(contrast)", -1)],
)
def test_a_score_is_how_much_worse_it_is(tiny64, metric, sign):
    trial = Trial.of(tiny64, PROMPTS, [metric])
    assert trial.worse == sign
    graph, one = trial.graph, np.ones((2, 1))
    heads, mlps = np.full((2, 3, 4), 2.0), np.full((2, 3), 3.0)
    nodes = Scores.of_nodes(graph, one[:, 0], heads, mlps, metric)
    assert nodes.mean.tolist() == [sign * n for n in (1, *3 * [2, 2, 2, 2, 3])]


def test_the_strongest_edges_are_a_circuit(scores):
    order = np.argsort(-np.abs(scores.mean))
    circuit = scores.circuit(20, pruned=False)
    assert set(circuit) == set(scores.data["edge"].values[order[:20]])
    assert scores.circuit(20) == circuit.pruned()
    assert np.array_equal(circuit.scores, scores.mean)
    least = np.abs(scores.mean)[order[19]]
    assert scores.circuit(threshold=least, pruned=False) == circuit
    signed = scores.circuit(20, absolute=False, pruned=False)
    assert set(signed) == set(scores.data["edge"].values[np.argsort(-scores.mean)[:20]])
    assert list(scores.top(3)["edge"]) == list(scores.data["edge"].values[order[:3]])
    assert len(scores.circuit(0)) == 0
    assert scores.circuit(len(scores)) == Circuit.full(scores.graph)


def test_ties_go_to_the_earlier_edge_and_no_number_goes_last(scores):
    data = scores.data.copy(deep=True)
    data["mean"][:] = 1.0
    data["mean"][0] = np.nan
    circuit = Scores(data).circuit(3, pruned=False)
    assert circuit.edges == scores.graph.edges[1:4]


def test_the_strongest_nodes_are_a_circuit_of_all_edges_between_them(tiny64):
    nodes = mt.circuits.score(tiny64, PROMPTS, level="node")
    chosen = nodes.top(4)["node"].tolist()
    assert nodes.circuit(4, pruned=False) == Circuit.among(tiny64, chosen)
    assert len(nodes) == 1 + 3 * 5


def test_scores_are_what_was_saved(tmp_path, scores):
    scores.save(tmp_path / "scores.zarr")
    assert open_scores(tmp_path / "scores.zarr").data.identical(scores.data)
    with pytest.raises(EffectsError, match="not there"):
        open_scores(tmp_path / "nowhere.zarr")


def test_a_map_is_no_scores(tiny64, tmp_path):
    mt.sweep(tiny64, BERLIN, mt.zero("L*.z.h*"), metrics="kl").save(tmp_path / "map.zarr")
    with pytest.raises(CircuitError, match="no scores of a circuit"):
        open_scores(tmp_path / "map.zarr")


def test_with_a_folder_what_is_done_is_not_done_again(tiny64, tmp_path, monkeypatch):
    first = mt.circuits.score(tiny64, PROMPTS, level="node", out=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "L-mlp_out.zarr", "L-z-h.zarr", "embed.zarr",
    ]  # fmt: skip
    monkeypatch.setattr("microtome.verbs.sweep.Answer", None)  # nothing can be run
    again = mt.circuits.score(tiny64, PROMPTS, level="node", out=tmp_path)
    assert np.array_equal(first.data["score"], again.data["score"])


def test_progress_is_of_all_sweeps_together(tiny64):
    class Counting(mt.Observer):
        cells, planned_cells, over = 0.0, 0, 0

        def planned(self, cells: int, units: int) -> None:
            self.planned_cells += cells

        def advanced(self, cells: float) -> None:
            self.cells += cells

        def finished(self) -> None:
            self.over += 1

    own = Counting()
    scores = mt.circuits.score(tiny64, PROMPTS, progress=own)
    assert (own.planned_cells, own.over) == (2 * len(scores), 1)
    assert round(own.cells) >= own.planned_cells


@pytest.mark.parametrize(
    ("how", "complaint"),
    [
        ({"method": "eaxct"}, "No method is called 'eaxct'.*Did you mean 'exact'"),
        ({"method": 5}, "No method is called 5; there are: exact"),
        ({"level": "neuron"}, "No level is called 'neuron'; there are: edge, node"),
        ({"metric": "top1"}, "is the id of a token"),
    ],
)
def test_what_cannot_be_scored_is_refused(tiny, how, complaint):
    with pytest.raises(CircuitError, match=complaint):
        mt.circuits.score(tiny, PROMPTS, **how)


def test_a_size_is_asked_for_once(scores):
    with pytest.raises(CircuitError, match="one of them"):
        scores.circuit()
    with pytest.raises(CircuitError, match="one of them"):
        scores.circuit(3, threshold=0.1)
    with pytest.raises(CircuitError, match="ask for 0 to"):
        scores.circuit(10**6)
    with pytest.raises(CircuitError, match="not NaN"):
        scores.circuit(threshold=float("nan"))
    with pytest.raises(CircuitError, match="n is at least 0"):
        scores.top(-1)


def test_methods_are_objects_too(tiny64):
    by_name = mt.circuits.score(tiny64, PROMPTS[:1], level="node")
    by_object = mt.circuits.score(tiny64, PROMPTS[:1], level="node", method=Exact(verify=1))
    assert np.abs(by_name.mean - by_object.mean).max() < 1e-12
    whole = mt.circuits.score(tiny64, PROMPTS[:1], level="node", method=Removal())
    assert np.abs(by_name.mean - whole.mean).max() < 1e-9


def test_sweeps_are_given_to_workers_and_approximations_are_not(tiny64, monkeypatch):
    asked, plain = [], methods.sweep

    def sweep(*args, workers, **more):
        asked.append(workers)
        return plain(*args, **more)

    monkeypatch.setattr(methods, "sweep", sweep)
    how = {"level": "node", "workers": "processes:2", "progress": False}
    mt.circuits.score(tiny64, PROMPTS[0], **how)
    assert asked == ["processes:2"] * 3
    with pytest.raises(CircuitError, match=r"'atp.*has no units that workers could run"):
        mt.circuits.score(tiny64, PROMPTS[0], method="atp", **how)
