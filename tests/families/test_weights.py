"""Every family's attention weights: read, edited and walked as by hand; the switch is rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import microtome as mt
from families.both import on_both_paths
from microtome.errors import EditError
from microtome.passes import attention
from microtome.passes.attention import InTheOpen
from oracles import families as by_hand
from oracles.families import FAMILIES, HEADS, Change, turn

CAT = mt.Prompt(
    "The cat sat on the mat, and",
    donor="The dog sat on the cat, and",
    target=" cat",
    contrast=" dog",
)
LENGTH = 8
EXACT = 1e-11


@pytest.fixture(scope="module", params=FAMILIES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def hand(name):
    return FAMILIES[name]


@pytest.fixture(scope="module")
def eager(name, tokenizer):
    """Attention written out: there the oracle can get at its softmax."""
    return mt.load(by_hand.make(name, len(tokenizer), attention="eager"), tokenizer=tokenizer)


@pytest.fixture(scope="module")
def fused(name, of_family):
    """As the family comes: with a fused kernel where it has one."""
    return of_family(name)


def ids_of(model):
    tokens = model.encode(CAT)[0].tokens
    assert len(tokens) == LENGTH
    return tokens.ids


def test_they_read_as_by_hand(gap, eager, hand, name):
    found = eager.run(CAT, keep=["L*.pattern"])
    wanted = by_hand.run(eager.hf, hand, ids_of(eager))
    values = found["L*.pattern"].isel(prompt=0)
    assert values.dims == ("layer", "head", "q_pos", "k_pos")
    assert values.shape == (hand.layers, HEADS, LENGTH, LENGTH)
    for layer in range(hand.layers):
        seen = wanted.seen["pattern", layer]
        assert gap("read", "pattern", np.abs(values.sel(layer=layer).values - seen).max()) <= EXACT
        assert bool(np.triu(seen, 1).any()) is (name in by_hand.ENCODERS)
        assert np.abs(seen.sum(-1) - 1).max() < 1e-6  # some take their softmax in float32
    assert float((found.logits[0] - wanted.logits).abs().max()) <= EXACT


def without(keys):
    def op(rows):
        rows = rows.copy()
        rows[..., keys] = 0
        return rows / rows.sum(-1, keepdims=True)

    return op


EDITS = {
    "zero L1.pattern.h{0,3}": ([[0, 3], range(8), range(8)], lambda w: 0 * w),
    "scale(0.5) L1.pattern.h2@{3,-1},{0,2}": ([[2], [3, 7], [0, 2]], lambda w: 0.5 * w),
    "replace(0.25) L1.pattern@-1,5:": ([range(HEADS), [7], [5, 6, 7]], lambda w: 0 * w + 0.25),
    "knockout L1.pattern.h1@{6,7},{5,6}": ([[1], [6, 7], range(8)], without([5, 6])),
}


def test_they_are_edited_as_by_hand(gap, eager, hand):
    clean = by_hand.run(eager.hf, hand, ids_of(eager))
    for text, (index, op) in EDITS.items():
        change = Change("pattern", 1, [list(axis) for axis in index], op)
        wanted = by_hand.run(eager.hf, hand, ids_of(eager), [change])
        found = eager.run(CAT, edits=[text])
        assert gap("edit", "pattern", (found.logits[0] - wanted.logits).abs().max()) <= EXACT
        assert float((wanted.logits - clean.logits).abs().max()) > 1e-6


MAPS = (
    "zero L*.pattern.h*@-1",
    "patch L*.pattern.h1@{2,5}",
    "scale(0.5) L1.pattern.h2@{3,-1},*",
    "knockout L*.pattern.h*@-1,{5,6}",
)


def test_the_walk_equals_the_reference_path(gap, fused, name, hand):
    """One of the maps in each family, by turns."""
    text = MAPS[turn(name) % len(MAPS)]
    _, apart = on_both_paths(fused, hand, text, [CAT])
    gap("walk", "pattern", apart)


def test_showing_them_changes_nothing_but_rounding(fused):
    clean = fused.run(CAT).logits
    shown = fused.run(CAT, keep=["L1.pattern"]).logits
    size = float(clean.abs().max())
    assert float((clean - shown).abs().max()) <= 64 * torch.finfo(clean.dtype).eps * size


def test_only_layers_that_are_looked_at_are_switched(fused, monkeypatch):
    if not fused.anatomy.family.looks_up:
        pytest.skip("nothing is switched there: the module's own softmax is looked at")
    modules = []
    own = InTheOpen.__call__

    def noted(self, module, *args, **kwargs):
        modules.append(module)
        return own(self, module, *args, **kwargs)

    monkeypatch.setattr(InTheOpen, "__call__", noted)
    choice = fused.hf.config._attn_implementation
    fused.run(CAT, keep=["L1.pattern"])
    assert modules == [fused.anatomy.attention(fused.hf, 1)]
    assert fused.hf.config._attn_implementation == choice
    assert all(module.config is fused.hf.config for module in modules)


@pytest.mark.parametrize(
    "text",
    ["mean L*.pattern.h2@*", "replace(0.5) L0.pattern.h0@*,{0,3}", "add(1) L0.pattern.h0@{1,4},*"],
)
@pytest.mark.parametrize("engine", ["walk", "reference"])
def test_no_cell_of_a_map_makes_attention_to_later_tokens(tiny64, text, engine):
    with pytest.raises(EditError, match="attention to later tokens"):
        mt.sweep(tiny64, CAT, text, metrics=["prob"], engine=engine, verify=0)


def test_a_map_of_single_weights_leaves_out_what_does_not_exist(tiny64):
    effects = mt.sweep(tiny64, CAT, "replace(0.5) L0.pattern.h0@*,*", metrics=["prob"])
    assert effects.n_cells == LENGTH * (LENGTH + 1) // 2
    assert effects.provenance["predicted"]["why_absent"] == "no token attends to a later one"


def test_a_knockout_of_all_that_a_token_attends_to_is_left_out_and_says_so(tiny64):
    effects = mt.sweep(tiny64, CAT, "knockout L0.pattern.h0@*,0", metrics=["prob"])
    assert effects.n_cells == LENGTH - 1
    assert "leave each token a key" in effects.provenance["predicted"]["why_absent"]


def test_an_interrupt_in_the_middle_of_a_layer_leaves_no_switch(tiny64, monkeypatch):
    choice, clean = tiny64.hf.config._attn_implementation, tiny64.run(CAT).logits

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(attention, "_mixed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tiny64.run(CAT, keep=["L0.pattern", "L1.pattern"])
    monkeypatch.undo()
    assert tiny64.hf.config._attn_implementation == choice
    assert all(block.attn.config is tiny64.hf.config for block in tiny64.hf.transformer.h)
    assert torch.equal(tiny64.run(CAT).logits, clean)
