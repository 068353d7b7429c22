"""What a plan says of memory, and what it refuses; and that large maps are planned in columns."""

from __future__ import annotations

import ctypes
import re
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import microtome as mt
import microtome.model.host as host
from microtome.edits import as_edits
from microtome.errors import SweepError
from microtome.language.sites import Dimensions
from microtome.plan.memory.budget import Budget
from microtome.plan.memory.held import held_for
from microtome.plan.plan import Plan, make_plan
from microtome.plan.question import ask
from microtome.prompts.encoding import Encoded
from microtome.prompts.prompt import Prompt
from microtome.prompts.tokens import Tokens
from microtome.readings.registry import readings
from microtome.verbs.options import Options

MIB = 2**20
LARGE = Dimensions(36, 20, 20, 1280, 64, 5120, 50257, n_positions=1024)
SMALL = Dimensions(12, 12, 12, 768, 64, 3072, 50257, n_positions=1024)


def encoded(length: int, shift: int = 0) -> Encoded:
    tokens = Tokens.of_texts(*(f" t{n + shift}" for n in range(length)))
    donor = Tokens.of_texts(*(f" u{n + shift}" for n in range(length)))
    return Encoded(Prompt(tokens.text), tokens, donor, 0, 1)


def planned(edit, metrics=("logit_diff",), dims=SMALL, prompts=None, **budget) -> Plan:
    question = ask(dims, prompts or [encoded(15)], as_edits(edit), readings(metrics))
    return make_plan(question, budget=Budget(**budget))


def calls(work) -> int:
    """How many functions of Python are called meanwhile."""
    made = 0

    def count(frame, event, argument) -> None:
        nonlocal made
        made += event == "call"

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return made


def test_cells_are_planned_in_columns_not_one_by_one():
    plan = planned("zero L*.mlp_post.n*@-1", dims=LARGE)  # and what is looked up once
    assert len(plan.cells) == 184_320
    made = calls(lambda: planned("zero L*.mlp_post.n*@-1", dims=LARGE))
    assert made < len(plan.cells) / 2  # most of them the checks of types that tests make


def test_many_prompts_are_planned_prompt_by_prompt():
    def work(prompts):
        return calls(lambda: planned("patch L*.z.h*@*", prompts=[encoded(15, n) for n in prompts]))

    work(range(2))
    one, two = work(range(16)), work(range(32))
    assert two < 2.2 * one


def test_results_are_planned_with_all_their_dimensions():
    metrics = ["cosine(L*.resid_post@*, *)", "prob"]
    plan = planned("zero L*.z.h*@*", metrics, memory=32 * MIB)
    pairs = 12 * 15 * 15
    arrays = 2 * len(plan.cells) * (pairs + 1 + 2) * 8
    assert arrays < plan.cost.result_bytes < 1.1 * arrays
    assert plan.cost.bytes < 32 * MIB < arrays


def test_places_of_cells_that_do_not_exist_are_counted():
    ragged = planned("zero L*.z.h*@*", ["prob"], prompts=(encoded(2), encoded(60)))
    alike = planned("zero L*.z.h*@*", ["prob"], prompts=(encoded(31), encoded(31)))
    assert len(ragged.cells) == len(alike.cells)
    assert ragged.cost.result_bytes > 1.1 * alike.cost.result_bytes


def test_results_that_do_not_fit_into_the_machine_are_refused_with_the_figure():
    edit, metrics = "zero L*.z.h*@*", ["cosine(L*.resid_post@*, *)"]
    needed = planned(edit, metrics, memory=64 * MIB).cost
    with pytest.raises(SweepError, match="ask for fewer cells") as refused:
        planned(edit, metrics, memory=64 * MIB, host=50 * MIB)
    assert f"need {needed.result_bytes / MIB:,.0f} MiB" in str(refused.value)
    assert "has 50 MiB left" in str(refused.value)
    both = int(needed.result_bytes + needed.bytes)
    planned(edit, metrics, memory=64 * MIB, host=both)
    with pytest.raises(SweepError, match="for computing them"):
        planned(edit, metrics, memory=64 * MIB, host=both - 1)
    # On an accelerator the walk is not in the machine's memory.
    planned(edit, metrics, memory=64 * MIB, host=int(needed.result_bytes), shared=False)


@pytest.mark.parametrize(
    ("edit", "metrics"),
    [
        ("zero L*.z.h*@-1", ["logit_diff"]),
        ("zero L*.z.h*@-1", ["kl"]),
        ("zero L*.pattern.h*@-1,*", ["logit_diff"]),
        ("zero L*.z.h*@*", ["cosine(L*.resid_post@*, *)"]),
    ],
)
def test_memory_for_not_one_cell_is_refused_with_the_figure_that_is_enough(edit, metrics):
    memory, refusals = 1000, 0
    while True:
        try:
            plan = planned(edit, metrics, memory=memory)
            break
        except SweepError as error:
            [needed] = re.findall(r"needs ([\d,]+)", str(error))
            assert int(needed.replace(",", "")) > memory
            memory, refusals = int(needed.replace(",", "")), refusals + 1
    assert 1 <= refusals <= 4  # of the clean run first, then of cells
    assert plan.cost.bytes <= memory


def test_the_vocabulary_is_counted_as_often_as_metrics_hold_it():
    wide = replace(SMALL, d_vocab=250_000)
    sizes = [
        planned("zero L*.z.h*@-1", metrics, dims=wide, memory=64 * MIB).cost.bytes
        for metrics in (["logit_diff"], ["top1"], ["kl"], ["kl", "logit_corr"])
    ]
    assert sizes[0] < sizes[1]
    assert all(size <= 64 * MIB for size in sizes)
    with pytest.raises(SweepError, match="one cell at a time needs"):
        planned("zero L*.z.h*@-1", ["kl"], dims=wide, memory=8 * MIB)


def test_verified_cells_are_counted():
    alone, verified = (
        planned("zero L*.z.h*@-1", prompts=(encoded(200),), verified=n).cost.bytes for n in (0, 9)
    )
    assert verified > alone


@pytest.mark.parametrize(("itemsize", "cells"), [(4, 4), (8, 4), (2, 8)])
def test_streams_that_verification_keeps_are_counted(itemsize, cells):
    def held(verified):
        question = ask(SMALL, [encoded(200)], as_edits("zero L*.z.h*@-1"), readings("logit_diff"))
        own = make_plan(question).cells
        budget = Budget(verified=verified, itemsize=itemsize)
        return held_for(question, own, [0], 200, 50, budget).bytes

    assert held(4) - held(0) == 2 * cells * 150 * SMALL.d_model * max(itemsize, 4)


@pytest.mark.parametrize(("method", "screen"), [("atp", None), ("exact", "float32")])
def test_a_copy_of_the_model_in_another_type_is_planned(make_gpt2, tokenizer, method, screen):
    model = mt.load(make_gpt2(n_layer=1).bfloat16(), tokenizer=tokenizer)
    weights = 4 * sum(own.numel() for own in model.hf.parameters())
    options = Options.of("auto", 0, 64 * MIB, screen, None, 0, method)
    assert options.planned(model).copied == weights
    assert options.budget(model).copied == 0
    assert Options.of("auto", 0, 64 * MIB, None, None, 0).planned(model).copied == 0
    whole = planned("zero L*.z.h*@-1", copied=weights).cost.bytes
    assert whole == planned("zero L*.z.h*@-1").cost.bytes + weights


def test_a_copy_that_does_not_fit_is_told_of():
    with pytest.raises(SweepError, match=r"\(900 of them for a copy of the model\).*leave screen="):
        planned("zero L*.z.h*@-1", copied=900 * MIB, host=500 * MIB)
    with pytest.raises(SweepError) as without:
        planned("zero L*.z.h*@*", ["cosine(L*.resid_post@*, *)"], host=MIB)
    assert "copy" not in str(without.value)


def test_what_the_machine_has_left(tmp_path, monkeypatch):
    files = {name: tmp_path / name for name in ("MEMINFO", "LIMIT", "USED", "PARTS")}
    for name, file in files.items():
        monkeypatch.setattr(host, name, file)
    assert host.memory_left() is None
    files["MEMINFO"].write_text("MemTotal: 9000 kB\nMemAvailable:   4000 kB\n")
    assert host.memory_left() == 4000 * 1024
    files["USED"].write_text("1024\n")
    files["LIMIT"].write_text("max\n")
    assert host.memory_left() == 4000 * 1024
    files["LIMIT"].write_text("3072\n")
    assert host.memory_left() == 2048
    files["PARTS"].write_text("anon 24\ninactive_file 900\nactive_file 100\nkernel 0\n")
    assert host.memory_left() == 3048  # files that were read make room


VM_STAT = """Mach Virtual Memory Statistics: (page size of 16384 bytes)
Pages free:                                 100.
Pages active:                             90000.
Pages inactive:                            1000.
Pages speculative:                           10.
Pages throttled:                              0.
Pages wired down:                         80000.
"Translation faults":                 123456789.
"""


def test_what_a_mac_has_left(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(host, "LIMIT", tmp_path / "none")
    monkeypatch.setattr(host, "VM_STAT", ("printf", "%s", VM_STAT))
    assert host.memory_left() == 1110 * 16384
    for command in (("printf", "nothing"), ("false",), (str(tmp_path / "none"),)):
        monkeypatch.setattr(host, "VM_STAT", command)
        assert host.memory_left() is None


def test_what_windows_has_left(monkeypatch, tmp_path):
    def told(given) -> int:
        status = given._obj
        assert status.length == ctypes.sizeof(status) == 64  # else Windows refuses
        status.available = 5_000_000_000
        return 1

    kernel = SimpleNamespace(GlobalMemoryStatusEx=told)
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(host, "LIMIT", tmp_path / "none")
    monkeypatch.setattr(ctypes, "windll", SimpleNamespace(kernel32=kernel), raising=False)
    assert host.memory_left() == 5_000_000_000
    kernel.GlobalMemoryStatusEx = lambda _: 0
    assert host.memory_left() is None


def test_what_a_device_has_left(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 9000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 500)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 200)
    monkeypatch.setattr(host, "memory_left", lambda: 7)
    left = {name: host.device_left(torch.device(name)) for name in ("cuda", "cpu", "mps", "meta")}
    assert left == {"cuda": 1300, "cpu": 7, "mps": 7, "meta": None}
