"""A card says what a model can do of the tasks, as it was measured."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import microtome as mt
from microtome.errors import MicrotomeError, TaskError
from microtome.frontends.cli import app


def by_hand(model, prompts):
    """Target minus contrast, probability, and whether the target is first; a pass a prompt."""
    found = []
    for one in model.encode(prompts):
        with torch.no_grad():
            logits = model.hf(torch.tensor([one.tokens.ids])).logits[0, -1].double()
        prob = float(logits.softmax(-1)[one.target])
        difference = float(logits[one.target] - logits[one.contrast])
        found.append((difference, prob, int(logits.argmax()) == one.target))
    return np.array(found).T


def test_it_is_what_a_loop_over_prompts_finds(nano):
    [one] = nano.card(20, seed=3, tasks=["greater_than"]).abilities
    prompts = mt.tasks.greater_than(20, seed=3, tokenizer=nano.tokenizer)
    difference, prob, first = by_hand(nano, prompts)
    assert (one.task, one.n) == ("greater_than", 20)
    assert one.accuracy == (difference > 0).mean()
    assert 0 < one.accuracy < 1
    np.testing.assert_allclose(
        [one.logit_diff, one.prob, one.first], [difference.mean(), prob.mean(), first.mean()], 1e-5
    )
    half = 2.093 * difference.std(ddof=1) / np.sqrt(20)  # Student's t, 19 degrees of freedom
    np.testing.assert_allclose(
        [one.logit_diff_low, one.logit_diff_high],
        [one.logit_diff - half, one.logit_diff + half],
        rtol=1e-3,
    )
    assert one.accuracy_low < one.accuracy < one.accuracy_high <= 1


def test_it_is_of_four_tasks_and_says_of_which_weights(nano):
    card = nano.card(4)
    assert [one.task for one in card.abilities] == ["ioi", "capitals", "induction", "greater_than"]
    assert (card.model, card.weight_hash, card.dtype) == ("nano", nano.weight_hash, "float32")
    assert [*card.table["n"]] == [4] * 4
    assert "ioi" in repr(card)


def test_a_task_without_words_says_so_and_the_others_are_measured(tiny):
    card = tiny.card(4)
    reasons = {one.task: one.why_not for one in card.abilities if not one.n}
    assert "names are one token in this tokenizer" in reasons["ioi"]
    assert "the model takes 32" in reasons["greater_than"]
    assert "this tokenizer" in repr(card)


def test_what_is_no_task_is_refused_with_those_that_are(nano):
    with pytest.raises(TaskError, match=r"not of 'capital'; there are: .*Did you mean 'capitals'"):
        nano.card(4, tasks=["capital"])
    with pytest.raises(TaskError, match="not of none"):
        nano.card(4, tasks=[])
    with pytest.raises(TaskError, match="at least 2"):
        nano.card(1)


def test_a_model_that_fills_masks_has_none(bert64):
    with pytest.raises(MicrotomeError, match="fills in masks"):
        bert64.card(4)


class TestCommand:
    def test_json_has_every_number(self, nano):
        done = CliRunner().invoke(app, ["card", "nano", "-n", "4", "--json"])
        assert done.exit_code == 0
        assert json.loads(done.stdout) == json.loads(json.dumps(nano.card(4).as_dict()))

    def test_a_table_is_shown(self):
        done = CliRunner().invoke(app, ["card", "nano", "-n", "4"])
        assert done.exit_code == 0
        assert "greater_than" in done.stdout
