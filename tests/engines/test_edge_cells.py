"""Cells of edges: identities, a closed form, and what every sweep promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_engine import CAT, JOHN, SWAPPED, same_on_both_paths

import microtome as mt
from microtome.engines.walk import entering
from microtome.engines.walk.resumed import Resumed
from microtome.errors import AddressError, EditError, PromptError, SweepError, VerificationError
from microtome.passes.head_reads import HeadReads

EXACT = 1e-11
LAYERS, HEADS = 3, 4
LATE = mt.Prompt(
    "The cat sat on the mat, and",
    donor="The cat sat on the dog, and",
    target=" cat",
    contrast=" dog",
    roles={"giver": 1},
)

EDITS = (
    "patch L*.z.h1 -> L*.q_in.h*",
    "zero L*.z.h* -> L*.k_in.h2@2:",
    "scale(-0.5) L*.mlp_out -> L*.v_in.h*@*",
    "mean L*.z.h1@* -> L*.mlp_in",
    'mean(over="positions") L1.z.h* -> L2.q_in.h{0,3}',
    'mean(over="prompts") L*.head_out.h3 -> L*.k_in.h*',
    'noise(std=2, how="add", relative=True) L*.z.h* -> L*.v_in.h1',
    "noise(mean=3) embed -> L*.q_in.h*@giver",
    "add(0.5) L*.attn_out -> final_in",
    "patch L0:2.mlp_out -> L2.q_in.h*.d{3,5}",
    "patch L{0,1}.z.h{1,2} -> L2.mlp_in@*",
    "patch embed -> L:.v_in",
)


@pytest.mark.parametrize("edit", EDITS)
def test_the_walk_equals_the_reference_path(tiny64, edit):
    prompts = [JOHN, SWAPPED] if "prompts" in edit else [JOHN, LATE]
    same_on_both_paths(tiny64, prompts, edit)


def readers_behind(layer: int, own_mlp: bool) -> list[str]:
    """All that reads behind a layer; of its own, the MLP."""
    later = [f"L{n}.{part}_in" for n in range(layer + 1, LAYERS) for part in "qkv"]
    mlps = [f"L{n}.mlp_in" for n in range(layer + (not own_mlp), LAYERS)]
    return [*later, *mlps, "final_in"]


@pytest.mark.parametrize("operation", ["zero", "patch", "noise(seed=3)"])
@pytest.mark.parametrize(
    ("writer", "layer", "own_mlp"),
    [("embed", -1, False), ("L0.z.h1", 0, True), ("L1.mlp_out", 1, False)],
)
def test_all_edges_out_of_a_writer_are_the_writer(tiny64, operation, writer, layer, own_mlp):
    operation = operation if writer != "L0.z.h1" else operation.replace("noise(seed=3)", "zero")
    edges = [f"{operation} {writer} -> {reader}" for reader in readers_behind(layer, own_mlp)]
    apart = tiny64.run(CAT, edits=edges).logits
    whole = tiny64.run(CAT, edits=[f"{operation} {writer}"]).logits
    assert float((apart - whole).abs().max()) <= EXACT
    assert float((whole - tiny64.run(CAT).logits).abs().max()) > 1e-3


@pytest.mark.parametrize("reader", ["L2.q_in.h1", "L1.k_in.h0", "L2.v_in", "L1.mlp_in", "final_in"])
def test_all_edges_into_a_reader_patched_are_its_site_patched(tiny64, reader):
    layer = LAYERS if reader == "final_in" else int(reader[1])
    writers = ["embed", *(f"L{n}.{site}" for n in range(layer) for site in ("z", "mlp_out"))]
    writers += [f"L{layer}.z"] if "mlp" in reader else []
    apart = tiny64.run(CAT, edits=[f"patch {writer} -> {reader}" for writer in writers]).logits
    whole = tiny64.run(CAT, edits=[f"patch {reader}"]).logits
    assert float((apart - whole).abs().max()) <= EXACT
    assert float((whole - tiny64.run(CAT).logits).abs().max()) > 1e-4


@pytest.fixture(scope="module")
def linear(make_gpt2, tokenizer):
    """Every token attends to all before it alike, no MLP, no norm: logits are linear."""
    hf = make_gpt2(dtype=torch.float64)
    hf.transformer.ln_f = torch.nn.Identity()
    for block in hf.transformer.h:
        block.ln_1, block.ln_2 = torch.nn.Identity(), torch.nn.Identity()
    model = mt.load(hf.eval(), tokenizer=tokenizer)  # which proves that queries count
    with torch.no_grad():
        for block in hf.transformer.h:
            block.attn.c_attn.weight[:, : 2 * 32] = 0
            block.attn.c_attn.bias[: 2 * 32] = 0
            block.mlp.c_proj.weight.zero_()
    return model


def values_and_out(hf, layer):
    """W_V and W_O of each head, ``[head, d_model, d_head]`` and ``[head, d_head, d_model]``."""
    attention = hf.transformer.h[layer].attn
    value = attention.c_attn.weight.detach().numpy()[:, 64:].reshape(32, HEADS, 8)
    return value.transpose(1, 0, 2), attention.c_proj.weight.detach().numpy().reshape(HEADS, 8, 32)


def test_in_a_linear_model_an_edge_is_a_product_of_matrices(linear):
    """Head 0.h into the values of head 1.g, and from there by what layer 2 makes of it."""
    length = len(linear.encode(CAT)[0].tokens)
    mix = np.tril(np.ones((length, length))) / np.arange(1, length + 1)[:, None]
    kept = linear.run(CAT, keep=["L0.head_out"])["L0.head_out"].values[0]
    donor = linear.run(mt.Prompt(CAT.donor), keep=["L0.head_out"])["L0.head_out"].values[0]
    value, out = values_and_out(linear.hf, 1)
    after = sum(v @ o for v, o in zip(*values_and_out(linear.hf, 2), strict=True))
    unembed = linear.hf.lm_head.weight.detach().numpy()
    [one] = linear.encode(CAT)
    direction = unembed[one.target] - unembed[one.contrast]
    wanted = np.empty((HEADS, HEADS))
    for h, g in np.ndindex(HEADS, HEADS):
        added = mix @ (donor[:, h] - kept[:, h]) @ value[g] @ out[g]
        wanted[h, g] = ((added + mix @ added @ after) @ direction)[-1]
    effects = mt.sweep(linear, CAT, "patch L0.z.h* -> L1.v_in.h*", metrics=["logit_diff"])
    found = effects.delta("logit_diff").values[0]
    assert np.abs(found - wanted).max() <= 1e-11
    assert np.abs(wanted).min() > 1e-6
    nothing = mt.sweep(linear, CAT, "patch L0.z.h* -> L1.q_in.h*", metrics=["logit_diff"])
    assert np.abs(nothing.delta("logit_diff").values).max() <= 1e-11


def test_what_is_no_edge_is_absent_and_counted(tiny64):
    effects = mt.sweep(tiny64, LATE, "patch L*.z.h* -> L*.q_in.h*", metrics=["logit_diff"])
    assert effects.dims == ("prompt", "from_layer", "from_head", "layer", "head")
    there = np.isfinite(effects.data["logit_diff"].values[0])
    for early, late in np.ndindex(LAYERS, LAYERS):
        assert there[early, :, late].all() == (early < late)
        assert there[early, :, late].any() == (early < late)
    predicted = effects.provenance["predicted"]
    assert predicted["absent"] == 6 * HEADS**2
    assert predicted["why_absent"] == "a writer is not before its reader"
    assert effects.provenance["spec"]["edits"] == ["patch L*.z.h* -> L*.q_in.h*"]
    assert effects.provenance["verification"]["cells"] >= 4


def test_positions_are_starred_on_either_side_with_one_result(tiny64):
    one = mt.sweep(tiny64, CAT, "patch L0.z.h* -> L2.k_in.h1@*", metrics=["logit_diff"])
    other = mt.sweep(tiny64, CAT, "patch L0.z.h*@* -> L2.k_in.h1", metrics=["logit_diff"])
    assert (one.dims, other.dims) == (
        ("prompt", "from_head", "pos"),
        ("prompt", "from_head", "from_pos"),
    )
    gap = one.data["logit_diff"].values - other.data["logit_diff"].values
    assert np.abs(gap).max() <= EXACT


def test_parameters_and_gauges_go_with_edges(tiny64):
    edit, over = "scale(0.5) L*.mlp_out -> L*.q_in.h2", {"factor": [0.0, 1.0, -2.0]}
    metrics = ["logit_diff", "norm(L2.mlp_in@-1)", "norm(L2.q@-1)"]
    walked, slow = (
        mt.sweep(tiny64, CAT, edit, metrics=metrics, over=over, engine=engine)
        for engine in ("walk", "reference")
    )
    for name in walked.metrics:
        assert float(abs(walked.data[name] - slow.data[name]).max()) <= 1e-9
    same = walked.delta("logit_diff").sel(factor=1.0)
    assert float(abs(same).max()) <= EXACT
    zeroed = mt.sweep(tiny64, CAT, "zero L*.mlp_out -> L*.q_in.h2", metrics=["logit_diff"])
    gap = zeroed.data["logit_diff"] - walked.data["logit_diff"].sel(factor=0.0)
    assert float(abs(gap).max()) <= EXACT


def test_what_is_looked_at_before_attention_is_each_cells_own(tiny64):
    """Cells that enter by what heads read share a row through attention, unless they are seen."""
    metrics = ["norm(L2.q@-1)", "norm(L2.q_in.h0@-1)"]
    walked, slow = (
        mt.sweep(tiny64, CAT, "patch L0.z.h* -> L2.q_in.h*@-1", metrics=metrics, engine=engine)
        for engine in ("walk", "reference")
    )
    for name in metrics:
        np.testing.assert_allclose(walked.data[name], slow.data[name], rtol=0, atol=1e-9)


def test_donors_of_another_length_are_aligned_by_roles(tiny64):
    prompt = mt.Prompt(
        "The cat sat on the mat",
        donor="Berlin is the capital of Germany, and Berlin",
        target=" cat",
        contrast=" dog",
        roles={"who": (1, 7), "giver": 2},
    )
    with pytest.raises(PromptError, match="differ in length"):
        tiny64.run(prompt, edits=["patch L0.z.h1 -> L2.q_in.h0"])
    edge = "L0.z.h1@{who,last} -> L2.v_in.h0"
    same_on_both_paths(tiny64, [prompt], f"patch {edge}")
    kept = tiny64.run(prompt, keep=["L0.head_out.h1"])["L0.head_out.h1"].values[0, :, 0]
    donor = tiny64.run(mt.Prompt(prompt.donor), keep=["L0.head_out.h1"])
    change = donor["L0.head_out.h1"].values[0, [7, -1], 0] - kept[[1, -1]]
    by_hand = mt.add("L2.v_in.h0@{who,last}", change[:, None])
    gap = (
        tiny64.run(prompt, edits=[f"patch {edge}"]).logits
        - tiny64.run(prompt, edits=[by_hand]).logits
    )
    assert float(gap.abs().max()) <= EXACT


def test_memory_changes_nothing_and_what_does_not_fit_is_refused(tiny64):
    edit = "patch L*.z.h* -> L*.q_in.h*"
    whole, cut = (
        mt.sweep(tiny64, [JOHN, LATE], edit, metrics=["kl"], memory=memory)
        for memory in (None, 400_000)
    )
    assert float(abs(whole.data["kl"] - cut.data["kl"]).max()) <= EXACT
    with pytest.raises(SweepError, match="bytes are too few"):
        mt.sweep(tiny64, JOHN, edit, metrics=["kl"], memory=20_000)


def test_heads_that_read_the_same_share_a_row_of_attention(tiny64, monkeypatch):
    """Not a row for each cell: one for each writer, and the clean run's."""
    seen = []
    fewer = entering.Rows.fewer

    def watched(self, x):
        seen.append((len(x), len(fewer(self, x))))
        return fewer(self, x)

    monkeypatch.setattr(entering.Rows, "fewer", watched)
    mt.sweep(tiny64, LATE, "patch L0.z.h* -> L1.k_in.h*", metrics=["kl"], verify=0)
    assert seen == [(HEADS * HEADS + 1, HEADS + 1)]


def test_what_reads_one_number_each_shares_no_row(tiny64):
    """Of one writer, and of as many streams as there are numbers that differ."""
    edge = "patch L1.mlp_out -> L2.q_in.h1.d"
    walked = mt.sweep(tiny64, LATE, f"{edge}*", metrics=["logit_diff"], verify=0)
    for number in (3, 30):
        [alone] = tiny64.run(LATE, edits=[f"{edge}{number}"]).measure("logit_diff")["edited"]
        gap = walked.data["logit_diff"].sel(d=number).item() - alone
        assert abs(gap) <= EXACT, number


def test_verification_finds_an_entry_that_is_wrong(tiny64, monkeypatch):
    """On the walk alone: the reference path has a row of its own for each cell."""
    of_all = HeadReads.of_all
    monkeypatch.setattr(HeadReads, "of_all", lambda self, stream: 1.01 * of_all(self, stream))
    with pytest.raises(VerificationError):
        mt.sweep(tiny64, LATE, "patch L*.z.h* -> L*.v_in.h*", metrics=["logit_diff"], verify=2)


def test_a_donor_that_is_the_text_changes_nothing(tiny64):
    mirror = mt.Prompt(CAT.text, donor=CAT.text, target=" cat", contrast=" dog")
    run = tiny64.run(mirror, edits=["patch L0.z.h1 -> L1.q_in.h2", "patch embed -> final_in"])
    assert torch.equal(run.logits, tiny64.run(mirror).logits)
    assert [receipt.changed for receipt in run.receipts] == [0, 0]


@pytest.mark.parametrize("shape", [{"n_layer": 1, "n_head": 1}, {"n_layer": 2, "n_head": 1}])
def test_the_smallest_models_and_texts(make_gpt2, tokenizer, shape):
    model = mt.load(make_gpt2(dtype=torch.float64, **shape), tokenizer=tokenizer)
    prompt = mt.Prompt("The", donor="Rome", target=" cat", contrast=" dog")
    for kind in mt.edges(model).kinds:
        walked, slow = (
            mt.sweep(model, prompt, f"patch {kind.text}", metrics=["logit_diff"], engine=engine)
            for engine in ("walk", "reference")
        )
        gap = abs(walked.data["logit_diff"] - slow.data["logit_diff"])
        assert float(gap.max()) <= EXACT


def test_half_precision_is_verified(make_gpt2, tokenizer):
    model = mt.load(make_gpt2(dtype=torch.bfloat16), tokenizer=tokenizer)
    effects = mt.sweep(model, LATE, "zero L*.z.h* -> L*.q_in.h*", metrics=["logit_diff"])
    assert effects.provenance["verification"]["cells"] >= 4


@pytest.mark.parametrize(
    ("edit", "error", "message"),
    [
        ("zero L2.z.h0 -> L2.q_in.h1", AddressError, r"not before what reads it.*no such edge"),
        ("zero L1.mlp_out -> L1.mlp_in", AddressError, "no such edge"),
        ("zero L:.mlp_out -> L2.mlp_in", AddressError, "no such edge"),
        ("zero L2.z.h* -> L*.q_in.h0", AddressError, "no such edge"),
        ("shuffle L0.z.h1 -> L1.q_in", EditError, "shuffle makes no sense on an edge.*patch, zero"),
        ("replace(1) L0.z.h1 -> L1.q_in", EditError, "replace makes no sense on an edge"),
        ("knockout L0.z.h1 -> L1.q_in", EditError, "knockout makes no sense on an edge"),
        ("add([1.0, 2.0]) L0.z.h1 -> L1.q_in", EditError, r"\[32\]"),
        ("zero L0.z.h9 -> L1.q_in.h0", AddressError, "head 9 does not exist"),
        ("zero L0.z.h1 -> L1.k_in_group.h0", AddressError, "no two heads share"),
        ("zero L0.z.h1 -> L1.q_in.h0@99", AddressError, "pos 99 does not exist"),
    ],
)
def test_what_cannot_be_is_refused(tiny64, edit, error, message):
    with pytest.raises(error, match=message):
        mt.sweep(tiny64, CAT, edit, metrics=["logit_diff"])


def test_a_run_takes_no_stars(tiny64):
    with pytest.raises(AddressError, match="has stars, which only a sweep can walk"):
        tiny64.run(CAT, edits=["zero L0.z.h* -> L1.q_in.h0"])
    with pytest.raises(PromptError, match="donor"):
        tiny64.run("The cat sat", edits=["patch L0.z.h1 -> L1.q_in.h0"])


def test_cells_of_shares_that_do_not_change_are_settled_without_a_run(tiny64, monkeypatch):
    """The donor differs from the text in one token, so that the others' embeddings are the same."""
    walked = []
    blocks = Resumed.__call__
    monkeypatch.setattr(
        Resumed,
        "__call__",
        lambda self, layer, x, *rest: walked.append(len(x)) or blocks(self, layer, x, *rest),
    )
    effects = mt.sweep(
        tiny64, LATE, "patch embed -> L2.v_in.h*@*", metrics=["logit_diff"], verify="all"
    )
    moved = effects.data["values_changed"].values[0].any(axis=0)
    assert moved.nonzero()[0].tolist() == [5]
    assert float(abs(effects.delta("logit_diff").sel(pos=[0, 1, 2, 3, 4, 6, 7])).max()) == 0
    assert max(walked) == HEADS + 1  # an idler goes along
    nothing = mt.sweep(tiny64, LATE, "scale(1) L0.z.h* -> L2.k_in.h*", metrics=["logit_diff"])
    assert float(abs(nothing.delta("logit_diff")).max()) == 0
