"""Searches: against the same done plainly, one circuit at a time; resumed; told of."""

from __future__ import annotations

import contextlib
import shutil
import tracemalloc
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

import microtome as mt
from conftest import BERLIN, CAT, PARIS
from microtome.circuits import Circuit, Graph, acdc, greedy, top
from microtome.circuits import journal as journals
from microtome.circuits.ablations import Ablation
from microtome.circuits.discovery import circuits_of_greedy, in_order
from microtome.circuits.journal import Journal, _key, kept, measured_in
from microtome.circuits.trial import Trial
from microtome.circuits.without import Without
from microtome.circuits.written import written
from microtome.errors import Cancelled, CircuitError
from microtome.results import disk

PROMPTS = [
    mt.Prompt(BERLIN, donor=PARIS, target=" Germany", contrast=" France"),
    mt.Prompt(CAT, donor="The dog sat", target=" on", contrast=" the"),
]
WAY = ("input->a0.h1<v>", "a0.h1->logits", "input->m0", "m0->logits")


@pytest.fixture(scope="module")
def small(make_gpt2, tokenizer):
    """Two layers of two heads: 46 edges."""
    model = mt.load(make_gpt2(dtype=torch.float64, n_layer=2, n_head=2), tokenizer=tokenizer)
    assert len(Graph.of(model)) == 46
    return model


@cache
def mean(model, circuit, metric) -> float:
    """One circuit by itself, and once: searches of other tests come by it too."""
    return float(_trial(model, metric).measure([circuit])[metric].mean())


@cache
def _trial(model, metric) -> Trial:
    return Trial.of(model, PROMPTS, [metric])


def without(circuit: Circuit, edge: str) -> Circuit:
    return circuit - Circuit.of(circuit.graph, [edge])


def plainly_greedy(model, n, every, size=abs):
    """The algorithm as its docstring has it, one circuit at a time."""
    circuit = Circuit.full(model)
    while len(circuit) > n:
        now = mean(model, circuit, "logit_diff")
        costs = [size(now - mean(model, without(circuit, e), "logit_diff")) for e in circuit]
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
    found = greedy(small, PROMPTS, n=24, every=8, progress=False)
    assert found.circuit == plainly_greedy(small, 24, 8)
    assert found.steps["removed"].all()
    assert found.steps["edges"].is_monotonic_decreasing
    assert found.circuit <= Circuit.full(small)


def test_greedy_may_take_what_hurts_first(small):
    """Not ``absolute``, a removal that makes the metric better costs less than nothing."""
    found = greedy(small, PROMPTS, n=30, every=8, absolute=False, progress=False)
    assert found.circuit == plainly_greedy(small, 30, 8, size=float)
    assert found.circuit != greedy(small, PROMPTS, n=30, every=8, progress=False).circuit
    first = mean(small, Circuit.full(small), "logit_diff")
    bound = greedy(small, PROMPTS, tolerance=0.02, every=8, absolute=False, progress=False)
    assert abs(mean(small, bound.circuit, "logit_diff") - first) <= 0.02


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
    assert f"at most {most} circuits on 1 prompt, {5 * most} tokens" in text
    assert before == 0  # told before anything ran


@pytest.mark.parametrize(
    ("metric", "threshold"), [("kl", 0.0005), ("logit_diff", 0.005), ("next_loss@1", 0.002)]
)
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


def test_what_costs_as_much_as_the_threshold_stays(small):
    """An edge into what nobody reads costs exactly nothing."""
    start = Circuit.of(small, [*WAY, "input->a0.h0<q>"])
    found = acdc(small, PROMPTS, 0.0, "kl", start=start, progress=False).steps.set_index("edge")
    stray = found.loc["input->a0.h0<q>"]
    assert (stray["cost"], stray["removed"]) == (0.0, False)
    assert acdc(small, PROMPTS, 1e-12, "kl", start=start, progress=False).steps["removed"].any()


def test_a_search_begins_where_it_is_told(small):
    start = Circuit.of(small, WAY)
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


def measured(folder: Path, steps: int, asked=None, more: int = 0) -> list[float]:
    """So many steps with a journal, each of another circuit; the number of each is its value."""
    graph = Graph(1, 1, 4)
    full = Circuit.full(graph)
    with kept(folder, asked or {"search": "own"}) as journal:
        found = [
            journal.step([without(full, graph.edges[n])], lambda n=n: np.full((1, 1), n + more))
            for n in range(steps)
        ]
    return [float(one[0, 0]) for one in found]


def test_what_was_written_behind_a_damaged_page_is_in_nobodys_way(tmp_path, monkeypatch):
    monkeypatch.setattr(journals, "FULL", 1)
    assert measured(tmp_path, 6) == [*range(6)]
    (tmp_path / "steps" / "000001.json").write_bytes(b"cut")
    monkeypatch.undo()
    assert measured(tmp_path, 4) == [*range(4)]  # in one page, and stopped there
    assert measured(tmp_path, 6) == [*range(6)]


def test_a_page_of_another_search_or_place_is_measured_again(tmp_path, monkeypatch):
    """Their circuits are the same, and what these measure is not."""
    monkeypatch.setattr(journals, "FULL", 1)
    assert measured(tmp_path / "own", 3) == [*range(3)]
    assert measured(tmp_path / "other", 3, {"search": "other"}, more=10) == [10, 11, 12]
    first, second = (tmp_path / "own" / "steps" / f"00000{n}.json" for n in range(2))
    shutil.copy(tmp_path / "other" / "steps" / "000000.json", first)
    assert measured_in(tmp_path / "own") == "nothing yet"
    assert measured(tmp_path / "own", 3) == [*range(3)]
    shutil.copy(first, second)
    assert measured(tmp_path / "own", 3) == [*range(3)]


def test_who_was_killed_before_the_question_was_written_begins_again(tmp_path):
    (tmp_path / f"question.json{disk.WRITING}").write_bytes(b"cut")
    assert measured(tmp_path, 2) == [0, 1]


ROLED = [mt.Prompt(**{**PROMPTS[0].as_dict(), "roles": {"who": n}}) for n in (3, 4)]


@dataclass(frozen=True)
class Part(Ablation):
    """Some of what a writer writes."""

    name: ClassVar[str] = "part"

    share: float

    def check(self, one):
        """Nothing is needed."""

    def values(self, model, graph, one):
        return self.share * written(model, graph, [one.tokens])[0]


def test_a_folder_of_another_search_is_refused(small, tmp_path):
    greedy(small, PROMPTS, n=44, out=tmp_path / "own", progress=False)
    with pytest.raises(CircuitError, match=r"another search: method.every is 1 there and 2 here"):
        greedy(small, PROMPTS, n=44, every=2, out=tmp_path / "own", progress=False)
    with pytest.raises(CircuitError, match=r"another search: .*prompts"):
        greedy(small, PROMPTS[:1], n=44, out=tmp_path / "own", progress=False)
    acdc(small, ROLED[0], 0.1, "logit_diff@who", start=Circuit.empty(small), out=tmp_path / "who")
    with pytest.raises(CircuitError, match=r"another search: .*read_at"):
        acdc(
            small, ROLED[1], 0.1, "logit_diff@who", start=Circuit.empty(small), out=tmp_path / "who"
        )
    others = {
        "metric": {"metric": "loss"},
        "ablation": {"ablation": "zero"},
        "tolerance": {"tolerance": 0.5},
        "absolute": {"absolute": False},
        "start": {"start": Circuit.full(small) - Circuit.of(small, ["input->logits"])},
    }
    for differs, how in others.items():
        with pytest.raises(CircuitError, match=rf"another search: \S*{differs}"):
            greedy(small, PROMPTS, n=44, out=tmp_path / "own", progress=False, **how)
    for field, other in {"donor": CAT, "target": " is", "contrast": " is"}.items():
        prompts = [PROMPTS[0], replace(PROMPTS[1], **{field: other})]
        with pytest.raises(CircuitError, match=rf"another search: prompts\S*{field}"):
            greedy(small, prompts, n=44, out=tmp_path / "own", progress=False)
    acdc(
        small, ROLED[0], 0.1, start=Circuit.empty(small), ablation=Part(0.5), out=tmp_path / "half"
    )
    with pytest.raises(CircuitError, match=r"another search: ablation"):
        acdc(
            small, ROLED[0], 0.1, start=Circuit.empty(small), ablation=Part(0.4),
            out=tmp_path / "half",
        )  # fmt: skip
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("Dear")
    with pytest.raises(CircuitError, match="holds something else"):
        greedy(small, PROMPTS, n=44, out=tmp_path / "other", progress=False)


@dataclass(frozen=True, eq=False)
class Middle(Part):
    """As much as the middle of a long row says, which its text leaves out."""

    share: torch.Tensor

    def values(self, model, graph, one):
        return self.share[1000] * written(model, graph, [one.tokens])[0]


def test_a_folder_of_an_ablation_that_differs_in_a_vector_is_refused(small, tmp_path):
    asked = {"start": Circuit.empty(small), "out": tmp_path, "progress": False}
    one = torch.zeros(2000)
    two = one.index_fill(0, torch.tensor([1000]), 0.5)
    acdc(small, PROMPTS[:1], 0.1, ablation=Middle(one), **asked)
    acdc(small, PROMPTS[:1], 0.1, ablation=Middle(one.clone()), **asked)
    with pytest.raises(CircuitError, match=r"another search: ablation"):
        acdc(small, PROMPTS[:1], 0.1, ablation=Middle(two), **asked)


def test_a_folder_of_a_model_with_another_hook_is_refused(small, tmp_path):
    """Of the same name; what it does may be anything, so that it is nobody's the next time."""
    asked = {"start": Circuit.empty(small), "out": tmp_path, "progress": False}
    for number in range(2):
        hook = small.hf.transformer.h[0].mlp.register_forward_hook(lambda m, a, out: out * 0.5)
        try:
            refused = pytest.raises(CircuitError, match=r"another search: added.*put there by hand")
            with refused if number else contextlib.nullcontext():
                acdc(small, PROMPTS[:1], 0.1, **asked)
        finally:
            hook.remove()


def test_a_folder_of_other_references_or_thresholds_is_refused(small, tmp_path):
    means = {"ablation": "mean", "progress": False, "out": tmp_path}
    edges = {"start": Circuit.of(small, WAY), **means}
    acdc(small, PROMPTS[:1], 0.01, "logit_diff", reference=[BERLIN, PARIS], **edges)
    for differs, how in {
        "reference": (0.01, [BERLIN, "Rome is the capital of"]),
        "threshold": (0.02, [BERLIN, PARIS]),
    }.items():
        threshold, reference = how
        with pytest.raises(CircuitError, match=rf"another search: \S*{differs}"):
            acdc(small, PROMPTS[:1], threshold, "logit_diff", reference=reference, **edges)
    with pytest.raises(CircuitError, match=r"another search: \S*order"):
        acdc(small, PROMPTS[:1], 0.01, "logit_diff", reference=[BERLIN, PARIS], order="first",
             **edges)  # fmt: skip


def test_a_folder_of_a_metric_that_is_read_elsewhere_is_refused(small, tmp_path):
    """The same tokens and the same words for the metric; a role is another place."""
    start = Circuit.of(small, WAY)
    places = [replace(PROMPTS[0], roles={"end": word}) for word in ("capital", "of")]
    asked = {"metric": "kl@end", "start": start, "out": tmp_path, "progress": False}
    acdc(small, places[0], 0.01, **asked)
    with pytest.raises(CircuitError, match=r"another search: prompts\S*read"):
        acdc(small, places[1], 0.01, **asked)


def test_what_was_measured_is_written_whatever_ends_it(tmp_path):
    circuits = [Circuit.full(Graph(1, 1, 4))]  # far fewer than are written at a time

    def stopped():
        with kept(tmp_path / "own", {"search": "own"}) as journal:
            journal.step(circuits, lambda: np.ones((2, 1)))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    with kept(tmp_path / "own", {"search": "own"}) as journal:
        assert journal.step(circuits, lambda: np.zeros((2, 1))).tolist() == [[1.0], [1.0]]


def test_a_journal_knows_its_own_steps(small):
    full = Circuit.full(small)
    journal = Journal([{"key": "another", "values": [[1.0]]}])
    with pytest.raises(CircuitError, match="of another search at step 1"):
        journal.step([full], lambda: np.ones((1, 1)))


def test_what_makes_no_search_is_refused(small):
    for search in (greedy, lambda *asked, **how: acdc(*asked[:2], 0.1, asked[2], **how)):
        with pytest.raises(CircuitError, match="top1 is the id of a token"):
            search(small, PROMPTS, "top1", progress=False)
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


def test_the_circuits_of_a_step_are_made_one_at_a_time():
    """Of GPT-2 Small they would be a gigabyte together."""
    full = Circuit.full(Graph(n_layers=12, n_heads=12, d_model=768))
    each = Without(full, np.arange(len(full))[:, None])
    assert len(full.graph.edges) == len(each)
    tracemalloc.start()
    try:
        key = _key(each[:200])
        at_once = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert at_once < 10 * len(full)
    assert key == _key([*each[:200]])
    assert set(full) - set(each[7]) == {full.graph.edges[7]}
