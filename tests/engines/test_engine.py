"""The walk is equal to the reference path: every edit, site and kind of position, in float64."""

from __future__ import annotations

import copy
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch

import microtome as mt
from families.both import RECEIPTS, compared
from foreign import theirs
from microtome.edits import OPERATIONS
from microtome.engines.walk import walk as engine
from microtome.engines.walk.ending import Ending
from microtome.errors import EditError, SweepError, VerificationError
from microtome.model.anatomy import Anatomy
from microtome.passes import prefix
from microtome.plan.plan import make_plan
from microtome.prompts.encoding import token_id
from microtome.verbs.answer import sources_of
from microtome.verbs.options import budget_of
from microtome.verbs.sweep import asking
from oracles import families as by_hand

WHOLE = ["kl", "loss@2"]
OTHERS = [
    "logit",
    "logit(contrast)",
    "logit_diff",
    "prob",
    "logit_corr",
    "rank",
    "top1",
    "logit_diff@giver",
]
METRICS = [*WHOLE, *OTHERS]
LITTLE = 150_000
JOHN = mt.Prompt(
    "When Mary and John went to",
    donor="When John and Mary gave to",
    target=" Mary",
    contrast=" John",
    roles={"giver": 3},
)
SWAPPED = mt.Prompt(
    **{**JOHN.as_dict(), "text": JOHN.donor, "donor": JOHN.text, "roles": {"giver": 1}}
)
CAT = mt.Prompt(
    "The cat sat on the mat, and",
    donor="The dog sat on the cat, and",
    target=" cat",
    contrast=" dog",
    roles={"giver": 1},
)

EDITS = (
    "zero",
    'mean(over="tensor")',
    'mean(over="positions")',
    'mean(over="prompts")',
    "scale(0.5)",
    'noise(std=2, how="add", relative=True)',
    "noise(mean=3)",
    "patch",
    "replace(0.25)",
    "add(0.5)",
    "shuffle(seed=1)",
)
PLACES = (
    "embed",
    "L*.resid_pre",
    "L*.q.h2",
    "L1.k.h*",
    "L:.v.h{0,2}",
    "L*.z.h1",
    "L{0,2}.attn_out",
    "L*.resid_mid",
    "L*.mlp_post.n::2",
    "L1:.mlp_out",
    "L*.resid_post",
)
POSITIONS = ("", "@-1", "@{2,4}", "@giver")
"""Each edit has each of these at some place, and each place with some edit, by turns."""
OF_WEIGHTS = (*EDITS, "knockout")


def every_other(operations, places):
    """Of a table of edits and places every other field: each edit at half of the places, each place
    with half of the edits. How an edit changes values and where they are know nothing of each
    other."""
    return [
        (operation, place)
        for number, operation in enumerate(operations)
        for turn, place in enumerate(places)
        if (number + turn) % 2 == 0
    ]


def test_the_table_of_edits_is_whole():
    """A new operation has to be added to the table above, or walk nowhere (`apply`).

    Those along a direction have one for each place, in tests/edits/test_directions.py.
    """
    tried = {text.split("(")[0] for text in (*EDITS, *OF_WEIGHTS)} | {"project", "clamp"}
    assert tried | {"apply"} == set(OPERATIONS)


@pytest.mark.parametrize(("operation", "place"), every_other(EDITS, PLACES))
def test_the_walk_equals_the_reference_path(tiny64, operation, place):
    prompts = [JOHN, SWAPPED]
    if "prompts" not in operation:
        prompts[1] = CAT
    if "tensor" in operation and place.startswith(("L:", "L1:", "L{")):
        with pytest.raises(EditError, match=r"layers .* together"):
            mt.sweep(tiny64, JOHN, f"{operation} {place}", metrics="kl")
        return  # one number of several layers is refused
    turn = (EDITS.index(operation) + PLACES.index(place)) // 2
    if "positions" in operation:
        turn *= 2  # a mean over one position is refused
    if operation.startswith("add") and ".n" not in place:
        place += ".d::2"  # what is added to all alike a norm takes out, or a softmax
    same_on_both_paths(tiny64, prompts, f"{operation} {place}{POSITIONS[turn % 4]}")


WEIGHTS = (
    "L1.pattern.h*@-1,:",
    "L*.pattern.h1@3:,:3",
    "L*.pattern@{3,-1},{0,giver}",
    "L1.pattern.h2@*,*",
)


@pytest.mark.parametrize(("operation", "place"), every_other(OF_WEIGHTS, WEIGHTS))
def test_attention_weights_walk_too(tiny64, operation, place):
    text = f"{operation} {place}"
    if refused(operation, place):
        with pytest.raises(EditError):
            mt.sweep(tiny64, JOHN, text, metrics=["kl"])
        return
    same_on_both_paths(tiny64, [JOHN, SWAPPED], text)


def refused(operation: str, place: str) -> bool:
    """A mean over one query, or of one weight; all that a token attends to, knocked out."""
    if place.endswith("@*,*"):
        return operation.startswith(('mean(over="t', 'mean(over="po', "shuffle", "noise(std"))
    if place.endswith("@-1,:"):
        return "positions" in operation or operation == "knockout"
    return False


def same_on_both_paths(model, prompts, edits):
    """Two metrics see all of a prediction, at the last token and at an early one; others by turns.

    Each cell is compared, so none is verified, and the engines are asked instead of `sweep`.
    """
    turn = zlib.crc32(str(edits).encode()) % len(OTHERS)
    compared(model, edits, prompts, [*WHOLE, OTHERS[turn]], lambda size: 1e-9)


@pytest.mark.parametrize(
    "edits",
    [
        ["zero L0.z.h{1,3}@-1", "patch L2.resid_mid@3", "scale(2) L1.k@2"],
        ["scale(2) L1.mlp_post.n*", "zero L1.mlp_post.n{0,1}"],
        ["zero L1.mlp_post.n{0,1}", "add(1) L1.mlp_post.n*"],
        ["zero L*.z.h*@4", "zero L*.resid_post@5"],
        ["zero L*.z.h*@*"],
        ["noise L2.mlp_post.n*@-1"],
        ["zero L:.z"],
        ["scale(0.5) L1:.resid_post@*"],
        ["replace(1) embed@2", "scale(3) L0.resid_pre@2"],
        ["zero L1.pattern.h0@-1,0", "scale(2) L1.v.h0@1", "knockout L2.pattern.h*@4,{1,2}"],
        ["patch L1.mlp_out -> final_in@*", "scale(0.5) L2.resid_post@*"],  # not in the pass's order
    ],
    ids=lambda edits: "; ".join(edits),
)
def test_cells_of_several_edits_walk_together(tiny64, edits):
    walked, slow = (
        mt.sweep(tiny64, JOHN, edits, metrics=METRICS, engine=name, verify=0)
        for name in ("walk", "reference")
    )
    for name in (*walked.metrics, *RECEIPTS):
        assert float(abs(walked.data[name] - slow.data[name]).max()) < 1e-9


def test_parameters_in_over_walk_too(tiny64):
    walked, slow = (
        mt.sweep(
            tiny64,
            JOHN,
            mt.scale("L*.resid_post@*", 1.0),
            metrics=["logit_diff"],
            over={"factor": [0.1, 1.0, 4.0]},
            engine=name,
        )
        for name in ("walk", "reference")
    )
    assert float(abs(walked.data["logit_diff"] - slow.data["logit_diff"]).max()) < 1e-9
    assert int((walked.data["values_changed"] == 0).sum()) == walked.n_cells / 3
    assert walked.n_unchanged == walked.n_cells / 3  # a factor of 1 changes nothing, and says so


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("setting", [{}, {"scale_attn_by_inverse_layer_idx": True}])
def test_float32_stays_within_rounding(make_gpt2, tokenizer, attention, setting):
    hf = make_gpt2(attn_implementation=attention, **setting)
    model = mt.load(hf, tokenizer=tokenizer)
    walked = mt.sweep(model, JOHN, "zero L*.z.h*@*", metrics=["prob"], verify=8)
    assert walked.provenance["verification"]["cells"] == 8
    assert hf.config._attn_implementation == attention


def test_small_batches_give_the_same_map(tiny64):
    whole, cut = (
        mt.sweep(tiny64, JOHN, "zero L*.z.h*@*", metrics=["prob"], memory=memory)
        for memory in (None, LITTLE)
    )
    assert float(abs(whole.data["prob"] - cut.data["prob"]).max()) < 1e-12
    assert cut.provenance["predicted"]["bytes"] <= LITTLE < whole.provenance["predicted"]["bytes"]


def test_cells_that_change_nothing_take_no_more_room_than_there_is(tiny64, monkeypatch):
    more, with_idlers = [], engine.with_idlers

    def cramped(batch, room, company, into):
        made = with_idlers(batch, replace(room, batch=len(batch)), company, into)
        more.append(len(made) - len(batch))
        return made

    monkeypatch.setattr(engine, "with_idlers", cramped)
    effects = mt.sweep(tiny64, JOHN, "zero L*.z.h*@*", metrics="prob")
    assert set(more) == {0}
    assert effects.noise_floor("prob") is not None  # one walks by itself then


def test_too_little_memory_for_a_single_cell_is_refused_before_anything_runs(tiny64):
    with pytest.raises(SweepError, match=r"memory=1,000 bytes are too few: .* needs"):
        mt.sweep(tiny64, JOHN, "zero L*.z.h*@*", metrics=["prob"], memory=1000)


def of_the_allocator() -> RuntimeError:
    """What torch raises where the host's memory does not suffice."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    return caught.value


@pytest.mark.parametrize("prompts", [[JOHN], [JOHN, SWAPPED, JOHN]])
@pytest.mark.parametrize("lack", [of_the_allocator, lambda: torch.OutOfMemoryError("CUDA")])
def test_out_of_memory_halves_the_batch_and_goes_on(tiny64, monkeypatch, prompts, lack):
    batches, told = [], []
    run = engine.Stretch._walk

    def cramped(self, convoy, told):
        batches.append(sum(len(batch) for batch, _ in convoy))
        if batches[-1] > 3:
            told.append(0.5)
            self.walk.tick(0.5)
            raise lack()
        run(self, convoy, told)

    plain = mt.sweep(tiny64, prompts, "zero L*.z.h*@-1", metrics=["prob"])
    monkeypatch.setattr(engine.Stretch, "_walk", cramped)
    halved = mt.sweep(tiny64, prompts, "zero L*.z.h*@-1", metrics=["prob"])
    assert batches[0] == 13 * len(prompts)  # one of which changes nothing, for the noise
    assert max(size for size in batches if size <= 3) == 3
    assert float(abs(plain.data["prob"] - halved.data["prob"]).max()) < 1e-12
    assert "halved" in halved.provenance["engine"]["notes"][0]
    assert advanced(tiny64, prompts, told) == pytest.approx(12 * len(prompts))


def test_what_is_no_lack_of_memory_ends_a_walk_at_once(tiny64, monkeypatch):
    batches = []

    def wrong(self, convoy, told):
        batches.append(len(convoy))
        raise RuntimeError("sizes do not match")

    monkeypatch.setattr(engine.Stretch, "_walk", wrong)
    with pytest.raises(RuntimeError, match="sizes do not match"):
        mt.sweep(tiny64, JOHN, "zero L*.z.h*@-1", metrics="prob")
    assert len(batches) == 1


def test_memory_that_runs_out_behind_the_last_block_loses_no_witness(tiny64, monkeypatch):
    """A cell may be known as the strongest then, and have to be kept when it comes again."""
    finals, calls = Ending.finals, []

    def cramped(self, *args):
        calls.append(1)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("CUDA")
        return finals(self, *args)

    monkeypatch.setattr(Ending, "finals", cramped)
    effects = mt.sweep(tiny64, JOHN, "zero L*.z.h*@-1", metrics=["prob"], verify=2)
    assert "halved" in effects.provenance["engine"]["notes"][0]
    assert effects.provenance["verification"]["cells"] >= 2


def advanced(model, prompts, told) -> float:
    """How far a progress bar gets."""
    budget = budget_of(model)
    plan = make_plan(asking(model, prompts, "zero L*.z.h*@-1", metrics="prob"), budget=budget)
    executor = engine.Walk(model, plan, sources_of(model, plan), budget, told.append)
    for unit in plan.units:
        executor.run(unit)
    return sum(told)


@pytest.mark.parametrize("metric", ["logit_diff", "prob"])
def test_a_wrong_walk_is_caught(tiny64, monkeypatch, metric):
    """A walk that forgets the prefix must not get past verification."""
    attention = prefix.SharedPrefix.__call__

    def forgetful(self, *args, **kwargs):
        self.values = torch.zeros_like(self.values)
        return attention(self, *args, **kwargs)

    monkeypatch.setattr(prefix.SharedPrefix, "__call__", forgetful)
    with pytest.raises(VerificationError) as caught:
        mt.sweep(tiny64, JOHN, "zero L*.z.h*@-1", metrics=[metric])
    message = str(caught.value)
    for part in ("layer", "head", metric, "tolerance", "engine='reference'"):
        assert part in message


def test_half_precision_walks_and_a_wrong_walk_is_caught_there_too(
    make_gpt2, tokenizer, monkeypatch
):
    model = mt.load(make_gpt2(dtype=torch.bfloat16), tokenizer=tokenizer)
    effects = mt.sweep(model, JOHN, "zero L*.z.h*@-1", metrics=["logit_diff"], verify=8)
    assert effects.provenance["verification"]["cells"] == 8
    attention = prefix.SharedPrefix.__call__

    def forgetful(self, *args, **kwargs):
        self.values = torch.zeros_like(self.values)
        return attention(self, *args, **kwargs)

    monkeypatch.setattr(prefix.SharedPrefix, "__call__", forgetful)
    with pytest.raises(VerificationError):
        mt.sweep(model, JOHN, "zero L*.z.h*@-1", metrics=["logit_diff"], verify=8)


def test_a_wrong_value_is_caught_though_its_logits_are_right(tiny64, monkeypatch):
    """logit_diff is read off two columns, not off the logits that are compared."""
    unembed = Anatomy.unembed

    def shifted(self, hf, final, columns=None):
        logits = unembed(self, hf, final, columns)
        return logits if columns is None else logits + 1e-3 * 9**0.5

    monkeypatch.setattr(Anatomy, "unembed", shifted)
    with pytest.raises(VerificationError):
        mt.sweep(tiny64, JOHN, "zero L*.z.h*@-1", metrics=["logit"])


def test_verification_is_recorded(tiny64):
    effects = mt.sweep(tiny64, JOHN, "zero L*.z.h*@-1", metrics=["prob"], verify=5, seed=3)
    record = effects.provenance["verification"]
    assert record["cells"] == 5
    assert 0 <= record["largest_difference"] <= record["tolerance"] == 1e-9
    none = mt.sweep(tiny64, JOHN, "zero L*.z.h*@-1", metrics=["prob"], verify=0)
    assert none.provenance["verification"]["cells"] == 0
    slow = mt.sweep(tiny64, JOHN, "zero L0.z.h*@-1", metrics=["prob"], engine="reference")
    assert slow.provenance["verification"]["cells"] == 0


def test_the_plan_predicts_the_work(tiny64):
    effects = mt.sweep(tiny64, JOHN, "zero L*.z.h*@*", metrics=["prob"])
    record = effects.provenance
    assert record["predicted"]["token_blocks"] == record["actual"]["token_blocks"] > 0
    # Late entry and late start: half of the plain way, a third were neighbours not to share starts.
    tokens = effects.data.sizes["pos"]
    assert record["actual"]["token_blocks"] <= 0.52 * effects.n_cells * 3 * tokens


def test_before_its_own_first_position_a_cell_is_the_clean_run_to_the_bit(tiny64):
    """Though it may walk with cells that start earlier."""
    effects = mt.sweep(tiny64, JOHN, "zero L*.z.h*@*", metrics=["logit_diff@2", "prob@2"])
    record = effects.provenance["actual"]["token_blocks"]
    assert record > effects.n_cells // 6 * 2 * (1 + 2 + 3 + 4 + 5 + 6)  # starts are shared
    for name in ("logit_diff@2", "prob@2"):
        later = effects.delta(name).sel(pos=slice(3, None))
        assert float(abs(later).max()) == 0


@pytest.mark.parametrize("engine", ["walk", "reference"])
def test_what_leaves_the_last_block_is_edited_without_running_it(tiny64, monkeypatch, engine):
    ran = []
    block = tiny64.anatomy.block(tiny64.hf, 2)

    def count(module, args):
        ran.append(len(args[0]))

    handle = block.register_forward_pre_hook(theirs(count))
    try:
        mt.sweep(
            tiny64, JOHN, "scale(2) L2.resid_post@*", metrics=["prob"], engine=engine, verify=0
        )
    finally:
        handle.remove()
    assert len(ran) == (1 if engine == "walk" else 7)  # the clean run; and each cell


def test_metrics_see_what_leaves_a_block_that_did_not_run(tiny64):
    metrics = ["norm(L*.resid_post)", "cosine(L*.resid_post@*, 1)", "norm(L*.resid_mid)"]
    walked, slow = (
        mt.sweep(tiny64, [JOHN, CAT], "scale(3) L*.resid_post@*", metrics=metrics, engine=name)
        for name in ("walk", "reference")
    )
    for name in walked.metrics:
        assert float(abs(walked.data[name] - slow.data[name]).max()) < 1e-9


@pytest.mark.parametrize(
    ("edit", "why"),
    [("zero logits@-1", "after the last layer"), ('apply("torch:sin") L0.z', "user's own")],
)
def test_what_cannot_walk_goes_to_the_reference_path(tiny64, edit, why):
    effects = mt.sweep(tiny64, JOHN, edit, metrics=["logit"])
    assert effects.provenance["engine"]["name"] == "reference"
    assert why in effects.provenance["engine"]["why"]
    with pytest.raises(SweepError, match="engine='reference'"):
        mt.sweep(tiny64, JOHN, edit, metrics=["logit"], engine="walk")


def test_the_walk_leaves_the_model_as_it_was(tiny64):
    before = {name: x.clone() for name, x in tiny64.hf.state_dict().items()}
    choice = tiny64.hf.config._attn_implementation

    mt.sweep(tiny64, JOHN, "zero L*.z.h*@*", metrics=["prob"])
    assert tiny64.hf.config._attn_implementation == choice
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in tiny64.hf.modules())
    for name, x in tiny64.hf.state_dict().items():
        assert torch.equal(x, before[name])


def test_a_failing_block_leaves_no_hook_and_no_switch(tiny64, monkeypatch):
    choice = tiny64.hf.config._attn_implementation

    def failing(self, *args, **kwargs):
        raise ValueError("in the middle of a block")

    monkeypatch.setattr(prefix.SharedPrefix, "__call__", failing)
    with pytest.raises(ValueError, match="in the middle"):
        mt.sweep(tiny64, JOHN, "zero L*.z.h*@*", metrics=["prob"])
    assert tiny64.hf.config._attn_implementation == choice
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in tiny64.hf.modules())


def test_progress_is_told_every_cell(tiny64):
    told = []
    assert advanced(tiny64, JOHN, told) == pytest.approx(12)
    assert len(told) > 1  # not all at once


@pytest.mark.parametrize(
    "edit",
    [
        mt.patch("L0.pattern.h0@*,*", align="roles"),
        mt.patch("L0.pattern.h0@a,*"),
        mt.patch("L0.pattern.h0@{a,b},*", align="roles"),
    ],
)
def test_weights_that_the_donor_does_not_have_are_no_cells(tiny64, edit):
    roles = {"a": ("Mary", "Mary"), "b": ("John", "John")}
    swapped = mt.Prompt(
        "When John and Mary went",
        donor="When Mary and John went",
        target=" Mary",
        contrast=" John",
        roles=roles,
    )
    maps = []
    for taken in ("walk", "reference"):
        effects = mt.sweep(
            tiny64, swapped, edit, metrics="logit_diff", engine=taken, verify="all", progress=False
        )
        maps.append(effects.data)
    assert np.array_equal(maps[0]["values_changed"].isnull(), maps[1]["values_changed"].isnull())
    [encoded] = tiny64.encode([swapped])
    here, there = encoded.tokens, encoded.donor
    assert (here.role("a"), there.role("a"), here.role("b"), there.role("b")) == (3, 1, 1, 3)
    absent = maps[0]["values_changed"].isnull().values.squeeze()
    if edit.address.stars == ("q_pos", "k_pos"):
        moved = np.array([0, 3, 2, 1, 4])
        ahead = np.less.outer(np.arange(5), np.arange(5)) | (moved[:, None] < moved)
        assert np.array_equal(absent, ahead)
    assert "in another order" in effects.provenance["predicted"]["why_absent"]


def test_a_logit_is_read_where_another_tokens_is_no_number(tiny64):
    """Of the walk its own tokens' alone are computed; of the whole prediction nothing is known."""
    model, metrics = copy.deepcopy(tiny64), ("logit", "logit_diff", "prob", "rank", "top1", "kl")
    dog = token_id(" dog", model.tokenizer)
    with torch.no_grad():
        model.hf.get_output_embeddings().weight[dog] = np.nan
    walked, slow = (
        mt.sweep(model, JOHN, "zero L*.z.h*", metrics=metrics, engine=engine)
        for engine in ("walk", "reference")
    )
    for metric in metrics:
        np.testing.assert_allclose(walked.data[metric], slow.data[metric], atol=1e-9)
        absent = walked.data[metric] == -1 if metric == "top1" else walked.data[metric].isnull()
        assert bool(absent.all()) == (metric not in ("logit", "logit_diff"))
    whole = mt.sweep(tiny64, JOHN, "zero L*.z.h*", metrics="logit_diff")
    np.testing.assert_allclose(walked.data["logit_diff"], whole.data["logit_diff"], atol=1e-9)


def test_a_softmax_in_float32_is_taken_so_on_the_walk_too(tokenizer):
    """An eager Llama's, in float64: rarely is a score rounded up here and down there."""
    hf = by_hand.make("llama", len(tokenizer)).eval()
    hf.set_attn_implementation("eager")
    model = mt.load(hf, tokenizer=tokenizer)
    walked, slow = (
        mt.sweep(model, CAT, "zero L*.z.h*@1:", metrics="logit", engine=engine, verify=0)
        for engine in ("walk", "reference")
    )
    assert float(abs(walked.data["logit"] - slow.data["logit"]).median()) < 1e-12
