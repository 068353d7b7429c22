"""The first minute: how long a command takes from the prompt of the shell to its end.

python -m benchmarks.first_minute --out first_minute.json

Each command is a process of its own. In each round all of them run, one after the other; seconds
are medians over rounds, and each stands beside the same round's *base*: what no program around a
transformer can do without, importing torch and transformers' auto classes, and for a sweep also
loading model and tokenizer through these, and computing the map; without what microtome imports,
proves, verifies, draws and writes. Compiled modules are kept, as Python does where nobody says
otherwise, and are there: each command runs once before.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.turns import environment, keep

PROMPT = "When Sam and Sally went to the park, Sam gave a gift to"
COMMAND = [sys.executable, "-m", "microtome"]
ASKED = ["-p", PROMPT, "--target", " Sally", "-e"]

BASE = f"""
import time
began = time.perf_counter()
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
imported = time.perf_counter() - began
from importlib.util import find_spec
[home] = find_spec("microtome").submodule_search_locations
AutoModelForCausalLM.from_pretrained(f"{{home}}/model/nano")
AutoTokenizer.from_pretrained(f"{{home}}/model/nano")
loaded = time.perf_counter() - began
import microtome as mt
prompt, zero, model = mt.Prompt({PROMPT!r}, target=" Sally"), mt.zero("L*.z.h*"), mt.load("nano")
for _ in range(2):  # the first time imports what a result is made of
    began = time.perf_counter()
    mt.sweep(model, prompt, zero, metrics="prob", verify=0, progress=False)
    mapped = time.perf_counter() - began
print(imported, loaded + mapped)
"""


@dataclass(frozen=True)
class Case:
    """A command.

    Attributes:
        name: what the page calls it.
        command: the process.
        bar: its longest time, in seconds where it computes nothing, else as a multiple of the base.
        computes: whether it loads a model, and the base with it.
    """

    name: str
    command: tuple[str, ...]
    bar: float
    computes: bool = False


@dataclass(frozen=True)
class Timing:
    """How long a command took: seconds, and as a multiple of the base, medians over rounds."""

    name: str
    seconds: float
    ratio: float
    bar: float
    computes: bool


def cases(folder: Path) -> tuple[Case, ...]:
    """The commands; what they write goes to a folder."""
    refused = [*COMMAND, "sweep", "nano", *ASKED, "zero L9.z.h3", "-o", str(folder / "never")]
    sweep = [*COMMAND, "sweep", "nano", *ASKED, "zero L*.z.h*", "-o", str(folder / "map")]
    return (
        Case("`import microtome`", (sys.executable, "-c", "import microtome"), 0.5),
        Case("`microtome --help`", (*COMMAND, "--help"), 0.7),
        Case("`microtome study list`", (*COMMAND, "study", "list"), 0.7),
        Case("a refused address", tuple(refused), 0.7),
        Case("the first `microtome sweep`", (*sweep, "--overwrite"), 1.3, computes=True),
    )


def measure(rounds: int) -> list[Timing]:
    """All commands, in turn."""
    with tempfile.TemporaryDirectory() as folder:
        asked = cases(Path(folder))
        seconds: dict[str, list[float]] = {case.name: [] for case in asked}
        ratios: dict[str, list[float]] = {case.name: [] for case in asked}
        for case in asked:
            _seconds(case.command)
        for _ in range(rounds):
            imported, whole = _base()
            for case in asked:
                took = _seconds(case.command)
                seconds[case.name].append(took)
                ratios[case.name].append(took / (whole if case.computes else imported))
    return [
        Timing(
            case.name,
            statistics.median(seconds[case.name]),
            statistics.median(ratios[case.name]),
            case.bar,
            case.computes,
        )
        for case in asked
    ]


def record_of(timings: Sequence[Timing], rounds: int) -> dict[str, Any]:
    """What is kept."""
    return {"rounds": rounds, "cores": os.cpu_count(), "rows": [asdict(one) for one in timings]}


def _base() -> tuple[float, float]:
    done = subprocess.run(
        [sys.executable, "-c", BASE], capture_output=True, text=True, check=True, env=environment()
    )
    imported, whole = map(float, done.stdout.split())
    return imported, whole


def _seconds(command: Sequence[str]) -> float:
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    took = time.perf_counter() - began
    if done.returncode not in (0, 2):
        raise RuntimeError(f"{command} failed: {done.stderr}")
    return took


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    timings = measure(asked.rounds)
    for one in timings:
        print(f"{one.name}: {one.seconds:.2f} s, {one.ratio:.2f} × the base", flush=True)
    keep(record_of(timings, asked.rounds), asked.out)


if __name__ == "__main__":
    main()
