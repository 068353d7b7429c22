"""Circuits that workers run are those of this process, bit for bit."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
import xarray as xr

import microtome as mt
from conftest import BERLIN, CAT, PARIS
from microtome.circuits import Circuit, Graph
from microtome.circuits.ablations import Mean, Patch
from microtome.circuits.checking import NOBODY, Witnesses
from microtome.circuits.elsewhere import Sent
from microtome.circuits.rows import Rows, edges_of
from microtome.circuits.trial import Trial
from microtome.circuits.without import Without
from microtome.errors import Cancelled, VerificationError, WorkerError
from workers.inline import Inline

PROMPTS = [
    mt.Prompt(BERLIN, donor=PARIS, target=" Germany", contrast=" France"),
    mt.Prompt(CAT, donor="The dog sat", target=" on", contrast=" the"),
    mt.Prompt(PARIS, donor=BERLIN, target=" France", contrast=" Germany"),
]


@pytest.fixture(scope="module")
def model(make_gpt2, tokenizer):
    """Two layers of two heads, in float32: the order of its sums shows."""
    return mt.load(make_gpt2(n_layer=2, n_head=2), tokenizer=tokenizer)


@pytest.fixture(scope="module")
def memory(model) -> int:
    """So little that five rows are run at a time."""
    needs = Trial.of(model, PROMPTS, "kl").needs
    return 5 * needs.of_row(5) + needs.held


def some(model, n: int = 12) -> list[Circuit]:
    rng = np.random.default_rng(0)
    return [Circuit(Graph.of(model), rng.random(46) < share) for share in np.linspace(0, 1, n)]


def verified(found: xr.Dataset) -> dict:
    return json.loads(found.attrs["verification"]) | json.loads(found.attrs["noise"])


@pytest.mark.parametrize("ablation", ["patch", "zero"])
def test_circuits_are_the_same_bit_for_bit(model, memory, ablation):
    asked = {"metrics": ["logit_diff", "kl", "top1"], "ablation": ablation, "memory": memory}
    workers = Inline(dies_once(1))
    here, there = (
        mt.circuits.run(model, PROMPTS, some(model), progress=False, workers=own, **asked)
        for own in (None, workers)
    )
    xr.testing.assert_identical(here.drop_attrs(), there.drop_attrs())
    assert verified(here) == verified(there)
    assert (workers.hired, workers.published) == (3, 1)


def dies_once(unit: int) -> Callable[[int], bool]:
    """Who gets this unit first dies of it."""
    left = [unit]
    return lambda number: bool(left and number == left[0] and left.pop() == number)


@pytest.mark.parametrize("how", ["greedy", "acdc", "removal", "faithfulness", "minimality"])
def test_whatever_runs_circuits_takes_workers(model, memory, how):
    start = some(model)[6].pruned()
    asked = {"memory": memory, "progress": False}

    def found(workers):
        own = {**asked, "workers": workers}
        match how:
            case "greedy":
                return mt.circuits.greedy(model, PROMPTS, n=8, every=4, start=start, **own).steps
            case "acdc":
                return mt.circuits.acdc(model, PROMPTS, 0.01, start=start, **own).steps
            case "removal":
                return mt.circuits.score(model, PROMPTS, method="removal", **own).data["score"]
            case "faithfulness":
                return mt.circuits.faithfulness(model, PROMPTS, start, resamples=99, **own)[
                    "kl"[:0] or "faithfulness"
                ]
            case _:
                return mt.circuits.minimality(model, PROMPTS, start, **own)["gap"]

    workers = Inline()
    here, there = found(None), found(workers)
    assert here.equals(there)
    assert workers.published == 1, "the model and the prompts are sent once, not with every step"


def test_a_search_on_workers_goes_on_from_its_journal(model, memory, tmp_path):
    start = some(model)[6].pruned()
    asked = {"n": 8, "every": 4, "start": start, "memory": memory}
    whole = mt.circuits.greedy(model, PROMPTS, progress=False, **asked)

    class Stopping(mt.Observer):
        steps = 0

        def advanced(self, cells):
            self.steps += 1

        @property
        def cancelled(self):
            return self.steps >= 1

    out = tmp_path / "search"
    with pytest.raises(Cancelled):
        mt.circuits.greedy(model, PROMPTS, out=out, workers=Inline(), progress=Stopping(), **asked)
    found = mt.circuits.greedy(model, PROMPTS, out=out, workers=Inline(), progress=False, **asked)
    assert found.steps.equals(whole.steps)
    again = Inline()
    mt.circuits.greedy(model, PROMPTS, out=out, workers=again, progress=False, **asked)
    assert again.hired == 0, "all of it is in the journal"


def test_rows_that_kill_their_workers_are_named(model, memory):
    says = r"1 of \d+ units .*what was measured before.*Rows 2 \(\d circuits, of prompts .*told to"
    with pytest.raises(WorkerError, match=says):
        mt.circuits.run(
            model, PROMPTS, some(model), memory=memory, workers=Inline(lambda n: n == 2),
            progress=False,
        )  # fmt: skip


class Own(Patch):
    """As who asks has it, and no worker."""


def test_an_ablation_that_has_no_name_elsewhere_is_refused(model, monkeypatch):
    monkeypatch.delitem(globals(), "Own")
    with pytest.raises(WorkerError, match="What is asked cannot be sent to workers"):
        mt.circuits.run(model, PROMPTS, some(model), ablation=OWN, workers=Inline(), progress=False)


OWN = Own()


def test_of_circuits_their_edges_alone_are_sent_eight_to_a_byte():
    """A step of GPT-2 Small has 32,491, and each names as many."""
    graph = Graph(n_layers=12, n_heads=12, d_model=768)
    full = Circuit(graph, np.ones(len(graph), dtype=bool), np.zeros(len(graph)))
    circuits = Without(full, [np.array([n]) for n in range(200)])
    pairs = np.stack([np.zeros(64, dtype=int), np.arange(100, 164)], axis=1)
    rows = Rows(3, pairs, lambda: edges_of(circuits, pairs), ((0, 101),), True)
    sent = pickle.dumps(rows)
    assert len(sent) < 1.1 * 64 * len(graph) / 8 + 4096
    found = pickle.loads(sent)
    assert (found.number, found.chosen, found.seeks) == (3, ((0, 101),), True)
    assert np.array_equal(found.edges(), rows.edges())
    assert np.array_equal(~found.edges(), np.arange(len(graph)) == pairs[:, 1:])


def test_whoever_comes_first_the_same_rows_are_run_again():
    """Of equally far ones those that are first in order."""

    def seen(number: int, far: float) -> Witnesses:
        chosen = {3: [(0, 9)], 1: [(0, 8)]}.get(number, [])
        rows = {pair: {3: torch.zeros(2)} for pair in [(0, number), *chosen]}
        return Witnesses(dict.fromkeys(chosen), (0, number), rows, far)

    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]):
        whole = Witnesses(dict.fromkeys([(0, 8), (0, 9)]), NOBODY)
        again = []
        for number in order:
            whole.join(seen(number, (1.0, 5.0, 5.0, 2.0)[number]), number)
            again += [pair for pair, _ in whole.ready()]
            assert len(whole.rows) <= 2, "the furthest, and the chosen one that gives way to it"
        assert again == [(0, 8)]
        assert [pair for pair, _ in whole.left()] == [(0, 1)]


@pytest.mark.parametrize("verify", [0, 3, "all"])
def test_what_workers_ran_is_verified_here_as_it_comes_back(model, memory, verify, monkeypatch):
    kept, join = [], Witnesses.join

    def joined(self, seen, number):
        kept.append(len(self.rows))
        join(self, seen, number)
        assert not seen.rows

    monkeypatch.setattr(Witnesses, "join", joined)
    asked = {"memory": memory, "verify": verify, "progress": False}
    here, there = (
        mt.circuits.run(model, PROMPTS, some(model), workers=own, **asked)
        for own in (None, Inline())
    )
    assert verified(here) == verified(there)
    assert verified(there)["runs"] == {0: 0, 3: 3, "all": 36}[verify]
    assert len(kept) > 10
    assert max(kept) <= (0 if verify == "all" else 2)


def test_a_wrong_run_of_a_worker_is_found_before_others_come(model, memory, monkeypatch):
    ran, run = [], Trial.run

    def wrong(self, rows):
        ran.append(rows.number)
        found = run(self, rows)
        for kept in found.seen.rows.values():
            for logits in kept.values():
                logits += torch.arange(len(logits))
        return found

    monkeypatch.setattr(Trial, "run", wrong)
    asked = {"memory": memory, "verify": "all", "progress": False}
    with pytest.raises(VerificationError):
        mt.circuits.run(model, PROMPTS, some(model), workers=Inline(), **asked)
    assert len(ran) <= 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_logits_are_sent_as_they_are(dtype):
    own = torch.linspace(-3, 3, 7).to(dtype)
    found = pickle.loads(pickle.dumps(Witnesses({(0, 1): None}, NOBODY, {(0, 1): {2: own}}, 4.0)))
    assert (found.chosen, found.furthest, found.far) == ({(0, 1): None}, NOBODY, 4.0)
    assert torch.equal(found.rows[0, 1][2].double(), own.double())


def test_what_all_prompts_share_is_made_once(model, monkeypatch):
    """The mean of the references is that of every prompt of their length."""
    made, values = [], Mean.values

    def counted(self, model, graph, one):
        made.append(one)
        return values(self, model, graph, one)

    monkeypatch.setattr(Mean, "values", counted)
    asked = {"ablation": "mean", "metrics": "logit_diff", "progress": False}
    alike = [PROMPTS[0], PROMPTS[2]]
    found = mt.circuits.run(model, alike, some(model, 3), **asked)
    assert len(made) == 1
    alone = [mt.circuits.run(model, one, some(model, 3), reference=alike, **asked) for one in alike]
    for number, one in enumerate(alone):
        np.testing.assert_allclose(one["logit_diff"][0], found["logit_diff"][number], atol=1e-5)


def test_a_trial_is_sent_without_its_model(model):
    trial = Trial.of(model, PROMPTS, ["kl", "prob(contrast)@1"])
    sent = pickle.dumps(Sent.of(trial))
    assert len(sent) < 20_000
    assert pickle.loads(sent).asked == ("kl", "prob(contrast)@1")
