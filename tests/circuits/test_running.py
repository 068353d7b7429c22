"""Running a circuit: against runs made by hand, and what has to be equal whatever the model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import microtome as mt
from conftest import BERLIN, CAT, PARIS
from microtome.circuits import Circuit, Graph
from microtome.circuits.passing import CircuitPass, cut_of
from microtome.circuits.trial import Trial
from microtome.circuits.written import written
from microtome.errors import CircuitError, MetricError, PromptError
from microtome.passes.hooks import forward
from microtome.passes.trace import ids_of
from oracles.circuits import Circuits
from oracles.families import FAMILIES

SHAPES = (
    "gpt2",
    "llama",
    "gemma2",
    "mixtral",
    "granite",
    "gpt_neox",
    "cohere",
    "falcon, one key head",
    "bloom",
)
"""Sequential; grouped and gated; post-norms; experts; a multiplier; parallel, with one norm shared
and grouped; keys of one head; additions that hold the stream."""
PROMPT = mt.Prompt(BERLIN, donor=PARIS, target=" Germany", contrast=" France")
CATS = mt.Prompt(CAT, donor="The dog sat", target=" on", contrast=" the")
EVERY = [f"logit@{n}" for n in range(5)]


@pytest.fixture(scope="module", params=SHAPES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model(name, of_family):
    return of_family(name)


def some(graph: Graph, share: float, seed: int = 0) -> Circuit:
    return Circuit(graph, np.random.default_rng(seed).random(len(graph)) < share)


def final(model, circuits, prompt=PROMPT):
    """What the unembedding reads in each circuit, at every position; edges outside patched."""
    graph, [one] = Graph.of(model), model.encode(prompt)
    ablated = written(model, graph, [one.donor]).expand(len(circuits), -1, -1, -1)
    texts = [one.tokens] * len(circuits)
    passing = CircuitPass(model, graph, texts, cut_of(circuits), ablated)
    return passing.final(range(len(one.tokens)))


def logits(model, circuits, prompt=PROMPT):
    with torch.no_grad():
        return model.anatomy.unembed(model.hf, final(model, circuits, prompt)).numpy()


def test_it_is_what_runs_by_hand_give(model, name):
    """Every reader in a run of its own, in numpy; edges outside patched, or zeroed, by turns."""
    hand, graph, [one] = FAMILIES[name], Graph.of(model), model.encode(PROMPT)
    turn = SHAPES.index(name)
    oracle = Circuits(model.hf, hand, one.tokens.ids)
    donor = Circuits(model.hf, hand, one.donor.ids)
    circuits = [some(graph, 0.5), some(graph, 0.9, seed=1)]
    number = turn // 2 % 2
    expected = oracle.run(set(circuits[number]), donor.written)
    found = logits(model, circuits)[number]
    assert np.abs(found - expected).max() <= hand.rounding * max(1, np.abs(expected).max())
    if turn % 2:
        return
    zeros = {writer: 0 * values for writer, values in oracle.written.items()}
    zeroed = oracle.run(set(circuits[0]), zeros)[-1]
    got = mt.circuits.run(model, PROMPT, circuits[0], metrics="logit", ablation="zero")
    target = one.target
    # Norms in float32 see a rounding of float64 more or less, and zeroed streams are small.
    exact = 1e-5 if model.anatomy.family.inner else hand.rounding
    assert abs(float(got["logit"][0]) - zeroed[target]) <= exact * max(1, abs(zeroed).max())


def test_all_edges_are_the_clean_run_and_none_are_the_donors(model, name):
    graph, exact = Graph.of(model), FAMILIES[name].rounding
    full, empty = logits(model, [Circuit.full(graph), Circuit.empty(graph)])
    assert np.abs(full - model.run(BERLIN).logits[0].numpy()).max() <= exact
    assert np.abs(empty - model.run(PARIS).logits[0].numpy()).max() <= exact


def test_a_nodes_outgoing_edges_ablated_are_the_nodes_patch(model, name):
    graph = Graph.of(model)
    heads = ["a0.h1", "a1.h3", "m1", "input"]
    own = [Circuit.full(graph) - leaving(graph, node) for node in heads]
    sites = ["L0.head_out.h1", "L1.head_out.h3", "L1.mlp_out", "embed"]
    for found, site in zip(logits(model, own), sites, strict=True):
        edited = model.run(PROMPT, edits=[mt.patch(site)]).logits[0].numpy()
        assert np.abs(found - edited).max() <= FAMILIES[name].rounding * max(1, abs(edited).max())


def leaving(graph: Graph, node: str) -> Circuit:
    return Circuit.of(graph, [edge for edge in graph.edges if edge.startswith(f"{node}->")])


# --------------------------------------------------------------------------- to the bit


def test_all_edges_are_the_clean_run_to_the_bit(tiny):
    """No reader's input is touched, in float32 too; a batch of one rounds as the bare model's."""
    [one] = tiny.encode(PROMPT)
    with torch.no_grad():
        clean = tiny.hf.transformer(input_ids=ids_of([one.tokens], tiny.hf)).last_hidden_state
    assert torch.equal(final(tiny, [Circuit.full(tiny)]), clean)


def test_a_donor_that_is_the_prompt_changes_no_bit(tiny):
    same = mt.Prompt(BERLIN, donor=BERLIN)
    assert torch.equal(
        final(tiny, [some(Graph.of(tiny), 0.5)], same), final(tiny, [Circuit.full(tiny)], same)
    )


def test_a_circuit_is_the_same_in_whatever_batch(tiny64):
    graph = Graph.of(tiny64)
    several = [some(graph, share, seed) for seed, share in enumerate((0.1, 0.5, 0.9))]
    together = logits(tiny64, several)
    for circuit, own in zip(several, together, strict=True):
        assert np.abs(logits(tiny64, [circuit])[0] - own).max() < 1e-11


# --------------------------------------------------------------------------- labels


def test_what_comes_back_is_labelled(tiny64):
    full = Circuit.full(tiny64)
    found = mt.circuits.run(
        tiny64, [PROMPT, CATS], {"all": full, "none": full - full}, metrics=["logit_diff", "kl"]
    )
    assert found["logit_diff"].dims == ("prompt", "circuit")
    assert found["clean_logit_diff"].dims == ("prompt",)
    assert list(found["edges"].values) == [len(full), 0]
    one = found.sel(circuit="all")
    assert np.abs(one["logit_diff"] - one["clean_logit_diff"]).max() < 1e-10
    assert (found["kl"].sel(circuit="none") > 1e-3).all()
    assert list(found["text"].values) == [BERLIN, CAT]
    assert mt.circuits.run(tiny64, PROMPT, full)["logit_diff"].dims == ("prompt",)


def test_prompts_of_different_lengths_are_each_as_by_themselves(tiny64):
    circuit = some(Graph.of(tiny64), 0.4)
    both = mt.circuits.run(tiny64, [CATS, PROMPT, CATS], circuit)["logit_diff"]
    for number, prompt in enumerate([CATS, PROMPT, CATS]):
        alone = mt.circuits.run(tiny64, prompt, circuit)["logit_diff"]
        assert abs(float(both[number]) - float(alone[0])) < 1e-11


def test_little_memory_means_more_passes_and_the_same_numbers(tiny64, monkeypatch):
    circuits = [some(Graph.of(tiny64), 0.4, seed) for seed in range(4)]
    many = mt.circuits.run(tiny64, PROMPT, circuits)["logit_diff"]
    passes = []
    plain = CircuitPass.final
    monkeypatch.setattr(CircuitPass, "final", lambda own, at: passes.append(own) or plain(own, at))
    needs = Trial.of(tiny64, PROMPT, "logit_diff").needs
    row, held = needs.of_row(5), needs.held
    few = mt.circuits.run(tiny64, PROMPT, circuits, memory=2 * row + held)["logit_diff"]
    assert [len(one.texts) for one in passes] == [2, 2]
    assert np.abs(many - few).max() < 1e-11
    with pytest.raises(CircuitError, match=f"needs {row:,}, and what is kept of all prompts"):
        mt.circuits.run(tiny64, PROMPT, circuits, memory=row - 1)


def test_the_logits_of_all_clean_runs_are_planned_for(tiny64):
    """At each position where a metric looks; what is ablated is kept where it is little."""
    asked = ["logit_diff", "kl", "loss@0"]
    little = Trial.of(tiny64, [PROMPT] * 7, asked, memory=2**14).needs
    assert not little.keeps
    assert little.held == 7 * 2 * tiny64.anatomy.dims.d_vocab * 8
    much = Trial.of(tiny64, [PROMPT] * 7, asked).needs
    shares = 7 * 5 * len(Graph.of(tiny64).writers) * tiny64.anatomy.dims.d_model * 8
    assert much.held == little.held + shares


def test_the_mean_is_over_the_reference_prompts_at_each_position(tiny64):
    """By hand: the mean of what each reference writes is patched in."""
    graph, [one] = Graph.of(tiny64), tiny64.encode(PROMPT)
    others = [tiny64.encode(text)[0] for text in (BERLIN, PARIS, "Rome is the capital of")]
    mean = torch.stack([written(tiny64, graph, [other.tokens])[0] for other in others]).mean(0)
    circuit = some(graph, 0.5)
    by_itself = CircuitPass(tiny64, graph, [one.tokens], cut_of([circuit]), mean[None])
    with torch.no_grad():
        expected = tiny64.anatomy.unembed(tiny64.hf, by_itself.final([4]))[0, 0, one.target]
    found = mt.circuits.run(
        tiny64, PROMPT, circuit, metrics="logit", ablation="mean",
        reference=[BERLIN, PARIS, "Rome is the capital of"],
    )  # fmt: skip
    assert abs(float(found["logit"][0]) - float(expected)) < 1e-11


def test_a_mean_of_nothing_but_two_is_between_them(tiny64):
    found = mt.circuits.run(
        tiny64, [PROMPT, mt.Prompt(PARIS, target=" France", contrast=" Italy")],
        Circuit.empty(tiny64), ablation="mean",
    )  # fmt: skip
    assert np.isfinite(found["logit_diff"]).all()


# --------------------------------------------------------------------------- odd shapes


def test_one_layer_one_head_and_one_token(make_gpt2, tokenizer):
    hf = make_gpt2(dtype=torch.float64, n_layer=1, n_head=1)
    model = mt.load(hf, tokenizer=tokenizer)
    graph = Graph.of(model)
    assert graph.edges == (
        "input->a0.h0<q>", "input->a0.h0<k>", "input->a0.h0<v>", "input->m0", "input->logits",
        "a0.h0->m0", "a0.h0->logits", "m0->logits",
    )  # fmt: skip
    prompt = mt.Prompt("Berlin", donor="Paris", target=" is", contrast=" the")
    full, empty = logits(model, [Circuit.full(graph), Circuit.empty(graph)], prompt)
    assert np.abs(full - model.run("Berlin").logits[0].numpy()).max() < 1e-11
    assert np.abs(empty - model.run("Paris").logits[0].numpy()).max() < 1e-11


def test_bfloat16_is_run_in_bfloat16(make_gpt2, tokenizer):
    model = mt.load(make_gpt2(dtype=torch.bfloat16), tokenizer=tokenizer)
    full = final(model, [Circuit.full(model)])
    [one] = model.encode(PROMPT)
    with torch.no_grad():
        clean = model.hf.transformer(input_ids=ids_of([one.tokens], model.hf)).last_hidden_state
    assert full.dtype == torch.bfloat16
    assert torch.equal(full, clean)


def test_what_somebody_put_on_the_model_sees_no_other_circuit(make_gpt2, tokenizer):
    """It may look beside its row, so each circuit has a pass of its own."""
    model = mt.load(make_gpt2(dtype=torch.float64), tokenizer=tokenizer)
    model.hf.transformer.h[1].register_forward_hook(
        lambda module, args, output: output + output.mean(0, keepdim=True)
    )
    circuits = [some(Graph.of(model), 0.5, seed) for seed in range(3)]
    together = mt.circuits.run(model, PROMPT, circuits, progress=False)["logit_diff"][0]
    for circuit, found in zip(circuits, together, strict=True):
        alone = mt.circuits.run(model, PROMPT, circuit, progress=False)["logit_diff"][0]
        assert abs(float(found) - float(alone)) < 1e-11


def test_a_pass_leaves_nothing_on_the_model(tiny64):
    [one] = tiny64.encode(PROMPT)
    before = forward(tiny64.hf, tiny64.anatomy, ids_of([one.tokens], tiny64.hf))
    mt.circuits.run(tiny64, PROMPT, some(Graph.of(tiny64), 0.3))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in tiny64.hf.modules())
    assert torch.equal(before, forward(tiny64.hf, tiny64.anatomy, ids_of([one.tokens], tiny64.hf)))


# --------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("prompt", "how", "complaint"),
    [
        (mt.Prompt(BERLIN, target=" is", contrast=" the"), {}, "has no donor"),
        (
            mt.Prompt(BERLIN, donor=CAT, target=" is", contrast=" the"),
            {},
            "5 tokens and its donor 3",
        ),
        (PROMPT, {"ablation": "patched"}, "No ablation is called 'patched'.*Did you mean 'patch'"),
        (PROMPT, {"ablation": "mean"}, "A mean over 1 prompt"),
        (PROMPT, {"ablation": "mean", "reference": [BERLIN, CAT]}, "5 tokens, and the reference"),
    ],
)
def test_what_a_prompt_lacks_is_said_before_anything_runs(tiny, prompt, how, complaint):
    with pytest.raises(CircuitError, match=complaint):
        mt.circuits.run(tiny, prompt, Circuit.full(tiny), **how)


def test_metrics_that_no_single_pass_gives_are_refused(tiny):
    with pytest.raises(MetricError, match="read inside the model"):
        mt.circuits.run(tiny, PROMPT, Circuit.full(tiny), metrics="std(L*.resid_post)")
    several = mt.Prompt(BERLIN, donor=PARIS, target=" Germany, and", contrast=" France")
    with pytest.raises(MetricError, match="several tokens"):
        mt.circuits.run(tiny, several, Circuit.full(tiny))
    with pytest.raises((MetricError, PromptError), match="needs a contrast"):
        mt.circuits.run(tiny, mt.Prompt(BERLIN, donor=PARIS, target=" is"), Circuit.full(tiny))


def test_what_overflows_is_no_result(make_gpt2, tokenizer):
    model = mt.load(make_gpt2(dtype=torch.float16), tokenizer=tokenizer)
    with torch.no_grad():
        for block in model.hf.transformer.h:
            block.mlp.c_proj.bias.fill_(4e4)
    without = Circuit.full(model) - Circuit.of(model, ["input->m1"])
    with pytest.raises(CircuitError, match=r"logit is no number.*float16, holds no activation"):
        mt.circuits.run(model, PROMPT, without, metrics="logit", ablation="zero")


def test_a_circuit_of_another_model_is_refused(tiny):
    with pytest.raises(CircuitError, match=r"12 layers × 12 heads.*3 layers × 4 heads"):
        mt.circuits.run(tiny, PROMPT, Circuit.empty(Graph(12, 12, 768)))
    with pytest.raises(CircuitError, match="No circuit is given"):
        mt.circuits.run(tiny, PROMPT, [])


def test_a_normed_stream_has_no_edges(bert64):
    with pytest.raises(CircuitError, match="bert norms the residual stream itself"):
        Graph.of(bert64)
