"""Memory that is planned is what is used: of torch as its allocator counts it, of numpy likewise.

Each case is one where another part of the memory is most of it.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import LlamaConfig, LlamaForCausalLM

import microtome as mt
from microtome.engines.collector import Collector
from microtome.engines.walk.ending import Ending
from microtome.plan.plan import Plan, make_plan
from microtome.readings.outcome import Outcome, Prediction
from microtome.readings.output import METRICS
from microtome.readings.registry import readings
from microtome.verbs.options import budget_of
from microtome.verbs.sweep import asking

MIB = 2**20
SLACK = MIB
"""What may be used besides: Python's own objects, and torch's small ones."""

LONG = " ".join(["Berlin is the capital of Germany, and Berlin is in Germany"] * 2)
PROMPT = mt.Prompt(LONG, target=" Germany", contrast=" France")


@dataclass(frozen=True)
class Case:
    """A map on a small model of some sizes, under a budget."""

    edit: str
    metrics: tuple[str, ...]
    memory: int
    vocabulary: int = 512
    sizes: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        return f"{self.edit}, {', '.join(self.metrics)}, {self.memory // MIB} MiB"


WIDE = Case("zero L*.z.h*", ("kl", "prob", "rank"), 24 * MIB, vocabulary=60_000)
PAIRS = Case("zero L*.z.h*@*", ("cosine(L*.resid_post@*, *)",), 6 * MIB)
COSINES = ("cosine(L*.resid_post@*, *)",)
LOOKED = Case("zero L0.mlp_post.n*@-1", COSINES, 3 * MIB)
STREAM = Case("zero L0.resid_post.d*@-1", ("logit_diff",), 4 * MIB, sizes=(("n_embd", 768),))
PATTERN = Case("zero L0.pattern.h*@*", ("logit_diff",), 3 * MIB, sizes=(("n_head", 16),))

HEADED = (("n_embd", 128), ("n_head", 16))
READ = Case("zero L0.q_in.d*@3", ("logit_diff",), 12 * MIB, sizes=HEADED)
WRITTEN = Case("zero L0.head_out.d*@3", ("logit_diff",), 12 * MIB, sizes=HEADED)
SHARES = Case("zero L0.z.h*@*", ("norm(L*.head_out.h*@-1)",), 6 * MIB, sizes=HEADED)
READ_AT = tuple(f"kl@{place}" for place in range(2, 18))
COMPARED = Case("zero L*.z.h*@1", READ_AT, 32 * MIB, vocabulary=30_000)
CASES = (WIDE, LOOKED, STREAM, PATTERN, READ, WRITTEN, SHARES)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_walk_uses_no_more_than_is_planned(case, make_gpt2, tokenizer):
    model = made(case, make_gpt2, tokenizer)
    cost = planned(model, case).cost
    assert cost.bytes <= case.memory
    sweep(model, replace(case, edit="zero L0.z.h0@-1"))  # what is made once
    used = in_torch(lambda: sweep(model, case))
    assert used <= 1.25 * cost.bytes + SLACK
    assert cost.bytes <= 1.25 * used + 2 * SLACK


def test_what_verification_compares_is_planned(make_gpt2, tokenizer):
    """Logits of both paths, at every position that a metric reads: some at a time."""
    model = made(COMPARED, make_gpt2, tokenizer)
    cost = planned(model, COMPARED, verified=4).cost
    assert cost.bytes <= COMPARED.memory
    sweep(model, replace(COMPARED, edit="zero L0.z.h0@-1", metrics=("logit",)))
    used = in_torch(lambda: sweep(model, COMPARED, verify=4))
    assert used <= 1.25 * cost.bytes + SLACK


def test_cells_of_all_starts_are_planned_to_fill_a_tile_together(tokenizer):
    """Few of each, in a block whose MLP is wide: what it makes of all of them is there at once."""
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=4, num_attention_heads=4,
        intermediate_size=2048, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = mt.load(LlamaForCausalLM(config).eval(), tokenizer=tokenizer)
    case = Case("zero L0.resid_post@*", ("logit_diff",), 64 * MIB)
    sweep(model, replace(case, edit="zero L0.z.h0@-1"))
    assert in_torch(lambda: sweep(model, case)) <= planned(model, case).cost.bytes


def test_results_take_what_is_planned(make_gpt2, tokenizer):
    model = made(PAIRS, make_gpt2, tokenizer)
    cost = planned(model, PAIRS).cost
    assert cost.result_bytes > 3 * MIB
    sweep(model, replace(PAIRS, edit="zero L0.z.h0@-1"))
    used = in_numpy(lambda: sweep(model, PAIRS))
    assert used <= 1.25 * cost.result_bytes + SLACK / 2
    assert cost.result_bytes <= 1.25 * used


def test_many_values_arrive_without_a_copy_of_all(tiny):
    plan = planned(tiny, PAIRS)
    into = Collector.of(plan, plan.units[0])
    [gauge] = into.inside
    shape = (len(into.numbers), *into.inside[gauge].shape[1:])
    values = torch.rand(shape, dtype=torch.float64)

    def arrive() -> None:
        into.store_inside(gauge, into.numbers, values)
        into.settle()

    assert in_torch(arrive) < values.nbytes / 10
    assert (into.inside[gauge][: len(into.numbers)] == values.numpy()).all()


def test_results_have_arrived_before_the_next_logits_are_made(make_gpt2, tokenizer, monkeypatch):
    """What stays, however small, would keep the next block of logits out of the last one's hole."""
    arrived: list[bool] = []

    def read(ending: Ending, piece: Any, logits: torch.Tensor, rows: int) -> None:
        as_it_is(ending, piece, logits, rows)
        own = ending.into.rows(piece.cells)
        arrived.extend(bool(np.isfinite(ending.into.values[one][own]).all()) for one in piece.wide)

    as_it_is = Ending.read_wide
    monkeypatch.setattr(Ending, "read_wide", read)
    sweep(made(WIDE, make_gpt2, tokenizer), WIDE)
    assert len(arrived) >= len(WIDE.metrics)
    assert all(arrived)


def test_a_metric_holds_no_more_than_it_says():
    generator = torch.Generator().manual_seed(0)
    edited, clean = (
        Outcome(torch.randn(rows, 20_000, dtype=torch.float64, generator=generator))
        for rows in (16, 1)
    )
    for metric in METRICS.values():
        prediction = Prediction(edited, clean, token=3, target=3, contrast=4)
        metric.compute(prediction)
        assert ("logprobs" in edited.__dict__) == metric.logprobs, metric.name
        most = in_torch(lambda: metric.compute(prediction))  # noqa: B023
        assert most <= (8 * metric.holds + 0.1) * (16 + 1) * 20_000, metric.name
        edited.__dict__.pop("logprobs", None)


def test_a_value_keeps_nothing_of_the_vocabulary_in_memory():
    edited = Outcome(torch.randn(2, 1000))
    for name in ("logit", "logprob"):
        [reading] = readings(name)
        [encoded] = mt.load("nano").encode(mt.Prompt("Berlin is", target=" the"))
        value = reading.value(edited, edited, encoded)
        assert value.untyped_storage().nbytes() == 2 * 8


def sweep(model: mt.Model, case: Case, verify: int = 0) -> mt.Effects:
    how = {"memory": case.memory, "verify": verify, "progress": False}
    return mt.sweep(model, PROMPT, case.edit, metrics=case.metrics, **how)


def planned(model: mt.Model, case: Case, verified: int = 0) -> Plan:
    question = asking(model, PROMPT, case.edit, metrics=case.metrics)
    return make_plan(question, budget=budget_of(model, case.memory, verified))


def made(case: Case, make_gpt2, tokenizer) -> mt.Model:
    hf = make_gpt2(**{"n_layer": 2, **dict(case.sizes)})
    if case.vocabulary > hf.config.vocab_size:
        hf.resize_token_embeddings(case.vocabulary, mean_resizing=False)
    return mt.load(hf, tokenizer=tokenizer)


def in_torch(work: Callable[[], object]) -> int:
    """The most that torch had at any one time of what it asked for meanwhile."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    events = seen.profiler.kineto_results.events()
    asked = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    held = most = 0
    for _, size in asked:
        held += size
        most = max(most, held)
    return most


def in_numpy(work: Callable[[], object]) -> int:
    """The same of what Python and numpy ask for."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
