"""Searches: against the same done plainly, one circuit at a time; resumed; told of."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

import microtome as mt
from conftest import BERLIN, CAT, PARIS
from microtome.circuits import Circuit, Graph, acdc, greedy, top
from microtome.circuits.discovery import circuits_of_greedy, in_order
from microtome.circuits.journal import Journal
from microtome.circuits.trial import Trial
from microtome.errors import Cancelled, CircuitError
from microtome.results import disk

PROMPTS = [
    mt.Prompt(BERLIN, donor=PARIS, target=" Germany", contrast=" France"),
    mt.Prompt(CAT, donor="The dog sat", target=" on", contrast=" the"),
]


@pytest.fixture(scope="module")
def small(make_gpt2, tokenizer):
    """Two layers of two heads: 46 edges."""
    model = mt.load(make_gpt2(dtype=torch.float64, n_layer=2, n_head=2), tokenizer=tokenizer)
    assert len(Graph.of(model)) == 46
    return model


def mean(model, circuit, metric) -> float:
    """One circuit by itself."""
    return float(_trial(model, metric).measure([circuit])[metric].mean())


@cache
def _trial(model, metric) -> Trial:
    return Trial.of(model, PROMPTS, [metric])


def without(circuit: Circuit, edge: str) -> Circuit:
    return circuit - Circuit.of(circuit.graph, [edge])


def plainly_greedy(model, n, every):
    """The algorithm as its docstring has it, one circuit at a time."""
    circuit = Circuit.full(model)
    while len(circuit) > n:
        now = mean(model, circuit, "logit_diff")
        costs = [abs(mean(model, without(circuit, e), "logit_diff") - now) for e in circuit]
        order = np.argsort(np.array(costs).round(9), kind="stable")[: min(every, len(circuit) - n)]
        edges = circuit.edges
        for k in order:
            circuit = without(circuit, edges[k])
        circuit = circuit.pruned()
    return circuit


def plainly_acdc(model, threshold, metric, order):
    circuit = Circuit.full(model)
    now, decisions = mean(model, circuit, metric), []
    for number in in_order(circuit.graph, order):
        edge = circuit.graph.edges[number]
        value = mean(model, without(circuit, edge), metric)
        cost = now - value if metric == "logit_diff" else value - now
        if cost < threshold:
            circuit, now = without(circuit, edge), value
        decisions.append((edge, cost < threshold))
    return circuit.pruned(), decisions


def test_greedy_is_what_its_words_say(small):
    found = greedy(small, PROMPTS, n=12, every=6, progress=False)
    assert found.circuit == plainly_greedy(small, 12, 6)
    assert found.steps["removed"].all()
    assert found.steps["edges"].is_monotonic_decreasing
    assert found.circuit <= Circuit.full(small)


def test_greedy_stops_before_the_metric_has_moved_too_far(small):
    whole = greedy(small, PROMPTS, n=5, every=8, progress=False)
    clean = mean(small, Circuit.full(small), "logit_diff")
    found = greedy(small, PROMPTS, tolerance=0.02, every=8, progress=False)
    assert abs(mean(small, found.circuit, "logit_diff") - clean) <= 0.02
    assert len(whole.circuit) <= 5
    assert len(found.circuit) > len(whole.circuit)
    assert list(found.steps["edge"]) == list(whole.steps["edge"])[: len(found.steps)]
    assert greedy(small, PROMPTS, tolerance=1e9, every=23, progress=False).circuit == Circuit.empty(
        small
    )


def test_greedy_costs_what_was_said(small, monkeypatch):
    rows, notes = [], []
    plain = Trial.measure
    monkeypatch.setattr(
        Trial,
        "measure",
        lambda own, circuits, *more: rows.append(len(circuits)) or plain(own, circuits, *more),
    )

    class Reading(mt.Observer):
        def note(self, text: str) -> None:
            notes.append((text, len(rows)))

    begin = Circuit.of(small, Graph.of(small).edges[-12:])
    greedy(small, PROMPTS[:1], n=6, every=2, start=begin, progress=Reading())
    most = circuits_of_greedy(12, 6, 2)
    assert most == 13 + 11 + 9
    assert sum(rows) <= most
    [(text, before)] = notes
    assert f"at most {most} circuits on 1 prompts, {5 * most} tokens" in text
    assert before == 0  # told before anything ran


@pytest.mark.parametrize(("metric", "threshold"), [("kl", 0.0005), ("logit_diff", 0.005)])
def test_acdc_is_what_its_words_say(small, metric, threshold):
    found = acdc(small, PROMPTS, threshold, metric, progress=False)
    circuit, decisions = plainly_acdc(small, threshold, metric, "last")
    assert found.circuit == circuit
    assert list(zip(found.steps["edge"], found.steps["removed"], strict=True)) == decisions
    assert 0 < len(circuit) < 46


def test_acdc_depends_on_the_order_that_it_is_told(small):
    graph = Graph.of(small)
    found = acdc(small, PROMPTS, 0.005, "logit_diff", order="first", progress=False)
    circuit, _ = plainly_acdc(small, 0.005, "logit_diff", "first")
    assert found.circuit == circuit
    own = [graph.edges[n] for n in in_order(graph, "first")]
    assert acdc(small, PROMPTS, 0.005, "logit_diff", order=own, progress=False).circuit == circuit
    seeded = [in_order(graph, seed) for seed in (0, 0, 1)]
    assert seeded[0] == seeded[1] != seeded[2]
    readers = [graph.edges[n].partition("->")[2] for n in seeded[0]]
    assert readers == sorted(readers, key=lambda name: -[r.name for r in graph.readers].index(name))


def test_a_threshold_of_nothing_keeps_what_matters_and_a_large_one_nothing(small):
    assert acdc(small, PROMPTS, 1e9, progress=False).circuit == Circuit.empty(small)
    kept = acdc(small, PROMPTS, 1e-12, "kl", progress=False).circuit
    assert mean(small, kept, "kl") < 1e-9


def test_a_search_begins_where_it_is_told(small):
    start = Circuit.of(small, ["input->a0.h1<v>", "a0.h1->logits", "input->m0", "m0->logits"])
    found = acdc(small, PROMPTS, 0.01, "logit_diff", start=start, progress=False)
    assert found.circuit <= start
    assert set(found.steps["edge"]) == set(start)


def test_the_strongest_edges_are_a_search_too(small):
    scores = mt.circuits.score(small, PROMPTS, progress=False)
    assert top(scores, 7).circuit == scores.circuit(7)
    assert top(scores, threshold=0.1).circuit == scores.circuit(threshold=0.1)


# ----------------------------------------------------------------------------------------- resumed


class Stopping(mt.Observer):
    """Wants no more after some asking."""

    def __init__(self, after: int) -> None:
        self.left = after

    @property
    def cancelled(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("search", ["greedy", "acdc"])
def test_a_stopped_search_goes_on_and_finds_the_same(small, tmp_path, monkeypatch, search):
    def find(**how):
        if search == "greedy":
            return greedy(small, PROMPTS, n=8, every=10, **how)
        return acdc(small, PROMPTS, 0.005, "logit_diff", **how)

    whole = find(progress=False)
    with pytest.raises(Cancelled, match="kept where out="):
        find(out=tmp_path / "search", progress=Stopping(3))
    ran, plain = [], Trial.measure
    monkeypatch.setattr(
        Trial,
        "measure",
        lambda own, circuits, *more: ran.append(circuits) or plain(own, circuits, *more),
    )
    resumed = find(out=tmp_path / "search", progress=False)
    assert resumed.circuit == whole.circuit
    assert resumed.steps.equals(whole.steps)
    first = len(ran)
    again = find(out=tmp_path / "search", progress=False)
    assert len(ran) == first  # all of it was in the journal
    assert again.steps.equals(whole.steps)


def test_a_full_disk_loses_no_more_than_what_was_on_its_way(small, tmp_path, monkeypatch):
    whole = greedy(small, PROMPTS, n=20, every=5, progress=False)

    def full(operation, path):
        if operation == "fill" and path.name.startswith("000002"):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk, "about_to", full)
    with pytest.raises(CircuitError, match=r"could not be written: No space left.*Free some space"):
        greedy(small, PROMPTS, n=20, every=5, out=tmp_path / "search", progress=False)
    monkeypatch.undo()
    assert len(list((tmp_path / "search" / "steps").glob("*.json"))) == 2
    found = greedy(small, PROMPTS, n=20, every=5, out=tmp_path / "search", progress=False)
    assert found.steps.equals(whole.steps)


def test_a_damaged_page_is_measured_again(small, tmp_path):
    whole = greedy(small, PROMPTS, n=20, every=5, out=tmp_path, progress=False)
    page = tmp_path / "steps" / "000001.json"
    page.write_bytes(page.read_bytes().replace(b"values", b"valued"))
    assert greedy(small, PROMPTS, n=20, every=5, out=tmp_path, progress=False).steps.equals(
        whole.steps
    )


ROLED = [mt.Prompt(**{**PROMPTS[0].as_dict(), "roles": {"who": n}}) for n in (3, 4)]


def test_a_folder_of_another_search_is_refused(small, tmp_path):
    greedy(small, PROMPTS, n=44, out=tmp_path / "own", progress=False)
    with pytest.raises(CircuitError, match=r"another search: method.every is 1 there and 2 here"):
        greedy(small, PROMPTS, n=44, every=2, out=tmp_path / "own", progress=False)
    with pytest.raises(CircuitError, match=r"another search: .*prompts"):
        greedy(small, PROMPTS[:1], n=44, out=tmp_path / "own", progress=False)
    acdc(small, ROLED[0], 0.1, "logit_diff@who", start=Circuit.empty(small), out=tmp_path / "who")
    with pytest.raises(CircuitError, match=r"another search: read_at"):
        acdc(
            small, ROLED[1], 0.1, "logit_diff@who", start=Circuit.empty(small), out=tmp_path / "who"
        )
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("Dear")
    with pytest.raises(CircuitError, match="holds something else"):
        greedy(small, PROMPTS, n=44, out=tmp_path / "other", progress=False)


def test_a_journal_knows_its_own_steps(small):
    full = Circuit.full(small)
    journal = Journal([{"key": "another", "values": [[1.0]]}])
    with pytest.raises(CircuitError, match="of another search at step 1"):
        journal.step([full], lambda: np.ones((1, 1)))


def test_what_makes_no_search_is_refused(small):
    with pytest.raises(CircuitError, match="every at least 1"):
        greedy(small, PROMPTS, every=0)
    for wrong in (-1.0, float("nan")):
        with pytest.raises(CircuitError, match="tolerance is at least 0"):
            greedy(small, PROMPTS, tolerance=wrong)
    with pytest.raises(CircuitError, match="threshold is a number"):
        acdc(small, PROMPTS, float("nan"))
    with pytest.raises(CircuitError, match="No order is called 'middle'"):
        acdc(small, PROMPTS, 0.1, order="middle")
    with pytest.raises(CircuitError, match="each of the 46 edges once"):
        acdc(small, PROMPTS, 0.1, order=["m0->logits"])
    with pytest.raises(CircuitError, match="run it on the model that it was found in"):
        greedy(small, PROMPTS, start=Circuit.empty(Graph(3, 2, 8)))
