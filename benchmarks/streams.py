"""Streams and workers: memory by the number of prompts, and time by the number of workers.

    python -m benchmarks.streams memory --model ../shared/models/stories260K
    python -m benchmarks.streams workers --model ../shared/models/stories260K --backend ray
    python -m benchmarks.streams workers --prompts 1200 --window 100
    python -m benchmarks.streams circuits --prompts 4 --circuits 400
    python -m benchmarks.streams real --model smollm2 --prompts 1000 --out real.zarr --minutes 30
    python -m benchmarks.streams paper

``memory`` sweeps 100 prompts and 3,000, each in a process of its own, and compares the largest
resident set that the operating system saw; status 1 where they are more than a tenth apart.
``workers`` sweeps one map with one worker and with two, each with one thread, and compares the
times, from when all are ready on, with the plan's formula; with a window, those of a stream.
``circuits`` runs circuits drawn at random here and on two processes, and counts the seconds of
cores that both take, which other work on the machine changes little. ``real`` sweeps every head of
a real model on many prompts, some minutes at a time: the same command goes on, status 3 says that
there is more to do, and 1 that it took more memory than was planned. ``paper`` computes, with the
same formula, what docs/scale.md says of 64 GPUs: nothing of that is run.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GPT2Config

import microtome as mt
from microtome.edits import as_edits
from microtome.model.anatomy import family_of
from microtome.plan.plan import make_plan
from microtome.plan.question import ask
from microtome.plan.scale import Scale, scale_of
from microtome.prompts.encoding import Encoded
from microtome.prompts.prompt import Prompt
from microtome.prompts.tokens import Tokens
from microtome.readings.registry import readings
from microtome.verbs.asking import asking
from microtome.verbs.streaming import Keep
from microtome.workers.crew import Crew, Employer, Hand
from microtome.workers.desk import Job, Outcome, Ready, Recipe

NAMES = ("Tom", "Lily", "Ben", "Sam", "Mia", "Tim", "Sue", "Max")
PLACES = ("park", "house", "garden", "shop", "school", "forest")
EDIT, METRIC = "zero L*.z.h*@-1", "logit_diff"
FEW, MANY = 100, 3_000
WITHIN = 0.10
"""How far the two peaks may be apart."""

WINDOW = 64
MIB = 2**20


def prompts(n: int, repeats: int = 1) -> Iterator[dict[str, Any]]:
    """Rows of a stream: two names and who is given something; ``repeats`` makes them longer."""
    draw = random.Random(0)
    for _ in range(n):
        one, other = draw.sample(NAMES, 2)
        place = draw.choice(PLACES)
        text = f"{one} and {other} went to the {place}. " * repeats + f"{other} gave a toy to"
        yield {"text": text, "target": f" {one}", "contrast": f" {other}"}


def peak(model: str, n: int) -> None:
    """Sweep so many prompts, and tell the largest resident set of this process."""
    torch.set_num_threads(1)
    loaded = mt.load(model, device="cpu")
    stream = mt.Stream(lambda: prompts(n), window=WINDOW)
    began = time.perf_counter()
    found = mt.sweep(
        loaded, stream, EDIT, metrics=METRIC, keep="aggregates", progress=False, memory="64MiB"
    )
    seconds = time.perf_counter() - began
    assert found.prompts == n
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"prompts": n, "seconds": round(seconds, 2), "peak_bytes": used}))


def memory(model: str) -> bool:
    """Whether 3,000 prompts take no more than 100."""
    found = []
    for n in (FEW, MANY):
        command = [sys.executable, "-m", "benchmarks.streams", "peak", "--model", model]
        done = subprocess.run(
            [*command, "--prompts", str(n)], capture_output=True, text=True, check=True
        )
        found.append(json.loads(done.stdout.splitlines()[-1]))
        mib = found[-1]["peak_bytes"] / 2**20
        print(f"{n:,} prompts: peak {mib:,.1f} MiB, {found[-1]['seconds']} s", flush=True)
    apart = found[1]["peak_bytes"] / found[0]["peak_bytes"] - 1
    print(f"{apart:+.1%} (allowed: {WITHIN:.0%})")
    return bool(apart <= WITHIN)


class Watch(mt.Observer):
    """Notes when units are done."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def unit_done(self, number: int, of: int) -> None:
        """A unit came back."""
        self.times.append(time.perf_counter())


class Start:
    """Whoever hires workers, and lets none begin before all are ready.

    Attributes:
        employer: who hires them.
        count: how many are to be ready.
        began: when they were.
    """

    def __init__(self, employer: Employer, count: int) -> None:
        self.employer, self.count, self.began = employer, count, 0.0
        self._ready: dict[int, tuple[Hand, Outcome]] = {}

    def hire(self) -> Hand:
        """A worker."""
        return self.employer.hire()

    def publish(self, job: Job) -> object:
        """The job as it is sent."""
        return self.employer.publish(job)

    def wait(self, hands: Sequence[Hand], seconds: float) -> list[tuple[Hand, Outcome]]:
        """What workers answered; that they are ready once all are."""
        found = self.employer.wait(hands, seconds)
        self._ready.update((id(own[0]), own) for own in found if isinstance(own[1], Ready))
        others = [own for own in found if not isinstance(own[1], Ready)]
        if self.began or len(self._ready) < self.count:
            return others
        self.began = time.perf_counter()
        return [*others, *self._ready.values()]

    def close(self) -> None:
        """Let everything go."""
        self.employer.close()


class Together:
    """Workers who all begin at once, when the last of them is ready."""

    def __init__(self, workers: mt.workers.Workers, count: int) -> None:
        self.workers, self.count = workers, count
        self.start: Start | None = None

    @property
    def device(self) -> str | None:
        """As theirs."""
        return self.workers.device

    def crew(self, recipe: Recipe) -> Crew:
        """They themselves."""
        crew = self.workers.crew(recipe)
        crew.employer = self.start = Start(crew.employer, self.count)
        return crew


def with_workers(
    model: str, backend: str, n: int, repeats: int, edit: str, window: int | None
) -> None:
    """Time one map with one worker and with two, from when all are ready to the last unit.

    With a window, of a stream of so many at a time, whose aggregates are kept.
    """
    torch.set_num_threads(1)
    loaded = mt.load(model, device="cpu")
    rows = [mt.Prompt(**row) for row in prompts(n, repeats)]
    keep: Keep = "cells" if window is None else "aggregates"
    asked = rows if window is None else mt.Stream(rows, window)
    plan = make_plan(asking(loaded, rows[:window], edit, metrics=METRIC))
    rounds = 1 if window is None else math.ceil(n / window)
    seconds, busy = {}, 0.0
    for count in (1, 2):
        workers: mt.workers.Workers = mt.workers.processes(count)
        if backend == "ray":
            workers = mt.workers.ray(count=count, init={"num_cpus": count})
        together, watch = Together(workers, count), Watch()
        began = time.perf_counter()
        found = mt.sweep(
            loaded, asked, edit, metrics=METRIC, workers=together, progress=watch, keep=keep
        )
        whole = time.perf_counter() - began
        assert together.start is not None
        seconds[count] = watch.times[-1] - together.start.began
        busy = found.provenance["actual"]["seconds"]
        print(
            f"{count} {backend} worker(s): {len(watch.times)} units, {seconds[count]:.1f} s "
            f"({whole:.1f} s with starting; units' own seconds: {busy:.1f})",
            flush=True,
        )
    between = 0.0
    if window is not None:  # what this process alone takes besides
        began = time.perf_counter()
        found = mt.sweep(loaded, asked, edit, metrics=METRIC, progress=False, keep=keep)
        busy = found.provenance["actual"]["seconds"]
        between = (time.perf_counter() - began - busy) / rounds
        print(f"here: {busy:.1f} s, and {between:.2f} s a window besides")
    shares = [own / rounds for own in scale_of(plan, 1.0).shares]
    scale = Scale(busy, shares, rounds, between=between)
    real = (seconds[1] if window is None else busy) / (2 * seconds[2])
    print(f"efficiency at 2: {real:.3f}; the formula promises {scale.efficiency(2):.3f}")


def of_circuits(model: str, n: int, many: int) -> None:
    """Seconds of cores that circuits take here, and on two processes of one thread each."""
    torch.set_num_threads(1)
    loaded, tasks = mt.load(model, device="cpu"), mt.tasks.ioi(n)
    graph, draw = mt.circuits.Graph.of(loaded), np.random.default_rng(0)
    drawn = [mt.circuits.Circuit(graph, draw.random(len(graph)) < 0.5) for _ in range(many)]
    found = []
    for workers in (None, mt.workers.processes(2)):
        before = [_of_cores(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        found.append(mt.circuits.run(loaded, tasks, drawn, workers=workers, progress=False))
        after = [_of_cores(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        here, there = (late - early for late, early in zip(after, before, strict=True))
        print(f"{n * many:,} rows, {workers or 'here'}: {here:.1f} s here, {there:.1f} s there")
    print(f"the same, bit for bit: {found[0].equals(found[1])}")


def _of_cores(who: int) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


class Piece(mt.Observer):
    """Lets a sweep go on for so many minutes, and says once in a while how far it is."""

    def __init__(self, minutes: float | None) -> None:
        self._began = self._told = time.monotonic()
        self._end = math.inf if minutes is None else self._began + 60 * minutes
        self._done, self._of = 0.0, 1

    def expected(self, cells: int, units: int, flops: float) -> None:
        """So many cells in all."""
        self._of = cells

    def advanced(self, cells: float) -> None:
        """Some more."""
        self._done += cells
        now = time.monotonic()
        if now - self._told > 60:
            self._told = now
            print(f"{self._done:,.0f} of {self._of:,} cells", flush=True)

    @property
    def cancelled(self) -> bool:
        """Whether its time is over."""
        return time.monotonic() > self._end


REAL_WINDOW = 50
ROOM = 1.25
"""How much more than weights, budget and what importing takes may be resident."""


def real(model: str, n: int, out: str, minutes: float | None, workers: str | None) -> int:
    """Every head on so many prompts of a real model, for some minutes; the same again goes on.

    Returns:
        3, where there is more to do; 1, where it took more memory than is planned; else 0.
    """
    torch.set_num_threads(1)
    loaded = mt.load(model, device="cpu")
    asked = mt.tasks.ioi(n, seed=0, tokenizer=loaded.tokenizer)
    mt.sweep(loaded, asked[:2], EDIT, metrics=METRIC, progress=False)  # what the first one loads
    before = resident()
    first = asked[:REAL_WINDOW]
    plan = make_plan(asking(loaded, first, EDIT, metrics=METRIC))
    planned = plan.cost.bytes + plan.cost.result_bytes
    began = time.perf_counter()
    try:
        found = mt.sweep(
            loaded,
            mt.Stream(asked, window=REAL_WINDOW),
            EDIT,
            metrics=METRIC,
            keep="aggregates",
            out=out,
            workers=workers,
            progress=Piece(minutes),
        )
    except mt.Cancelled:
        print(f"{time.perf_counter() - began:.0f} s; there is more to do: the same again goes on")
        return 3
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        f"{found.prompts:,} prompts × {len(plan.cells) // len(first)} heads; "
        f"{time.perf_counter() - began:.0f} s of this piece; resident before {before / MIB:,.0f} "
        f"MiB, planned besides {planned / MIB:,.0f} MiB, peak {peak / MIB:,.0f} MiB"
    )
    print(found.top(10).to_string(index=False))
    return int(peak > ROOM * (before + planned))


def resident() -> int:
    """Bytes that this process has now, by the operating system (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


LARGE = {"n_layer": 36, "n_head": 20, "n_embd": 1280}
"""GPT-2 Large."""

TOKENS = 16
MANY_PROMPTS, ON_PAPER = 100_000, 512
"""Prompts on paper, and in a window."""


def paper(rate: float, between: float, start: float) -> None:
    """What the formula says of 10⁵ prompts on up to 256 GPUs.

    Args:
        rate: operations per second of one GPU, in float32 and in the walk's batches.
        between: seconds between two windows, in which one process encodes, plans and keeps.
        start: seconds in which a worker loads the model.
    """
    config = GPT2Config(**LARGE)
    dims = family_of(config, "GPT-2 Large is").dimensions(config)
    tokens = Tokens.of_texts(*[f" word{n}" for n in range(TOKENS)])
    one = Encoded(Prompt("…"), tokens, None, 0, 1)
    question = ask(dims, [one] * ON_PAPER, as_edits(EDIT), readings(METRIC), None, [one])
    plan = make_plan(question)
    windows = MANY_PROMPTS / ON_PAPER
    seconds = plan.cost.flops * windows / rate
    shares = scale_of(plan, 1.0).shares
    scale = Scale(seconds, [own / windows for own in shares], round(windows), start, between)
    print(
        f"{plan.cost.flops / ON_PAPER / 1e12:.2f} TFLOP a prompt ({len(plan.cells) // ON_PAPER} "
        f"cells of {TOKENS} tokens), {len(plan.units)} units a window of {ON_PAPER}"
    )
    for workers in (1, 8, 16, 64, 256):
        hours = scale.seconds_of(workers) / 3600
        print(f"{workers} GPUs: {hours:.2f} h, efficiency {scale.efficiency(workers):.2f}")


def main() -> None:
    """One of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=("memory", "workers", "circuits", "real", "paper", "peak"))
    parser.add_argument("--model", default="nano")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--circuits", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--window", type=int, help="of a stream on workers; a list unless given")
    parser.add_argument("--edit", default=EDIT)
    parser.add_argument("--backend", choices=("processes", "ray"), default="processes")
    parser.add_argument("--out", default="real.zarr", help="where what is real goes")
    parser.add_argument("--minutes", type=float, help="of this piece; to the end unless given")
    parser.add_argument("--workers", help="of what is real, such as processes:2")
    parser.add_argument("--rate", type=float, default=1e13, help="a GPU's operations per second")
    parser.add_argument("--between", type=float, default=2.0, help="seconds between two windows")
    parser.add_argument("--start", type=float, default=60.0, help="seconds to load the model")
    asked = parser.parse_args()
    if asked.what == "paper":
        paper(asked.rate, asked.between, asked.start)
    elif asked.what == "peak":
        peak(asked.model, asked.prompts)
    elif asked.what == "real":
        sys.exit(real(asked.model, asked.prompts, asked.out, asked.minutes, asked.workers))
    elif asked.what == "memory":
        sys.exit(0 if memory(asked.model) else 1)
    elif asked.what == "circuits":
        of_circuits(asked.model, asked.prompts, asked.circuits)
    else:
        how = asked.prompts, asked.repeats, asked.edit, asked.window
        with_workers(asked.model, asked.backend, *how)


if __name__ == "__main__":
    main()
