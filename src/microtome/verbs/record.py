"""What a result says of itself: the question, who answered it and how, and what was proved."""

from __future__ import annotations

import pkgutil
import uuid
from collections.abc import Iterable
from dataclasses import asdict
from types import BuiltinFunctionType, FunctionType
from typing import Any

from torch import nn

from microtome.edits import Apply
from microtome.edits import edit as parsed
from microtome.engines.approximate.audit import Audited
from microtome.engines.approximate.text import EXACT
from microtome.engines.assembled import Assembled
from microtome.engines.screen import Screening
from microtome.errors import MicrotomeError
from microtome.language.operations import Operation
from microtome.model.code import PLAIN, code_of, known_by
from microtome.model.loaded import Loaded
from microtome.model.whose import is_known
from microtome.plan.plan import Plan
from microtome.plan.question import Question, plain
from microtome.prompts.answers import Answer
from microtome.prompts.chat import template_hash
from microtome.prompts.tokens import Tokens
from microtome.results import provenance
from microtome.results.together import nearness
from microtome.verbs.options import Options

PASSING = ("created",)
"""What of a machine's record decides no number."""


def identity(model: Loaded, plan: Plan, options: Options, referred: bool) -> dict[str, Any]:
    """Everything that decides the numbers: two sweeps of one identity give the same, bit for bit.

    But for the memory that they may use: units are the same whatever it is, so one may go on with
    more or less; batches are others then, and with them the last bits of what was left. How much is
    verified, and which cells, is part of what a result says, and so of what it is.

    Args:
        model: the model.
        plan: the plan.
        options: how it is answered.
        referred: whether reference prompts were given.
    """
    machine = provenance.of_machine()
    of_model = provenance.of_model(model)
    of_model.pop("watching", None)  # it decides no number
    return {
        "spec": spec_of(plan.question, referred),
        "tokens": [list(one.tokens.ids) for one in plan.question.encoded],
        **_answers(plan.question),
        **written(_chats(plan.question)),
        "model": of_model,
        "modules": model.modules_hash,
        **added(model),
        "options": {**options.as_dict(), "memory": None},
        "engine": plan.choice.engine,
        "functions": functions(plan.question),
        **{name: value for name, value in machine.items() if name not in PASSING},
    }


def record(
    model: Loaded,
    plan: Plan,
    options: Options,
    measured: Assembled,
    beside: Screening | Audited | None,
    referred: bool,
    hashes: tuple[str, str] | None = None,
) -> dict[str, Any]:
    """The provenance of a result of a model whose weights have these hashes, if they are known."""
    screened = beside if isinstance(beside, Screening) else None
    audit = beside if isinstance(beside, Audited) else None
    return {
        "model": provenance.of_model(model, hashes),
        **provenance.of_machine(),
        "seed": options.seed,
        "verify": options.verify.given,
        "memory": options.memory,
        "engine": {"name": plan.choice.engine, "why": plan.choice.why, "notes": measured.notes},
        "verification": verification(plan, options, measured),
        "noise_floor": measured.noise,
        "screen": None if screened is None else screened.as_dict(),
        "method": EXACT if options.method is None else str(options.method),
        "audit": None if audit is None else audit.as_dict(),
        "predicted": {
            "cells": len(plan.cells),
            "units": len(plan.units),
            "absent": plan.absent,
            "why_absent": plan.why_absent,
            **asdict(plan.cost),
        },
        "actual": {**measured.work, "seconds": round(measured.work["seconds"], 3)},
        "spec": spec_of(plan.question, referred),
        "measured": measured_of(plan.question),
        **template_of(model, plan.question),
    }


def template_of(model: Loaded, question: Question) -> dict[str, str]:
    """What wrote chats as texts, by its sha256; nothing where there are none."""
    prompts = [one.prompt for one in (*question.encoded, *question.references)]
    chats = (one.messages or one.donor_messages for one in prompts)
    return {"chat_template": template_hash(model.tokenizer)} if any(chats) else {}


def asked(model: Loaded, question: Question, seed: int = 0) -> dict[str, Any]:
    """What a result's record says of its question, before it is answered: what code is made of.

    Args:
        model: the model.
        question: what is asked of it, without reference prompts.
        seed: of the choice of the cells to verify.
    """
    return {
        "model": provenance.of_model(model),
        "seed": seed,
        "spec": spec_of(question, referred=False),
    }


def measured_of(question: Question) -> list[dict[str, Any]]:
    """Per prompt the ids of its target and contrast, one after another; of a set, any of them."""
    return [
        {
            name: sorted(answer) if isinstance(answer, frozenset) else [*_row(answer)]
            for name in ("target", "contrast")
            if (answer := one.answer(name)) is not None
        }
        for one in question.encoded
    ]


def _row(answer: Answer) -> Iterable[int]:
    return (answer,) if isinstance(answer, int) else answer


def _answers(question: Question) -> dict[str, Any]:
    """What is measured, where a text alone does not say it: so that what was done before this was
    asked goes on as the same question."""
    plain = all(one.is_plain for one in question.encoded)
    return {} if plain else {"measured": measured_of(question)}


def _chats(question: Question) -> list[Tokens]:
    """Of donors and references that are chats, what a template wrote; no record names them."""
    donors = [one.donor for one in question.encoded if one.prompt.donor_messages is not None]
    others = [one.tokens for one in question.references if one.prompt.messages is not None]
    return [tokens for tokens in (*donors, *others) if tokens is not None]


def written(chats: Iterable[Tokens]) -> dict[str, Any]:
    """The tokens of chats as a part of an identity; nothing where there are none."""
    found = [list(tokens.ids) for tokens in chats]
    return {"written": found} if found else {}


def added(model: Loaded) -> dict[str, Any]:
    """What somebody has put on the model, each with what it is known by.

    A class by its code, with what that reads, and by what the module holds; a function by its code
    likewise. What a hook looks at may be anything, a vector or a number somewhere, so it is known
    to nobody the next time: a word that no other call has stands for it.
    """
    found = {}
    for one in model.additions:
        if one.kind == "class":
            found[str(one)] = _class_of(model.hf.get_submodule(one.path))
        elif one.kind == "function":
            code = known_by(pkgutil.resolve_name(one.path))
            found[str(one)] = code or f"reads what may change, {uuid.uuid4()}"
        else:
            found[str(one)] = f"put there by hand, {uuid.uuid4()}"
    return {"added": found} if found else {}


def _class_of(module: nn.Module) -> str:
    """What a module of somebody's own class is known by, besides what `modules_hash` sees of it."""
    held = {name: own for name, own in vars(module).items() if not name.startswith("_")}
    code = known_by(type(module))
    seen = [isinstance(own, (PLAIN, tuple, FunctionType)) or is_known(own) for own in held.values()]
    if code is None or not all(seen):
        return f"reads what may change, {uuid.uuid4()}"
    return code_of([code, held])


def verification(plan: Plan, options: Options, measured: Assembled) -> dict[str, Any]:
    """The verification of all units together."""
    if (plan.exact or plan.choice).engine == "reference":
        return _nothing("every cell was computed on the reference path itself")
    each = [one for one in measured.verifications if one["cells"]]
    if not each:
        return _nothing(f"verify={options.verify.given}: nothing was recomputed")
    worst = max(each, key=nearness)
    noise = max(one["noise"] or 0.0 for one in each)
    return {**worst, "cells": sum(one["cells"] for one in each), "noise": noise}


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
        **_corrupted(question),
        **({} if question.window == 1 else {"window": question.window}),
    }


def _corrupted(question: Question) -> dict[str, Any]:
    """What all runs of each prompt have, where they are corrupted."""
    if not question.corruption:
        return {}
    return {"corruption": [[str(edit) for edit in edits] for edits in question.corruption]}


def functions(question: Question) -> dict[str, str]:
    """The user's functions that the edits apply, each with what it is known by.

    By its code and all that it reads; one of torch's by nothing but its name, as the versions say
    what it is. One made on the spot, which no name brings back, or that reads what may be another
    the next time, is known to nobody then: a word that no other call has stands for it.
    """
    found = {}
    for edit in {edit for variant in question.variants for edit in variant}:
        if not isinstance(edit, Apply):
            continue
        if not reads_back(edit):
            found[str(edit)] = f"made on the spot, {uuid.uuid4()}"
            continue
        if not isinstance(edit.fn, BuiltinFunctionType) and not is_known(edit.fn):
            found[str(edit)] = known_by(edit.fn) or f"reads what may change, {uuid.uuid4()}"
    return found


def reads_back(edit: Operation) -> bool:
    """Whether the text of an edit brings it back: not so a function made on the spot."""
    try:
        return parsed(str(edit)) == edit
    except MicrotomeError:
        return False
