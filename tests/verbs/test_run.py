"""Metrics of a run: what a sweep measures in the same cell, and what numpy makes of the logits."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from scipy.special import log_softmax

import microtome as mt
from conftest import BERLIN, CAT, PARIS
from microtome.errors import AddressError, MetricError, MicrotomeError, PromptError, SweepError

PROMPTS = [
    mt.Prompt(BERLIN, target=" Germany", contrast=" France"),
    mt.Prompt(CAT, target=" on", contrast=" mat"),  # shorter
]
METRICS = ["logit_diff", "prob", "prob(contrast)", "loss@1", "rank", "kl", "top1", "next_loss@0"]


def test_metrics_are_those_of_the_sweep(tiny64):
    run = tiny64.run(PROMPTS, edits="zero L1.z.h2")
    effects = mt.sweep(tiny64, PROMPTS, "zero L1.z.h2", metrics=METRICS, progress=False)
    table = run.measure(METRICS).set_index(["metric", "prompt"])
    assert len(table) == len(METRICS) * 2
    for name in METRICS:
        for number in range(2):
            row, cell = table.loc[name, number], {"prompt": number}
            assert row["edited"] == pytest.approx(effects.data[name].isel(cell).item(), abs=1e-9)
            assert row["clean"] == pytest.approx(effects.clean(name).isel(cell).item(), abs=1e-9)
            if name != "top1":
                effect = effects.delta(name).isel(cell).item()
                assert row["effect"] == pytest.approx(effect, abs=1e-9)
    assert table.loc["top1", "effect"].isna().all()


def test_a_number_by_hand(tiny64):
    run = tiny64.run(PROMPTS[0], edits="scale(3) L2.mlp_out")
    [encoded] = run.encoded
    [row] = run.measure("logprob").to_dict(orient="records")
    after, before = (log_softmax(x[0, -1].numpy()) for x in (run.logits, run.clean_logits))
    assert row["edited"] == pytest.approx(after[encoded.target], abs=1e-9)
    assert row["clean"] == pytest.approx(before[encoded.target], abs=1e-9)
    assert abs(row["effect"]) > 1e-3


def test_a_pickle_tells_what_the_run_told_and_holds_no_model(tiny64):
    run = tiny64.run(PROMPTS, edits="zero L1.z.h2", keep="L1.z")
    weights = sum(one.nbytes for one in tiny64.hf.parameters())
    kept = pickle.dumps(run)
    assert len(kept) < weights
    back = pickle.loads(kept)
    pd.testing.assert_frame_equal(back.measure(METRICS), run.measure(METRICS))
    pd.testing.assert_frame_equal(back.top(5, prompt=1), run.top(5, prompt=1))
    xr.testing.assert_identical(back["L1.z"], run["L1.z"])
    assert back.receipts == run.receipts


def test_without_edits_nothing_moves(tiny64):
    table = tiny64.run(PROMPTS).measure(["prob", "logit_diff"])
    assert (table["effect"] == 0).all()
    np.testing.assert_array_equal(table["clean"], table["edited"])


def test_attention_to_later_tokens_stays_the_zero_that_it_is(tiny64):
    """What keeps zeros may be made on a whole pattern; only what is no zero is changed."""
    for edit, changed in [("zero L1.pattern.h1", 15), ("scale(2) L1.pattern.h1", 15)]:
        ran = tiny64.run("The cat sat on the", edit)
        [receipt] = ran.receipts
        assert receipt.changed == changed


def test_at_the_mask_of_an_encoder(bert64):
    prompt = mt.Prompt("a dog [MASK] on mats .", target="sat")
    run = bert64.run(prompt, edits="zero L0.z.h1")
    [encoded] = run.encoded
    after = log_softmax(run.logits[0, encoded.tokens.reading].numpy())
    found = run.measure("prob")["edited"].item()
    assert found == pytest.approx(math.exp(after[encoded.target]), abs=1e-9)


def test_what_was_kept_is_gone_through_by_its_address(tiny64):
    run = tiny64.run(BERLIN, keep=["L1.z", "L0.hidden@-1"])
    assert [*run] == [*dict(run)] == ["L1.z", "L0.resid_post@-1"]
    assert [one in run for one in ("L0.hidden@-1", "L0.z", "foo", 0)] == [
        True, False, False, False,
    ]  # fmt: skip
    with pytest.raises(PromptError, match="not Run"):
        mt.Prompts(run)
    with pytest.raises(AddressError, match=r"not \('z', 1\)\. Here: 'L1\.z'\."):
        run["z", 1]
    for keep in (None, 5, lambda name: True):
        with pytest.raises(AddressError, match="keep= takes addresses, such as"):
            tiny64.run(BERLIN, keep=keep)


def test_rows_prompts_and_positions_are_whole_numbers_whoevers_they_are(tiny64):
    run = tiny64.run(BERLIN)
    wanted = run.top(3, prompt=0, position=1)
    found = run.top(torch.tensor(3), prompt=np.int64(0), position=torch.tensor(1))
    pd.testing.assert_frame_equal(found, wanted)
    for name, given in (("k", "prob"), ("k", -1), ("prompt", True), ("position", "last")):
        with pytest.raises(SweepError, match=f"^{name}=.*: expected a whole number"):
            run.top(**{name: given})


def test_what_cannot_be_measured_says_why(tiny64, nano):
    run = tiny64.run(BERLIN)
    with pytest.raises(MetricError, match=r"needs a target"):
        run.measure("prob")
    with pytest.raises(MetricError, match=r"std\(L1.resid_post\) is read inside the model"):
        run.measure("std(L1.resid_post)")
    with pytest.raises(MetricError, match=r"No metric is called 'logits'"):
        run.measure("logits")
    several = nano.run(mt.Prompt(BERLIN, target=" Germany, and"))
    with pytest.raises(MetricError, match=r"is of several tokens behind .*, one after another"):
        several.measure("prob")
    with pytest.raises(AddressError, match="pos 99 does not exist"):
        run.measure("kl@99")
    assert nano.run(PARIS).measure("kl")["edited"].item() == 0


def scaled(module, args, output):
    return output * 0.5


def test_without_edits_it_is_the_model_that_ran_or_none(make_gpt2, tokenizer):
    """Weights set, a hook put on, or a setting changed between a run and the first look at it."""
    model = mt.load(make_gpt2(), tokenizer=tokenizer)
    norm, projection = model.hf.transformer.ln_f, model.hf.transformer.h[1].mlp.c_proj
    before = model.run(BERLIN).logits
    run, seen = (model.run(BERLIN, "zero L1.z.h2") for _ in range(2))
    assert torch.equal(seen.clean_logits, before)
    hook = projection.register_forward_hook(scaled)
    with pytest.raises(MicrotomeError, match=r"another now .* \(what is put on it, such as hooks"):
        run.top(3)
    hook.remove()
    norm.eps *= 2
    with pytest.raises(MicrotomeError, match=r"\(the settings of its modules\)"):
        run.measure("kl")
    norm.eps /= 2
    projection.weight.data.mul_(2)
    with pytest.raises(MicrotomeError, match=r"\(its weights: in a few numbers\).*Run again"):
        run.clean_logits  # noqa: B018
    projection.weight.data.div_(2)
    one = projection.weight.detach()[3, 5]
    one *= 2
    with pytest.raises(MicrotomeError, match=r"\(its weights: transformer.h.1.mlp.c_proj.weight\)"):
        run.clean_logits  # noqa: B018
    one /= 2
    model.hf.load_state_dict(model.hf.state_dict())
    model.hf.to(torch.float64).to(torch.float32)
    model.hf.transformer.gradient_checkpointing = True
    model.hf.config.pad_token_id = 1
    model.hf.generate = scaled
    assert torch.equal(run.clean_logits, before), "the same numbers, wherever they lie"
    projection.weight.data.mul_(2)
    assert torch.equal(seen.clean_logits, before), "what was looked at stays"
