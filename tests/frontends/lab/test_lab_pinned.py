"""Pins are a circuit: its edges, its drawing, its weights and its faithfulness."""

from __future__ import annotations

import json

import numpy as np
import pytest

import microtome as mt
from microtome.circuits import Circuit
from microtome.errors import AddressError, CircuitError
from microtome.frontends.lab.answers.pinned import circuit_of, drawn, kept, weighed
from oracles.circuits import Circuits
from oracles.families import FAMILIES

BERLIN, PARIS, ROME = (f"{city} is the capital of" for city in ("Berlin", "Paris", "Rome"))
FACT = mt.Prompt(BERLIN, donor=PARIS, target=" Germany", contrast=" France")
FACTS = [
    FACT,
    mt.Prompt(PARIS, donor=ROME, target=" France", contrast=" Italy"),
    mt.Prompt(ROME, donor=BERLIN, target=" Italy", contrast=" Germany"),
]
PINS = ("input->m0", "m0->a1.h2<v>", "a1.h2->m2", "m2->logits", "a0.h1->a2.h0<q>")


def test_edges_are_pinned_by_name_or_as_addresses(tiny64):
    found = circuit_of(tiny64, [*PINS, "L0.z.h3 -> L1.k_in.h0", "L0.head_out.h2 -> final_in"])
    assert set(found) == {*PINS, "a0.h3->a1.h0<k>", "a0.h2->logits"}
    assert circuit_of(tiny64, []) == Circuit.empty(tiny64)


def test_nodes_are_pinned_with_all_edges_between_them(tiny64):
    found = circuit_of(tiny64, ["a0.h1", "m2", PINS[1]])
    assert found == Circuit.among(tiny64, ["a0.h1", "m2"]) | Circuit.of(tiny64, [PINS[1]])


@pytest.mark.parametrize(
    ("pin", "says"),
    [
        ("a9.h1->m2", "nothing that writes is called 'a9.h1'"),
        ("a0.h9", "no node 'a0.h9'"),
        ("<script>", "no node '<script>'"),
        ("L0.z.h1@2 -> L2.mlp_in", "whole edges from one head"),
        ("L2.z.h1 -> L0.mlp_in", "a2.h1 comes after m0"),
        ("L0.z.h1 -> nonsense", "nonsense"),
    ],
)
def test_a_pin_of_what_is_not_there_says_what_there_is(tiny64, pin, says):
    with pytest.raises((CircuitError, AddressError), match=says):
        circuit_of(tiny64, [pin])


def test_a_stream_that_is_no_sum_has_no_circuit(bert64):
    with pytest.raises(CircuitError, match="norms the residual stream"):
        circuit_of(bert64, ["m0->m1"])


@pytest.mark.parametrize("ablation", ["patch", "zero", "mean"])
def test_how_faithful_it_is_is_by_hand(tiny64, ablation):
    hand = FAMILIES["gpt2"]
    circuit = circuit_of(tiny64, PINS)
    values, encoded = [], tiny64.encode(FACTS)
    every = [Circuits(tiny64.hf, hand, one.tokens.ids) for one in encoded]
    mean = {n: np.mean([own.written[n] for own in every], axis=0) for n in every[0].written}
    for one, own in zip(encoded, every, strict=True):
        ablated = mean if ablation == "mean" else {n: 0 * v for n, v in own.written.items()}
        if ablation == "patch":
            ablated = Circuits(tiny64.hf, hand, one.donor.ids).written
        runs = own.run(PINS, ablated), own.run((), ablated), own.clean.logits.numpy()
        target, contrast = one.answer("target"), one.answer("contrast")
        values.append([run[-1, target] - run[-1, contrast] for run in runs])
    circuit_mean, empty, full = np.mean(values, axis=0)
    found = kept(tiny64, FACTS, circuit, "logit_diff", ablation)
    assert (found.circuit, found.empty, found.full) == pytest.approx(
        (circuit_mean, empty, full), abs=1e-9
    )
    assert found.faithfulness == pytest.approx((circuit_mean - empty) / (full - empty), abs=1e-8)
    assert (found.n, found.edges) == (3, 5)


def test_several_prompts_give_an_interval_and_one_gives_none(tiny64):
    circuit = circuit_of(tiny64, PINS)
    several = kept(tiny64, FACTS * 2, circuit, "logit_diff", "zero")
    assert several.low <= several.faithfulness <= several.high
    alone = kept(tiny64, FACT, circuit, "logit_diff", "zero")
    assert np.isnan([alone.low, alone.high]).all()
    with pytest.raises(CircuitError, match="has no donor"):
        kept(tiny64, mt.Prompt(BERLIN, target=" Germany"), circuit, "prob", "patch")


def test_who_watches_edges_being_weighed_may_cancel_between_two(tiny64):
    class After(mt.Observer):
        cells = 0.0

        def advanced(self, cells):
            self.cells += cells

        @property
        def cancelled(self):
            return self.cells >= 2

    observer = After()
    with pytest.raises(mt.Cancelled):
        weighed(tiny64, FACT, circuit_of(tiny64, PINS), "logit_diff", observer=observer)
    assert observer.cells == 2


@pytest.mark.parametrize(("metric", "sign"), [("logit_diff", -1), ("kl", 1)])
def test_edges_are_weighed_by_how_much_worse_it_is_without(tiny64, metric, sign):
    found = weighed(tiny64, FACT, circuit_of(tiny64, PINS), metric)
    edges = mt.edges(tiny64)
    for row in found.to_dataframe().itertuples():
        own = mt.sweep(tiny64, FACT, f"patch {edges.edge(row.edge)}", metrics=metric).delta(metric)
        assert row.score == pytest.approx(sign * own.item(), abs=1e-12)
    assert np.isnan(found.scores).sum() == len(found.graph) - len(PINS)
    [last] = weighed(tiny64, FACT, circuit_of(tiny64, PINS[3:4]), metric, "mean").scores[[-1]]
    edit = 'mean(over="positions") L2.mlp_out -> final_in'
    own = mt.sweep(tiny64, FACT, edit, metrics=metric, progress=False).delta(metric)
    assert last == pytest.approx(sign * own.item(), abs=1e-12)
    with pytest.raises(CircuitError, match="at most 200 are weighed"):
        weighed(tiny64, FACT, Circuit.full(tiny64), metric)


def test_it_is_drawn_under_its_note_which_is_no_markup(tiny64):
    circuit = circuit_of(tiny64, PINS)
    figure = drawn(circuit, "<b>mine</b><img src=x>")
    assert "&lt;b&gt;mine" in figure.layout.title.text
    assert "<img" not in json.dumps(figure.to_plotly_json(), default=str)
    assert "5 edges" in drawn(circuit).layout.title.text
    with pytest.raises(CircuitError, match="A circuit of 0 edges is no drawing"):
        drawn(circuit_of(tiny64, []))


def test_its_json_is_what_is_saved(tiny64, tmp_path):
    circuit = circuit_of(tiny64, PINS)
    circuit.save(tmp_path / "circuit.json")
    assert (tmp_path / "circuit.json").read_text(encoding="utf-8") == circuit.to_json()
    assert Circuit.open(tmp_path / "circuit.json", tiny64) == circuit
