"""Models whose circuits are known: what is found must be what was planted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import microtome as mt
from microtome.circuits import Circuit, Graph, acdc, greedy
from oracles import planted

WORDS = ("Berlin", "Paris", "Rome", "Germany", "France", "Italy")
ASKED = mt.Prompt(
    "The Berlin Paris is Berlin", donor="The Rome Germany is France", target=" Paris",
    contrast=" Germany",
)  # fmt: skip
CARRIED = {
    "input->a0.h0<v>", "a0.h0->a1.h1<k>", "input->a1.h1<q>", "input->a1.h1<v>", "a1.h1->logits",
}  # fmt: skip
"""What tells one text from another; where the token before is, is the same in both."""
NEEDED = CARRIED | {"input->a0.h0<q>", "input->a0.h0<k>"}
"""What cannot be zero."""


@pytest.fixture(scope="module")
def names(tokenizer):
    ids = [tokenizer.encode(f" {word}") for word in WORDS]
    assert all(len(one) == 1 for one in ids)
    return [one[0] for one in ids]


@pytest.fixture(scope="module")
def two_layers(make_gpt2, tokenizer):
    """A model to be wired, once it is loaded: one of which a site does nothing is refused then."""

    def make():
        hf = make_gpt2(dtype=torch.float64, n_layer=2, n_head=2, tie_word_embeddings=False)
        return mt.load(hf, tokenizer=tokenizer)

    return make


@pytest.fixture(scope="module")
def induction(two_layers, names):
    model = two_layers()
    planted.induction(model.hf, names)
    return model


@pytest.fixture(scope="module")
def backup(two_layers, names):
    model = two_layers()
    planted.backup(model.hf, names)
    return model


# --------------------------------------------------------------------------------------- induction


def test_the_model_does_what_it_was_made_for(induction):
    logits = induction.run(ASKED).logits[0, -1]
    [one] = induction.encode(ASKED)
    assert logits[one.target] == pytest.approx(4, abs=1e-9)
    assert logits.sum() == pytest.approx(4, abs=1e-9)


@pytest.mark.parametrize(("ablation", "planted_edges"), [("patch", CARRIED), ("zero", NEEDED)])
def test_the_edges_that_count_are_the_planted_ones(induction, ablation, planted_edges):
    scores = mt.circuits.score(induction, ASKED, ablation=ablation)
    assert set(scores.circuit(threshold=1e-6, pruned=False)) == planted_edges
    assert set(scores.circuit(len(planted_edges))) == planted_edges


@pytest.mark.parametrize(("ablation", "planted_edges"), [("patch", CARRIED), ("zero", NEEDED)])
def test_searches_find_the_planted_edges_and_no_other(induction, ablation, planted_edges):
    by_acdc = acdc(induction, ASKED, 0.01, "logit_diff", ablation=ablation, progress=False)
    assert set(by_acdc.circuit) == planted_edges
    by_greedy = greedy(
        induction, ASKED, tolerance=0.01, every=5, n=len(planted_edges), ablation=ablation,
        progress=False,
    )  # fmt: skip
    assert set(by_greedy.circuit) == planted_edges


def test_the_circuit_alone_does_what_the_model_does_and_without_any_edge_it_is_broken(induction):
    for ablation, edges in (("patch", CARRIED), ("zero", NEEDED)):
        circuit = Circuit.of(induction, edges)
        broken = [circuit - Circuit.of(induction, [edge]) for edge in circuit]
        found = mt.circuits.faithfulness(
            induction, ASKED, [circuit, *broken], ablation=ablation, progress=False
        )["faithfulness"].values
        assert found[0] == pytest.approx(1, abs=1e-9)
        assert (found[1:] < 0.8).all()


def test_a_decoy_is_active_and_in_no_circuit(induction):
    """Head 0.1 writes nine times as much as any other, where nobody reads."""
    z = induction.run(ASKED, keep=["L0.z"])["L0.z"][0]
    assert np.abs(z.sel(head=1)).max() > 8 * np.abs(z.sel(head=0)).max()
    nodes = mt.circuits.score(induction, ASKED, level="node", ablation="zero")
    assert nodes.data["mean"].sel(node="a0.h1") == pytest.approx(0, abs=1e-9)
    assert "a0.h1" not in acdc(induction, ASKED, 0.01, "logit_diff", progress=False).circuit.nodes


# ------------------------------------------------------------------------------------------ backup

SAID = mt.Prompt(
    "The Berlin is the capital", donor="The Rome is the capital", target=" Berlin", contrast=" Rome"
)
PRIMARY = {"input->a0.h0<q>", "input->a0.h0<k>", "input->a0.h0<v>", "a0.h0->logits"}


def value(model, *edits: str) -> float:
    [one] = model.encode(SAID)
    logits = model.run(SAID, edits=list(edits)).logits[0, -1]
    return float(logits[one.target] - logits[one.contrast])


def test_the_backup_stands_in(backup):
    assert value(backup) == pytest.approx(4, abs=1e-9)
    assert value(backup, "zero L1.z.h0") == pytest.approx(4, abs=1e-9)
    assert value(backup, "zero L0.z.h0") == pytest.approx(4, abs=1e-9)
    assert value(backup, "zero L0.z.h0", "zero L1.z.h0") == pytest.approx(0, abs=1e-9)


def test_one_by_one_neither_counts_and_the_interaction_tells(backup):
    nodes = mt.circuits.score(backup, SAID, level="node", ablation="zero")
    for node in ("a0.h0", "a1.h0", "a0.h1"):
        assert nodes.data["mean"].sel(node=node) == pytest.approx(0, abs=1e-9)
    pairs = mt.sweep(backup, SAID, ["zero L*.z.h*", "zero L*.z.h* as other"], metrics="logit_diff")
    found = mt.circuits.interaction(pairs)[0]
    both = {"layer": 0, "head": 0, "other_layer": 1, "other_head": 0}
    assert float(found.sel(both)) == pytest.approx(-4, abs=1e-9)
    assert float(np.abs(found).sum()) == pytest.approx(
        8, abs=1e-8
    )  # that pair, twice, and no other


def test_edge_by_edge_the_primary_way_is_found(backup):
    """An edge to the logits leaves the backup its sight of the primary head."""
    found = acdc(backup, SAID, 0.01, "logit_diff", ablation="zero", progress=False)
    assert set(found.circuit) == PRIMARY
    for edge in PRIMARY:
        broken = Circuit.of(backup, PRIMARY - {edge})
        f = mt.circuits.faithfulness(backup, SAID, broken, ablation="zero", progress=False)
        assert float(f["faithfulness"]) < 0.8


def test_completeness_tells_of_the_backup(backup):
    """Without the primary head the model still does it, and the circuit does not."""
    circuit = Circuit.of(backup, PRIMARY)
    found = mt.circuits.completeness(backup, SAID, circuit, ablation="zero", progress=False)
    gap = dict(zip(found["part"].values, found["gap"].values, strict=True))
    assert gap["nothing"] == pytest.approx(0, abs=1e-9)
    assert gap["a0.h0"] == pytest.approx(4, abs=1e-9)


# ------------------------------------------------------------------------------------ linear models


@torch.no_grad()
def test_in_a_linear_model_every_edge_is_a_matrix_product(two_layers):
    """Attention the same everywhere, no MLP, no norm: a path is W_O · W_V · …, by hand."""
    model = two_layers()
    hf = model.hf
    with torch.no_grad():
        for block in hf.transformer.h:
            block.attn.c_attn.weight[:, :64] = 0  # queries and keys
            block.attn.c_attn.bias.zero_()
            block.attn.c_proj.bias.zero_()
            block.mlp.c_proj.weight.zero_()
            block.mlp.c_proj.bias.zero_()
            block.ln_1, block.ln_2 = torch.nn.Identity().eval(), torch.nn.Identity().eval()
        hf.transformer.ln_f = torch.nn.Identity().eval()
    prompt = mt.Prompt(
        "Berlin is the capital of", donor="Paris the is of capital", target=" Germany",
        contrast=" France",
    )  # fmt: skip
    [one] = model.encode(prompt)
    mean = torch.tril(torch.ones(5, 5).double()) / torch.arange(1, 6)[:, None]

    def through(layer: int, head: int) -> torch.Tensor:
        attention = hf.transformer.h[layer].attn
        own = slice(16 * head, 16 * head + 16)
        return attention.c_attn.weight[:, 64:96][:, own] @ attention.c_proj.weight[own]

    def embedded(ids) -> torch.Tensor:
        return hf.transformer.wte.weight[list(ids)] + hf.transformer.wpe.weight[:5]

    change = embedded(one.donor.ids) - embedded(one.tokens.ids)
    read = hf.lm_head.weight[one.target] - hf.lm_head.weight[one.contrast]
    expected = {"input->logits": change[-1] @ read}
    for head in (0, 1):
        added = mean @ change @ through(0, head)
        expected[f"a0.h{head}->logits"] = added[-1] @ read
        after = added @ (through(1, 0) + through(1, 1))
        rest = added + mean @ after
        expected[f"input->a0.h{head}<v>"] = rest[-1] @ read
        for other in (0, 1):
            expected[f"a0.h{head}->a1.h{other}<v>"] = (mean @ added @ through(1, other))[-1] @ read
        expected[f"input->a1.h{head}<v>"] = (mean @ change @ through(1, head))[-1] @ read
    for head in (0, 1):
        stream = change + sum(mean @ change @ through(0, h) for h in (0, 1))
        expected[f"a1.h{head}->logits"] = (mean @ stream @ through(1, head))[-1] @ read
    scores = mt.circuits.score(model, prompt).data["mean"]
    for edge in Graph.of(model).edges:
        assert float(scores.sel(edge=edge)) == pytest.approx(
            -float(expected.get(edge, 0)), abs=1e-9
        )
