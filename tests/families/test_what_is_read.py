"""What single heads, the MLP and the final norm read, and what heads write: in every family."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import microtome as mt
from families.both import on_both_paths
from oracles.families import FAMILIES, HEADS, UNLIKE, turn
from oracles.readers import Oracle

CAT = mt.Prompt(
    "The cat sat on the mat, and",
    donor="The dog sat on the cat, and",
    target=" cat",
    contrast=" dog",
)
EXACT = 1e-11
HEADED = ("q_in", "k_in", "k_in_group", "v_in", "v_in_group", "head_out")
OPERATIONS = {
    "zero": lambda x: 0 * x,
    "scale(-1.5)": lambda x: -1.5 * x,
    "replace(0.75)": lambda x: 0 * x + 0.75,
}


@pytest.fixture(scope="module", params=FAMILIES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def hand(name):
    return FAMILIES[name]


@pytest.fixture(scope="module")
def model(name, of_family):
    return of_family(name)


@pytest.fixture(scope="module")
def oracle(model, hand):
    return Oracle(model.hf, hand, model.encode(CAT)[0].tokens.ids)


@pytest.fixture(scope="module")
def exact(hand):
    """Where attention is computed in float32, its inputs differ by a rounding of float64."""
    return EXACT if hand.rounding <= 1e-9 else hand.rounding


@pytest.fixture(scope="module")
def sites(model):
    has = {site.name for site in model.anatomy.sites}
    return [site for site in (*HEADED, "mlp_in", "final_in") if site in has]


def address(site: str) -> str:
    return site if site == "final_in" else f"L1.{site}"


def test_groups_are_where_heads_share(sites, hand):
    grouped = {site for site in sites if site.endswith("_group")}
    assert grouped == ({"k_in_group", "v_in_group"} if hand.kv_heads < HEADS else set())
    assert len(sites) == 6 + len(grouped)


def test_they_are_read_as_by_hand(gap, model, sites, oracle):
    found = model.run(CAT, keep=[address(site) for site in sites])
    for site in sites:
        own, wanted = found[address(site)].values[0], oracle.read(site)
        assert own.shape == wanted.shape
        assert gap("read", site, np.abs(own - wanted).max()) <= EXACT, site


def test_they_are_edited_as_by_hand_and_nothing_else_is(gap, model, hand, sites, oracle, exact):
    clean = oracle.run()
    for number, site in enumerate(sites):
        text, op = list(OPERATIONS.items())[number % len(OPERATIONS)]
        positions = ([1, 3], list(range(8)), [7])[number % 3]
        heads = [0, hand.kv_heads - 1] if site.endswith("_group") else [1, 2]
        heads = sorted(set(heads)) if site in HEADED else []
        unit = f".h{{{','.join(map(str, heads))}}}" if heads else ""
        edit = f"{text} {address(site)}{unit}@{{{','.join(map(str, positions))}}}"
        wanted = oracle.edit(site, positions, heads, op)
        found = model.run(CAT, edits=[edit], keep=["L1.z", "L1.mlp_out", address(site)])
        off = float((found.logits[0] - wanted.logits).abs().max())
        assert gap("edit", site, off) <= exact, edit
        assert float((wanted.logits - clean.logits).abs().max()) > 1e-6, edit
        z = wanted.seen["z", 1]
        assert np.abs(found["L1.z"].values[0] - z).max() <= exact, edit
        values = oracle.read(site)
        where = np.ix_(positions, *([heads] if heads else []), range(values.shape[-1]))
        values[where] = op(values[where])
        assert np.abs(found[address(site)].values[0] - values).max() <= exact, edit
        [receipt] = found.receipts
        assert receipt.selected == receipt.changed == values[where].size


def test_a_patch_from_itself_changes_no_bit(model, hand, sites):
    """At several sites together: whatever one changes, the next one puts back, and says so."""
    mirror = mt.Prompt(CAT.text, donor=CAT.text)
    clean = model.run(mirror).logits
    # With more rows it may round.
    rounding = [s for s in sites if s in ("k_in", "v_in") and hand.kv_heads < HEADS]
    exact = [site for site in sites if site not in rounding]
    for some, most in ((exact, 0.0), (rounding, EXACT)):
        if some:
            found = model.run(mirror, edits=[f"patch {address(site)}" for site in some])
            assert float((found.logits - clean).abs().max()) <= most, some
            for site, receipt in zip(some, found.receipts, strict=True):
                assert receipt.selected > 0, site
                assert receipt.norm <= most, site


def test_all_that_is_read_and_the_stream_are_what_enters_the_block(model, hand, exact):
    everything = ["patch L1.q_in@3", "patch L1.k_in@3", "patch L1.v_in@3"]
    apart = model.run(CAT, edits=[*everything, "patch L1.resid_pre@3"])
    whole = model.run(CAT, edits=["patch L1.resid_pre@3"])
    assert float((apart.logits - whole.logits).abs().max()) <= exact
    if hand.rest is None:  # attention and MLP read one stream, and add what is the stream's change
        pre = model.run(mt.Prompt(CAT.donor), keep=["L1.resid_pre@3"])["L1.resid_pre@3"]
        own = model.run(CAT, keep=["L1.resid_pre@3"])["L1.resid_pre@3"]
        change = (pre - own).values.ravel().tolist()
        added = mt.add("L1.resid_post@3", change)
        apart = model.run(CAT, edits=[*everything, "patch L1.mlp_in@3", added])
        assert float((apart.logits - whole.logits).abs().max()) <= exact


def test_what_heads_write_and_a_bias_are_what_attention_adds(model, hand):
    found = model.run(CAT, keep=["L1.head_out", "L1.attn_out"])
    projection = model.hf.get_submodule(f"{hand.blocks}.1.{hand.z}")
    bias = getattr(projection, "bias", None)
    bias = 0 if bias is None else bias.detach().numpy() * hand.factor
    total = found["L1.head_out"].values.sum(axis=2) + bias
    if hand.attn_out.endswith("norm"):
        norm = model.hf.get_submodule(f"{hand.blocks}.1.{hand.attn_out}")
        total = norm(torch.from_numpy(total)).detach().numpy()
    assert np.abs(total - found["L1.attn_out"].values).max() <= EXACT


# Norms take scales out, and layer norms constants: a change of sign stays.
MAPS = (
    ["zero L1.q_in.h*", "scale(-2) L1.mlp_in@-1"],
    ["patch L1.k_in.h*@1:4"],
    ["patch L*.v_in.h1", "zero L*.head_out.h2@3", "scale(-0.5) final_in"],
)


def test_the_walk_equals_the_reference_path(gap, model, name, hand, sites):
    """A map of all in every layer together, and one of some sites where families differ most."""
    apart = 0.0
    if name in UNLIKE:
        _, apart = on_both_paths(model, hand, MAPS[turn(name) % len(MAPS)], [CAT])
    every = [f"scale(-0.5) L*.{site}.h0@{{2,5}}" for site in sites if site in HEADED]
    every += ["patch L*.mlp_in@2:", "scale(-2) final_in"]
    every += ["scale(2) L*.resid_pre@4", "scale(2) L*.q.h1", "zero L*.k.h0@5", "scale(2) L*.z.h2"]
    every += ["scale(2) L*.k_head.h0@2"] if hand.kv_heads < HEADS else []
    _, more = on_both_paths(model, hand, every, [CAT])
    for site in sites:
        gap("walk", site, max(apart, more))
