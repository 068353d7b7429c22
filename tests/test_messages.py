"""What a refusal shows of what was given is never longer than one can read."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

import microtome as mt
from conftest import BERLIN
from microtome.errors import LONGEST, LoadError, MicrotomeError, PromptError

GIVEN = {
    "numbers": [0.5] * 3000,
    "a batch of ids": torch.ones(2, 400, dtype=torch.long),
    "embeddings": torch.ones(1, 40, 64),
    "a text": "x" * 5000,
}
ASKED = {
    "text": lambda _, given: mt.Prompt([given]),
    "ids": lambda _, given: mt.Prompt(ids=[given]),
    "target": lambda _, given: mt.Prompt(BERLIN, target=[given]),
    "roles": lambda _, given: mt.Prompt(BERLIN, roles={"s": [given]}),
    "prompts": lambda model, given: model.run([[given]]),
    "edits": lambda model, given: model.run(BERLIN, edits=[[given]]),
    "keep": lambda model, given: model.run(BERLIN, keep=[[given]]),
    "metrics": lambda model, given: mt.sweep(model, BERLIN, "zero L0.z", metrics=[[given]]),
    "verify": lambda model, given: mt.sweep(model, BERLIN, "zero L0.z", metrics="kl", verify=given),
    "factor": lambda _, given: mt.scale("L0.z", given),
    "function": lambda model, given: model.run(BERLIN, edits=mt.apply("L0.z", lambda _: given)),
}


class Unprintable:
    def __repr__(self):
        raise RuntimeError("of somebody's own class")


def test_what_cannot_be_printed_is_refused_by_its_type():
    with pytest.raises(PromptError, match="something of the type Unprintable"):
        mt.Prompt(Unprintable())


@pytest.mark.parametrize("what", ASKED)
@pytest.mark.parametrize("kind", GIVEN)
def test_a_message_is_short_whatever_was_given(tiny, what, kind):
    with pytest.raises(MicrotomeError) as refused:
        ASKED[what](tiny, GIVEN[kind])
    assert len(str(refused.value)) < 1000


def test_a_batch_of_one_row_is_told_by_its_shape():
    with pytest.raises(PromptError, match=r"not an array of shape \[1, 400\] \(Tensor\)"):
        mt.Prompt(ids=torch.ones(1, 400, dtype=torch.long))
    with pytest.raises(PromptError, match=r"not array\(\[-100, +5\]\)"):
        mt.Prompt(ids=np.array([-100, 5]))


@pytest.mark.parametrize("kind", [PromptError, LoadError, MicrotomeError])
def test_of_a_message_that_is_too_long_the_middle_is_left_out(kind):
    error = kind("begin" + 50_000 * "x" + "what to do")
    shown = str(error)
    assert len(shown) < LONGEST + 40
    assert shown.startswith("begin")
    assert shown.endswith("what to do")
    assert "46,015 characters" in shown
    assert str(pickle.loads(pickle.dumps(error))) == shown
