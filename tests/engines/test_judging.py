"""What is judged of logits: what is finite, without a copy where all are."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from microtome.engines import judging


def test_tokens_that_cannot_be_say_nothing_of_noise():
    clean = torch.tensor([1.0, -math.inf, 2.0, -math.inf], dtype=torch.float64)
    idler = torch.tensor([1.0, -math.inf, 5.0, -math.inf], dtype=torch.float64)
    assert judging.heard(idler, clean) == 3
    assert judging.heard(clean, clean) == 0


def test_where_all_are_finite_none_is_picked_out():
    logits = torch.randn(50, dtype=torch.float64)
    assert judging._finite(logits) is logits
    some = torch.cat([logits, torch.tensor([math.nan, math.inf, -math.inf])])
    assert torch.equal(judging._finite(some), logits)


def test_what_is_too_large_to_be_summed_is_finite_all_the_same():
    large = torch.full((3,), 1e308, dtype=torch.float64)
    assert math.isinf(large.sum())
    assert torch.equal(judging._finite(large), large)
    assert torch.equal(judging._apart(large, -large / 2), large * 1.5)


def test_what_noise_excuses_is_not_beyond_what_is_fixed():
    """Or rounding would be listened for, and more allowed, where nothing is in doubt."""
    gap = judging.Gap(0, "kl", 0.0, 0.0, difference=2.0, fixed=1.0)
    assert gap.is_beyond_fixed
    assert not replace(gap, times=4.0).is_beyond_fixed
    assert not replace(gap, difference=1.0).is_beyond_fixed
    assert replace(gap, difference=math.nan).is_beyond_fixed
