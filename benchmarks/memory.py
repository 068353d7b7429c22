"""Peak memory: model + budget + 10 %, each case in processes of its own.

    python -m benchmarks.memory --out memory.json
    python -m benchmarks.memory --planned

One process loads the model, runs the prompt and its donor through it once, and tells what it holds
then. Another does the same and then the sweep, and tells the most that it held during the sweep:
the resident set's high-water mark as the operating system keeps it, set back before (Linux). The
second may be above the first by the budget of ``memory=``, and the sum by a tenth. Exit status 1
where one is not.

With ``--planned`` other cases: what a plan says of the walk and of the results, held against what
the sweep takes; each is one where another part of the memory is most of it. They may be apart by a
quarter and 32 MiB, or the plan is refused with the figure.

With ``--device cuda`` the peak is that of the device's memory (`max_memory_allocated`).
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")

import microtome as mt
from benchmarks.questions import Shape, words
from microtome.results import provenance

MIB = 2**20


@dataclass(frozen=True)
class Case:
    """A map on a shape, with a budget."""

    shape: str
    map: str
    tokens: int
    budget_mib: int


CASES = tuple(
    Case("large", map_, tokens, budget)
    for map_, tokens in (("b", 1024), ("a", 15))
    for budget in (512, 2048)
)
SLACK_MIB = 32
"""How far planned and measured memory may be apart, besides a quarter."""


@dataclass(frozen=True)
class Planned:
    """A sweep whose plan is held against what it takes."""

    name: str
    shape: Shape
    edit: str
    metrics: tuple[str, ...]
    tokens: int
    budget_mib: int
    verify: int = 0
    prompts: int = 1


PLANNED = (
    Planned(
        "cosines of all pairs",
        Shape("pairs", 4, 4, 64, 1000),
        "zero L*.z.h*@*",
        ("cosine(L*.resid_post@*, *)",),
        64,
        64,
    ),
    Planned(
        "cosines of all pairs × 147,456 cells",
        Shape("pairs", 24, 24, 96, 1000),
        "zero L*.z.h*@*",
        ("cosine(L*.resid_post@*, *)",),
        256,
        64,
    ),
    Planned(
        "a vocabulary of 250,000",
        Shape("wide", 4, 8, 32, 250_000),
        "zero L*.z.h*",
        ("kl", "prob", "rank"),
        12,
        64,
    ),
    Planned(
        "a vocabulary of 250,000 × 64 prompts",
        Shape("wide", 2, 4, 64, 250_000),
        "zero L*.z.h*@-1",
        ("prob", "logit_diff", "kl", "rank", "top1"),
        12,
        256,
        prompts=64,
    ),
    Planned(
        "the shape of 135 million weights",
        Shape("135M", 30, 9, 576, 49_152),
        "zero L*.z.h*@-1",
        ("kl",),
        400,
        128,
    ),
    Planned(
        "neurons × positions",
        Shape("neurons", 3, 4, 128, 1000),
        "zero L1.mlp_post.n*@*",
        ("logit_diff",),
        24,
        16,
    ),
    Planned(
        "neurons at the last token",
        Shape("stream", 2, 8, 1024, 1000),
        "zero L:.mlp_post.n*@-1",
        ("logit_diff",),
        12,
        16,
    ),
    Planned(
        "attention weights",
        Shape("pattern", 4, 8, 64, 1000),
        "zero L1.pattern.h*@*,*",
        ("logit_diff",),
        48,
        16,
    ),
    Planned(
        "attention weights of long prompts",
        Shape("pattern", 4, 8, 64, 1000),
        "zero L*.pattern.h*",
        ("logit_diff",),
        400,
        64,
    ),
)
QUICK = (Case("tiny", "b", 256, 64), Case("tiny", "a", 15, 64))


def main() -> None:
    """Measure the cases, print and store them; fail where one is above its limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a tiny model")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--planned", action="store_true", help="plans, held against sweeps")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--peak", help=argparse.SUPPRESS)  # the child's own part, as JSON
    asked = parser.parse_args()
    if asked.peak is not None:
        own = json.loads(asked.peak)
        print(json.dumps(used(own["planned"]) if "planned" in own else peak(**own)))
        return
    if asked.planned:
        agreed = [hold(number) for number in range(len(PLANNED))]
        sys.exit(0 if all(agreed) else 1)
    found = []
    for case in QUICK if asked.quick else CASES:
        found.append(judge(case, asked.device))
        print(describe(found[-1]), flush=True)
        if asked.out is not None:
            asked.out.parent.mkdir(parents=True, exist_ok=True)
            record = {"device": asked.device, **provenance.of_machine(), "cases": found}
            asked.out.write_text(json.dumps(record, indent=1) + "\n")
    sys.exit(0 if all(case["within"] for case in found) else 1)


def judge(case: Case, device: str) -> dict[str, Any]:
    """The peaks of both processes, and whether the sweep's is within its limit."""
    alone = _child(case, device, sweeps=False)
    swept = _child(case, device, sweeps=True)
    found: dict[str, Any] = {**asdict(case), "model_mib": alone.get("mib")}
    if "error" in swept or "error" in alone:
        error = swept.get("error") or alone.get("error")
        return {**found, "error": error, "peak_mib": None, "limit_mib": None, "within": False}
    limit = 1.1 * (alone["mib"] + case.budget_mib)
    return {
        **found,
        "cells": swept["cells"],
        "seconds": swept["seconds"],
        "peak_mib": swept["mib"],
        "limit_mib": limit,
        "within": swept["mib"] <= limit,
    }


def describe(found: dict[str, Any]) -> str:
    """A case in a line."""
    name = f"{found['shape']} ({found['map']}), {found['tokens']} tokens, {found['budget_mib']} MiB"
    if found["peak_mib"] is None:
        return f"{name}: FAILED: {found['error']}"
    return (
        f"{name}: {found['cells']:,} cells in {found['seconds']:.1f} s; model alone "
        f"{found['model_mib']:,.0f} MiB, with the sweep {found['peak_mib']:,.0f} MiB, limit "
        f"{found['limit_mib']:,.0f} MiB: {'within' if found['within'] else 'ABOVE'}"
    )


def peak(case: dict[str, Any], device: str, sweeps: bool) -> dict[str, Any]:
    """In a process of its own: load, run once, sweep if asked, and read the high-water mark."""
    import torch

    from benchmarks.machine import Machine
    from benchmarks.models import subject
    from benchmarks.questions import MAPS, SHAPES, ask
    from benchmarks.tools.microtome_sweep import Microtome

    one = Case(**case)
    shape, machine = SHAPES[one.shape], Machine(device)
    made = subject(shape, device, context=max(1024, one.tokens))
    question = ask(MAPS[one.map], shape, device, one.tokens)
    ours = Microtome(made)
    with torch.no_grad():
        for tokens in (question.tokens, question.donors):
            made.original(tokens)
    answer: dict[str, Any] = {}
    set_back(device)
    if sweeps:
        work = lambda: ours.sweep(question, memory=one.budget_mib * MIB)  # noqa: E731
        seconds, effects = machine.timed(work)
        answer = {"seconds": seconds, "cells": effects.n_cells}
    if device.startswith("cuda"):
        return {**answer, "mib": torch.cuda.max_memory_allocated(device) / MIB}
    return {**answer, "mib": _mark()}


def hold(number: int) -> bool:
    """Whether a plan and its sweep agree; both are printed."""
    case = PLANNED[number]
    done = _answer({"planned": number})
    if "error" in done:
        print(f"{case.name}: FAILED: {done['error']}", flush=True)
        return False
    if "refused" in done:
        print(f"{case.name}: refused: {done['refused']}", flush=True)
        return True
    planned, used = done["walk_mib"] + done["results_mib"], done["mib"]
    within: bool = abs(planned - used) <= max(planned, used) / 4 + SLACK_MIB
    print(
        f"{case.name}: {done['cells']:,} cells in {done['seconds']:.1f} s; planned "
        f"{done['walk_mib']:,.0f} MiB and {done['results_mib']:,.0f} of results, took {used:,.0f}: "
        f"{'within' if within else 'APART'}",
        flush=True,
    )
    return bool(within)


def used(number: int) -> dict[str, Any]:
    """In a process of its own: what a case's plan says, and what its sweep takes."""
    from benchmarks.models import subject
    from microtome.errors import SweepError
    from microtome.plan.plan import make_plan
    from microtome.verbs.options import budget_of
    from microtome.verbs.sweep import asking

    case = PLANNED[number]
    made = subject(case.shape, context=case.tokens)
    model = mt.load(made.original, tokenizer=made.tokenizer)
    prompts = [drawn(case, number) for number in range(case.prompts)]
    mt.sweep(model, prompts[0], "zero L0.z.h0@-1", metrics="logit_diff", verify=0, progress=False)
    question = asking(model, prompts, case.edit, metrics=case.metrics)
    try:
        plan = make_plan(question, budget=budget_of(model, case.budget_mib * MIB))
    except SweepError as error:
        return {"refused": str(error)}
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # else what was freed before is used again, uncounted
    set_back("cpu")
    before, began = _mark(), time.perf_counter()
    mt.sweep(
        model,
        prompts,
        case.edit,
        metrics=case.metrics,
        memory=case.budget_mib * MIB,
        verify=case.verify,
        progress=False,
    )
    return {
        "cells": len(plan.cells),
        "seconds": time.perf_counter() - began,
        "walk_mib": plan.cost.bytes / MIB,
        "results_mib": plan.cost.result_bytes / MIB,
        "mib": _mark() - before,
    }


def drawn(case: Planned, number: int) -> mt.Prompt:
    """A prompt of a case, other words for each number."""
    ids = range(case.tokens * number, case.tokens * (number + 1) + 2)
    tokens = [1 + n * 7919 % (case.shape.vocabulary - 1) for n in ids]
    text, target, contrast = (words(tokens[a:b]) for a, b in ((0, -2), (-2, -1), (-1, None)))
    return mt.Prompt(text, target=target, contrast=contrast)


def _mark() -> float:
    """The high-water mark of the resident set, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    [mark] = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(mark) / 1024


def set_back(device: str) -> None:
    """Let the high-water mark begin again at what is held now."""
    gc.collect()
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(device)
    else:
        Path("/proc/self/clear_refs").write_text("5")


def _child(case: Case, device: str, sweeps: bool) -> dict[str, Any]:
    return _answer({"case": asdict(case), "device": device, "sweeps": sweeps})


def _answer(asked: dict[str, Any]) -> dict[str, Any]:
    """What a process of its own tells."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", "--peak", json.dumps(asked)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"ended by signal {-done.returncode}"])[-1]
        return {"error": last[:200]}
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


if __name__ == "__main__":
    main()
