"""Paths: as two runs by hand, and equal to what they are at their ends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_edge_cells import EXACT, LATE
from test_engine import JOHN, SWAPPED, same_on_both_paths

import microtome as mt
from microtome.engines.walk import fronts, routes
from microtome.errors import AddressError, VerificationError
from microtome.plan.cost import _on_the_way
from microtome.plan.paths import bytes_on_the_way, first_written
from microtome.plan.plan import make_plan
from microtome.verbs.asking import asking
from oracles.edges import OPS, Edges, Node
from oracles.families import FAMILIES, LAYERS, Change
from oracles.readers import Oracle

VIAS = {"=>": ("mlp",), "=head=>": ("head",), "=all=>": ("head", "mlp")}
PATHS = (
    (Node("head", 0, 1), Node("q", 2, 3)),
    (Node("input"), Node("v", 2, 0)),
    (Node("mlp", 0), Node("mlp", 2)),
    (Node("head", 1, 2), Node("logits")),
    (Node("head", 0, 3), Node("z", 2, 1)),
)
ADDED = {"input": ("embed", None), "head": ("attn_out", 0), "mlp": ("mlp_out", 0)}


def everything(array: np.ndarray) -> list[list[int]]:
    return [list(range(n)) for n in array.shape]


def by_hand(oracle: Edges, writer: Node, reader: Node, via: tuple[str, ...], op, parallel: bool):
    """The writer is edited for all, with frozen parts; then the reader's part alone is put."""
    here, clean = oracle.here, oracle.here.run().seen
    change = oracle.change(writer, op)
    site, layer = ADDED[writer.kind]
    layer = None if layer is None else writer.layer
    changes = [Change(site, layer, everything(change), lambda own: own + change)]
    begin = {"input": -1.0, "head": writer.layer + 0.2, "mlp": writer.layer + 0.4}[writer.kind]
    end = {"logits": float(LAYERS), "mlp": reader.layer + (0.1 if parallel else 0.3)}.get(
        reader.kind, reader.layer + 0.1
    )
    for n in range(LAYERS):
        for part, name, when in (("head", "z", n + 0.2), ("mlp", "mlp_out", n + 0.4)):
            if part not in via and begin < when < end:
                kept = clean[name, n]
                changes.append(Change(name, n, everything(kept), lambda _, kept=kept: kept))
    seen = here.run(*changes).seen
    own = replace(here, layer=reader.layer)
    if reader.kind == "z":
        z = clean["z", reader.layer].copy()
        z[:, reader.head] = seen["z", reader.layer][:, reader.head]
        return here.run(Change("z", reader.layer, everything(z), lambda _: z))
    place = {"mlp": "resid_pre" if parallel else "resid_mid", "logits": "resid_post"}.get(
        reader.kind, "resid_pre"
    )
    at = place, (LAYERS - 1 if reader.kind == "logits" else reader.layer)
    arrived = seen[at] - clean[at]
    site = {"mlp": "mlp_in", "logits": "final_in"}.get(reader.kind, f"{reader.kind}_in")
    positions = list(range(len(arrived)))
    return own.edit(site, positions, [reader.head], lambda values: values + arrived)


@pytest.mark.parametrize("name", ["gpt2", "gemma2", "gpt_neox", "llama"])
def test_a_path_is_two_runs_by_hand(name, of_family):
    model = of_family(name)
    hand = FAMILIES[name]
    [one] = model.encode(LATE)
    oracle = Edges(Oracle(model.hf, hand, one.tokens.ids), one.donor.ids)
    for number, (writer, reader) in enumerate(PATHS):
        arrow, via = list(VIAS.items())[(number + len(name)) % len(VIAS)]
        text, op = list(OPS.items())[number % 3]
        wanted = by_hand(oracle, writer, reader, via, op, hand.rest is None)
        end = f"L{reader.layer}.z.h{reader.head}" if reader.kind == "z" else reader.reads
        edit = f"{text} {writer.writes} {arrow} {end}"
        found = model.run(LATE, edits=[edit])
        assert float((found.logits[0] - wanted.logits).abs().max()) <= 1e-10, edit
        assert found.receipts[0].changed > 0, edit


def test_a_path_to_the_end_by_every_part_is_the_writer_edited(tiny64):
    for writer in ("L0.z.h1", "embed", "L1.mlp_out"):
        path = tiny64.run(LATE, edits=[f"patch {writer} =all=> final_in"]).logits
        whole = tiny64.run(LATE, edits=[f"patch {writer}"]).logits
        assert float((path - whole).abs().max()) <= EXACT


def test_a_path_past_nothing_is_the_edge(tiny64):
    """From one layer into the next one's heads there is an MLP between, and that alone."""
    held = mt.edge("L0.z.h1", "L1.q_in.h2", via="head")
    apart = tiny64.run(LATE, edits=[mt.patch(held)]).logits
    edge = tiny64.run(LATE, edits=["patch L0.z.h1 -> L1.q_in.h2"]).logits
    assert float((apart - edge).abs().max()) <= EXACT
    through = tiny64.run(LATE, edits=["patch L0.z.h1 => L1.q_in.h2"]).logits
    assert float((through - edge).abs().max()) > 1e-6


def test_paths_are_swept_with_axes_of_both_ends(tiny64):
    effects = mt.sweep(tiny64, LATE, "patch L*.z.h*@5 => L*.z.h1@-1", metrics=["logit_diff"])
    assert effects.dims == ("prompt", "from_layer", "from_head", "layer")
    there = np.isfinite(effects.data["logit_diff"].values[0])
    assert there[0, :, 1:].all()
    assert not there[:, :, 0].any()
    assert effects.provenance["engine"]["name"] == "walk"
    assert np.abs(effects.delta("logit_diff").values[0][there]).min() > 1e-6
    still = mt.sweep(tiny64, LATE, "patch L0.z.h*@5 => L2.mlp_in@-1", metrics=["logit_diff"])
    assert float(abs(still.delta("logit_diff")).max()) == 0  # only heads read at other positions
    moved = mt.sweep(tiny64, LATE, "patch L0.z.h*@5 =all=> L2.mlp_in@-1", metrics=["logit_diff"])
    assert float(abs(moved.delta("logit_diff")).min()) > 1e-6
    here = mt.sweep(tiny64, LATE, "patch L0.z.h*@5 => L1.z.h1@5", metrics=["logit_diff"])
    assert float(abs(here.delta("logit_diff")).min()) > 1e-6  # a token attends to itself, too


WALKED = (
    "patch L*.z.h{1,2} => L2.q_in.h*",
    "zero L*.z.h1 =head=> L*.k_in.h*@2:",
    "patch L0.head_out.h*@{1,4} =all=> L*.v_in.h1@*",
    "scale(-0.5) L*.mlp_out => L*.mlp_in",
    "zero L*.mlp_out@3 =head=> L*.mlp_in@{3,-1}",
    "patch embed =all=> L*.z.h1",
    "patch embed => L2.z.h*@-1",
    "zero L*.z.h2 =head=> L*.z.h{0,3}",
    "patch L0.z.h* =all=> L1:.v_in",
    "add(0.5) L*.attn_out =head=> final_in",
    "zero L*.z.h:@giver => final_in@-1",
    'mean(over="prompts") L*.z.h1 =all=> L2.mlp_in@*',
    'mean(over="positions") L*.z.h1 =head=> L*.k_in.h*@3',
    "noise(mean=3) L*.mlp_out =all=> L*.q_in.h1.d{3,5}@-1",
    "patch L*.z.h1@-1 => L2.z.h*@2",
)


@pytest.mark.parametrize("edit", WALKED)
def test_paths_walk(tiny64, edit):
    prompts = [JOHN, SWAPPED] if "prompts" in edit else [JOHN, LATE]
    same_on_both_paths(tiny64, prompts, edit)


@pytest.mark.parametrize("name", ["gemma2", "gpt_neox", "llama", "bloom", "modernbert", "mixtral"])
def test_paths_walk_in_every_kind_of_block(name, of_family):
    """Post-norms, parallel, grouped, with its own cache, an encoder, experts."""
    model = of_family(name)
    for edit in (
        "patch L*.z.h1 => L*.mlp_in",
        "zero L*.mlp_out =head=> L*.v_in.h2@-1",
        "patch embed@* =all=> L2.z.h1",
    ):
        walked, slow = (
            mt.sweep(model, LATE, edit, metrics=["loss", "kl"], engine=engine, verify=0)
            for engine in ("walk", "reference")
        )
        for metric in walked.metrics:
            assert float(abs(walked.data[metric] - slow.data[metric]).max()) < 1e-9, edit
        assert float(abs(walked.delta("loss")).max()) > 1e-4, edit


def test_paths_walk_beside_other_edits(tiny64):
    edits = [
        "patch L0.z.h* => L*.q_in.h1",
        "zero L1.mlp_post.n{1,2}@-1",
        "zero L0.mlp_out -> final_in",
    ]
    same_on_both_paths(tiny64, [JOHN, LATE], edits)


def test_of_a_path_that_begins_behind_another_edit_nothing_arrives_before_it(tiny64):
    """The cell starts at the other edit, and reads at tokens that the writer changes nothing of."""
    edits = ["zero L0.mlp_out@1", "zero L0.z.h1@4 =all=> L2.mlp_in@{2,4,5}"]
    same_on_both_paths(tiny64, [JOHN, LATE], edits)


def test_streams_that_do_not_fit_go_some_at_a_time(tiny64, monkeypatch):
    """Begun again for readers of later layers, and the same."""
    edit, asked = "patch L*.z.h* =all=> L*.z.h1", {"metrics": ["logit_diff"], "verify": 1}
    whole = mt.sweep(tiny64, [JOHN, LATE], edit, **asked)
    monkeypatch.setattr(routes, "writers_at_once", lambda *_: 3)
    begun = []
    monkeypatch.setattr(routes.Front, "__post_init__", counting(routes.Front, begun))
    parts = mt.sweep(tiny64, [JOHN, LATE], edit, **asked)
    assert len(begun) > 2 * 3
    assert max(begun) == 3
    assert float(abs(parts.data["logit_diff"] - whole.data["logit_diff"]).max()) < EXACT


def counting(front, begun):
    begin = front.__post_init__

    def counted(self):
        begun.append(len(self.layers))
        begin(self)

    return counted


def test_one_run_of_a_writer_is_for_all_readers(tiny64, monkeypatch):
    """Readers of two layers, and of one prompt after another: each prompt's writers go once."""
    begun = []
    monkeypatch.setattr(routes.Front, "__post_init__", counting(routes.Front, begun))
    mt.sweep(tiny64, [JOHN, LATE], "patch L*.z.h* => L*.q_in.h*", metrics=["kl"], verify=0)
    assert begun == [8, 8]


@pytest.mark.parametrize("part", ["attn_out", "mlp_out"])
def test_a_part_that_is_not_held_is_found(tiny64, monkeypatch, part):
    """By verification, which runs whole passes with what is between held by hooks."""
    edit = "patch L0.z.h* =head=> L2.z.h1" if part == "mlp_out" else "patch L0.z.h* => L2.z.h1"
    whole = routes.Way.holds
    free = {"attn_out": "head", "mlp_out": "mlp"}[part]
    mt.sweep(tiny64, LATE, edit, metrics=["kl"])
    monkeypatch.setattr(routes.Way, "holds", lambda way, one: one != free and whole(way, one))
    with pytest.raises(VerificationError):
        mt.sweep(tiny64, LATE, edit, metrics=["kl"])


def test_what_no_way_leads_to_needs_no_run(tiny64, monkeypatch):
    """MLPs move nothing; heads nothing to what comes before."""
    begun = []
    monkeypatch.setattr(routes.Front, "__post_init__", counting(routes.Front, begun))
    for edit in ("patch L0.z.h*@5 => L2.mlp_in@{3,-1}", "patch L0.z.h*@-1 =all=> L2.z.h1@5"):
        effects = mt.sweep(tiny64, LATE, edit, metrics=["logit_diff"])
        assert float(abs(effects.delta("logit_diff")).max()) == 0
        assert float(effects.data["values_changed"].max()) == 0
    assert not begun


def test_a_plan_begins_where_a_path_does_and_holds_the_streams_of_every_parameter(tiny64):
    own = {"metrics": ["loss"]}
    plan = make_plan(asking(tiny64, LATE, "scale(0.5) L*.z.h*@-1 => final_in@-1", **own))
    many = {"over": {"factor": [0.1, 0.2, 0.3]}, **own}
    thrice = make_plan(asking(tiny64, LATE, "scale(0.5) L*.z.h*@-1 => final_in@-1", **many))
    length = len(plan.question.encoded[0].tokens)
    assert first_written(plan.cells, 0, plan.cells.of_prompt(0)) == length - 1
    held = [
        bytes_on_the_way(one.cells, [0], tiny64.anatomy.dims, 1, 2**31, 8) for one in (plan, thrice)
    ]
    assert held[1] == 3 * held[0]
    # Operations too: cells that read at the end run no block in the second run of a path.
    once, three_times = (
        sum(_on_the_way(one.cells, unit, length, tiny64.anatomy.dims) for unit in one.units)
        for one in (plan, thrice)
    )
    layers = range(tiny64.anatomy.dims.n_layers)
    assert once == tiny64.anatomy.dims.n_heads * sum(layers) + tiny64.anatomy.dims.n_heads * len(
        layers
    )
    assert three_times == 3 * once


@pytest.mark.parametrize("edit", ["patch embed => L*.v_in.h*", "patch L*.z.h* => final_in@-1"])
def test_a_donor_that_is_the_text_itself_changes_nothing(tiny64, edit):
    same = replace(JOHN, donor=JOHN.text)
    same_on_both_paths(tiny64, same, edit)
    found = mt.sweep(tiny64, same, edit, metrics="logit_diff")
    assert (found.data["change_norm"] == 0).all()
    assert (found.delta("logit_diff") == 0).all()


def test_what_is_no_path_is_refused(tiny64):
    with pytest.raises(AddressError, match="begins in one layer"):
        mt.edit("zero L0:2.mlp_out => final_in")
    with pytest.raises(AddressError, match="no such edge"):
        tiny64.run(LATE, edits=["zero L2.z.h1 => L1.z.h0"])


def test_streams_on_which_memory_ran_out_are_begun_again(tiny64, monkeypatch):
    """A part of them may be a block further than the others then."""
    edit, asked = "patch L0.z.h* =all=> final_in@-1", {"metrics": ["logit_diff"], "verify": 0}
    whole = mt.sweep(tiny64, LATE, edit, **asked)
    tile, calls = fronts.Front._tile, []

    def cramped(self, rows, before):
        calls.append(self.at)
        if len(calls) == 6:
            raise torch.OutOfMemoryError("CUDA")
        tile(self, rows, before)

    monkeypatch.setattr(fronts.Way, "rows", lambda _: 1)
    monkeypatch.setattr(fronts.Front, "_tile", cramped)
    halved = mt.sweep(tiny64, LATE, edit, **asked)
    assert float(abs(halved.data["logit_diff"] - whole.data["logit_diff"]).max()) < EXACT
    assert calls[:7] == [0, 0, 0, 0, 1, 1, 0]
