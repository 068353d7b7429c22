"""What is written under chosen cells, beside what is written without."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import microtome as mt
from conftest import BERLIN, PARIS
from microtome.errors import MicrotomeError, PromptError
from microtome.frontends.lab.answers.writing import tokens_of, written
from oracles.plain_hooks import Change, everything, log_softmax, run

FACT = mt.Prompt(BERLIN, donor=PARIS)
EDITS = ("zero L1.mlp_out", "scale(-2) L2.z.h1")


def test_both_texts_and_every_token_are_those_of_hooks(tiny64):
    found = written(tiny64, FACT, EDITS, 4)
    ids = list(tiny64.encode(FACT)[0].tokens.ids)
    bare = tiny64.hf.generate(torch.tensor([ids]), max_new_tokens=4, do_sample=False)
    plain = [tiny64.tokenizer.decode([i]) for i in bare[0, len(ids) :].tolist()]
    assert list(found.plain) == plain
    assert found.unedited == "".join(plain)
    for token in found.tokens:
        place = everything(tiny64.hf, "z", len(ids))
        changes = [
            Change("mlp_out", 1, everything(tiny64.hf, "mlp_out", len(ids)), lambda v: 0 * v),
            Change("z", 2, [place[0], [1], place[2]], lambda v: -2 * v),
        ]
        edited = log_softmax(run(tiny64.hf, ids, changes).logits[-1].numpy())
        clean = log_softmax(run(tiny64.hf, ids).logits[-1].numpy())
        new = int(edited.argmax())
        assert token.token == tiny64.tokenizer.decode([new])
        assert token.logprob == pytest.approx(edited[new], abs=1e-9)
        assert token.clean_logprob == pytest.approx(clean[new], abs=1e-9)
        assert token.instead == tiny64.tokenizer.decode([int(clean.argmax())])
        assert token.kl == pytest.approx(np.sum(np.exp(clean) * (clean - edited)), abs=1e-9)
        assert token.changed > 0
        ids.append(new)
    assert found.edited == "".join(token.token for token in found.tokens)
    assert found.prompt == BERLIN


def test_without_a_cell_both_are_the_same(tiny64):
    found = written(tiny64, FACT, (), 3)
    assert found.edited == found.unedited
    assert all(token.kl == 0 for token in found.tokens)
    assert all(token.logprob == token.clean_logprob for token in found.tokens)


class Watching(mt.Observer):
    """Counts tokens, and wants no more after so many."""

    def __init__(self, most):
        self.most, self.tokens = most, 0.0

    def advanced(self, cells):
        self.tokens += cells

    @property
    def cancelled(self):
        return self.tokens >= self.most


def test_who_watches_hears_of_each_token_and_may_cancel_between_two(tiny64):
    before = written(tiny64, FACT, EDITS, 4)
    whole = Watching(most=100)
    assert written(tiny64, FACT, EDITS, 4, whole) == before
    assert whole.tokens == tokens_of(EDITS, 4) == 8
    alone = Watching(most=100)
    written(tiny64, FACT, (), 4, alone)
    assert alone.tokens == tokens_of((), 4) == 4
    for most in (0, 2, 5):  # before the first token, in the edited text, in the other
        observer = Watching(most)
        with pytest.raises(mt.Cancelled):
            written(tiny64, FACT, EDITS, 4, observer)
        assert observer.tokens == most
    assert written(tiny64, FACT, EDITS, 4) == before, "the model was given back as it was"


def test_what_does_not_write_is_refused(tiny64, bert64):
    with pytest.raises(MicrotomeError, match="does not write"):
        written(bert64, mt.Prompt("a dog sat on the [MASK]"), (), 3)
    for steps in (0, 201):
        with pytest.raises(MicrotomeError, match="Between 1 and 200 tokens"):
            written(tiny64, FACT, EDITS, steps)
    with pytest.raises(MicrotomeError, match="it takes 32"):
        written(tiny64, FACT, EDITS, 60)
    with pytest.raises(PromptError, match="donor"):
        written(tiny64, mt.Prompt(BERLIN), ["patch L1.z.h0"], 3)


@pytest.mark.slow
def test_a_real_model_with_settings_of_its_own_writes_greedily(smollm2):
    found = written(smollm2, mt.Prompt("The capital of France is"), ["zero L5.mlp_out"], 4)
    assert found.unedited.startswith(" Paris")
    assert len(found.tokens) == 4
