"""What workers bring, by the formula: never less than they do, nor much more than it says."""

from __future__ import annotations

import heapq

import numpy as np
import pytest

from microtome.plan import units
from microtome.plan.plan import make_plan
from microtome.plan.scale import Scale, scale_of
from microtome.verbs.sweep import asking


def shared_out(seconds, workers: int) -> float:
    """The oracle: each unit goes to whoever is free first."""
    free = [0.0] * workers
    for own in seconds:
        heapq.heapreplace(free, free[0] + own)
    return max(free)


@pytest.mark.parametrize("workers", [1, 2, 3, 64])
def test_units_are_done_within_what_the_formula_says(workers):
    random = np.random.default_rng(0)
    for _ in range(50):
        seconds = random.exponential(size=40)
        scale = Scale(float(seconds.sum()), tuple(seconds / seconds.sum()))
        real = shared_out(seconds.tolist(), workers)
        assert seconds.sum() / workers <= real * (1 + 1e-12)
        assert real <= scale.seconds_of(workers) * (1 + 1e-12)
    assert scale.seconds_of(1) == pytest.approx(seconds.sum())


def test_of_the_worst_order_it_is_exact():
    """Two workers, the largest unit last."""
    seconds = [1.0, 1.0, 2.0]
    scale = Scale(4.0, (0.25, 0.25, 0.5))
    assert shared_out(seconds, 2) == scale.seconds_of(2) == 3.0
    assert scale.efficiency(2) == pytest.approx(4 / 6)


def in_rounds(rounds, workers: int, making: float, keeping: float) -> float:
    """The oracle: one process makes the next round and keeps the last while workers are at one."""
    free, at, made = [0.0] * workers, making, making
    for number, seconds in enumerate(rounds):
        if number + 1 < len(rounds):
            at += making
        ends, following = [], at
        for own in seconds:
            ends.append(max(free[0], made) + own)
            heapq.heapreplace(free, ends[-1])
        at, made = max(at, *ends) + keeping, following
    return at


@pytest.mark.parametrize("between", [0.0, 0.3, 3.0, 30.0])
@pytest.mark.parametrize("workers", [1, 2, 7, 64])
def test_rounds_are_done_within_what_the_formula_says(workers, between):
    random = np.random.default_rng(1)
    for _ in range(20):
        seconds, making = random.exponential(size=30), random.uniform() * between
        rounds = [random.permutation(seconds) for _ in range(6)]
        whole = 6 * float(seconds.sum())
        scale = Scale(whole, tuple(seconds / whole), windows=6, between=between)
        real = in_rounds(rounds, workers, making, between - making)
        assert max(whole / workers, 6 * between) <= real * (1 + 1e-12)
        assert real <= scale.seconds_of(workers) * (1 + 1e-12)


def test_windows_and_starting_cost_what_they_cost():
    """What one process does is for nothing where workers need longer, but for the first window."""
    scale = Scale(100.0, (0.01,) * 10, windows=10, start=5.0, between=0.5)
    assert scale.seconds_of(10) == pytest.approx(5 + 0.5 + 10 + 0.9 * 1.0 * 10)
    slow = Scale(100.0, (0.01,) * 10, windows=10, start=5.0, between=2.5)
    assert slow.seconds_of(10) == pytest.approx(5 + 2.5 + 10 * 2.5)
    assert scale.counts == [2, 4, 8, 16, 32, 64]
    assert Scale(1.0, (0.5, 0.5)).counts == [2]


@pytest.mark.parametrize("engine", ["walk", "reference"])
def test_a_plans_shares_are_those_of_its_operations(tiny64, monkeypatch, engine):
    monkeypatch.setattr(units, "WORK", 2e9)
    monkeypatch.setattr(units, "PASSES", 0)
    prompts = ["Berlin is the capital of", "The cat sat"]
    question = asking(tiny64, prompts, "zero L*.z.h*@*", metrics="kl")
    plan = make_plan(question, engine)
    scale = scale_of(plan, 10.0)
    assert len(scale.shares) == len(plan.units) > 2
    assert sum(scale.shares) == pytest.approx(1)
    if engine == "reference":
        passes = [len(unit.prompts) + len(plan.numbers(unit)) for unit in plan.units]
        np.testing.assert_allclose(scale.shares, np.array(passes) / sum(passes))
    work = {0: 0.0, 1: 0.0}
    for unit, share in zip(plan.units, scale.shares, strict=True):
        work[unit.prompts[0]] += share
    assert work[0] > work[1]  # five tokens are more than three
