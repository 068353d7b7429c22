"""Peak memory: model + budget + 10 %, each case in processes of its own.

    python -m benchmarks.memory --out memory.json

One process loads the model, runs the prompt and its donor through it once, and tells what it holds
then. Another does the same and then the sweep, and tells the most that it held during the sweep:
the resident set's high-water mark as the operating system keeps it, set back before (Linux). The
second may be above the first by the budget of ``memory=``, and the sum by a tenth. Exit status 1
where one is not.

With ``--device cuda`` the peak is that of the device's memory (`max_memory_allocated`).
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")

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
QUICK = (Case("tiny", "b", 256, 64), Case("tiny", "a", 15, 64))


def main() -> None:
    """Measure the cases, print and store them; fail where one is above its limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a tiny model")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--peak", help=argparse.SUPPRESS)  # the child's own part, as JSON
    asked = parser.parse_args()
    if asked.peak is not None:
        print(json.dumps(peak(**json.loads(asked.peak))))
        return
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
    lines = Path("/proc/self/status").read_text().splitlines()
    [mark] = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return {**answer, "mib": int(mark) / 1024}


def set_back(device: str) -> None:
    """Let the high-water mark begin again at what is held now."""
    gc.collect()
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(device)
    else:
        Path("/proc/self/clear_refs").write_text("5")


def _child(case: Case, device: str, sweeps: bool) -> dict[str, Any]:
    asked = json.dumps({"case": asdict(case), "device": device, "sweeps": sweeps})
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", "--peak", asked],
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
