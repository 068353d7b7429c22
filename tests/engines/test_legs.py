"""Targets of several tokens: read token by token behind the text, exactly, on both engines."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import microtome as mt
from conftest import BERLIN, CAT, HEADS, LAYERS, PARIS
from microtome.engines.block import Block
from microtome.engines.legs import Legs
from microtome.errors import MetricError, TokenError
from microtome.plan.plan import make_plan
from microtome.verbs.sweep import asking
from oracles.plain_hooks import Change, run

LONG = " Germany, and"  # 3 tokens
OTHER = " France is"  # 2 tokens
METRICS = ("logprob", "prob", "loss", "logit_diff", "prob(contrast)", "kl")


@pytest.fixture(scope="module")
def several():
    return mt.Prompt(BERLIN, donor=PARIS, target=LONG, contrast=OTHER)


def said(hf, text, row, changes=()):
    """The log probability of some ids behind others, one after another, by plain hooks."""
    logits = run(hf, [*text, *row[:-1]], changes).logits.double().log_softmax(-1)
    return sum(float(logits[len(text) - 1 + n, token]) for n, token in enumerate(row))


def zeroed(layer, head, positions):
    return Change("z", layer, [positions, [head], range(8)], lambda x: x * 0)


@pytest.mark.parametrize("engine", ["walk", "reference"])
def test_several_tokens_are_the_sum_of_their_log_probabilities_in_every_cell(
    tiny64, several, engine
):
    found = mt.sweep(
        tiny64,
        several,
        "zero L*.z.h*",
        metrics=METRICS,
        engine=engine,
        verify="all",
        progress=False,
    )
    [one] = tiny64.encode(several)
    text = one.tokens.ids
    assert (len(one.target), len(one.contrast)) == (3, 2)
    for layer in range(LAYERS):
        for head in range(HEADS):
            # The edit is of the text: what is forced behind it is left as it is.
            changes = [zeroed(layer, head, range(len(text)))]
            target, contrast = (
                said(tiny64.hf, text, row, changes) for row in (one.target, one.contrast)
            )
            cell = found.data.isel(prompt=0, layer=layer, head=head)
            assert float(cell["logprob"]) == pytest.approx(target, abs=1e-9)
            assert float(cell["prob"]) == pytest.approx(np.exp(target), abs=1e-12)
            assert float(cell["loss"]) == pytest.approx(-target, abs=1e-9)
            assert float(cell["logit_diff"]) == pytest.approx(target - contrast, abs=1e-9)
            assert float(cell["prob(contrast)"]) == pytest.approx(np.exp(contrast), abs=1e-12)
    clean = said(tiny64.hf, text, one.target)
    assert float(found.data["clean_logprob"][0]) == pytest.approx(clean, abs=1e-9)
    assert found.noise_floor("logprob") < 1e-9


def test_a_head_zeroed_everywhere_is_not_zeroed_in_what_is_forced(tiny64, several):
    """The two differ, so that the test above would not pass by chance."""
    [one] = tiny64.encode(several)
    text, row = one.tokens.ids, one.target
    every = range(len(text) + len(row) - 1)
    here = said(tiny64.hf, text, row, [zeroed(0, 1, range(len(text)))])
    assert abs(here - said(tiny64.hf, text, row, [zeroed(0, 1, every)])) > 1e-3


EDITS = (
    "patch L1.z.h1@*",
    "patch L*.resid_post@-1",
    "zero L*.pattern.h1",
    "knockout L*.pattern.h1@-1,0",
    'mean(over="positions") L*.z.h1',
    "noise(0, 1, seed=3) L*.mlp_out",
)


@pytest.mark.parametrize("edit", EDITS)
def test_both_engines_agree_on_prompts_of_different_lengths_and_targets(tiny64, several, edit):
    prompts = [
        several,
        mt.Prompt(PARIS, donor=BERLIN, target=" France", contrast=" Germany"),
        mt.Prompt(CAT, donor="The dog sat", target=" on the mat", contrast=" down"),
        mt.Prompt(BERLIN, donor=PARIS, targets=[" Germany", " France"], contrast=" France is"),
    ]
    metrics = ["logit_diff", "prob", "norm(L*.resid_post@-1)"]
    walk, reference = (
        mt.sweep(tiny64, prompts, edit, metrics=metrics, engine=engine, verify=0).data
        for engine in ("walk", "reference")
    )
    for name in metrics:
        np.testing.assert_allclose(walk[name], reference[name], atol=1e-9)
    np.testing.assert_array_equal(walk["values_changed"], reference["values_changed"])
    assert list(walk["text"].values) == [BERLIN, PARIS, CAT, BERLIN]
    if "pos" in walk.dims:  # those of the texts, as without a target
        assert walk.sizes["pos"] == 5


def test_a_text_and_its_donor_are_run_apart_where_tokens_are_forced_behind_the_text(
    tiny64, several
):
    """An edge asks for what its writer writes in both."""
    prompts = [several, mt.Prompt(PARIS, donor=BERLIN, target=" France, and", contrast=OTHER)]
    asked = {"metrics": ["logprob"], "verify": 0}
    walk, reference = (
        mt.sweep(tiny64, prompts, "patch L1.mlp_out -> final_in@-1", engine=engine, **asked)
        for engine in ("walk", "reference")
    )
    np.testing.assert_allclose(walk.data["logprob"], reference.data["logprob"], atol=1e-9)


def test_half_precision_and_screens_take_several_tokens_too(tiny, make_gpt2, tokenizer, several):
    half = mt.load(make_gpt2(dtype=torch.bfloat16), tokenizer=tokenizer)
    metrics = ["logit_diff", "prob"]
    found = mt.sweep(half, several, "zero L*.z.h*", metrics=metrics, progress=False)
    assert found.provenance["verification"]["cells"] >= 4
    exact = mt.sweep(tiny, several, "zero L*.z.h*", metrics=metrics, progress=False)
    screened = mt.sweep(
        *(tiny, several, "zero L*.z.h*"),
        metrics=metrics,
        screen="bfloat16",
        refine=2,
        progress=False,
    )
    again = screened.data["refined"]
    assert int(again.sum()) == 2
    np.testing.assert_allclose(
        screened.data["logit_diff"].values[again], exact.data["logit_diff"].values[again], atol=1e-4
    )


def test_a_trained_model_with_rotary_positions_and_shared_keys_agrees_with_itself(real_models):
    model = mt.load(real_models / "stories260K", dtype="float64")
    text = "Once upon a time, there was a little girl named"
    prompt = mt.Prompt(text, target=" Lily. She loved", contrast=" Timmy")
    [one] = model.encode(prompt)
    walk, reference = (
        mt.sweep(
            *(model, prompt, "zero L*.k.h*"),
            metrics=["logprob", "logit_diff"],
            engine=engine,
            progress=False,
        )
        for engine in ("walk", "reference")
    )
    for name in ("logprob", "logit_diff"):
        np.testing.assert_allclose(walk.data[name], reference.data[name], atol=1e-6)
    ids = torch.tensor([[*one.tokens.ids, *one.target]])
    with torch.no_grad():
        logits = model.hf(ids).logits[0].log_softmax(-1)
    steps = range(len(one.tokens) - 1, ids.shape[1] - 1)
    wanted = sum(float(logits[n, ids[0, n + 1]]) for n in steps)
    assert len(one.target) > 2
    assert float(walk.data["clean_logprob"][0]) == pytest.approx(wanted, abs=1e-6)


def test_one_token_reads_the_same_beside_several(tiny64, several):
    """log-probability difference and logit difference are one number where each is one token."""
    plain = mt.Prompt(PARIS, donor=BERLIN, target=" France", contrast=" Germany")
    alone, beside = (
        mt.sweep(tiny64, prompts, "zero L*.z.h*@-1", metrics=["logit_diff", "prob"], progress=False)
        for prompts in ([plain], [plain, several])
    )
    for name in ("logit_diff", "prob"):
        np.testing.assert_allclose(alone.data[name][0], beside.data[name][0], atol=1e-9)


def test_any_of_a_set_is_the_sum_of_probabilities(tiny64):
    prompt = mt.Prompt(BERLIN, targets=[" Germany", " Italy", 5], contrasts=[" France", 7])
    metrics = ["prob", "logprob", "loss", "logit_diff", "prob(contrast)"]
    for engine in ("walk", "reference"):
        found = mt.sweep(
            tiny64, prompt, "zero L*.z.h*@-1", metrics=metrics, engine=engine, progress=False
        )
        [one] = tiny64.encode(prompt)
        assert one.target == {5, *(tiny64.tokenizer.convert_tokens_to_ids(["ĠGermany", "ĠItaly"]))}
        changes = [zeroed(1, 2, [len(one.tokens) - 1])]
        probs = run(tiny64.hf, one.tokens.ids, changes).logits[-1].double().softmax(-1)
        target, contrast = (float(probs[sorted(x)].sum()) for x in (one.target, one.contrast))
        cell = found.data.isel(prompt=0, layer=1, head=2)
        assert float(cell["prob"]) == pytest.approx(target)
        assert float(cell["prob(contrast)"]) == pytest.approx(contrast)
        assert float(cell["loss"]) == pytest.approx(-np.log(target))
        assert float(cell["logit_diff"]) == pytest.approx(np.log(target) - np.log(contrast))


@pytest.mark.parametrize("several", [True, False])
def test_what_cannot_be_said_has_no_difference_to_what_cannot_either(make_gpt2, tokenizer, several):
    hf = make_gpt2(dtype=torch.float64)
    head = torch.nn.Linear(*hf.lm_head.weight.shape[::-1], dtype=torch.float64).eval()
    head.weight = torch.nn.Parameter(hf.lm_head.weight.detach().clone())
    never = tokenizer.convert_tokens_to_ids(["ĠGermany", "ĠFrance"])
    with torch.no_grad():
        head.bias[never] = -torch.inf
    hf.lm_head = head
    more = " and" if several else ""
    prompt = mt.Prompt(BERLIN, target=" Germany" + more, contrast=" France" + more)
    found = mt.sweep(
        mt.load(hf, tokenizer=tokenizer),
        *(prompt, "zero L1.z.h*@-1"),
        metrics=["logit_diff", "logprob", "prob"],
        progress=False,
    ).data
    assert np.isnan(found["logit_diff"]).all()
    assert (found["logprob"] == -np.inf).all()
    assert (found["prob"] == 0).all()


@pytest.mark.parametrize("metric", ["logit", "rank", "logit(contrast)"])
def test_what_several_tokens_have_not_is_refused_with_the_reason(tiny, several, metric):
    with pytest.raises(
        MetricError, match=r"is not one token but several tokens, to which no \w+ belongs"
    ):
        mt.sweep(tiny, several, "zero L*.z.h*@-1", metrics=metric)
    one = mt.Prompt(BERLIN, targets=[1, 2], contrasts=[3, 4])
    with pytest.raises(MetricError, match="is not one token but any of a set of tokens"):
        mt.sweep(tiny, one, "zero L*.z.h*@-1", metrics=metric)


def test_several_tokens_are_read_behind_the_text_alone(tiny, several):
    with pytest.raises(MetricError, match="read one after another behind the whole text"):
        mt.sweep(tiny, several, "zero L*.z.h*@-1", metrics="prob@1")
    at_end = mt.sweep(tiny, several, "zero L*.z.h*@-1", metrics=["prob@-1"], progress=False)
    assert at_end.metrics == ("prob@last",)


TURNED = {
    "dynamic": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0},
    "longrope": {
        "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 4, "factor": 2.0,
        "long_factor": [3.0] * 4, "original_max_position_embeddings": 6,
    },
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::microtome.errors.PromptWarning")
@pytest.mark.parametrize("kind", TURNED)
def test_several_tokens_are_refused_where_they_turn_the_text_otherwise(tokenizer, kind):
    """A text of 5 tokens, of a model that was trained on 6."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=40, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=6,
        rope_parameters=TURNED[kind],
    )  # fmt: skip
    model = mt.load(LlamaForCausalLM(config).double().eval(), tokenizer=tokenizer)

    def predicted(target):
        prompt = mt.Prompt(BERLIN, target=target)
        found = mt.sweep(model, prompt, "zero L*.z.h*@-1", metrics=["logprob", "kl"])
        with torch.no_grad():
            alone = model.hf(torch.tensor([found_ids(model, BERLIN)])).logits[0, -1]
        return found, alone.log_softmax(-1)

    one, alone = predicted(" Germany")
    assert float(one.clean("logprob")[0]) == pytest.approx(
        float(alone[found_ids(model, " Germany")[0]]), abs=1e-9
    )
    two, _ = predicted(" Germany,")  # in a pass over 6
    np.testing.assert_allclose(two.data["kl"], one.data["kl"], atol=1e-9)
    with pytest.raises(
        MetricError, match=r"is 5 tokens.* over 7, in which .* turns the text itself diff"
    ):
        predicted(LONG)
    with pytest.raises(MetricError, match="turns the text itself differently"):
        mt.sweep(model, mt.Prompt(BERLIN, target=" is", contrast=LONG), "zero L*.z.h*@-1",
                 metrics="logit_diff")  # fmt: skip


def found_ids(model, text):
    return model.tokenizer(text)["input_ids"]


def test_several_tokens_have_to_fit_behind_the_text(tiny):
    with pytest.raises(TokenError, match="33 tokens long; the model takes 32"):
        tiny.encode(mt.Prompt(" is" * 31, target=" the cat sat"))


def test_a_plan_counts_every_pass(tiny, several):
    def cost(prompt):
        question = asking(tiny, prompt, "zero L*.z.h*@-1", metrics=["logit_diff"], to_run=False)
        return make_plan(question).cost

    one = mt.Prompt(BERLIN, target=" Germany", contrast=" France")
    assert cost(several).reference_passes == 2 * cost(one).reference_passes
    assert cost(several).token_blocks > 2 * cost(one).token_blocks


@dataclass(frozen=True)
class Gave:
    """An executor that gave a block already."""

    block: Block

    def run(self, unit):
        return self.block


def gave(leg, value, work, noise, notes, verification):
    """A block of one cell in which every reading of a leg has the same value, and noise."""
    names = [str(reading) for reading in leg.question.asked]
    one, none, first = np.array([value]), np.ones(1), np.zeros(1, dtype=np.int64)
    values, clean, heard = (dict.fromkeys(names, what) for what in (one, one, noise))
    found = (heard, verification, work, notes)
    return Gave(Block(0, first, values, {}, first, clean, {}, none, none, *found))


def checked(cells, difference, tolerance, noise):
    return {
        "cells": cells, "largest_difference": difference, "tolerance": tolerance, "noise": noise,
    }  # fmt: skip


@pytest.fixture(scope="module")
def planned(tiny, several):
    """A plan of two legs: three tokens of a target, two of a contrast; and what none splits."""
    question = asking(
        tiny, several, "zero L0.z.h0@-1", metrics=["kl", "logit_diff", "prob"], to_run=False
    )
    return make_plan(question)


def test_every_reading_is_of_one_leg(planned):
    first, second = ([str(one) for one in leg.question.asked] for leg in planned.legs)
    assert first == ["kl", *(f"logprob(target, token {n})" for n in range(3))]
    assert second == [f"logprob(contrast, token {n})" for n in range(2)]


@pytest.mark.parametrize("turned", [False, True])
def test_legs_are_told_of_as_one(planned, turned):
    """Noise adds up token by token; of verifications the nearest to what is allowed is told."""
    near, far = checked(4, 0.2, 1.0, 0.01), checked(7, 0.03, 10.0, 0.02)
    verifications = [far, near] if turned else [near, far]
    first, second = planned.legs
    legs = [
        gave(first, -1.0, {"blocks": 30.0}, 0.01, ["halved", "late"], verifications[0]),
        gave(second, -1.0, {"blocks": 12.0}, 0.1, ["halved", "short"], verifications[1]),
    ]
    block = Legs(planned, legs).run(planned.units[0])
    assert set(block.values) == set(block.noise) == {"kl", "logit_diff", "prob"}
    assert block.values["logit_diff"] == -3.0 + 2.0
    assert block.noise["kl"] == 0.01
    assert block.noise["logit_diff"] == pytest.approx(3 * 0.01 + 2 * 0.1)
    assert block.noise["prob"] == pytest.approx(np.expm1(0.03) * np.exp(-3))
    assert block.work == {"blocks": 42.0}
    assert block.notes == ["halved", "late", "short"]
    assert block.verification == {**near, "cells": 4, "noise": 0.02}


def test_legs_of_which_nothing_was_verified_say_so(planned):
    legs = [gave(leg, -1.0, {}, 0.0, [], None) for leg in planned.legs]
    assert Legs(planned, legs).run(planned.units[0]).verification is None


def test_what_was_measured_is_kept_and_a_result_goes_on(tiny, several, tmp_path):
    def go():
        return mt.sweep(
            tiny,
            several,
            "zero L*.z.h*@-1",
            metrics="prob",
            out=tmp_path / "o.zarr",
            progress=False,
        )

    first, [one] = go(), tiny.encode(several)
    kept = json.loads(first.data.attrs["provenance"])
    assert kept["measured"] == [{"target": [*one.target], "contrast": [*one.contrast]}]
    assert mt.Prompt(**kept["spec"]["prompts"][0]) == several
    assert torch.equal(*(torch.tensor(x.data["prob"].values) for x in (first, go())))


@pytest.mark.slow
def test_a_real_models_chat_and_several_tokens(smollm2):
    talk = [{"role": "user", "content": "What is the most populous country of Korea?"}]
    prompt = mt.Prompt.chat(talk, target="South Korea", contrast="North Korea")
    [one] = smollm2.encode(prompt)
    how = {"tokenize": True, "add_generation_prompt": True, "return_dict": False}
    assert list(one.tokens.ids) == smollm2.tokenizer.apply_chat_template(talk, **how)
    metrics = ["logprob", "logit_diff"]
    found = mt.sweep(smollm2, prompt, "zero L29.z.h*@-1", metrics=metrics, verify=1)
    wanted = {}
    for name in ("target", "contrast"):
        ids = torch.tensor([[*one.tokens.ids, *one.row(name)]])
        with torch.no_grad():
            logits = smollm2.hf(ids).logits[0].double().log_softmax(-1)
        steps = range(len(one.tokens) - 1, ids.shape[1] - 1)
        wanted[name] = sum(float(logits[n, ids[0, n + 1]]) for n in steps)
    clean = {name: float(found.data[f"clean_{name}"][0]) for name in metrics}
    assert clean["logprob"] == pytest.approx(wanted["target"], abs=1e-3)
    assert clean["logit_diff"] == pytest.approx(wanted["target"] - wanted["contrast"], abs=1e-3)
