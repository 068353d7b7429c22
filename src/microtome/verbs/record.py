"""What a result says of itself: the question, who answered it and how, and what was proved."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from microtome.edits import edit as parsed
from microtome.engines.assembled import Assembled
from microtome.engines.screen import Screening
from microtome.errors import MicrotomeError
from microtome.language.operations import Operation
from microtome.model.loaded import Loaded
from microtome.plan.plan import Plan
from microtome.plan.question import Question, plain
from microtome.results import provenance
from microtome.verbs.options import Options

PASSING = ("created",)
"""What of a machine's record decides no number."""


def identity(model: Loaded, plan: Plan, options: Options, referred: bool) -> dict[str, Any]:
    """Everything that decides the numbers: two sweeps of one identity give the same, bit for bit.

    Args:
        model: the model.
        plan: the plan.
        options: how it is answered.
        referred: whether reference prompts were given.
    """
    machine = provenance.of_machine()
    return {
        "spec": spec_of(plan.question, referred),
        "tokens": [list(one.tokens.ids) for one in plan.question.encoded],
        "model": provenance.of_model(model),
        "options": options.as_dict(),
        "engine": plan.choice.engine,
        **{name: value for name, value in machine.items() if name not in PASSING},
    }


def record(
    model: Loaded,
    plan: Plan,
    options: Options,
    measured: Assembled,
    screened: Screening | None,
    referred: bool,
    seconds: float,
) -> dict[str, Any]:
    """The provenance of a result."""
    screen = options.screen
    return {
        "model": provenance.of_model(model),
        **provenance.of_machine(),
        "seed": options.seed,
        "verify": options.verify,
        "memory": options.memory,
        "engine": {"name": plan.choice.engine, "why": plan.choice.why, "notes": measured.notes},
        "verification": verification(plan, measured),
        "screen": None if screened is None or screen is None else screened.as_dict(),
        "predicted": {
            "cells": len(plan.cells),
            "units": len(plan.units),
            "absent": plan.absent,
            "why_absent": plan.why_absent,
            **asdict(plan.cost),
        },
        "actual": {"seconds": round(seconds, 3), **measured.work},
        "spec": spec_of(plan.question, referred),
    }


def verification(plan: Plan, measured: Assembled) -> dict[str, Any]:
    """The verification of all units together."""
    if plan.choice.engine == "reference":
        return _nothing("every cell was computed on the reference path itself")
    each = [one for one in measured.verifications if one["cells"]]
    if not each:
        return _nothing("verify=0: nothing was recomputed")
    worst = max(each, key=lambda one: one["largest_difference"] / one["tolerance"])
    return {**worst, "cells": sum(one["cells"] for one in each)}


def _nothing(why: str) -> dict[str, Any]:
    return {"cells": 0, "largest_difference": None, "tolerance": None, "why": why}


def spec_of(question: Question, referred: bool) -> dict[str, Any]:
    """What was asked, in plain values."""
    return {
        "edits": [str(edit) for edit in question.edits],
        "over": {axis.name: [plain(value) for value in axis.values] for axis in question.varied},
        "metrics": [str(reading) for reading in question.asked],
        "prompts": [one.prompt.as_dict() for one in question.encoded],
        "reference": [one.prompt.as_dict() for one in question.references] if referred else [],
    }


def unnamed(question: Question) -> list[str]:
    """The edits of which no text can bring back what they do: a function made on the spot."""
    return [str(edit) for edit in question.edits if not _reads_back(edit)]


def _reads_back(edit: Operation) -> bool:
    try:
        return parsed(str(edit)) == edit
    except MicrotomeError:
        return False
