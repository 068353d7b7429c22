"""The graph: its names and its count are those of EAP-IG and of MIB's circuit track."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import GPT2Config

from microtome.circuits import Circuit, Graph
from microtome.errors import CircuitError
from microtome.model.anatomy import Anatomy
from microtome.model.families import FAMILIES
from oracles import families as by_hand

SMALL = Graph(n_layers=12, n_heads=12, d_model=768)


def counted(layers: int, heads: int, parallel: bool) -> int:
    """As the papers count: writers before each reader."""
    total = 1 + layers * (heads + 1)
    for layer in range(layers):
        before = 1 + layer * (heads + 1)
        total += 3 * heads * before + before + (0 if parallel else heads)
    return total


def test_gpt2_small_has_158_nodes_and_32491_edges():
    graph = Graph.of(Anatomy.by(FAMILIES["gpt2"], GPT2Config()))
    assert graph == SMALL
    assert len(graph.nodes) == 158
    assert len(graph) == len(graph.edges) == len(set(graph.edges)) == 32_491
    for edge in ("input->a0.h0<q>", "a0.h1->m3", "m11->logits", "input->logits", "a11.h11->m11"):
        assert edge in graph.edges
    assert SMALL.number("input->a0.h0<q>") == 0


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize(("layers", "heads"), [(1, 1), (2, 3), (4, 2)])
def test_it_is_counted_as_the_papers_count(layers, heads, parallel):
    graph = Graph(layers, heads, 8, parallel)
    assert len(graph) == counted(layers, heads, parallel)
    assert len(graph.nodes) == 2 + layers * (heads + 1)


@pytest.mark.parametrize(
    ("name", "parallel"),
    [("gpt2", False), ("llama", False), ("gpt_neox", True), ("falcon, one key head", True)],
)
def test_an_mlp_reads_its_layers_heads_unless_the_block_is_parallel(name, parallel, tokenizer):
    graph = Graph.of(Anatomy.of(by_hand.make(name, len(tokenizer))))
    assert graph.parallel is parallel
    assert ("a1.h0->m1" in graph.edges) is not parallel
    assert "a1.h0->a1.h1<q>" not in graph.edges
    assert "m1->m1" not in graph.edges


def test_writers_come_in_the_order_of_a_pass():
    graph = Graph(2, 2, 8)
    assert [w.name for w in graph.writers] == [
        "input",
        "a0.h0",
        "a0.h1",
        "m0",
        "a1.h0",
        "a1.h1",
        "m1",
    ]
    assert [r.name for r in graph.readers][:7] == [
        "a0.h0<q>", "a0.h1<q>", "a0.h0<k>", "a0.h1<k>", "a0.h0<v>", "a0.h1<v>", "m0",
    ]  # fmt: skip
    assert np.array_equal(graph.exists.sum(0), [graph.written_before(r) for r in graph.readers])


@pytest.mark.parametrize(
    ("edge", "complaint"),
    [
        ("a0.h1", "an edge is called"),
        ("b0.h1->m1", "nothing that writes is called 'b0.h1'.*Did you mean 'a0.h1'"),
        ("a0.h1->m2", "nothing that reads is called 'm2'"),
        ("a0.h1->a1.h0", r"A head reads as a1.h0<q>, a1.h0<k>, a1.h0<v>"),
        ("m1->a0.h0<q>", "m1 comes after a0.h0<q> in a pass"),
    ],
)
def test_an_edge_that_is_not_there_is_refused_by_name(edge, complaint):
    with pytest.raises(CircuitError, match=complaint):
        Circuit.of(Graph(2, 2, 8), [edge])


def test_a_node_that_is_not_there_is_refused_by_name():
    with pytest.raises(CircuitError, match=r"no node 'a3.h0' in a model with 2 layers × 2 heads"):
        Circuit.among(Graph(2, 2, 8), ["a3.h0"])
