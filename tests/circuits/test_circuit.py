"""A circuit is a set of edges, as a value; its files are those of EAP-IG and of MIB."""

from __future__ import annotations

import json

import numpy as np
import pytest

from microtome.circuits import Circuit, Graph
from microtome.errors import CircuitError

GRAPH = Graph(n_layers=2, n_heads=2, d_model=8)
WAY = ("input->a0.h1<v>", "a0.h1->a1.h0<k>", "a1.h0->logits")


def way() -> Circuit:
    return Circuit.of(GRAPH, WAY)


def test_it_is_a_set():
    other = Circuit.of(GRAPH, ["a1.h0->logits", "m1->logits"])
    assert set(way() | other) == {*WAY, "m1->logits"}
    assert set(way() & other) == {"a1.h0->logits"}
    assert set(way() - other) == set(WAY[:2])
    assert len(way()) == 3
    assert WAY[0] in way()
    assert "m1->logits" not in way()
    assert way() - other <= way()
    assert not way() <= other
    assert not Circuit.empty(GRAPH)
    assert len({way(), Circuit.of(GRAPH, reversed(WAY))}) == 1
    assert Circuit.full(GRAPH) - Circuit.full(GRAPH) == Circuit.empty(GRAPH)


def test_it_does_not_change():
    chosen = np.zeros(len(GRAPH), dtype=bool)
    circuit = Circuit(GRAPH, chosen)
    chosen[0] = True
    assert not circuit
    with pytest.raises(ValueError, match="read-only"):
        circuit.chosen[0] = True


def test_nodes_are_those_that_its_edges_touch():
    assert way().nodes == ("input", "a0.h1", "a1.h0", "logits")


def test_pruned_of_what_leads_nowhere():
    stray = ["a0.h0->m0", "m0->a1.h1<q>", "input->a0.h0<k>", "m1->logits"]
    assert set((way() | Circuit.of(GRAPH, stray)).pruned()) == set(WAY)
    assert not (way() - Circuit.of(GRAPH, WAY[1:2])).pruned()
    assert way().pruned() == way()
    assert Circuit.full(GRAPH).pruned() == Circuit.full(GRAPH)


def test_pruning_is_by_ways_in_random_circuits():
    """Against all ways, walked one by one."""
    for seed in range(20):
        circuit = Circuit(GRAPH, np.random.default_rng(seed).random(len(GRAPH)) < 0.15)
        steps = [(w, r.partition("<")[0]) for w, r in (edge.split("->") for edge in circuit)]
        down, up = {"input"}, {"logits"}
        for _ in GRAPH.nodes:
            down |= {r for w, r in steps if w in down}
            up |= {w for w, r in steps if r in up}
        both = zip(circuit, steps, strict=True)
        assert set(circuit.pruned()) == {edge for edge, (w, r) in both if w in down and r in up}


def test_all_edges_between_some_nodes():
    circuit = Circuit.among(GRAPH, ["a0.h1"])
    assert set(circuit) == {
        "input->a0.h1<q>", "input->a0.h1<k>", "input->a0.h1<v>", "input->logits", "a0.h1->logits",
    }  # fmt: skip
    assert Circuit.among(GRAPH, GRAPH.nodes) == Circuit.full(GRAPH)


def test_as_a_table():
    frame = Circuit(GRAPH, way().chosen, np.arange(len(GRAPH), dtype=float)).to_dataframe()
    assert list(frame["edge"]) == list(way())
    assert frame.loc[0, ["writer", "reader", "part"]].tolist() == ["input", "a0.h1", "v"]
    assert frame["from_layer"].isna().tolist() == [True, False, False]
    assert frame["layer"].tolist()[:2] == [0, 1]
    assert list(frame["score"]) == [GRAPH.number(edge) for edge in way()]


def test_of_two_models_nothing_is_put_together():
    with pytest.raises(CircuitError, match=r"2 layers × 2 heads.*3 layers × 2 heads"):
        way() | Circuit.empty(Graph(3, 2, 8))


# --------------------------------------------------------------------------- in files


def test_a_file_is_what_was_saved(tmp_path):
    scores = np.random.default_rng(0).standard_normal(len(GRAPH))
    Circuit(GRAPH, way().chosen, scores).save(tmp_path / "in a folder" / "circuit.json")
    back = Circuit.open(tmp_path / "in a folder" / "circuit.json", GRAPH)
    assert back == way()
    assert np.array_equal(back.scores, scores)


def test_a_file_has_the_form_that_eap_ig_reads(tmp_path):
    """As its `Graph.from_json` goes through it: every node but the logits, every edge, a number."""
    way().save(tmp_path / "circuit.json")
    whole = json.loads((tmp_path / "circuit.json").read_text())
    assert whole["cfg"] == {"n_layers": 2, "n_heads": 2, "parallel_attn_mlp": False, "d_model": 8}
    assert set(whole["nodes"]) == set(GRAPH.nodes)
    assert {n for n, one in whole["nodes"].items() if one["in_graph"]} == set(way().nodes)
    assert set(whole["edges"]) == set(GRAPH.edges)
    assert all(isinstance(one["score"], float) for one in whole["edges"].values())
    assert {n for n, one in whole["edges"].items() if one["in_graph"]} == set(WAY)


def test_older_files_say_of_a_node_only_whether(tmp_path):
    edges = {edge: {"score": 1, "in_graph": True} for edge in WAY}
    whole = {"cfg": GRAPH.cfg, "nodes": {"a0.h1": True}, "edges": edges}
    (tmp_path / "old.json").write_text(json.dumps(whole))
    back = Circuit.open(tmp_path / "old.json")
    assert back == way()
    assert back.to_dataframe()["score"].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"cfg": {**GRAPH.cfg, "n_heads": 3}}, "is of a model with 2 layers × 3 heads"),
        ({"cfg": {"n_layers": 2}}, "whole number above 0 as 'n_heads'"),
        ({"edges": {"m7->logits": {"in_graph": True}}}, "nothing that writes is called 'm7'"),
        ({"edges": {"m1->logits": {"score": 1.0}}}, "whether it is in_graph"),
        ({"edges": {"m1->logits": {"score": "high", "in_graph": True}}}, "no number as the score"),
        ({"edges": {"m1->logits": {"score": 10**400, "in_graph": True}}}, "no number as the score"),
        ({"nodes": {"a7.h0": {"in_graph": True}}}, "no node 'a7.h0'"),
        ({"nodes": {"m0": {"in_graph": True, "neurons": [True, False]}}}, "single dimensions"),
        ({"edges": None}, "'cfg', 'nodes' and 'edges' is needed"),
    ],
)
def test_a_file_that_is_not_of_this_model_is_refused_by_name(tmp_path, change, complaint):
    whole = {"cfg": GRAPH.cfg, "nodes": {}, "edges": {}, **change}
    (tmp_path / "circuit.json").write_text(json.dumps(whole))
    with pytest.raises(CircuitError, match=complaint) as refused:
        Circuit.open(tmp_path / "circuit.json", GRAPH)
    assert str(tmp_path / "circuit.json") in str(refused.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "not JSON"),
        ('{"cfg": {}, "nodes": {"m0": {}, "m0": {}}, "edges": {}}', "'m0' is given twice"),
        ("[" * 100_000, "too deeply nested"),
        (f'{{"cfg": {"1" * 5_000}}}', "not JSON"),
    ],
)
def test_what_is_no_file_of_a_circuit_is_refused(tmp_path, text, why):
    (tmp_path / "circuit.json").write_text(text)
    with pytest.raises(CircuitError, match=why):
        Circuit.open(tmp_path / "circuit.json")


def test_what_is_no_file_is_no_circuit(tmp_path):
    with pytest.raises(CircuitError, match="Cannot read"):
        Circuit.open(tmp_path / "nowhere.json")
    (tmp_path / "folder").mkdir()
    with pytest.raises(CircuitError, match="could not be written"):
        way().save(tmp_path / "folder")
