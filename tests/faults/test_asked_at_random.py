"""Some questions drawn at random, always the same; `ask_at_random` asks others."""

from __future__ import annotations

import functools
from itertools import count

import pytest
import torch

import microtome as mt
from faults import ask_at_random, random_kinds
from faults.random_kinds import KINDS, Models
from oracles import families

SOME = ("gpt2", "llama", "gemma2")
"""Learnt positions; shared keys; norms behind, and caps."""
MENDED = [("the_walk", "gpt2", "groups", 418), ("gradients", "opt", "corner", 54)]
"""Where a way was wrong, and not what is asked: a group's mean is over all prompts; and a slope is
not that beyond a corner."""
SEED, MANY = "pytest", 2
ONE = (random_kinds.half_types, random_kinds.circuits, random_kinds.scores, random_kinds.threads)
"""Kinds of which one is asked: each takes tenths of a second."""


@pytest.fixture(scope="module")
def own(of_family, tokenizer) -> Models:
    @functools.cache
    def of(name: str, dtype: torch.dtype, exactly: bool) -> mt.Model:
        if dtype == torch.float64:
            return of_family(name)
        hf = families.make(name, len(tokenizer)).to(dtype)
        return mt.load(hf.double() if exactly else hf, tokenizer=tokenizer)

    return Models(of, SOME)


@pytest.mark.parametrize("kind", [one for one in KINDS if one is not random_kinds.placements])
def test_two_ways_give_the_same_answers(kind, own):
    asked, answered = count(), 0
    while answered < (1 if kind in ONE else MANY):  # others are refused
        name, one = ask_at_random.asked(SEED, next(asked), own, [kind.__name__])
        answered += ask_at_random.answered(name, one) is None


@pytest.mark.parametrize(("kind", "family", "seed", "number"), MENDED)
def test_both_ways_ask_the_same(kind, family, seed, number, own):
    models = Models(own.of, (family,))
    assert ask_at_random.answered(*ask_at_random.asked(seed, number, models, [kind])) is None
