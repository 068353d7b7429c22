"""The benchmark of edges, on a tiny model: it agrees, and counts what has to be done."""

from __future__ import annotations

import pytest
from benchmarks.edges import Hooks, Reader, asked_of, batches, flops, lines, measure, of_edge
from benchmarks.models import subject
from benchmarks.questions import SHAPES, TOKENS

import microtome as mt
from benchmarks import edges as measured
from benchmarks import floor

TINY = SHAPES["tiny"]


@pytest.fixture(scope="module")
def record():
    row = measure(TINY, singles=8, some=2)
    return {"machine": {"name": "a machine", "threads": 1}, "row": row}


def test_microtome_and_hooks_agree_on_edges_of_every_kind(record):
    row = record["row"]
    assert row["edges"] == 110
    assert row["largest_effect"] > 1e-3
    assert row["difference"] <= measured.CLOSE
    assert sum(kind["edges"] for kind in row["kinds"].values()) == 110


def test_rows_of_a_batch_are_as_one_by_one():
    made = subject(TINY)
    hooks = Hooks(made, asked_of(TINY))
    graph = mt.edges(made.original.config)
    for group in batches(graph, TINY, 4):
        together = hooks.values(group)
        alone = [float(hooks.values([name])) for name in group]
        assert together.tolist() == pytest.approx(alone, abs=1e-6)


def test_an_edge_counted_by_hand():
    """Six positions of width 64, heads of 16; the last layer's MLP at one position."""
    seen = 10 + 11 + 12 + 13 + 14 + 15
    head = 6 * 2 * 64 * 16 * 2 + 4 * 16 * seen
    mlp = 16 * 64 * 64
    readout = 4 * 64
    assert of_edge(TINY, Reader("q", 1, 3)) == head + mlp + readout
    assert of_edge(TINY, Reader("mlp", 1)) == mlp + readout
    assert of_edge(TINY, Reader("logits", 2)) == readout
    whole = 6 * 24 * 64 * 64 + 4 * 64 * seen
    assert of_edge(TINY, Reader("mlp", 0)) == 6 * mlp + whole - 5 * mlp + readout
    runs = 2 * floor.blocks(TINY, 0, 0, TOKENS) + readout
    assert flops(TINY, ["m0", "m0", "a1.h2<v>", "logits"]) == pytest.approx(
        2 * of_edge(TINY, Reader("mlp", 0)) + of_edge(TINY, Reader("v", 1, 2)) + readout + runs
    )


def test_the_page_says_what_was_measured(record):
    text = "\n".join(lines(record))
    assert "All 110 edges of GPT-2's *tiny* shape" in text
    assert "| plain hooks, batched, 16 rows |" in text
    assert "on 8 edges" not in text
    assert "| 8 edges, scaled |" in text


def test_another_tool_is_on_the_page_where_it_was_measured(record):
    assert "TransformerLens" not in "\n".join(lines(record))
    lens = {"lens_seconds": 50.0, "lens_measured": {"edges": 8, "seconds": 4.0}, "seconds": 5.0}
    text = "\n".join(lines({**record, "row": {**record["row"], **lens}}))
    assert "| TransformerLens, its hooks on what is read | 50* | 10.0 × | 8 edges, scaled |" in text


def test_the_other_tool_agrees_on_edges_of_every_kind():
    pytest.importorskip("transformer_lens", reason="in the environment of benchmarks alone")
    made, question = subject(TINY), asked_of(TINY)
    hooks, edges = Hooks(made, question), list(mt.edges(made.original.config))
    _, found = measured._by_lens(made, question, edges)
    wanted = [float(hooks.values([name])) for name in edges]
    assert found == pytest.approx(wanted, abs=measured.CLOSE)
