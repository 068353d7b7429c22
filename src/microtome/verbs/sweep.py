"""The sweep, step by step: ask, plan, run unit by unit, assemble, label."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from microtome.edits import Edit, as_edits
from microtome.edits.sources import Sources
from microtome.engines import screen as screening
from microtome.engines.assembled import Assembled, assemble
from microtome.engines.executor import Executor
from microtome.engines.reference import Reference
from microtome.engines.screen import Screening
from microtome.engines.verification import Verified
from microtome.engines.walk.walk import Walk
from microtome.model.loaded import Loaded
from microtome.plan.memory import DEFAULT_MEMORY, READING, TILES, Budget
from microtome.plan.plan import Plan, make_plan
from microtome.plan.question import Question, ask, plain
from microtome.plan.verify import Verify, shown
from microtome.prompts.prompt import Prompt
from microtome.readings.registry import readings
from microtome.results import provenance
from microtome.results.effects import Effects
from microtome.results.labelled import label
from microtome.results.sinks import MemorySink
from microtome.verbs.model import Model


def sweep(
    model: Model,
    prompts: Prompt | str | Iterable[Prompt | str],
    edit: Edit | str | Iterable[Edit | str],
    *,
    metrics: str | Iterable[str],
    over: Mapping[str, Sequence[Any]] | None = None,
    engine: str = "auto",
    verify: Verify | int | str = 4,
    memory: int | None = None,
    screen: str | None = None,
    refine: int = 64,
    seed: int = 0,
    out: str | Path | None = None,
    progress: bool = True,
    reference: Iterable[Prompt | str] = (),
) -> Effects:
    """Measure every cell that an edit's stars span.

    Args:
        model: from `load`.
        prompts: one or several; each is run by itself, unpadded.
        edit: what is done. Several in a list make one cell together; where they star the same
            dimension, they move along it together.
        metrics: names such as ``"prob"``, ``"logit_diff"``, ``"prob(contrast)"``, ``"loss@3"``.
        over: values for parameters of the edit, such as ``{"factor": [0.1, 0.6, 10.0]}``; each
            becomes a dimension.
        engine: ``"walk"``, one pass through the layers for all cells; ``"reference"``, one full
            forward pass per cell; ``"auto"``, the walk wherever it can go.
        verify: how many of the walk's cells to recompute on the reference path, or ``"all"``;
            where a map is computed in several parts, so many of each, or fewer where that would
            cost more than a twentieth of it.
        memory: bytes for the walk's batches besides the model; 2 GiB unless given.
        screen: ``"bfloat16"``: compute the whole map in this type first, on a copy of the model,
            then the strongest cells again in the model's own.
        refine: how many cells to compute again: those with the largest effects on the first
            metric.
        seed: of the choice of the cells to verify. Edits carry their own seeds.
        out: a zarr directory to save the result in.
        progress: show a bar on standard error, where that is a terminal.
        reference: the prompts that `mean(over="prompts")` averages over; by default the prompts
            themselves.

    Returns:
        The effects, with dimensions ``prompt``, then the stars, then the parameters in ``over``.

    Raises:
        SweepError, AddressError, EditError, PromptError, MetricError: found before anything runs.
        VerificationError: a recomputed cell differs by more than rounding.

    >>> import microtome as mt
    >>> prompt = mt.Prompt("Berlin is the capital of", target=" Germany", contrast=" France")
    >>> effects = mt.sweep(mt.load(), prompt, mt.zero("L*.z.h*@-1"), metrics=["logit_diff"])
    >>> effects.dims
    ('prompt', 'layer', 'head')
    """
    checks = Verify.of(verify)
    question = asking(model, prompts, edit, metrics=metrics, over=over, reference=reference)
    plan = make_plan(question, engine, budget_of(model, memory))
    rough = None if screen is None else screening.coarse(model, screen, question.asked[0], refine)
    sink = MemorySink()
    again = 0 if rough is None else min(refine, len(plan.cells))
    with ticker(len(plan.cells) + again, progress) as tick:
        began = time.perf_counter()
        runs = Runs(memory, checks, seed, tick)
        exact = plan
        if rough is not None:
            runs.run(rough, plan, sink, verified=False)
            exact = screening.strongest(plan, assemble(plan, sink.blocks()), refine)
        runs.run(model, exact, sink)
        seconds = time.perf_counter() - began
    measured, screened = _whole(plan, exact, sink, screen)
    record = {
        "model": provenance.of_model(model),
        **provenance.of_machine(),
        "seed": seed,
        "verify": checks.given,
        "memory": memory,
        "engine": {"name": plan.choice.engine, "why": plan.choice.why, "notes": measured.notes},
        "verification": together(plan, checks, measured),
        "noise_floor": measured.noise,
        "screen": None if screened is None else screened.as_dict(),
        "predicted": {
            "cells": len(plan.cells),
            "absent": plan.absent,
            "why_absent": plan.why_absent,
            **asdict(plan.cost),
        },
        "actual": {"seconds": round(seconds, 3), **measured.work},
        "spec": spec_of(question, bool(reference)),
    }
    data = label(plan, model.tokenizer, measured, screened)
    effects = Effects(data.assign_attrs(provenance=json.dumps(record, ensure_ascii=False)))
    if out is not None:
        effects.save(out)
    return effects


def asking(
    model: Loaded,
    prompts: Prompt | str | Iterable[Prompt | str],
    edit: Edit | str | Iterable[Edit | str],
    *,
    metrics: str | Iterable[str],
    over: Mapping[str, Sequence[Any]] | None = None,
    reference: Iterable[Prompt | str] = (),
) -> Question:
    """The question that a sweep's arguments ask, resolved against a model."""
    encoded = model.encode(prompts)
    others = list(reference)
    references = model.encode(others) if others else encoded
    dims = model.anatomy.dims
    return ask(dims, encoded, as_edits(edit), readings(metrics), over, references)


@dataclass(frozen=True)
class Runs:
    """How the units of a plan are run."""

    memory: int | None
    verify: Verify
    seed: int
    tick: Callable[[float], None]

    def run(self, model: Loaded, plan: Plan, sink: MemorySink, verified: bool = True) -> None:
        """Run those units of a plan that the sink does not have."""
        executor = self._executor(model, plan, verified)
        for unit in plan.units:
            if unit.number not in sink.done:
                sink.take(executor.run(unit))

    def _executor(self, model: Loaded, plan: Plan, verified: bool) -> Executor:
        sources = sources_of(model, plan)
        if plan.choice.engine == "reference":
            return Reference(model, plan, sources, self.tick)
        walk = Walk(model, plan, sources, budget_of(model, self.memory), self.tick)
        return Verified(walk, self.verify, self.seed) if verified else walk


def sources_of(model: Loaded, plan: Plan) -> Sources:
    """The donors' and reference prompts' activations that the cells of a plan need."""
    question = plan.question
    needs = (
        (edit, one) for edits in question.variants for edit in edits for one in question.encoded
    )
    texts = [one.tokens for one in question.references]
    return Sources(model.hf, model.anatomy, needs, texts)


def _whole(
    plan: Plan, exact: Plan, sink: MemorySink, screen: str | None
) -> tuple[Assembled, Screening | None]:
    """All blocks on the map; where it was screened, the exact ones on top of the rough ones."""
    if screen is None:
        return assemble(plan, sink.blocks()), None
    first = exact.units[0].number
    rough = assemble(plan, (block for block in sink.blocks() if block.unit < first))
    fine = assemble(exact, (block for block in sink.blocks() if block.unit >= first))
    return screening.merged(screen, plan, exact, rough, fine)


def together(plan: Plan, verify: Verify, measured: Assembled) -> dict[str, Any]:
    """The verification of all units."""
    if plan.choice.engine == "reference":
        why = "every cell was computed on the reference path itself"
        return {"cells": 0, "largest_difference": None, "tolerance": None, "why": why}
    each = [one for one in measured.verifications if one["cells"]]
    if not each:
        why = shown(verify.given)
        return {"cells": 0, "largest_difference": None, "tolerance": None, "why": why}
    worst = max(each, key=_nearness)
    noise = max(one["noise"] or 0.0 for one in each)
    return {**worst, "cells": sum(one["cells"] for one in each), "noise": noise}


def _nearness(one: Mapping[str, Any]) -> float:
    """How much of its tolerance a unit's verification took."""
    found: float = one["largest_difference"] / one["tolerance"] if one["tolerance"] else 0.0
    return found


def spec_of(question: Question, referred: bool) -> dict[str, Any]:
    """What was asked, in plain values."""
    return {
        "edits": [str(edit) for edit in question.edits],
        "over": {axis.name: [plain(value) for value in axis.values] for axis in question.varied},
        "metrics": [str(reading) for reading in question.asked],
        "prompts": [one.prompt.as_dict() for one in question.encoded],
        "reference": [one.prompt.as_dict() for one in question.references] if referred else [],
    }


def budget_of(model: Loaded, memory: int | None = None) -> Budget:
    """What a sweep on this model may use."""
    kind = model.device.type
    kind = kind if kind in TILES else "cuda"
    memory = DEFAULT_MEMORY if memory is None else memory
    return Budget(memory, TILES[kind], model.dtype.itemsize, READING[kind])


# -------------------------------------------------------------------------------------- progress


class _Rate(ProgressColumn):
    """Cells per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.1f} cells/s")


@contextlib.contextmanager
def ticker(cells: int, show: bool) -> Iterator[Callable[[float], None]]:
    """A progress bar on standard error; yields what advances it."""
    console = Console(stderr=True)
    columns = (
        TextColumn("sweep"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    if not show or not console.is_terminal:
        yield lambda cells: None
        return
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("sweep", total=cells)
        yield lambda cells: bar.advance(task, cells)
