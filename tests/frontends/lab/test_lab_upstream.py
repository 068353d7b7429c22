"""Every edge into a reader is as made by hand, and as a sweep of that edge alone."""

from __future__ import annotations

import numpy as np
import pytest

import microtome as mt
from microtome.errors import CircuitError, EditError
from microtome.frontends.lab.answers.upstream import (
    Incoming,
    _size,
    upstream,
    way_for,
    why_no_patch,
    written_before,
)
from oracles import edges as by_hand
from oracles.edges import OPS, Node
from oracles.families import FAMILIES
from oracles.readers import Oracle

CAT = mt.Prompt(
    "The cat sat on the mat, and",
    donor="The cat sat on the dog, and",
    target=" cat",
    contrast=" dog",
)
HAND = {**OPS, "mean": lambda own, donor: 0 * own + own.mean(0)}
READERS = {
    "a2.h1<q>": Node("q", 2, 1),
    "a1.h3<k>": Node("k", 1, 3),
    "m1": Node("mlp", 1),
    "logits": Node("logits"),
}


def node_of(name):
    if name == "input":
        return Node("input")
    if name.startswith("m"):
        return Node("mlp", int(name[1:]))
    layer, head = name[1:].split(".h")
    return Node("head", int(layer), int(head))


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("gpt2", "patch"),
        ("llama", "zero"),
        ("gpt_neox", "patch"),
        ("gemma2", "zero"),
        ("llama", "mean"),
    ],
)
def test_edges_are_those_of_hooks(name, way, of_family):
    model, hand = of_family(name), FAMILIES[name]
    [one] = model.encode(CAT)
    oracle = by_hand.Edges(Oracle(model.hf, hand, one.tokens.ids), one.donor.ids)
    target, contrast = one.answer("target"), one.answer("contrast")

    def of(logits):
        return float(logits[-1, target] - logits[-1, contrast])

    clean = of(oracle.here.run().logits)
    exact = 1e-9 if hand.rounding <= 1e-9 else hand.rounding
    for reader, node in READERS.items():
        found = upstream(model, CAT, reader, "logit_diff", way)
        assert found.clean == pytest.approx(clean, abs=exact)
        assert [edge.writer for edge in sorted(found.edges, key=lambda e: e.name)] == sorted(
            writer.removesuffix(f"->{reader}")
            for writer in mt.edges(model)
            if writer.endswith(f"->{reader}")
        )
        sizes = [abs(edge.effect) for edge in found.edges]
        assert sizes == sorted(sizes, reverse=True)
        for edge in (*found.edges[:2], found.edges[-1]):
            change = oracle.change(node_of(edge.writer), HAND[way])
            wanted = of(oracle.cell(change, node).logits) - clean
            assert edge.effect == pytest.approx(wanted, abs=10 * exact), edge.name


def test_an_edge_says_which_edit_gives_its_effect(tiny64):
    fact = mt.Prompt("Berlin is the capital of", target=" Germany")
    found = upstream(tiny64, fact, "a2.h0<v>", "prob")
    assert found.way == "zero"
    for edge in found.edges[:3]:
        own = mt.sweep(tiny64, fact, edge.edit, metrics="prob").delta("prob")
        assert edge.effect == pytest.approx(float(own.item()), abs=1e-12)
        assert edge.name == f"{edge.writer}->a2.h0<v>"


def test_a_patch_needs_a_donor_of_the_same_length(tiny64):
    short = mt.Prompt("Berlin is the capital of", donor="Berlin is", target=" Germany")
    cases = {"donor": mt.Prompt("Berlin is"), "length": short, "": CAT}
    for why, prompt in cases.items():
        [one] = tiny64.encode(prompt)
        assert why_no_patch(one) == why
        assert way_for(one) == ("zero" if why else "patch")
        assert way_for(one, "zero") == "zero"


def test_an_effect_that_is_no_number_comes_last():
    each = [Incoming("", "", "", effect) for effect in (1.0, np.nan, -3.0, 0.0)]
    assert [one.effect for one in sorted(each, key=_size)][:3] == [-3.0, 1.0, 0.0]


def test_its_noise_is_the_largest_of_all_kinds_of_writers(tiny64, monkeypatch):
    noises = iter([1e-9, 3e-9, 2e-9])
    monkeypatch.setattr(mt.Effects, "noise_floor", lambda effects, name: next(noises))
    assert upstream(tiny64, CAT, "m1", "logit_diff").noise == 3e-9


def test_a_mean_is_over_all_tokens_and_of_one_token_it_is_refused(tiny64):
    fact = mt.Prompt("Berlin is the capital of", target=" Germany")
    found = upstream(tiny64, fact, "a2.h0<v>", "prob", "mean")
    assert all(edge.edit.startswith('mean(over="positions") ') for edge in found.edges)
    with pytest.raises(EditError, match="the mean over one position is the value itself"):
        upstream(tiny64, mt.Prompt("Berlin", target=" is"), "m1", "prob", "mean")


def test_the_first_layer_reads_the_input_alone(of_family):
    assert written_before(of_family("gpt2"), "a0.h1<k>") == ("input",)
    assert written_before(of_family("gpt2"), "m0")[1:] == ("a0.h0", "a0.h1", "a0.h2", "a0.h3")
    assert written_before(of_family("gpt_neox"), "m0") == ("input",)  # beside its attention
    [edge] = upstream(of_family("gpt_neox"), CAT, "m0", "logit_diff").edges
    assert edge.name == "input->m0"


def test_what_has_no_edges_is_refused(tiny64, bert64):
    with pytest.raises(CircuitError, match=r"Nothing that reads is called 'a2.h0'.*'a2.h0<q>'"):
        upstream(tiny64, CAT, "a2.h0", "prob")
    masked = mt.Prompt("a dog sat on the [MASK]", target="mat")
    with pytest.raises(CircuitError, match="norms the residual stream"):
        upstream(bert64, masked, "a1.h0<q>", "prob")


def test_who_watches_may_cancel(tiny64):
    class Enough(mt.Observer):
        cancelled = True

    with pytest.raises(mt.Cancelled):
        upstream(tiny64, CAT, "a2.h0<q>", "prob", observer=Enough())
