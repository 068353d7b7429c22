"""Keys and values as one query head sees them: edited for it alone, where others share them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import (
    FalconConfig,
    FalconForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

import microtome as mt
from families.both import on_both_paths
from microtome.errors import AddressError
from microtome.passes.branches import Branches
from oracles import families as by_hand
from oracles.families import FAMILIES, HEADS, Change, turn

CAT = mt.Prompt(
    "The cat sat on the mat, and",
    donor="The dog sat on the cat, and",
    target=" cat",
    contrast=" dog",
)
GROUPED = [name for name, hand in FAMILIES.items() if hand.kv_heads < HEADS]
EXACT = 1e-11


@pytest.fixture(scope="module", params=GROUPED)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def hand(name):
    return FAMILIES[name]


@pytest.fixture(scope="module")
def model(name, of_family):
    return of_family(name)


def of_one_head(hf, hand, ids, site, head, op):
    """The group's key or value edited in a run of its own, from which one head's z is taken."""
    shared = by_hand.run(hf, hand, ids)
    kv_head = head // (HEADS // hand.kv_heads)
    shape = shared.seen[site, 1].shape
    index = [[2, 5], [kv_head], list(range(shape[2]))]
    apart = by_hand.run(hf, hand, ids, [Change(site, 1, index, op)])
    z = shared.seen["z", 1].copy()
    z[:, head] = apart.seen["z", 1][:, head]
    everything = [list(range(n)) for n in z.shape]
    return by_hand.run(hf, hand, ids, [Change("z", 1, everything, lambda _: z)])


OPERATIONS = (("zero", lambda x: 0 * x), ("add(0.5)", lambda x: x + 0.5))


@pytest.mark.parametrize("site", ["k", "v"])
@pytest.mark.parametrize("head", [1, 2])
def test_an_edit_is_seen_by_that_head_and_no_other(gap, model, name, hand, site, head):
    """Either operation at one of the heads, by turns."""
    ids = model.encode(CAT)[0].tokens.ids
    text, op = OPERATIONS[(turn(name) + "kv".index(site) + head) % len(OPERATIONS)]
    wanted = of_one_head(model.hf, hand, ids, site, head, op)
    edit = f"{text} L1.{site}_head.h{head}@{{2,5}}"
    found = model.run(CAT, edits=[edit], keep=[f"L1.{site}", "L1.z", f"L1.{site}_head"])
    own = f"{site}_head"
    assert gap("edit", own, (found.logits[0] - wanted.logits).abs().max()) <= EXACT
    assert np.abs(found["L1.z"].values[0] - wanted.seen["z", 1]).max() <= EXACT
    clean = wanted.seen[site, 1]
    assert np.abs(found[f"L1.{site}"].values[0] - clean).max() <= EXACT
    group = HEADS // hand.kv_heads
    seen = clean.repeat(group, axis=1)
    seen[[2, 5], head] = op(seen[[2, 5], head])
    assert gap("read", own, np.abs(found[f"L1.{own}"].values[0] - seen).max()) <= EXACT
    [receipt] = found.receipts
    assert receipt.selected == 2 * model.anatomy.dims.d_head


@pytest.mark.parametrize("site", ["k", "v"])
def test_an_edit_for_all_heads_of_a_group_is_an_edit_of_what_they_share(model, name, hand, site):
    if (name, site) == ("olmo2", "k"):
        return  # its norm goes over all keys together, so that other groups see a shared edit too
    group = HEADS // hand.kv_heads
    heads = ",".join(str(head) for head in range(group))
    shared = model.run(CAT, edits=[f"scale(-2) L1.{site}.h0"]).logits
    each = model.run(CAT, edits=[f"scale(-2) L1.{site}_head.h{{{heads}}}"]).logits
    assert float((shared - each).abs().max()) <= EXACT


MAPS = (
    ["zero L*.k_head.h*"],
    ["patch L*.v_head.h*@-1"],
    ["scale(0.5) L*.k_head.h2@*"],
    ["zero L:.v_head.h{0,3}"],
    ["zero L1.k_head.h1", "scale(2) L1.q.h2@4"],
    ["zero L1.v_head.h1", "scale(0.5) L*.pattern.h*@-1"],
    ["scale(2) L1.k.h0@3", "zero L1.k_head.h*@2", "add(1) L1.v.h0", "zero L1.v_head.h*@5"],
)


def test_the_walk_equals_the_reference_path(gap, model, name, hand):
    """Two of the maps in each family: of a key and of a value at least."""
    for shift in range(2):
        edits = MAPS[(turn(name) + shift) % len(MAPS)]
        _, apart = on_both_paths(model, hand, edits, [CAT])
        for edit in edits:
            site = mt.edit(edit).address.site.name
            if site.endswith("_head"):
                gap("walk", site, apart)


def test_a_star_is_every_query_head(model, hand):
    effects = mt.sweep(model, CAT, "zero L*.k_head.h*@2", metrics=["kl"])
    assert dict(effects.data.sizes) == {"prompt": 1, "layer": hand.layers, "head": HEADS}


def test_a_model_whose_heads_share_nothing_has_no_such_site(tiny):
    with pytest.raises(AddressError, match=r"no site 'v_head': no two heads share one.*'v'"):
        tiny.run(CAT, edits=["zero L0.v_head.h0"])
    assert "k_head" not in tiny.sites().index


def test_rows_of_a_batch_have_branches_of_their_own(tokenizer):
    """Cells of several heads, and cells with none at all, in one tile of the walk."""
    model = mt.load(by_hand.make("llama", len(tokenizer)), tokenizer=tokenizer)
    whole, cut = (
        mt.sweep(model, [CAT, CAT], "zero L*.k_head.h*@*", metrics=["kl"], memory=memory, verify=0)
        for memory in (None, 700_000)
    )
    assert float(abs(whole.data["kl"] - cut.data["kl"]).max()) <= 1e-12
    assert torch.tensor(whole.data["values_changed"].values).min() > 0


def _grouped(kind: str, vocab: int):
    """Two query heads to a key, in a model that gives its blocks a mask for each row."""
    sizes = {"vocab_size": vocab, "num_hidden_layers": 2, "hidden_size": 32, "head_dim": 8}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48}
    torch.manual_seed(0)
    if kind == "mistral":
        return MistralForCausalLM(MistralConfig(**sizes, sliding_window=3)).double().eval()
    if kind == "falcon":
        del sizes["head_dim"]
        slopes = FalconConfig(
            **sizes, num_kv_heads=2, new_decoder_architecture=True, alibi=True,
            attn_implementation="eager",
        )  # fmt: skip
        return FalconForCausalLM(slopes).double().eval()
    eager = LlamaConfig(**sizes, attn_implementation="eager")
    return LlamaForCausalLM(eager).double().eval()


@pytest.mark.parametrize("kind", ["llama", "mistral", "falcon"])
@pytest.mark.parametrize("site", ["k_head", "v_head"])
def test_rows_of_several_cells_are_verified_where_blocks_get_a_mask(kind, site, tokenizer):
    model = mt.load(_grouped(kind, len(tokenizer)), tokenizer=tokenizer)
    edit = mt.zero(f"L1.{site}.h*@{{0,-1}}")
    walked = mt.sweep(model, CAT, edit, metrics="logit_diff", verify="all", progress=False)
    slow = mt.sweep(model, CAT, edit, metrics="logit_diff", engine="reference", progress=False)
    gap = np.abs(walked.data["logit_diff"].values - slow.data["logit_diff"].values)
    assert gap.max() <= EXACT


def test_heads_of_different_groups_share_a_branch(model):
    dims = model.anatomy.dims
    group = dims.n_heads // dims.n_kv_heads
    rows = torch.zeros(2, 3, 4)
    assert len(Branches(dims, [None]).fork(rows)) == 2 * (1 + group)
    first = np.array([0]), np.array([[0, dims.n_heads - 1]])
    several = Branches(dims, [first])
    assert len(several.fork(rows)) == 2 * (1 + (2 if dims.n_kv_heads == 1 else 1))


def test_a_branch_gets_what_its_row_gets(model):
    branches = Branches(model.anatomy.dims, [None])
    rows = torch.arange(2.0).view(2, 1, 1).expand(2, 2, 3)
    forked = branches.fork(rows)
    mask, table = rows[:, None], torch.zeros(2, 5)
    assert torch.equal(branches.beside((mask,), rows)[0][:, 0], forked)
    assert torch.equal(branches.beside(rows[..., 0], rows), forked[..., 0])
    assert branches.beside(table, rows) is table
    assert len(branches.beside(rows[:1], rows)) == 1
    assert branches.beside(None, rows) is None
