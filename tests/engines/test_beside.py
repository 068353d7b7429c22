"""Cells that start at several positions go through a block side by side: as the reference path."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import microtome as mt
from families.both import compared
from microtome.engines.walk import walk as engine
from microtome.engines.walk.resumed import Beside, Resumed
from microtome.model.call import Call
from microtome.passes.segments import Segment
from microtome.passes.trace import trace
from microtome.plan import units
from microtome.plan.beside import goes_beside, together
from microtome.plan.memory.budget import Budget
from microtome.plan.memory.room import Room
from microtome.plan.plan import make_plan
from microtome.verbs import options
from microtome.verbs.options import budget_of
from microtome.verbs.sweep import asking
from oracles.families import ENCODERS, UNLIKE, turn

TEXT = "When Mary and John went to the store"
DONOR = "When John and Mary gave to the store"
PROMPT = mt.Prompt(TEXT, donor=DONOR, target=" Mary", contrast=" John")
SHORT = mt.Prompt("The cat sat on", donor="The dog sat on", target=" dog", contrast=" cat")
LIKE_IT = mt.Prompt("The dog sat on", donor="The cat sat on", target=" cat", contrast=" dog")
INSIDE = ["norm(L*.resid_mid)", "std(L*.attn_out)", "cosine(L*.resid_post@0, -1)"]
LITTLE = 240_000
METRICS = ["logit_diff", "kl@3"]
KINDS = [*(name for name in UNLIKE if name not in ENCODERS), "mistral", "gemma3_text"]
EDITS = ("zero L*.attn_out@*", "scale(0.5) L*.mlp_out@*", "patch L*.resid_post@*")


@pytest.fixture(autouse=True)
def rows(monkeypatch):
    """How many batches went through a block in each row; none waits for company."""
    monkeypatch.setitem(options.BESIDE, "cpu", 0)
    found = []
    side_by_side = Resumed.side_by_side

    def noted(self, layer, x, some):
        found.append(len(some))
        assert x.shape[1] <= options.TILES["cpu"]
        return side_by_side(self, layer, x, some)

    monkeypatch.setattr(Resumed, "side_by_side", noted)
    return found


def same_on_both_paths(model, prompts, edits, metrics=METRICS, over=None):
    compared(model, edits, prompts, metrics, lambda size: 1e-9, over)


@pytest.mark.parametrize("name", KINDS)
def test_in_families_of_every_kind(of_family, rows, name):
    model, edits = of_family(name), EDITS[turn(name) % 3]
    same_on_both_paths(model, PROMPT, edits)
    assert bool(rows) == (not model.anatomy.dims.copies_prefix)


@pytest.mark.parametrize("name", ["gemma2", "mixtral"])
def test_what_is_measured_inside_is_each_batchs_own(of_family, rows, name):
    model = of_family(name)
    metrics = [*METRICS, *INSIDE]
    same_on_both_paths(model, [SHORT, LIKE_IT], "scale(2) L*.mlp_out@*", metrics=metrics)
    assert max(rows) == 4


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_as_the_model_attends(make_gpt2, tokenizer, rows, attention):
    hf = make_gpt2(attn_implementation=attention, dtype=torch.float64)
    model = mt.load(hf, tokenizer=tokenizer)
    for edits in ("patch L*.resid_pre@*", ["zero L*.resid_mid@*", "scale(2) L2.resid_pre@-1"]):
        same_on_both_paths(model, PROMPT, edits)
    assert rows


def test_in_half_precision(make_gpt2, tokenizer, rows):
    """Verification holds it, behind the edit too; cells that change nothing are the clean run."""
    model = mt.load(make_gpt2(dtype=torch.bfloat16), tokenizer=tokenizer)
    found = mt.sweep(model, PROMPT, "patch L*.resid_post@*", metrics="logit_diff", verify="all")
    still = mt.sweep(model, PROMPT, "scale(1) L*.resid_post@*", metrics="logit_diff")
    assert rows
    assert found.n_unchanged < found.n_cells / 2
    assert float(abs(still.delta("logit_diff")).max()) < 0.02


def test_a_later_batch_may_enter_earlier(tiny64, rows, monkeypatch):
    """As in a part of a prompt's cells that begins in the middle of a layer."""
    monkeypatch.setattr(units, "WORK", 0.0)
    monkeypatch.setattr(units, "PASSES", 0)
    monkeypatch.setattr(units, "_parts", lambda *_: [(0, 2), (2, 12)])
    same_on_both_paths(tiny64, SHORT, "zero L*.attn_out@*")
    assert rows


def test_each_token_has_its_own_arguments():
    places = torch.arange(4)
    call = Call({"cache_position": places, "position_ids": places[None], "scaling": 2.0}, None)
    found = call.at(torch.tensor([3, 1, 2]))
    assert found["cache_position"].tolist() == [3, 1, 2]
    assert found["position_ids"].tolist() == [[3, 1, 2]]
    assert (found["scaling"], found["attention_mask"]) == (2.0, None)


def test_a_mask_is_where_the_layer_is(of_family):
    """Which accelerate sees to of a block's arguments, and of nothing else."""
    model = of_family("mistral")
    [one] = model.encode(PROMPT)
    clean = trace(model.hf, model.anatomy, [one.tokens])
    away = replace(clean, keys=tuple(own.to("meta") for own in clean.keys))
    part = Resumed(model, away)._part(0, Beside(Segment(0, 1, 5), [0], 3))
    assert part.mask is not None
    assert (part.mask.device, tuple(part.mask.shape[2:])) == (torch.device("meta"), (5, 8))


def test_those_that_share_a_row_of_attention_go_by_themselves(tiny64, rows):
    over = {"factor": [0.1, 1.0, 4.0]}
    same_on_both_paths(tiny64, PROMPT, mt.scale("L*.attn_out@*", 1.0), over=over)
    assert not rows  # all three factors enter each layer together, at each position
    same_on_both_paths(tiny64, PROMPT, mt.scale("L1.attn_out@*", 1.0), over=over)
    assert len(rows) == 1  # behind it they are nothing but rows, in the last layer


def test_heads_and_neurons_go_by_themselves(tiny64):
    for edits, beside in (
        ("patch L*.resid_post@*", True),
        ("zero L*.z.h*@*", False),
        ("zero L*.mlp_post.n{1,2}@*", False),
        ("patch L*.mlp_out -> final_in@*", False),
    ):
        plan = make_plan(asking(tiny64, PROMPT, edits, metrics="kl"), budget=budget_of(tiny64))
        assert goes_beside(plan.cells, tiny64.anatomy.dims) == beside, edits


def test_nobody_looks_at_what_single_heads_read_in_a_row_of_several(tiny64, rows):
    metrics = ["logit_diff", "norm(L2.q_in.h*@*)", "norm(L2.q.h*@*)"]
    same_on_both_paths(tiny64, PROMPT, "scale(2) L0.resid_post@*", metrics=metrics)
    assert len(rows) == 1  # in layer 1


def test_an_encoders_cells_all_start_at_the_first_token(of_family):
    model = of_family("bert")
    plan = make_plan(asking(model, SHORT, "zero L*.resid_pre@*", metrics="norm(L*.resid_post@0)"))
    assert not goes_beside(plan.cells, model.anatomy.dims)


@pytest.mark.parametrize(("end", "memory", "bytes_of_two"), [(1, 165, 160), (50, 245, 240)])
def test_they_share_memory_and_a_tile(tiny64, end, memory, bytes_of_two):
    room = Room(
        held=100, cell=10, row=5, end=end, exact=0, tile=4, batch=50, ends=1, reads=1, look=0,
        looks=1,
    )  # fmt: skip
    plan = make_plan(asking(tiny64, PROMPT, EDITS[0], metrics="kl"))
    six, dims = [(n, room, 2) for n in range(6)], tiny64.anatomy.dims
    found = [*together(six, plan.cells, dims, Budget(memory=memory))]
    assert found == [([n, n + 1], bytes_of_two) for n in (0, 2, 4)]


def test_as_many_as_memory_allows(tiny64, rows):
    whole, cut = (
        mt.sweep(tiny64, PROMPT, EDITS[2], metrics="kl", memory=memory, verify=0)
        for memory in (None, LITTLE)
    )
    assert float(abs(whole.data["kl"] - cut.data["kl"]).max()) < 1e-12
    assert cut.provenance["predicted"]["bytes"] <= LITTLE < whole.provenance["predicted"]["bytes"]


def test_where_memory_runs_out_half_of_them_go_on(tiny64, monkeypatch):
    walk, sizes = engine.Stretch._walk, []

    def cramped(self, convoy, told):
        sizes.append((len(convoy), sum(len(batch) for batch, _ in convoy)))
        if sizes[-1][1] > 4:
            raise torch.OutOfMemoryError("CUDA")
        walk(self, convoy, told)

    whole = mt.sweep(tiny64, PROMPT, EDITS[2], metrics="kl")
    monkeypatch.setattr(engine.Stretch, "_walk", cramped)
    halved = mt.sweep(tiny64, PROMPT, EDITS[2], metrics="kl")
    assert sizes[0][0] > 5
    assert (1, 3) in sizes or (1, 4) in sizes
    assert float(abs(whole.data["kl"] - halved.data["kl"]).max()) < 1e-12
    assert "halved" in halved.provenance["engine"]["notes"][0]


@pytest.mark.parametrize(("tile", "convoys"), [(512, 1), (8, 6)])
def test_no_more_of_them_than_fill_a_tile_in_each_block(tiny64, monkeypatch, tile, convoys):
    monkeypatch.setitem(options.TILES, "cpu", tile)
    walk, sizes = engine.Stretch._walk, []

    def noted(self, convoy, told):
        sizes.append(len(convoy))
        walk(self, convoy, told)

    monkeypatch.setattr(engine.Stretch, "_walk", noted)
    same_on_both_paths(tiny64, PROMPT, EDITS[0])
    assert len(sizes) == convoys
