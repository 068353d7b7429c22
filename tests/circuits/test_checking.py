"""Verification of runs of circuits: what is run again, by what, and that a wrong run is found."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch

import microtome as mt
from conftest import BERLIN, CAT, PARIS
from microtome.circuits import Circuit, Graph, trial
from microtome.circuits.again import Again
from microtome.circuits.checking import Check, Witnesses
from microtome.circuits.written import written
from microtome.engines import judging
from microtome.errors import VerificationError
from microtome.plan.verify import Verify
from oracles import families as by_hand
from oracles.circuits import Circuits
from oracles.families import FAMILIES

PROMPT = mt.Prompt(BERLIN, donor=PARIS, target=" Germany", contrast=" France")
CATS = mt.Prompt(CAT, donor="The dog sat", target=" on", contrast=" the")


def some(graph: Graph, share: float, seed: int = 0) -> Circuit:
    return Circuit(graph, np.random.default_rng(seed).random(len(graph)) < share)


def told(found, name="verification"):
    return json.loads(found.attrs[name])


@pytest.mark.parametrize("name", ["gpt2", "gemma2", "llama", "gpt_neox", "granite"])
def test_the_reference_path_is_what_runs_by_hand_give(name, of_family):
    model = of_family(name)
    graph, [one] = Graph.of(model), model.encode(PROMPT)
    ablated = written(model, graph, [one.donor])[0]
    circuit = some(graph, 0.6)
    found = Again(model, circuit, one.tokens, ablated).logits().numpy()
    donor = Circuits(model.hf, FAMILIES[name], one.donor.ids).written
    expected = Circuits(model.hf, FAMILIES[name], one.tokens.ids).run(set(circuit), donor)
    exact = FAMILIES[name].rounding * max(1, np.abs(expected).max())
    assert np.abs(found - expected).max() <= exact


HALF = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize("name", ["mistral", "gemma2"])
@pytest.mark.parametrize("dtype", [*HALF, torch.float32, torch.float64])
def test_readers_that_are_left_nothing_read_nothing(name, dtype, tokenizer):
    """A norm would make the rounding of a sum that is 0 large, above all behind heads."""
    model = mt.load(by_hand.make(name, len(tokenizer), dtype), tokenizer=tokenizer)
    graph = Graph.of(model)
    without_input = [edge for edge in graph.edges if not edge.startswith("input")]
    circuits = {"few": some(graph, 0.1), "none reads the input": Circuit.of(graph, without_input)}
    found = mt.circuits.run(
        model, [PROMPT, CATS], circuits, metrics="loss", ablation="zero", verify="all",
        progress=False,
    )  # fmt: skip
    # All that is read is 0, and so is every logit.
    lost = found["loss"].sel(circuit="none reads the input")
    np.testing.assert_allclose(lost, np.log(len(tokenizer)), rtol=1e-6)


@pytest.mark.parametrize("name", ["gpt2", "gemma2"])
def test_little_that_is_left_is_read_as_exactly_in_half_precision(name, tokenizer):
    """Held to the same weights in float64: nothing of the stream's own rounding is in it."""
    hf = by_hand.make(name, len(tokenizer), torch.bfloat16)
    half = mt.load(hf, tokenizer=tokenizer)
    exact = mt.load(copy.deepcopy(hf).double(), tokenizer=tokenizer)
    graph = Graph.of(half)
    circuits = [some(graph, share, seed) for seed, share in enumerate((0.02, 0.05, 0.1, 0.2))]
    found, wanted = (
        mt.circuits.run(model, PROMPT, circuits, metrics="loss", ablation="zero", progress=False)
        for model in (half, exact)
    )
    np.testing.assert_allclose(found["loss"], wanted["loss"], atol=0.05)


def test_a_norm_behind_the_heads_leaves_a_prompt_that_is_its_own_donor(of_family):
    model = of_family("gemma2")
    own = mt.Prompt(BERLIN, donor=BERLIN, target=" Germany")
    circuit = some(Graph.of(model), 0.1)
    same = mt.circuits.run(model, own, circuit, metrics="loss", progress=False)
    assert float(same["loss"][0]) == float(same["clean_loss"][0])


def without_an_ablation(edge: str):
    """As `cut_of`, but that one edge of every circuit is let through."""
    whole = trial.cut_of

    def cut(circuits):
        found, graph = whole(circuits), circuits[0].graph
        writer, reader = (ends[graph.number(edge)] for ends in graph.ends)
        found[:, reader, writer] = False
        return found

    return cut


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("edge", ["a0.h1->a2.h3<q>", "input->a1.h0<k>", "m1->m2", "a1.h2->logits"])
def test_a_single_edge_that_is_not_ablated_is_found(dtype, edge, tiny, tiny64, monkeypatch):
    model = tiny64 if dtype == "float64" else tiny
    without = Circuit.of(model, [edge])
    circuits = [some(Graph.of(model), share) - without for share in (0.5, 1.0)]
    mt.circuits.run(model, PROMPT, circuits, progress=False)
    monkeypatch.setattr(trial, "cut_of", without_an_ablation(edge))
    with pytest.raises(VerificationError, match=r"of \d+ edges on .* is not what it is"):
        mt.circuits.run(model, PROMPT, circuits, progress=False)
    mt.circuits.run(model, PROMPT, circuits, progress=False, verify=0)


def test_in_half_precision_too(make_gpt2, tokenizer, monkeypatch):
    """An edge whose effect is heard there; and what rounding alone does is let through."""
    model = mt.load(make_gpt2(dtype=torch.bfloat16), tokenizer=tokenizer)
    circuits = [some(Graph.of(model), share) for share in (0.0, 0.3, 0.9)]
    for ablation in ("patch", "zero"):
        mt.circuits.run(model, PROMPT, circuits, ablation=ablation, verify="all", progress=False)
    edge = "m2->logits"
    single = Circuit.full(model) - Circuit.of(model, [edge])
    mt.circuits.run(model, PROMPT, single, ablation="zero", progress=False)
    monkeypatch.setattr(trial, "cut_of", without_an_ablation(edge))
    with pytest.raises(VerificationError):
        mt.circuits.run(model, PROMPT, single, ablation="zero", progress=False)


def test_what_rounding_does_to_sums_is_allowed_besides(tiny64, monkeypatch):
    gap = {"difference": 5.0, "fixed": 1.0, "times": 2.0}
    monkeypatch.setattr(judging, "of_logits", lambda *_: [gap])
    monkeypatch.setattr(judging, "heard", lambda *_: 3.0)
    single = some(Graph.of(tiny64), 0.5)
    assert told(mt.circuits.run(tiny64, PROMPT, single, progress=False))["tolerance"] == 7.0
    monkeypatch.setattr(judging, "heard", lambda *_: 1.0)
    with pytest.raises(VerificationError, match="differ by 5, tolerance 3"):
        mt.circuits.run(tiny64, PROMPT, single, progress=False)


def test_what_was_verified_is_kept_with_the_result(tiny64):
    circuits = [some(Graph.of(tiny64), share) for share in (0.1, 0.5, 0.9)]
    asked = {"metrics": ["logit_diff", "kl@0"], "progress": False}
    found = mt.circuits.run(tiny64, [PROMPT, CATS], circuits, **asked)
    verification = told(found)
    assert (verification["runs"], verification["of"]) == (2, 6)
    assert 0 <= verification["largest_difference"] <= verification["tolerance"] < 1e-9
    assert set(told(found, "noise")) == {"logit_diff", "kl@0"}
    assert max(told(found, "noise").values()) < 1e-12
    every = mt.circuits.run(tiny64, [PROMPT, CATS], circuits, verify="all", **asked)
    assert told(every)["runs"] == 6
    none = mt.circuits.run(tiny64, PROMPT, circuits, verify=0, **asked)
    assert (told(none)["runs"], told(none)["largest_difference"]) == (0, None)


def test_the_circuit_that_is_furthest_from_the_clean_run_is_among_them(tiny64, monkeypatch):
    graph = Graph.of(tiny64)
    circuits = [Circuit.full(graph)] * 30 + [Circuit.empty(graph)] + [Circuit.full(graph)] * 30
    seen = []
    plain = Again.logits
    monkeypatch.setattr(Again, "logits", lambda own: seen.append(len(own.circuit)) or plain(own))
    mt.circuits.run(tiny64, PROMPT, circuits, verify=1, progress=False)
    assert seen == [0]


def test_so_many_are_due_of_the_first_and_a_twentieth_of_all(tiny64):
    check = Check(tiny64, Verify.of(2))
    due = []
    for rows in (10, 20, 70, 1000):
        due.append(check.due(rows))
        check.done += due[-1]
    assert due == [2, 0, 2, 2], "of 100 rows 5 less those before; never more than asked for"
    assert Check(tiny64, Verify.of("all")).due(300) == 300


def test_what_came_nearest_to_its_tolerance_is_told(tiny64):
    check = Check(tiny64, Verify.of(2))
    for off, allowed in ((2e-9, 1e-3), (1e-9, 1e-8), (3e-9, 1e-6)):
        check._note(off, allowed)
    assert (check.as_dict()["largest_difference"], check.as_dict()["tolerance"]) == (1e-9, 1e-8)


def test_noise_is_of_metrics_with_a_difference_of_nodes_too(tiny64):
    single = some(Graph.of(tiny64), 0.5)
    found = mt.circuits.run(tiny64, PROMPT, single, metrics=["logit_diff", "top1"], progress=False)
    assert told(found, "noise").keys() == {"logit_diff"}
    scores = mt.circuits.score(tiny64, PROMPT, level="node", progress=False)
    assert told(scores.data, "noise").keys() == {"logit_diff"}


def test_few_logits_are_kept_while_circuits_run(tiny64):
    """Those that were chosen, and of the others the one that is furthest so far."""
    check, clean = Check(tiny64, Verify.of(2)), {3: torch.zeros(1, 4)}
    witnesses = Witnesses.of(check, [(0, n) for n in range(40)])
    for number in range(40):
        witnesses.see(0, [number], {3: torch.full((1, 4), float(number))}, clean)
        assert len(witnesses.rows) <= 3
    kept = dict([*witnesses.ready(), *witnesses.left()])
    assert len(kept) == 2
    assert (kept[0, 39][3] == 39).all()


@pytest.mark.parametrize("verify", [1, 2, 5, 40, "all"])
def test_what_is_run_again_is_kept_no_longer_than_it_takes(verify, tiny64):
    """As many as are asked for, each once, and the furthest; batch by batch."""
    check, clean = Check(tiny64, Verify.of(verify)), {3: torch.zeros(1, 4)}
    pairs = [(prompt, n) for prompt in range(2) for n in range(20)]
    far = np.random.default_rng(0).permutation(40).reshape(2, 20)
    witnesses, verified = Witnesses.of(check, pairs), []
    for prompt, number in pairs:
        own = {3: torch.full((1, 4), float(far[prompt, number]))}
        witnesses.see(prompt, [number], own, clean)
        verified += [which for which, _ in witnesses.ready()]
        assert len(witnesses.rows) <= 2
    verified += [which for which, _ in witnesses.left()]
    assert len(verified) == len(set(verified)) == (40 if verify == "all" else verify)
    assert tuple(np.argwhere(far == 39)[0]) in verified


def test_all_that_runs_circuits_is_verified(tiny64, monkeypatch):
    scores = mt.circuits.score(tiny64, PROMPT, level="node", progress=False)
    assert told(scores.data)["runs"] == 1 + 4 + 3  # of the input, of heads, of MLPs
    start = scores.circuit(8)
    asked = {"progress": False}
    removed = mt.circuits.score(tiny64, PROMPT, level="node", method="removal", **asked)
    assert told(removed.data)["runs"] == 2
    greedy = mt.circuits.greedy(tiny64, PROMPT, n=len(start) - 40, every=10, start=start, **asked)
    assert 2 <= greedy.verification["runs"] <= 2 + 0.05 * greedy.verification["of"]
    assert told(mt.circuits.faithfulness(tiny64, PROMPT, start, **asked))["runs"] == 2
    assert told(mt.circuits.curve(tiny64, PROMPT, scores, **asked).data)["runs"] == 2
    assert told(mt.circuits.completeness(tiny64, PROMPT, start, **asked))["runs"] == 2
    assert told(mt.circuits.minimality(tiny64, PROMPT, start, **asked))["runs"] == 2
    outside = [e for e in Circuit.full(tiny64) - start if e.endswith("->logits")]
    monkeypatch.setattr(trial, "cut_of", without_an_ablation(outside[0]))
    with pytest.raises(VerificationError):
        mt.circuits.acdc(tiny64, PROMPT, 1e9, start=start, ablation="zero", **asked)
