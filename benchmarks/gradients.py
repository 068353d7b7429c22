"""What approximations cost, in forward passes over the same prompts.

    python -m benchmarks.gradients small --prompts 64

CPU seconds on one core, of a model of a published shape with random weights: one forward pass over
the prompts; attribution patching of all heads, and of all neurons; and edge attribution patching of
every edge of the graph. Each without its audit, and, unless ``--bare``, with one of 64 cells.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from functools import partial

import torch

import microtome as mt
from benchmarks.models import subject
from benchmarks.questions import SHAPES, TOKENS
from microtome.circuits.gradients import OnePass
from microtome.circuits.trial import Trial
from microtome.plan.plan import make_plan
from microtome.verbs.answer import Job
from microtome.verbs.asking import asking
from microtome.verbs.options import Options

BARS = {"heads": 4.0, "neurons": 4.0, "edges": 6.0}
"""How many forward passes each may cost at most, without its audit."""
EDITS = {"heads": "patch L*.z.h*", "neurons": "patch L*.mlp_post.n*"}


def cpu_seconds(work: Callable[[], object]) -> float:
    """Of one call."""
    began = time.process_time()
    work()
    return time.process_time() - began


def prompts_of(n: int, vocabulary: int) -> list[mt.Prompt]:
    """Prompts of numbered words, each with a donor of its length."""
    chance = random.Random(0)

    def text() -> str:
        return "".join(f" w{chance.randrange(1, vocabulary)}" for _ in range(TOKENS))

    return [mt.Prompt(text(), donor=text(), target=" w1", contrast=" w2") for _ in range(n)]


def mapped(model: mt.Model, prompts: list[mt.Prompt], edit: str) -> Callable[[], object]:
    """What computes a map by attribution patching, and no audit."""
    options = Options.of("auto", 0, None, None, None, 0, "atp", 64)

    def work() -> None:
        question = asking(model, prompts, edit, metrics=["logit_diff"])
        plan = make_plan(question, budget=options.budget(model), method=options.method)
        run = Job(plan, options, verified=False).start(model)
        for unit in plan.units:
            run(unit)

    return work


def measure(shape: str, n: int, audited: bool) -> None:
    """Print a line for each, with its audit, too, where asked for."""
    torch.set_num_threads(1)
    made = subject(SHAPES[shape], context=64)
    model = mt.load(made.original, tokenizer=made.tokenizer)
    prompts = prompts_of(n, made.shape.vocabulary)
    ids = torch.tensor([one.tokens.ids for one in model.encode(prompts)])

    @torch.no_grad()
    def forward() -> None:
        model.hf(ids)

    forward()
    one = cpu_seconds(forward)
    print(f"one forward pass over {n} prompts: {one:.2f} s", flush=True)
    asked = partial(mt.sweep, model, prompts, metrics="logit_diff", method="atp", progress=False)
    for name, edit in EDITS.items():
        bare = cpu_seconds(mapped(model, prompts, edit))
        whole = cpu_seconds(partial(asked, edit)) if audited else None
        _tell(name, bare, whole, one)
    trial = Trial.by(model, prompts, "logit_diff")
    edges = OnePass(trial, mt.EAP(), lambda cells: None)
    bare = cpu_seconds(lambda: [edges.effects(some) for some in edges.units])
    score = partial(mt.circuits.score, model, prompts, method=mt.EAP(), progress=False)
    _tell("edges", bare, cpu_seconds(score) if audited else None, one)


def _tell(name: str, bare: float, whole: float | None, one: float) -> None:
    more = "" if whole is None else f", with audit {whole / one:.1f}"
    print(f"{name}: {bare / one:.1f} passes (at most {BARS[name]:.0f}){more}", flush=True)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shape", choices=[name for name in SHAPES if name != "stories260K"])
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--bare", action="store_true", help="without audits: what is bounded")
    given = parser.parse_args()
    measure(given.shape, given.prompts, not given.bare)


if __name__ == "__main__":
    main()
