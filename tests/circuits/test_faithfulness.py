"""Faithfulness, its curve and areas, completeness and minimality: closed forms, and by hand."""

from __future__ import annotations

import numpy as np
import pytest

import microtome as mt
from conftest import BERLIN, PARIS
from microtome.circuits import SIZES, Circuit, Graph, Scores, cmd, cpr, parts_of
from microtome.circuits.faithfulness import Measured
from microtome.errors import CircuitError

NAMES = ("Berlin", "Paris", "Rome")
TEXTS = [f"{name} is the capital of" for name in NAMES]
COUNTRIES = {"Berlin": " Germany", "Paris": " France", "Rome": " Italy"}
PROMPTS = [
    mt.Prompt(
        f"{one} is the capital of",
        donor=f"{other} is the capital of",
        target=COUNTRIES[one],
        contrast=COUNTRIES[other],
    )
    for one in NAMES
    for other in NAMES
    if one != other
]


@pytest.fixture(scope="module")
def scores(tiny64) -> Scores:
    return mt.circuits.score(tiny64, PROMPTS[:2])


@pytest.fixture(scope="module")
def circuit(scores) -> Circuit:
    return scores.circuit(60)


# ------------------------------------------------------------------------------------ closed forms


@pytest.mark.parametrize(
    ("f", "ratio", "distance"),
    [
        ([0.0] * 9 + [1.0], 0.25, 0.749),
        ([1.0] * 10, 0.999, 0.0),
        ([2.0] * 10, 1.998, 0.999),
        ([0.0] * 10, 0.0, 0.999),
    ],
)
def test_areas_are_those_of_mib(f, ratio, distance):
    assert cpr(SIZES, np.array(f)) == pytest.approx(ratio, abs=1e-12)
    assert cmd(SIZES, np.array(f)) == pytest.approx(distance, abs=1e-12)


def test_areas_are_trapezoids_one_by_one():
    """As MIB's circuit track adds them up."""
    f = np.random.default_rng(0).normal(size=10)
    under = distance = 0.0
    for n in range(9):
        width = SIZES[n + 1] - SIZES[n]
        under += width * (f[n] + f[n + 1]) / 2
        distance += width * (abs(1 - f[n]) + abs(1 - f[n + 1])) / 2
    assert cpr(SIZES, f) == pytest.approx(under)
    assert cmd(SIZES, f) == pytest.approx(distance)


def test_it_is_a_ratio_of_means():
    found = Measured(np.array([[2.0, 5.0], [4.0, 7.0]]), np.array([1.0, 1.0]), np.array([4.0, 6.0]))
    assert found.faithfulness.tolist() == [0.5, 1.25]


def test_prompts_on_which_nothing_is_lost_show_nothing():
    same = Measured(np.ones((2, 1)), np.ones(2), np.ones(2))
    with pytest.raises(CircuitError, match="is 1 with all edges and with none"):
        _ = same.faithfulness


@pytest.mark.parametrize("metric", ["logit_diff@1", "prob@1", "kl@1", "loss@1"])
def test_rounding_is_nothing_to_be_faithful_to(tiny, metric):
    """The donor differs behind where the metric is read, so that all is there that was."""
    donor = BERLIN.replace(" capital of", " cat sat")
    prompts = [
        mt.Prompt(text, donor=donor, target=" Germany", contrast=" France")
        for text in (BERLIN, BERLIN.replace(" of", " the"))
    ]
    some = Circuit(Graph.of(tiny), np.arange(len(Graph.of(tiny))) % 2 == 0)
    with pytest.raises(CircuitError, match="leave nothing that a circuit could be faithful to"):
        mt.circuits.faithfulness(tiny, prompts, some, metric)


def test_an_id_of_a_token_is_nothing_to_keep(tiny, circuit):
    for judge in (
        mt.circuits.faithfulness,
        mt.circuits.completeness,
        mt.circuits.minimality,
        lambda *asked: mt.circuits.greedy(*asked[:2], asked[3]),
        lambda *asked: mt.circuits.acdc(*asked[:2], 0.1, asked[3]),
    ):
        with pytest.raises(CircuitError, match="is the id of a token"):
            judge(tiny, PROMPTS[:1], circuit, "top1")


def test_an_interval_holds_the_truth_as_often_as_it_says():
    """Prompts drawn from a known distribution, f known: about 95 % of intervals hold it."""
    rng, held, times = np.random.default_rng(0), 0, 60
    for seed in range(times):
        full = rng.normal(4, 1, 40)
        own = 0.5 * full + rng.normal(0, 0.5, 40)
        one = Measured(own[:, None], np.zeros(40), full).interval(lambda f: f[..., 0], 499, seed)
        held += one.low <= 0.5 <= one.high
    assert held >= 0.85 * times


def test_an_interval_is_of_its_seed():
    own = np.random.default_rng(0).normal(size=20)
    found = Measured(own[:, None], np.zeros(20), np.ones(20))
    one, again, other = (found.interval(lambda f: f[..., 0], 99, seed) for seed in (1, 1, 2))
    assert one == again
    assert (one.low, one.high) != (other.low, other.high)


# -------------------------------------------------------------------------------------- of a model


def test_faithfulness_is_of_what_circuits_measure(tiny64, circuit):
    found = mt.circuits.faithfulness(tiny64, PROMPTS, {"own": circuit, "all": Circuit.full(tiny64)})
    empty = Circuit.empty(tiny64)
    by_hand = mt.circuits.run(tiny64, PROMPTS, [circuit, empty])
    own, none = by_hand["logit_diff"].values.mean(axis=0)
    clean = by_hand["clean_logit_diff"].values.mean()
    f = found["faithfulness"].values
    assert f[0] == pytest.approx((own - none) / (clean - none), abs=1e-12)
    assert f[1] == pytest.approx(1, abs=1e-12)
    assert float(found["low"][0]) <= f[0] <= float(found["high"][0])
    assert found["edges"].values.tolist() == [len(circuit), len(Circuit.full(tiny64))]
    assert np.allclose(found["ablated_logit_diff"], by_hand["logit_diff"][:, 1])
    alone = mt.circuits.faithfulness(tiny64, PROMPTS, circuit)
    assert float(alone["faithfulness"]) == pytest.approx(f[0], abs=1e-12)


def test_one_prompt_has_no_interval(tiny64, circuit):
    found = mt.circuits.faithfulness(tiny64, PROMPTS[0], circuit)
    assert np.isnan(found["low"])
    assert np.isfinite(found["faithfulness"])


def test_the_curve_is_of_circuits_of_ten_sizes(tiny64, scores):
    found = mt.circuits.curve(tiny64, PROMPTS, scores)
    assert found.shares == list(SIZES)
    counts = [int(share * len(scores)) for share in SIZES]
    expected = [scores.circuit(n) for n in counts]
    assert list(found.circuits) == expected
    assert found.data["edges"].values.tolist() == [len(one) for one in expected]
    by_hand = mt.circuits.faithfulness(tiny64, PROMPTS, expected)["faithfulness"].values
    f = found.data["faithfulness"].values
    assert np.abs(f - by_hand).max() < 1e-12
    assert found.cpr.value == pytest.approx(float(cpr(SIZES, f)))
    assert found.cmd.value == pytest.approx(float(cmd(SIZES, f)))
    assert found.cpr.low < found.cpr.value < found.cpr.high
    assert f[-1] == pytest.approx(1, abs=1e-12)


def test_the_curve_is_by_the_scores_own_metric_and_ablation(tiny64):
    by_loss = mt.circuits.score(tiny64, PROMPTS[:2], "loss", level="node", ablation="zero")
    found = mt.circuits.curve(tiny64, PROMPTS[:2], by_loss, sizes=(0.5, 1.0))
    assert "loss" in found.data
    assert found.data.attrs["ablation"] == "zero"


def test_the_curve_may_leave_out_what_hurts(tiny64, scores):
    found = mt.circuits.curve(tiny64, PROMPTS[:2], scores, sizes=(0.2, 1.0), absolute=False)
    n = int(0.2 * len(scores))
    assert found.circuits[0] == scores.circuit(n, absolute=False) != scores.circuit(n)


def test_ids_of_tokens_have_no_means(tiny64, circuit):
    for judge in ("faithfulness", "completeness", "minimality"):
        with pytest.raises(CircuitError, match="top1 is the id of a token"):
            getattr(mt.circuits, judge)(tiny64, PROMPTS[:2], circuit, "top1")


def test_sizes_grow_and_scores_are_of_the_model(tiny64, scores, nano):
    with pytest.raises(CircuitError, match="that grow, from 0 to 1"):
        mt.circuits.curve(tiny64, PROMPTS, scores, sizes=(0.5, 0.1))
    with pytest.raises(CircuitError, match="The scores are of a model with 3 layers × 4 heads"):
        mt.circuits.curve(nano, mt.tasks.ioi(2), scores)


# ---------------------------------------------------------------------------------------- criteria


def test_parts_are_what_leaves_each_node(circuit):
    parts = parts_of(circuit)
    assert set(parts) == set(circuit.nodes) - {"input", "logits"}
    for node, part in parts.items():
        assert set(part) == {edge for edge in circuit.graph.edges if edge.startswith(f"{node}->")}


def test_completeness_compares_circuit_and_model_without_a_part(tiny64, circuit):
    found = mt.circuits.completeness(tiny64, PROMPTS, circuit, draws=3)
    assert found["part"].values[0] == "nothing"
    node = str(found["part"].values[1])
    part, full = parts_of(circuit)[node], Circuit.full(tiny64)
    both = mt.circuits.run(tiny64, PROMPTS, [circuit - part, full - part])["logit_diff"].values
    own = found.sel(part=node)
    assert np.allclose(own["of_circuit"], both[:, 0])
    assert np.allclose(own["of_model"], both[:, 1])
    assert float(own["gap"]) == pytest.approx(abs(both.mean(axis=0) @ [1, -1]))


def test_the_whole_model_is_complete(tiny64):
    full = Circuit.full(tiny64)
    assert mt.circuits.completeness(tiny64, PROMPTS[:2], full)["gap"].max() == 0


def test_minimality_takes_each_part_away(tiny64, circuit):
    found = mt.circuits.minimality(tiny64, PROMPTS, circuit)
    node = str(found["part"].values[0])
    both = [circuit, circuit - parts_of(circuit)[node]]
    measured = mt.circuits.run(tiny64, PROMPTS, both)["logit_diff"].values
    assert np.allclose(found["with_part"][:, 0], measured[:, 0])
    assert np.allclose(found["without"][:, 0], measured[:, 1])
    more = mt.circuits.minimality(tiny64, PROMPTS, circuit, draws=2)
    assert (more["gap"] >= found["gap"] - 1e-12).all()
    assert (more["gap"] > found["gap"] + 1e-6).any()
    shown = np.abs((more["with_part"] - more["without"]).mean("prompt"))  # of the K that tells most
    assert np.abs(shown - more["gap"]).max() < 1e-12


def test_a_part_that_leads_nowhere_is_of_no_use(tiny64):
    """Its edge goes to a head whose output nobody reads."""
    graph = Graph.of(tiny64)
    edges = ["input->a0.h1<v>", "a0.h1->logits", "input->a1.h0<v>", "a0.h0->a1.h0<q>"]
    way = Circuit.of(graph, edges)
    found = mt.circuits.minimality(tiny64, PROMPTS[:2], way)
    gap = dict(zip(found["part"].values, found["gap"].values, strict=True))
    assert gap["a0.h0"] < 1e-12
    assert gap["a0.h1"] > 1e-3
    with pytest.raises(CircuitError, match="has no parts"):
        mt.circuits.minimality(tiny64, PROMPTS[:2], Circuit.of(graph, ["input->logits"]))


def test_texts_are_alike():
    assert {BERLIN, PARIS} <= set(TEXTS)
