"""Attention knockout: what is left sums to one, as if the scores had been −∞."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import microtome as mt
from microtome.edits import Context
from microtome.errors import EditError
from microtome.language.regions import Region
from microtome.language.sites import site

CAT = "The cat sat on the mat, and"  # 8 tokens


def test_what_is_left_is_the_softmax_without_the_rest():
    scores = torch.randn(3, 2, 4, 5, dtype=torch.float64)  # cell, head, query, key
    chosen = torch.tensor([[1, 3], [0, 4], [2, 3]])
    context = Context(("head", "q_pos", "k_pos"), ("", "", ""), chosen=chosen)
    after = mt.knockout("L0.pattern").change(scores.softmax(-1), context)
    for cell, keys in enumerate(chosen):
        without = scores[cell].index_fill(-1, keys, float("-inf")).softmax(-1)
        np.testing.assert_allclose(after[cell], without, atol=1e-14)


def test_the_receipt_counts_whole_rows(tiny64):
    run = tiny64.run(CAT, edits=["knockout L1.pattern.h2@-1,{0,1}"], keep=["L1.pattern.h2@-1"])
    [receipt] = run.receipts
    row = run["L1.pattern.h2@-1"].values.squeeze()
    assert row[:2].tolist() == [0, 0]
    assert row.sum() == pytest.approx(1, abs=1e-14)
    assert (receipt.selected, receipt.changed) == (2, 8)


def test_zero_leaves_the_other_weights_as_they_are(tiny64):
    address = "L1.pattern.h2@-1"
    clean = tiny64.run(CAT, keep=[address])[address].values.squeeze()
    zeroed = tiny64.run(CAT, edits=["zero L1.pattern.h2@-1,{0,1}"], keep=[address])
    np.testing.assert_array_equal(zeroed[address].values.squeeze(), [0, 0, *clean[2:]])


def test_a_whole_pattern_cannot_be_knocked_out(tiny):
    with pytest.raises(EditError, match=r"position 0 attends to is left.*'zero'"):
        tiny.run(CAT, edits=["knockout L1.pattern.h2"])


@pytest.mark.parametrize(
    ("keys", "reach", "causal", "left"),
    [
        ((0, 1, 2), None, True, False),
        ((0, 1, 2), None, False, True),  # an encoder's tokens attend to later ones, too
        ((1, 2), None, True, True),
        ((1, 2), 1, True, False),
        ((2,), 1, True, True),  # the last key within the window
        ((0, 1, 2), 4, True, False),  # a window that begins before the text
    ],
)
def test_whether_a_key_is_left_is_a_matter_of_what_the_token_attends_to(keys, reach, causal, left):
    region = Region(site("pattern"), 0, ((0,), (2,), keys), reach)
    if left:
        mt.knockout("L0.pattern").check(region, causal)
    else:
        with pytest.raises(EditError, match="position 2 attends to is left"):
            mt.knockout("L0.pattern").check(region, causal)


def test_the_overflow_of_any_edit_is_an_error(tokenizer):
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    model = mt.load(LlamaForCausalLM(config).eval(), tokenizer=tokenizer)
    for engine in ("walk", "reference"):
        with pytest.raises(EditError, match="not all finite numbers"):
            mt.sweep(model, CAT, "scale(1e300) L*.z.h*", metrics=["kl"], engine=engine)
