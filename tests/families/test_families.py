"""Every family: its sites are what hand-written hooks say, and the walk is the reference path."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import microtome as mt
from families.both import mapped, on_both_paths
from foreign import theirs
from microtome.errors import AddressError, ArchitectureError, SweepError
from microtome.language.sites import APART
from microtome.plan.cost import flops_of_block
from microtome.verbs.sweep import asking
from oracles import families as by_hand
from oracles.families import FAMILIES, HEADS, UNLIKE, Change, turn

CAT = mt.Prompt(
    "The cat sat on the mat, and",
    donor="The dog sat on the cat, and",
    target=" cat",
    contrast=" dog",
)
MARY = mt.Prompt(
    "When Mary and John went to the store",
    donor="When John and Mary gave to the store",
    target=" Mary",
    contrast=" John",
)
LENGTH = 8  # longer than the sliding windows of the models that have one
EXACT = 1e-11
"""Two ways of writing the same hooks, in float64."""

UNITS = {"q": "h", "k": "h", "v": "h", "z": "h", "mlp_post": "n"}


@pytest.fixture(scope="module", params=FAMILIES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model(name, of_family):
    return of_family(name)


@pytest.fixture(scope="module")
def hand(name):
    return FAMILIES[name]


def ids_of(model, prompt):
    tokens = model.encode(prompt)[0].tokens
    assert len(tokens) == LENGTH
    return tokens.ids


def test_it_is_of_its_size(model, name, hand):
    dims = model.anatomy.dims
    assert model.anatomy.family.model_type == name.split(",")[0] == model.hf.config.model_type
    assert (dims.n_layers, dims.n_heads, dims.n_kv_heads) == (hand.layers, HEADS, hand.kv_heads)
    assert (dims.n_heads, dims.n_kv_heads, dims.d_head) == by_hand.dimensions(model.hf, hand)
    assert model.dtype == torch.float64


def test_its_operations_are_those_of_its_matrices(model, hand):
    if hand.neurons is not None:  # of experts, a token takes only some
        block = model.hf.get_submodule(hand.blocks)[1]
        weights = sum(weight.numel() for weight in block.parameters() if weight.ndim == 2)
        norms = sum(w.numel() for n, w in block.named_parameters() if "norm" in n and w.ndim == 2)
        assert flops_of_block(model.anatomy.dims, 1, 0) == 2 * (weights - norms)


def test_every_site_reads_as_by_hand(model, hand, gap):
    addresses = [s if s in ("embed", "logits") else f"L*.{s}" for s in hand.sites]
    of_heads = {"k_head", "v_head"} if hand.kv_heads < HEADS else set()
    there = {site.name for site in model.anatomy.sites} - {*APART, "mlp_in", "final_in"}
    assert there == {*hand.sites, "pattern", *of_heads}
    found = model.run(CAT, keep=addresses)
    wanted = by_hand.run(model.hf, hand, ids_of(model, CAT))
    assert float((found.logits[0] - wanted.logits).abs().max()) <= EXACT
    for (site, layer), values in wanted.seen.items():
        if site == "pattern":
            continue  # in test_weights
        own = found[site if layer is None else f"L*.{site}"].isel(prompt=0)
        own = own if layer is None else own.sel(layer=layer)
        assert own.shape == values.shape, (site, layer)
        assert gap("read", site, np.abs(own.values - values).max()) <= EXACT, (site, layer)


OPERATIONS = {
    "zero": lambda x: 0 * x,
    "scale(-1.5)": lambda x: -1.5 * x,
    "replace(0.75)": lambda x: 0 * x + 0.75,
}


POSITIONS = ([*range(LENGTH)], [LENGTH - 1], [1, 3])


IN_TURN = [(name, number) for name in FAMILIES for number in range(2 if name in UNLIKE else 1)]


@pytest.mark.parametrize(("name", "number"), IN_TURN, indirect=["name"])
def test_every_site_is_edited_as_by_hand(model, name, hand, gap, number):
    """Each site with one of the operations, in families that are unlike with two, at positions by
    turns."""
    ids = ids_of(model, MARY)
    clean = by_hand.run(model.hf, hand, ids)
    for place, site in enumerate(hand.sites):
        operation, op = [*OPERATIONS.items()][(turn(name) + place + number) % len(OPERATIONS)]
        positions = POSITIONS[(turn(name) // 3 + place + 2 * number) % len(POSITIONS)]
        layer = None if site in ("embed", "logits") else 1
        shape = clean.seen[site, layer].shape
        units = [0, shape[1] - 1] if site in UNITS else list(range(shape[1]))
        index = [positions, units, *(list(range(n)) for n in shape[2:])]
        chosen = f".{UNITS[site]}{{0,{shape[1] - 1}}}" if site in UNITS else ""
        where = ",".join(map(str, positions))
        text = f"{operation} {'' if layer is None else 'L1.'}{site}{chosen}@{{{where}}}"
        change = Change(site, layer, index, op)
        wanted = by_hand.run(model.hf, hand, ids, [change])
        found = model.run(MARY, edits=[text])
        assert gap("edit", site, (found.logits[0] - wanted.logits).abs().max()) <= EXACT, text
        assert float((wanted.logits - clean.logits).abs().max()) > 1e-6, text
        [receipt] = found.receipts
        assert receipt.changed > 0


OTHERS = (
    'mean(over="tensor")',
    'mean(over="positions")',
    "noise(std=2, seed=1)",
    'noise(how="add", relative=True)',
    "add(0.5)",
    "replace(0.25)",
    "shuffle(seed=1)",
)
CHANGES = ("zero {}", "patch {}@-1", "scale(0.5) {}@{{2,5}}")


def test_the_walk_equals_the_reference_path(model, name, hand, gap):
    """Each site with one of the changes and one of the prompts, by turns."""
    for place, site in enumerate(hand.sites[:-1]):
        where = site if site == "embed" else f"L*.{site}"
        unit = ".h1" if site == "q" or (site in ("k", "v", "z") and hand.kv_heads > 1) else ""
        text = CHANGES[(turn(name) % 2 + place + 1) % len(CHANGES)].format(where + unit)
        _, apart = on_both_paths(model, hand, text, [(CAT, MARY)[(turn(name) + place) % 2]])
        gap("walk", site, apart)


@pytest.mark.parametrize("name", UNLIKE, indirect=True)
def test_every_other_edit_walks_too(model, name, hand):
    """Three of them in each, by turns."""
    for shift in range(3):
        number = (turn(name) + shift) % len(OTHERS)
        site = ("z.h1", "resid_post", "mlp_out", "attn_out")[number % 4]
        on_both_paths(model, hand, f"{OTHERS[number]} L*.{site}@{{1,3}}", [MARY])


@pytest.mark.parametrize("name", UNLIKE, indirect=True)
def test_maps_over_heads_and_positions_walk_too(model, hand):
    axes, _ = on_both_paths(model, hand, "patch L1.k.h*@*", [MARY])
    assert axes == {"prompt": 1, "kv_head": hand.kv_heads, "pos": LENGTH}


@pytest.mark.parametrize("name", UNLIKE, indirect=True)
def test_small_batches_walk_too(model, hand):
    """Tiles of some of the cells, of one prompt or several."""
    question = asking(model, [CAT, MARY], "zero L*.z.h*@*", metrics=["kl"])
    (_, whole), (_, cut) = (mapped(model, question, "walk", memory) for memory in (None, 700_000))
    assert abs(whole["kl"] - cut["kl"]).max() <= hand.rounding


KINDS = ((torch.float64, "eager"), (torch.float32, None), (torch.bfloat16, None))
OF_KINDS = [
    (name, *kind)
    for name in FAMILIES
    for number, kind in enumerate(KINDS)
    if name in UNLIKE or number == turn(name) % len(KINDS)
    # Experts are chosen otherwise where rounding is coarse.
    if FAMILIES[name].neurons is not None or torch.bfloat16 not in kind
]


@pytest.mark.parametrize(("name", "dtype", "attention"), OF_KINDS, indirect=["name"], ids=str)
def test_other_types_and_attentions_walk_within_their_rounding(name, tokenizer, dtype, attention):
    hf = by_hand.make(name, len(tokenizer), dtype, attention)
    model = mt.load(hf, tokenizer=tokenizer)
    choice = hf.config._attn_implementation
    prompt = (CAT, MARY)[turn(name) % 2]
    effects = mt.sweep(model, prompt, "zero L*.k@*", metrics=["logit_diff"], verify=4)
    record = effects.provenance["verification"]
    assert record["cells"] >= 4
    if dtype == torch.float64:
        assert record["largest_difference"] <= FAMILIES[name].rounding
    assert hf.config._attn_implementation == choice


def test_a_patch_from_itself_changes_no_bit(model, hand):
    """At all sites together: whatever one changes, the next one puts back, and says so."""
    mirror = mt.Prompt(CAT.text, donor=CAT.text)
    edits = [f"patch {s if s in ('embed', 'logits') else f'L:.{s}'}" for s in hand.sites]
    found = model.run(mirror, edits=edits)
    for site, receipt in zip(hand.sites, found.receipts, strict=True):
        assert receipt.selected > 0 == receipt.norm, site
    assert torch.equal(found.logits, model.run(mirror).logits)


def test_what_it_lacks_is_refused_with_the_reason(model, hand):
    wanted = {"resid_mid": "read the same input", "mlp_post": "mixture of experts"}
    for site, why in wanted.items():
        if site not in hand.sites:
            with pytest.raises(AddressError, match=f"no site '{site}'.*{why}"):
                model.run(CAT, edits=[f"zero L0.{site}"])
            with pytest.raises(AddressError, match=why):
                mt.sweep(model, CAT, f"zero L*.{site}", metrics=["kl"])


REFUSED = {
    "opt": {"do_layer_norm_before": False},
    "bloom": {"apply_residual_connection_post_layernorm": True},
}


@pytest.mark.parametrize("family", REFUSED)
def test_a_configuration_of_another_shape_is_refused(family, tokenizer):
    hf = by_hand.make(family, len(tokenizer))
    for setting, value in REFUSED[family].items():
        setattr(hf.config, setting, value)
        with pytest.raises(ArchitectureError, match=f"{setting}={value}"):
            mt.load(hf, tokenizer=tokenizer)


def test_attention_that_is_asked_for_something_unknown_is_not_walked(tokenizer, monkeypatch):
    hf = by_hand.make("llama", len(tokenizer))
    model = mt.load(hf, tokenizer=tokenizer)
    for block in hf.model.layers:
        attention = block.self_attn

        def with_sinks(*a, normal=attention.forward, **k):
            return normal(*a, **k, sinks=1)

        monkeypatch.setattr(attention, "forward", theirs(with_sinks))
    vars(model).pop("proved")  # as if it had been so when it was loaded
    with pytest.raises(SweepError, match=r"with sinks.*engine='reference'"):
        mt.sweep(model, CAT, "zero L*.z.h*", metrics=["kl"])
