"""Verification fails when an edit is skipped, misplaced or wrong, in every type; and only then."""

from __future__ import annotations

import math
from dataclasses import replace

import mistakes
import numpy as np
import pytest
import torch
from transformers import PhiConfig, PhiForCausalLM

import microtome as mt
from microtome.edits.application import SCORES, differs
from microtome.engines import choosing, judging, verification
from microtome.engines.comparison import Comparison
from microtome.engines.local import Streams
from microtome.errors import SweepError, VerificationError
from microtome.passes import prefix
from microtome.plan.plan import make_plan
from microtome.plan.verify import Verify
from microtome.readings.registry import readings
from microtome.readings.watch import Watch
from microtome.results.effects import Effects
from microtome.verbs.sweep import asking
from oracles import families as by_hand

FACT = mt.Prompt(
    "Berlin is the capital of",
    donor="Paris is the capital of",
    target=" Germany",
    contrast=" France",
)
STORY = mt.Prompt(
    "Once there was a little girl and she was", donor="Once there was a big girl and she was"
)
CAT = mt.Prompt("The cat sat on the mat, and", donor="The dog sat on the cat, and", target=" cat")
JOHN = mt.Prompt("When Mary and John went to", donor="When John and Mary gave to", target=" Mary")
TRAINED = (
    *(("stories260K", dtype) for dtype in ("float64", "float32", "bfloat16", "float16")),
    ("nano", "bfloat16"),
)
QUESTIONS = ("patch L*.z.h*@-1", "zero L*.z.h*", "zero L2.mlp_post.n*@-1")


@pytest.fixture(scope="module")
def models(real_models):
    """Trained models, by name and type."""
    made = {}

    def of(name: str, dtype: str):
        if (name, dtype) not in made:
            place = name if name == "nano" else real_models / name
            made[name, dtype] = mt.load(place, dtype=dtype)
        return made[name, dtype]

    return of


def swept(model, question, prompt, **options) -> Effects:
    options = {"metrics": ["kl"], "engine": "walk", **options}
    return mt.sweep(model, prompt, question, progress=False, **options)


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize(("name", "dtype"), TRAINED)
def test_faults_are_found_in_every_type(models, monkeypatch, name, dtype, question):
    """Two of the four in each case, by turns: every type has each of them, and every question."""
    model, prompt = models(name, dtype), FACT if name == "nano" else STORY
    dims = model.anatomy.dims
    head = ".z." in question
    axis, size = ("head", dims.n_heads) if head else ("neuron", dims.d_mlp)
    right = swept(model, question, prompt).provenance["verification"]
    assert right["cells"] >= 4
    assert right["largest_difference"] <= right["tolerance"]
    faults = (
        mistakes.skips,
        mistakes.forgets,
        mistakes.neighbour(axis, size),
        mistakes.one_token_off,
    )
    turn = TRAINED.index((name, dtype)) + QUESTIONS.index(question)
    for fault in faults[turn % 2 :: 2]:
        with monkeypatch.context() as broken:
            fault(broken)
            with pytest.raises(VerificationError):
                swept(model, question, prompt)


@pytest.mark.parametrize(("dtype", "hint"), [("bfloat16", True), ("float32", False)])
def test_of_experts_in_half_precision_it_says_that_rounding_may_choose(
    tokenizer, monkeypatch, dtype, hint
):
    hf = by_hand.make("mixtral", len(tokenizer)).to(getattr(torch, dtype))
    model = mt.load(hf, tokenizer=tokenizer)
    mistakes.skips(monkeypatch)
    with pytest.raises(VerificationError) as found:
        swept(model, "zero L*.z.h*@-1", CAT)
    assert ("dtype='float32'" in str(found.value)) is hint


def test_one_cell_is_enough_to_find_a_walk_that_skips(models, monkeypatch):
    """As in a unit of many: nothing stands out from the noise, so more cells are looked at."""
    model = models("nano", "bfloat16")
    for fault in (mistakes.skips, mistakes.forgets):
        with monkeypatch.context() as broken:
            fault(broken)
            with pytest.raises(VerificationError):
                swept(model, "zero L*.z.h*@-1", FACT, verify=1)


LILY = mt.Prompt(
    "Once upon a time, there was a little girl named Lily. She loved to play with",
    donor="Once upon a time, there was a little boy named Lily. She loved to play with",
)
EARLY = (
    "zero L*.z.h*@4",
    "zero L*.z.h*@-3",
    "zero L*.v.h*@6",
    "zero L*.v.h*@1",
    "zero L*.k.h*@5",
    "zero L*.k.h*@-3",
    "zero L0.mlp_post.n*@3",
    "zero L*.mlp_out@4",
    "zero L*.attn_out@4",
    "zero L*.resid_post@4",
    "patch L*.resid_post@*",
)


HALF = ("bfloat16", "float16")
EARLY_IN = [
    (question, dtype)
    for number, question in enumerate(EARLY)
    for turn, dtype in enumerate(HALF)
    if number >= 6 or (number + number // 2) % 2 == turn  # what heads read and write, by turns
]


@pytest.mark.parametrize(("question", "dtype"), EARLY_IN)
def test_faults_at_early_positions_are_found_in_half_precision(
    models, monkeypatch, dtype, question
):
    """The last token hears less of them than of rounding; the stream right behind them does not."""
    model = models("stories260K", dtype)
    dims = model.anatomy.dims
    units = {
        ".z.": ("head", dims.n_heads),
        ".v.": ("kv_head", dims.n_kv_heads),
        ".k.": ("kv_head", dims.n_kv_heads),
        ".mlp_post.": ("neuron", dims.d_mlp),
    }
    swept(model, question, LILY)
    broken_by = [mistakes.skips, mistakes.one_token_off]
    broken_by += [mistakes.neighbour(*unit) for site, unit in units.items() if site in question]
    for fault in broken_by:
        with monkeypatch.context() as broken:
            fault(broken)
            with pytest.raises(VerificationError):
                swept(model, question, LILY)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_a_stream_is_compared_behind_its_edit_and_in_three_layers_at_least(
    models, monkeypatch, dtype
):
    seen = {}
    gap = Streams.gap

    def look(self, number, precision):
        found = gap(self, number, precision)
        if found is not None:
            seen[number] = self.behind[number], found
        return found

    monkeypatch.setattr(Streams, "gap", look)
    plan = make_plan(
        asking(models("stories260K", dtype), LILY, "zero L*.attn_out@4", metrics=["kl"])
    )
    swept(models("stories260K", dtype), "zero L*.attn_out@4", LILY, verify=1)
    for number, (layer, found) in seen.items():
        assert layer == plan.cells[number].regions[0][0].layer
        assert found.difference <= found.fixed
    assert len({layer for layer, _ in seen.values()}) >= (3 if dtype == "bfloat16" else 0)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "gpt_neox", "bert"])
def test_there_is_no_false_alarm_in_half_precision(family, tokenizer):
    hf = by_hand.make(family, len(tokenizer)).to(torch.bfloat16)
    model = mt.load(hf, tokenizer=tokenizer)
    prompts = ["The cat sat on the [MASK]"] if family == "bert" else [CAT, JOHN]
    metrics = ["kl", "top1", "logit_corr", "norm(L*.resid_post)"]
    for question in ("zero L*.z.h*@*", "scale(8) L*.resid_post", "noise(std=3) L*.resid_pre@3"):
        effects = swept(model, question, prompts, metrics=metrics, verify="all")
        assert effects.provenance["verification"]["cells"] == effects.n_cells


def test_what_computes_in_float32_inside_may_be_off_as_far_as_its_logits_are_large(
    tokenizer, monkeypatch
):
    """GPT-Neo's attention rounds like float32 in float64 too, and the head makes it larger."""
    hf = by_hand.make("gpt_neo", len(tokenizer)).to(torch.float64)
    hf.lm_head.weight = torch.nn.Parameter(hf.lm_head.weight.detach() * 64)
    model = mt.load(hf, tokenizer=tokenizer)
    dims, question = model.anatomy.dims, "zero L*.z.h*@*"
    spread = float(model.run(CAT).logits[0, -1].std())
    found = swept(model, question, CAT, verify="all").provenance["verification"]
    assert judging.INNER < found["largest_difference"] <= found["tolerance"]
    assert found["tolerance"] < 8 * spread * judging.INNER
    for fault in (mistakes.skips, mistakes.neighbour("head", dims.n_heads), mistakes.one_token_off):
        with monkeypatch.context() as broken:
            fault(broken)
            with pytest.raises(VerificationError):
                swept(model, question, CAT)


@pytest.mark.parametrize("family", ["gpt_neo", "gptj"])
def test_large_scores_in_float32_are_no_false_alarm_and_excuse_no_mistake(
    family, tokenizer, monkeypatch
):
    hf = by_hand.make(family, len(tokenizer))
    for path, own in hf.named_parameters():
        own.data *= 10 if "q_proj" in path or "k_proj" in path else 1
    model = mt.load(hf, tokenizer=tokenizer)
    dims, farthest = model.anatomy.dims, 0.0
    for question in ("add(0.2) L*.k.h*", "scale(-1) L*.q.h*@*", "shuffle(seed=2) L*.k_in.h*@1"):
        found = swept(model, question, [CAT, JOHN], verify="all").provenance["verification"]
        farthest = max(farthest, found["largest_difference"])
    if any(hasattr(module, "_attn") for module in hf.modules()):  # not GPT-J of 5.24
        assert farthest > 2 * judging.INNER  # more than is allowed without a look
    for fault in (mistakes.skips, mistakes.neighbour("head", dims.n_heads), mistakes.one_token_off):
        with monkeypatch.context() as broken:
            fault(broken)
            with pytest.raises(VerificationError):
                swept(model, "scale(0.99) L*.z.h*@*", CAT)


def test_float32_norms_and_unembedding_over_half_precision_verify(tokenizer):
    hf = by_hand.make("llama", len(tokenizer)).to(torch.bfloat16)
    hf.model.norm.float()
    hf.lm_head.float()
    model = mt.load(hf, tokenizer=tokenizer)
    assert model.dtype == torch.bfloat16
    effects = swept(model, "zero L*.z.h*@-1", CAT, verify="all")
    assert effects.provenance["verification"]["cells"] == effects.n_cells


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tokens_that_cannot_be_say_nothing_of_rounding(tokenizer, monkeypatch, dtype):
    """A logit of −∞ has neither a deviation nor a size."""
    hf = by_hand.make("phi", len(tokenizer)).to(dtype)
    hf.lm_head.bias.data[-4:] = -math.inf
    model = mt.load(hf, tokenizer=tokenizer)
    metrics = ["logit_corr", "kl", "prob", "rank", "top1", "logit"]
    found = swept(model, "zero L*.z.h*@-1", CAT, metrics=metrics, verify="all")
    assert 0 < found.provenance["verification"]["tolerance"] < math.inf
    mistakes.skips(monkeypatch)
    with pytest.raises(VerificationError):
        swept(model, "scale(0) L*.resid_post", CAT, metrics=metrics)


@pytest.fixture(scope="module")
def one(models):
    """A prompt of a vocabulary of few."""
    plan = make_plan(asking(models("nano", "float32"), FACT, "zero L0.z.h0", metrics=["prob"]))
    return replace(plan.question.encoded[0], target=3, contrast=4)


@pytest.mark.parametrize("name", ["prob", "logit_diff", "loss", "top1", "rank", "kl", "logit_corr"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_metric_that_is_wrong_is_beyond_its_tolerance_whatever_tokens_cannot_be(one, dtype, name):
    chance = torch.Generator().manual_seed(0)
    logits = torch.randn(50, dtype=torch.float64, generator=chance)
    logits[-1] = -math.inf
    clean = logits.roll(3)
    clean[2], clean[-1] = 0.0, -math.inf
    pair = judging.Pair(logits, clean, logits, clean)
    [reading] = readings([name])
    value, before = (float(reading.measure(own[None], clean[None], one)) for own in (logits, clean))
    precision = judging.Precision.of(dtype)
    _, off, allowed = judging.of_reading(precision, reading, pair, one, value, before)
    assert off <= allowed < 1
    wrong = 20.0 if name in ("top1", "rank") else value + 0.5
    _, off, allowed = judging.of_reading(precision, reading, pair, one, wrong, before)
    assert off > allowed


def test_kl_may_move_as_far_as_the_logits_that_it_is_of_make_it(one):
    """Far from the clean run its slope in the clean logits is larger than 2."""
    clean = torch.tensor([0.0, -1.0], dtype=torch.float64)
    edited = torch.tensor([-400.0, 400.0], dtype=torch.float64)
    moved = clean + torch.tensor([0.0, 0.01], dtype=torch.float64)
    [reading] = readings(["kl"])
    value = float(reading.measure(edited[None], moved[None], one))
    pair = judging.Pair(edited, moved, edited, clean)
    precision = judging.Precision(eps=1e-9, promise=None)
    _, off, allowed = judging.of_reading(precision, reading, pair, one, value, 0.0)
    assert 2 * 0.01 < off <= allowed < 5 * off


# ----------------------------------------------------------------------------------- noise floor


def test_a_cell_that_changes_nothing_is_the_clean_run_in_half_precision(models):
    """The walk's own arithmetic rounds where the model's does, and nowhere else."""
    for dtype, attention in (("bfloat16", "sdpa"), ("bfloat16", "eager")):
        model = mt.load(
            models("stories260K", dtype).name, dtype=dtype, attn_implementation=attention
        )
        effects = swept(model, "scale(1) L*.z.h*@*", STORY, metrics=["kl", "logit_corr"], verify=0)
        moved = np.nan_to_num(effects.delta("logit_corr").values) != 0
        assert moved.mean() < 0.1
        assert effects.n_unchanged == effects.n_cells


def test_the_noise_floor_is_measured_and_kept(tiny, tmp_path):
    effects = mt.sweep(tiny, FACT, "zero L*.z.h*@-1", metrics=["logit", "top1"], verify=0)
    floor = effects.noise_floor("logit")
    assert 0 <= floor < 1e-4
    assert effects.provenance["noise_floor"] == {"logit": floor}
    assert effects.noise_floor("top1") is None
    effects.save(tmp_path / "x.zarr")
    assert mt.open_effects(tmp_path / "x.zarr").noise_floor("logit") == floor
    top = effects.top(48, "logit")
    assert (top["above_noise"] == (top["effect"].abs() > floor)).all()


def test_the_noise_floor_is_no_less_than_what_verified_cells_are_uncertain_by(models):
    model, question = models("stories260K", "bfloat16"), "zero L*.z.h*@-1"
    walk = swept(model, question, LILY, metrics=["kl"], verify="all")
    reference = swept(model, question, LILY, metrics=["kl"], engine="reference")
    apart = np.abs(walk.delta("kl").values - reference.delta("kl").values).max()
    idle = swept(model, question, LILY, metrics=["kl"], verify=0).noise_floor("kl")
    assert walk.noise_floor("kl") >= 0.5 * apart > idle


def test_idlers_ride_in_the_walk_and_are_told_from_its_cells(tiny, monkeypatch):
    """A walk that is wrong where nothing is edited has a noise floor, and it is no excuse."""
    attention = prefix.SharedPrefix.__call__

    def shaky(self, *given, **more):
        mixed, weights = attention(self, *given, **more)
        return mixed * 1.001, weights

    monkeypatch.setattr(prefix.SharedPrefix, "__call__", shaky)
    effects = mt.sweep(tiny, FACT, "zero L*.z.h*@-1", metrics=["logit"], verify=0)
    assert effects.noise_floor("logit") > 1e-4
    with pytest.raises(VerificationError):
        mt.sweep(tiny, FACT, "zero L*.z.h*@-1", metrics=["logit"])


def test_the_reference_path_measures_noise_where_attention_is_in_the_open(tiny):
    plain, opened = (
        mt.sweep(tiny, FACT, edit, metrics=["logit"], engine="reference")
        for edit in ("zero L*.z.h*@-1", "zero L*.pattern.h*@-1,0")
    )
    assert plain.noise_floor("logit") == 0
    assert 0 <= opened.noise_floor("logit") < 1e-4


# ------------------------------------------------------------------------------ which and how many


def test_the_strongest_cell_is_among_those_verified(tiny, monkeypatch):
    taken = []
    take = Comparison.take
    monkeypatch.setattr(
        Comparison, "take", lambda self, cells: taken.append([*cells]) or take(self, cells)
    )
    effects = mt.sweep(tiny, FACT, "zero L*.z.h*@*", metrics=["logit"], verify=3)
    delta = np.abs(effects.delta("logit").values).ravel()
    assert int(np.argmax(delta)) in taken[0]
    assert int(np.argmax(effects.data["change_norm"].values)) in taken[0]
    assert len(taken[0]) == 3


def test_cells_are_spread_and_another_question_has_others(tiny):
    def chosen(edit, some=4, seed=0):
        plan = make_plan(asking(tiny, FACT, edit, metrics=["logit"]))
        return plan, choosing.spread(plan, plan.units[0], some, seed)

    plan, one = chosen("zero L*.z.h*@*")
    points = plan.cells.points[one]
    assert len({*points[:, 1].tolist()}) == 3  # all layers
    assert len({*points[:, 2].tolist()}) == 4  # all heads
    assert one == chosen("zero L*.z.h*@*")[1]
    assert one != chosen("zero L*.z.h*@*", seed=1)[1]
    assert one != chosen("scale(0.5) L*.z.h*@*")[1]


def test_how_much_is_verified_is_a_number_or_all(tiny):
    for given, cells in (("all", 12), (7, 7), ("3", 3), (Verify(2), 2), (0, 0)):
        effects = mt.sweep(tiny, FACT, "zero L*.z.h*@-1", metrics=["prob"], verify=given)
        assert effects.provenance["verification"]["cells"] == cells
    for wrong in (-1, "some", 1.5, True, None):
        with pytest.raises(SweepError, match="verify="):
            mt.sweep(tiny, FACT, "zero L*.z.h*@-1", metrics=["prob"], verify=wrong)


def test_all_cells_are_verified_in_as_little_memory_as_there_is(tiny64):
    effects = mt.sweep(
        tiny64, FACT, "zero L*.z.h*@*", metrics=["prob"], verify="all", memory=2_000_000
    )
    assert effects.provenance["verification"]["cells"] == effects.n_cells


def test_all_cells_are_verified_where_many_are_the_clean_run(tiny64, monkeypatch):
    """They are compared before any batch walks, once more of them are kept than fit a pass."""
    monkeypatch.setattr(verification, "rows_at_once", lambda *_: 4)
    same = mt.Prompt("The cat sat on the mat", donor="The cat sat on the dog", target=" cat")
    metrics = ["logit", "norm(L*.resid_post)"]
    effects = mt.sweep(tiny64, same, "patch L*.z.h*@*", metrics=metrics, verify="all")
    assert effects.provenance["engine"]["name"] == "walk"
    assert effects.provenance["verification"]["cells"] == effects.n_cells


@pytest.mark.parametrize("engine", ["walk", "reference"])
def test_a_first_prompt_without_cells_leaves_the_noise_to_the_next(tiny, engine):
    prompts = [
        mt.Prompt("Berlin is the", donor="Paris was a", target=" Germany"),
        mt.Prompt("Berlin is the", donor="Berlin is a", target=" Germany"),
    ]
    edit = mt.patch("L0.z.h*@*", align="words")
    effects = mt.sweep(tiny, prompts, edit, metrics=["logit"], engine=engine)
    assert np.isnan(effects.data["logit"].values[0]).all()
    assert effects.noise_floor("logit") < 1e-4


def test_a_wrong_metric_inside_the_model_is_found(tiny64, monkeypatch):
    unedited = Watch.unedited

    def shifted(self, *given):
        return {gauge: own + 1e-3 for gauge, own in unedited(self, *given).items()}

    monkeypatch.setattr(Watch, "unedited", shifted)
    with pytest.raises(VerificationError, match=r"norm\(L\*"):
        mt.sweep(tiny64, FACT, "zero L2.z.h*", metrics=["norm(L*.resid_post)"], engine="walk")


# ------------------------------------------------------------------------------------- receipts


def test_one_huge_coordinate_does_not_hide_the_small_ones():
    before = torch.full((1, 1, 768), 1e-3)
    before[0, 0, 5] = 1e4
    after = before + 1e-4
    after[0, 0, 5] = 1e4
    usual = before.abs().median(dim=-1).values[..., None]
    assert int(differs(before, after).sum()) == 767
    assert int(differs(before, after, exact=False, usual=usual).sum()) == 767


def test_rounding_of_another_pass_is_no_change_and_an_exact_edit_counts_the_last_bit():
    before = torch.ones(1, 1, 4)
    after = before * (1 + torch.finfo(torch.float32).eps)
    assert int(differs(before, after).sum()) == 4
    assert int(differs(before, after, exact=False).sum()) == 0
    small = torch.tensor([[[1e-6, 1.0, 1.0, 1.0]]])
    near = small + torch.tensor([1e-7, 0, 0, 0])
    assert int(differs(small, near, exact=False).sum()) == 1
    assert int(differs(small, near, exact=False, usual=torch.ones(1, 1, 1)).sum()) == 0
    assert bool(differs(before, before * torch.nan, exact=False).all())


def test_a_patch_by_an_equal_value_counts_none_and_another_counts_all(tiny):
    same = mt.Prompt("The cat sat on the mat", donor="The cat sat on the dog", target=" cat")
    effects = mt.sweep(tiny, same, "patch L*.resid_post@*", metrics=["logit"])
    changed = effects.data["values_changed"].values[0]
    assert (changed[:, :-1] == 0).all()
    assert (changed[:, -1] == tiny.anatomy.dims.d_model).all()


def test_a_token_that_cannot_be_leaves_more_in_doubt(tokenizer):
    """Its logit is −∞ in every cell, so no effect on it tells a walk from one without edits."""
    torch.manual_seed(0)
    config = PhiConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.3,
    )
    hf = PhiForCausalLM(config).eval()
    target = tokenizer(" Germany")["input_ids"][0]
    with torch.no_grad():
        hf.lm_head.bias[target] = -torch.inf
    model = mt.load(hf, tokenizer=tokenizer)
    prompt = mt.Prompt("Berlin is the capital of", target=" Germany")
    effects = mt.sweep(model, prompt, "zero L*.z.h*@-1", metrics="logit", verify=1)
    assert effects.provenance["verification"]["cells"] > 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_weight_that_rounds_with_its_score_is_not_changed(dtype):
    """A score of 30 that is off by a unit in its last place is a weight off by 30 of them."""
    scores = torch.linspace(-30, 30, 40, dtype=dtype).view(1, 1, 1, -1)
    off = torch.tensor([1, -1], dtype=dtype).repeat(20) * torch.finfo(dtype).eps
    weights, again = scores.softmax(-1), (scores * (1 + off)).softmax(-1)
    assert differs(weights, again, exact=False).any()
    assert not differs(weights, again, exact=False, times=SCORES).any()
    assert differs(weights, weights * 1.001, exact=False, times=SCORES).all()
