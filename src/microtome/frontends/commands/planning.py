"""``microtome plan``."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from microtome import Experiment, Model
from microtome.amounts import many
from microtome.edits import Source
from microtome.errors import listing
from microtome.frontends.arguments import Asking, Shown
from microtome.frontends.commands.asking import experiment_of
from microtome.frontends.commands.keeping import answering
from microtome.frontends.shown import out, print_fields, print_json, say
from microtome.plan.plan import Plan
from microtome.plan.scale import Scale, scale_of
from microtome.prompts.alignment import SAME, aligned
from microtome.prompts.encoding import Encoded

PACED = 3
"""Passes whose quickest is the pace."""

SHOWN = 10
"""Prompts whose tokens are shown where there are many: more would bury the cost above them."""


def plan(question: Asking, shown: Shown) -> None:
    """Show what a sweep would take, then its first prompts, token by token."""
    experiment = experiment_of(question)
    with answering(shown):
        loaded = experiment.load()
        made = experiment.plan(loaded)
        encoded = made.question.encoded
        seconds = seconds_of(loaded, encoded, made)
    ways = {e.alignment for es in made.cells.edits for e in es if e.source is Source.DONOR}
    if shown.json:
        print_json(_answer(experiment, made, encoded, seconds))
        return
    print_fields(_fields(experiment, made, seconds))
    say()
    for one in encoded[:SHOWN]:
        print_tokens(one, sorted(ways))
    if more := len(encoded[SHOWN:]):
        say(f"\n{many(more, 'more prompt')}; --json has the tokens of all {len(encoded):,}.")


def seconds_of(
    model: Model,
    encoded: Sequence[Encoded],
    plan: Plan,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """How long a sweep is expected to take, by the pace of one clean pass of its first prompt.

    By the clock, the quickest of a few: others who use the machine make one slower, never quicker.
    Without what verification takes, loading and figures.
    """
    model.run(encoded[0].prompt)  # the first pass of a process is slower
    each = []
    for _ in range(PACED):
        began = clock()
        model.run(encoded[0].prompt)
        each.append(clock() - began)
    tokens = sum(len(prompt.tokens) for prompt in encoded) / len(encoded)
    return min(each) * plan.cost.passes * tokens / len(encoded[0].tokens)


def print_tokens(encoded: Encoded, alignments: Sequence[str]) -> None:
    """The prompt's tokens, and its donor's where one is used: below, or aligned token by token."""
    say(str(encoded.tokens), heading="prompt")
    added = [n for n, own in enumerate(encoded.tokens.added) if own]
    if added:
        say(f"        added by the tokenizer: {listing(added)}")
    for name in ("target", "contrast"):
        measured = encoded.measured(name)
        if measured:
            say(measured, heading=name)
    if alignments and encoded.donor is not None:
        say(str(encoded.donor), heading="donor ")
        for by in alignments:
            if by != SAME:
                say("(prompt = donor)", heading=f"aligned by {by}")
                shown = str(aligned(by, encoded.tokens, encoded.donor))
                out.print(shown, markup=False, highlight=False, soft_wrap=True)


def _fields(experiment: Experiment, made: Plan, seconds: float) -> dict[str, str]:
    cost = made.cost
    return {
        "edits": "; ".join(map(str, experiment.edits)),
        "axes": " × ".join(f"{axis.name} {len(axis.values)}" for axis in made.axes),
        "padding": "none: every prompt is run by itself, its positions counted from 0",
        "cells": f"{len(made.cells):,}{_absent(made)}",
        "operations": f"{cost.flops / 1e9:,.1f} GFLOP, those of {cost.passes:,.1f} "
        f"forward passes (cell by cell: {many(cost.reference_passes, 'pass')})",
        "expected time": f"about {_duration(seconds)} here, by the pace of a pass just now, "
        "if nothing else runs meanwhile; verification, loading and figures come on top",
        **_units(scale_of(made, seconds)),
        "memory besides the weights": f"about {cost.bytes / 2**20:,.1f} MiB",
        "memory for results": f"about {cost.result_bytes / 2**20:,.1f} MiB",
        "engine": f"{made.choice.engine}: {made.choice.why}",
    }


def _answer(
    experiment: Experiment, made: Plan, encoded: Sequence[Encoded], seconds: float
) -> dict[str, object]:
    return {
        "edits": [str(one) for one in experiment.edits],
        "axes": {axis.name: len(axis.values) for axis in made.axes},
        "cells": len(made.cells),
        "absent": made.absent,
        "why_absent": made.why_absent if made.absent else None,
        "flops": made.cost.flops,
        "passes": made.cost.passes,
        "reference_passes": made.cost.reference_passes,
        "seconds": seconds,
        "units": len(made.units),
        "workers": _with_workers(scale_of(made, seconds)),
        "bytes": made.cost.bytes,
        "result_bytes": made.cost.result_bytes,
        "engine": {"name": made.choice.engine, "why": made.choice.why},
        "prompts": [
            {
                "text": one.tokens.text,
                "tokens": one.tokens.pieces,
                "added": [n for n, own in enumerate(one.tokens.added) if own],
                **{
                    name: one.measured(name)
                    for name in ("target", "contrast")
                    if one.measured(name)
                },
                **({} if one.donor is None else {"donor": one.donor.pieces}),
            }
            for one in encoded
        ],
    }


def _units(scale: Scale) -> dict[str, str]:
    """How many units there are, and what workers would bring, where there are several."""
    if len(scale.shares) == 1:
        return {"units": "1: workers would bring nothing"}
    by = [f"{n}: {_duration(own)}" for n, own in _with_workers(scale).items()]
    return {
        "units": f"{len(scale.shares):,}, the largest {max(scale.shares):.1%} of the work",
        "with workers": f"{listing(by)}, at most, once each has loaded the model",
    }


def _with_workers(scale: Scale) -> dict[int, float]:
    """Seconds by how many workers."""
    return {n: scale.seconds_of(n) for n in scale.counts}


def _absent(plan: Plan) -> str:
    """How many cells do not exist, in brackets; nothing where all do."""
    if not plan.absent:
        return ""
    return f" ({plan.absent:,} more do not exist: {plan.why_absent})"


def _duration(seconds: float) -> str:
    """Seconds as people say it.

    >>> _duration(0.034), _duration(12.3), _duration(400), _duration(9000)
    ('0.034 s', '12 s', '7 min', '2.5 h')
    """
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
