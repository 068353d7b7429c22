"""Kill a sweep at random moments with SIGKILL, resume it, and compare it with one never killed.

::

    python tests/faults/kill_and_resume.py [MOMENTS] [SEED] [WORKERS] [WINDOW]

Each round starts from nothing, is killed once or several times, and ends with a run that is left
alone. Its store then has to equal, array by array and byte by byte, that of the sweep that nothing
disturbed; every unit that was on disk when a run was killed must not be computed again. With
workers, so many processes, who asks is killed, and they write what they were at. With a window, a
stream of prompts is swept, so many at a time.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

import microtome as mt
from microtome.engines.observer import Observer
from microtome.plan import units

WORK = 4e9
"""Operations of a unit here: small, so that there are many."""

PROMPT = mt.Prompt(
    "When Sam and Sally went to the park, Sam gave a gift to",
    donor="When Sam and Sally went to the park, Sally gave a gift to",
    target=" Sally",
    contrast=" Sam",
)
SHORT = mt.Prompt("Sam gave it to", donor="Sally gave it to", target=" Sally", contrast=" Sam")
STREAM = [PROMPT, SHORT, SHORT, PROMPT, PROMPT]
EDIT = "patch L*.z.h*@*"
METRICS = ("logit_diff", "kl", "top1", "norm(L*.resid_post@-1)")


class Counting(Observer):
    """Notes which units are computed, in a file that outlives the process."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def unit_done(self, number: int, of: int) -> None:
        """A unit is computed and kept."""
        with self.log.open("a", encoding="ascii") as file:
            file.write(f"{number}\n")


def sweep(model: mt.Model, out: Path, log: Path, workers: int = 0, window: int = 0) -> None:
    """The sweep that is killed."""
    who = mt.workers.processes(workers) if workers else None
    asked = mt.Stream(STREAM, window) if window else PROMPT
    told = Counting(log)
    mt.sweep(model, asked, EDIT, metrics=METRICS, out=out, progress=told, workers=who)


def in_a_process(model: mt.Model, out: Path, log: Path, workers: int = 0, window: int = 0) -> int:
    """Start the sweep in a process of its own; its number."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            sweep(model, out, log, workers, window)
            code = 0
        finally:
            os._exit(code)
    return child


def ended(child: int) -> int:
    """Wait for a process; its exit code, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def numbers(out: Path) -> Mapping[str, bytes]:
    """Every array of a store, as bytes."""
    data = mt.open_effects(out).data
    return {str(name): np.asarray(data[name].values).tobytes() for name in data.variables}


def trial(moments: int, seed: int, workers: int, window: int, folder: Path) -> None:
    """Kill at so many moments; raises where anything is lost or different."""
    torch.set_num_threads(1)
    units.WORK, units.PASSES = WORK, 0
    model, draw = mt.load("nano"), random.Random(seed)
    began = time.monotonic()
    assert ended(in_a_process(model, folder / "whole.zarr", folder / "whole.log", 0, window)) == 0
    whole = numbers(folder / "whole.zarr")
    if workers:  # as long as it takes with them
        began = time.monotonic()
        assert ended(in_a_process(model, folder / "e.zarr", folder / "e.log", workers, window)) == 0
        assert numbers(folder / "e.zarr") == whole
    seconds = time.monotonic() - began
    total = len((folder / "whole.log").read_text().split())
    assert total > 5, "there are several units to be killed between"
    killed = 0
    while killed < moments:
        out, log = folder / f"{killed}.zarr", folder / f"{killed}.log"
        for _ in range(draw.choice([1, 1, 2])):
            kept = {path.name for path in (folder / f"{out.name}.partial").glob("units/*.zip")}
            child = in_a_process(model, out, log, workers, window)
            time.sleep(draw.uniform(0, 1.1 * seconds))
            os.kill(child, signal.SIGKILL)
            ended(child)
            killed += 1
            left = {path.name for path in (folder / f"{out.name}.partial").glob("units/*.zip")}
            assert out.exists() or kept <= left, "what was kept is kept"
        assert ended(in_a_process(model, out, log, 0, window)) == 0
        assert numbers(out) == whole, f"the sweep killed {killed} times is another (seed {seed})"
        done = [int(number) for number in log.read_text().split()]
        # Of a stream each run counts its own.
        twice = len(done) - (total if window else len(set(done)))
        assert set(done) <= set(range(total))
        assert twice <= 0, f"{twice} units were computed again though they were kept"
        assert not (folder / f"{out.name}.partial").exists()
        sys.stdout.write(f"{killed} of {moments} moments: equal\n")


if __name__ == "__main__":
    asked = [int(text) for text in sys.argv[1:]]
    with tempfile.TemporaryDirectory() as name:
        trial(*[*asked, *(30, 0, 0, 0)[len(asked) :]], Path(name))
