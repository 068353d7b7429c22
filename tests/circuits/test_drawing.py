"""Circuits to look at: what is drawn is what is there, and all of it can be a picture."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import microtome as mt
from microtome.circuits import (
    Circuit,
    Curve,
    Graph,
    Scores,
    draw,
    draw_curve,
    draw_edges,
    draw_interaction,
)
from microtome.circuits.drawing import HELPS, HURTS, STEPS, UNSCORED
from microtome.errors import CircuitError
from microtome.figures import png_of
from microtome.stats import Interval

GRAPH = Graph(n_layers=3, n_heads=2, d_model=8)


@pytest.fixture(scope="module")
def circuit() -> Circuit:
    rng = np.random.default_rng(0)
    return Circuit(GRAPH, rng.random(len(GRAPH)) < 0.6, rng.normal(size=len(GRAPH)))


def told(figure) -> list[str]:
    texts = [text for trace in figure.data if trace.text is not None for text in trace.text]
    return [text.replace("&lt;", "<").replace("&gt;", ">") for text in texts]


def test_every_edge_and_node_is_drawn_and_says_what_it_is(circuit):
    figure = draw(circuit)
    edges = [text.partition("<br>")[0] for text in told(figure)]
    assert set(edges) == {*circuit.edges, *circuit.nodes}
    assert len(edges) == len(circuit) + len(circuit.nodes)
    strongest = max(circuit.edges, key=lambda edge: abs(circuit.scores[GRAPH.number(edge)]))
    score = circuit.scores[GRAPH.number(strongest)]
    assert f"{strongest}<br>score {score:+.4g}, number 1" in told(figure)


def test_layers_go_upwards_and_nodes_are_at_their_heads(circuit):
    nodes = draw(circuit).data[-1]
    at = {
        t.partition("<br>")[0]: (x, y) for t, x, y in zip(nodes.text, nodes.x, nodes.y, strict=True)
    }
    assert at["a2.h1"] == (1, 2)
    assert at["a0.h0"] == (0, 0)
    assert at["input"][1] < at["a0.h0"][1] < at["m0"][1] < at["a1.h0"][1] < at["logits"][1]


def test_colours_are_signs(circuit):
    figure = draw(circuit)
    signs = {circuit.scores[n] > 0 for n in np.flatnonzero(circuit.chosen)}
    assert signs == {True, False}
    assert {t.line.color for t in figure.data if t.mode == "lines"} == {HELPS, HURTS}
    bare = draw(Circuit(GRAPH, circuit.chosen))
    assert {t.line.color for t in bare.data if t.mode == "lines"} == {UNSCORED}
    assert not bare.layout.sliders
    assert "red" not in str(bare.layout.title)
    assert "red" in str(figure.layout.title)


def test_the_slider_shows_the_strongest_without_anything_computed(circuit):
    figure = draw(circuit)
    [slider] = figure.layout.sliders
    labels = [int(step.label.replace(",", "")) for step in slider.steps]
    assert labels == [*(n for n in STEPS if n < len(circuit)), len(circuit)]
    for step, size in zip(slider.steps, labels, strict=True):
        shown = [
            t for t, visible in zip(figure.data, step.args[0]["visible"], strict=True) if visible
        ]
        edges = sum(len(t.text) for t in shown[:-1] if t.text is not None)
        assert edges == size


@pytest.mark.parametrize("parallel", [False, True])
def test_one_layer_of_one_head_and_a_single_edge_can_be_drawn(parallel):
    graph = Graph(1, 1, 4, parallel)
    for circuit in (Circuit.full(graph), Circuit.of(graph, ["input->logits"])):
        assert png_of(draw(circuit)).startswith(b"\x89PNG")
    assert "Circuit of 1 edge and 2 nodes" in draw(circuit).layout.title.text


def test_no_edge_and_too_many_are_no_drawing():
    with pytest.raises(CircuitError, match="A circuit of 0 edges is no drawing"):
        draw(Circuit.empty(GRAPH))
    with pytest.raises(CircuitError, match="32,491 edges is no drawing"):
        draw(Circuit.full(Graph(12, 12, 768)))


def test_the_matrix_has_every_edge_in_its_place(tiny64):
    prompt = mt.Prompt("The cat sat", donor="The dog sat", target=" on", contrast=" the")
    scores = mt.circuits.score(tiny64, prompt, method="removal")
    figure = draw_edges(scores)
    z, graph = np.array(figure.data[0].z), scores.graph
    writer, reader = (n for n in (3, 14))
    assert z[writer, reader] == scores.data["mean"].sel(
        edge=f"{graph.writers[writer].name}->{graph.readers[reader].name}"
    )
    assert np.isnan(z).sum() == z.size - len(graph)
    assert png_of(figure).startswith(b"\x89PNG")
    nodes = Scores(scores.data.assign_attrs(level="node"))
    with pytest.raises(CircuitError, match="needs those of edges"):
        draw_edges(nodes)


def test_the_curve_has_its_two_areas():
    f = np.array([0.0, 0.4, 1.1, 1.0])
    data = xr.Dataset(
        {
            "faithfulness": ("share", f),
            "low": ("share", [np.nan, 0.3, 1.0, np.nan]),
            "high": ("share", [np.nan, 0.5, 1.2, np.nan]),
            "edges": ("share", [1, 2, 3, 4]),
        },
        {"share": [0.01, 0.1, 0.5, 1.0]},
    )
    area = Interval(0.5, 0.4, 0.6, 8, "BCa bootstrap")
    figure = draw_curve(Curve(data, area, area, ()))
    filled = [t for t in figure.data if t.fill == "tonexty"]
    assert [t.name for t in filled] == ["under it: CPR", "to the model: CMD"]
    assert np.array_equal(filled[0].y, f)
    assert np.array_equal(filled[1].y, np.ones(4))
    assert png_of(figure).startswith(b"\x89PNG")


def test_interactions_are_a_square(tiny64):
    pairs = ["zero L{0,2}.z.h*@-1", "zero L{0,2}.z.h*@-1 as other"]
    prompt = mt.Prompt("The cat sat", target=" on", contrast=" the")
    found = mt.circuits.interaction(mt.sweep(tiny64, prompt, pairs, metrics="logit_diff"))
    figure = draw_interaction(found)
    assert np.array_equal(np.array(figure.data[0].z), found[0].values)
    assert png_of(figure).startswith(b"\x89PNG")
