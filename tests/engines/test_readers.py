"""What readers read and writers write walks as on the reference path, and takes what it needs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_engine import CAT, EDITS, JOHN, SWAPPED, same_on_both_paths
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import microtome as mt
from microtome.edits import as_edits
from microtome.errors import AddressError, EditError, MicrotomeError, VerificationError
from microtome.language.sites import Dimensions
from microtome.language.sites import site as find_site
from microtome.passes.head_reads import HeadReads
from microtome.passes.hooks import Visit, forward
from microtome.passes.trace import Piece, record
from microtome.plan.memory.budget import Budget
from microtome.plan.memory.needs import apart_of, branches_of, needs_of
from microtome.plan.plan import make_plan
from microtome.plan.question import ask
from microtome.prompts.encoding import Encoded
from microtome.prompts.tokens import Tokens

PLACES = (
    "L*.q_in.h*",
    "L1:.k_in.h{1,3}",
    "L*.v_in.h2",
    "L*.head_out.h*",
    "L*.mlp_in",
    "final_in",
    "L:.q_in",
)
POSITIONS = ("", "@{2,4}", "@-1", "@giver")
DIMS = Dimensions(
    n_layers=2, n_heads=4, n_kv_heads=4, d_model=16, d_head=4, d_mlp=8, d_vocab=9, n_positions=16
)


@pytest.mark.parametrize("number", range(len(EDITS)))
def test_the_walk_equals_the_reference_path(tiny64, number):
    """Every edit at two of the sites, by turns, at one of the kinds of position each."""
    operation = EDITS[number]
    for turn in (number, number + 3):
        place, position = PLACES[turn % len(PLACES)], POSITIONS[turn % len(POSITIONS)]
        if "positions" in operation and position in ("@-1", "@giver"):
            position = ""
        if "tensor" in operation:
            place = place.replace("L1:", "L1").replace("L:", "L1")
        prompts = [JOHN, SWAPPED if "prompts" in operation else CAT]
        same_on_both_paths(tiny64, prompts, f"{operation} {place}{position}")


def test_in_one_cell_edits_are_made_in_the_order_of_the_pass(tiny64):
    """Whatever the order of the text: stream, what reads it, query, output, share, sum."""
    edits = ["scale(-2) L1.attn_out", "zero L1.head_out.h1", "scale(3) L1.z.h0", "scale(2) L1.q.h2"]
    edits += ["patch L1.q_in.h2@4", "scale(-1) L1.resid_pre@4", "patch L1.mlp_in@3"]
    one, other = (tiny64.run(JOHN, edits=own).logits for own in (edits, edits[::-1]))
    assert float((one - other).abs().max()) <= 1e-11
    same_on_both_paths(tiny64, [JOHN], edits)


def test_an_edit_of_several_at_one_head_adds_up(tiny64):
    twice = tiny64.run(JOHN, edits=["scale(-2) L1.q_in.h1@2", "scale(-3) L1.q_in@2"])
    halves = ["scale(6) L1.q_in.h1@2", "scale(-3) L1.q_in.h{0,2,3}@2"]
    assert float((twice.logits - tiny64.run(JOHN, edits=halves).logits).abs().max()) <= 1e-11


def test_they_are_gauged_like_other_sites(tiny64):
    metrics = ["norm(L*.q_in.h*@-1)", "distance(L2.head_out.h1@-1)", "std(L1.mlp_in@-1)"]
    same = [
        mt.sweep(tiny64, JOHN, "scale(-2) L*.q_in.h*@3:", metrics=metrics, engine=engine, verify=2)
        for engine in ("walk", "reference")
    ]
    for name in same[0].metrics:
        assert float(abs(same[0].data[name] - same[1].data[name]).max()) < 1e-9
    read = same[0].data["norm(L*.q_in.h*@-1)"].isel(prompt=0).values
    clean = same[0].data["clean_norm(L*.q_in.h*@-1)"].isel(prompt=0).values
    for layer, head in np.ndindex(read.shape[:2]):
        assert read[layer, head, layer, head] == pytest.approx(2 * clean[layer, head])


def test_a_small_memory_budget_changes_nothing(tiny64):
    whole, cut = (
        mt.sweep(tiny64, [JOHN, SWAPPED], "zero L*.q_in.h*@*", metrics=["kl"], memory=memory)
        for memory in (None, 300_000)
    )
    assert float(abs(whole.data["kl"] - cut.data["kl"]).max()) <= 1e-11


def test_verification_finds_a_change_that_is_put_nowhere(tiny64, monkeypatch):
    """On the walk alone: the reference path makes it."""
    change = HeadReads.change

    def lost(self, before, after, rows, heads):
        put = change(self, before, after, rows, heads)
        return (lambda view: None) if before.shape[0] > 3 else put

    monkeypatch.setattr(HeadReads, "change", lost)
    with pytest.raises(VerificationError):
        mt.sweep(tiny64, JOHN, "zero L*.q_in.h*", metrics=["logit_diff"], verify=2)


class Largest(TorchDispatchMode):
    """The most numbers that any new tensor has."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        known = {x.untyped_storage().data_ptr() for x in given}
        if isinstance(out, torch.Tensor) and out.untyped_storage().data_ptr() not in known:
            self.numbers = max(self.numbers, out.numel())
        return out


def test_only_the_heads_that_are_named_are_copied(make_gpt2, tokenizer):
    """No tensor of a pass is as wide as the stream for every head, where one is edited."""
    model = mt.load(make_gpt2(n_layer=1, n_head=16, n_embd=64), tokenizer=tokenizer)
    sizes = []
    for edit in ("zero L0.z.h3", "zero L0.q_in.h3", "zero L0.head_out.h3", "patch L0.k_in.h3"):
        with Largest() as seen:
            model.run(JOHN, edits=[edit])
        sizes.append(seen.numbers)
    assert max(sizes) == sizes[0] < 6 * 16 * 64


def test_what_was_read_is_recorded_once_for_all_heads(tiny64):
    place = find_site("q_in"), 1
    [tokens] = [one.tokens for one in tiny64.encode(JOHN)]
    kept = record(tiny64.hf, tiny64.anatomy, [tokens], [Piece(place, 1, 3)])[place]
    assert kept.shape == (1, 3, 4, 32)
    assert kept.untyped_storage().nbytes() == 3 * 32 * kept.itemsize


def planned(edit, dims=DIMS):
    tokens = Tokens.of_texts("a", " b", " c")
    question = ask(
        dims, [Encoded(mt.Prompt(tokens.text), tokens, None, None, None)], as_edits(edit)
    )
    return question, make_plan(question)


def test_memory_and_operations_are_planned_for_the_heads_that_are_named():
    plans = [planned(f"zero L0.q_in{heads}@0") for heads in (".h1", ".h*", "")]
    assert [apart_of(plan.cells) for _, plan in plans] == [1, 1, 4]
    sizes = [needs_of(question, plan.cells, [0], Budget()).inside(3, 3) for question, plan in plans]
    assert sizes[0] == sizes[1] < sizes[2]
    flops = [planned(f"zero L0.{site}@0")[1].cost.flops for site in ("resid_pre", "q_in", "mlp_in")]
    assert flops[0] < flops[2] < flops[1]


def test_a_key_that_one_head_reads_takes_a_row_of_attention_where_it_is_shared():
    grouped = replace(DIMS, n_kv_heads=2)
    for dims, rows in ((DIMS, 0), (grouped, 2)):
        _, plan = planned("zero L0.k_in.h{0,3}@0", dims)
        assert branches_of(plan.cells, dims) == rows


def test_where_no_heads_share_a_key_its_group_is_no_site(tiny):
    with pytest.raises(AddressError, match=r"no site 'v_in_group': no two heads share.*'v_in'"):
        tiny.run(CAT, edits=["zero L0.v_in_group.h0"])
    with pytest.raises(AddressError, match="'final_in' is in no layer"):
        mt.edit("zero L1.final_in")


def test_what_a_hook_of_the_users_own_adds_to_a_projection_is_a_heads_share_too(tiny64):
    """The matrix is what the module computes, not what its weight says."""
    module = tiny64.hf.transformer.h[1].attn.c_proj
    plain = tiny64.run(CAT, keep=["L1.head_out"])["L1.head_out"]
    handle = module.register_forward_hook(lambda module, args, output: 2 * output)
    try:
        doubled = tiny64.run(CAT, keep=["L1.head_out", "L1.attn_out"])
        without = tiny64.run(CAT, edits=["zero L1.head_out.h2"], keep=["L1.attn_out"])
        share = doubled["L1.attn_out"] - without["L1.attn_out"]
    finally:
        handle.remove()
    assert np.abs(doubled["L1.head_out"].values - 2 * plain.values).max() < 1e-11
    assert np.abs(share.values - 2 * plain.values[:, :, 2]).max() < 1e-11


def test_a_function_of_the_users_own_gets_the_heads_that_it_edits(tiny64):
    shapes = []

    def turn(values):
        shapes.append(tuple(values.shape))
        return -values

    own = mt.apply("L1.q_in.h{1,3}@2:", turn)
    found = tiny64.run(JOHN, edits=[own]).logits
    wanted = tiny64.run(JOHN, edits=["scale(-1) L1.q_in.h{1,3}@2:"]).logits
    assert shapes[0][-2:] == (2, 32)
    assert float((found - wanted).abs().max()) <= 1e-11


def test_a_site_that_the_pass_never_uses_is_an_error(tiny64, monkeypatch):
    monkeypatch.setattr(HeadReads, "end", (find_site("embed"), None))
    ids = torch.tensor([[3, 4, 5]])
    visit = Visit((find_site("q_in"), 1), lambda view: view.zero_(), writes=True)
    with pytest.raises(MicrotomeError, match=r"L1\.q_in is used before"):
        forward(tiny64.hf, tiny64.anatomy, ids, [visit])


def test_an_edit_that_does_not_fit_is_refused(tiny64):
    with pytest.raises(EditError, match=r"\[1, 1, 32\]|\[32\]"):
        tiny64.run(JOHN, edits=[mt.replace("L1.q_in.h1@2", [1.0, 2.0])])
