"""The sweep, step by step: encode, check, plan, measure, verify, label."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
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
from microtome.engines import reference
from microtome.engines import screen as screening
from microtome.engines.measured import Array, Measured
from microtome.engines.screen import Screening
from microtome.engines.verification import choose
from microtome.engines.verification import verify as check
from microtome.engines.walk.walk import walk
from microtome.language.sites import POSITIONS
from microtome.model.loaded import Loaded
from microtome.plan.cost import DEFAULT_MEMORY, READING, TILES, Budget
from microtome.plan.plan import Plan, coordinate, make_plan, plain
from microtome.prompts.encoding import Encoded, piece
from microtome.prompts.prompt import Prompt
from microtome.readings.inside import Gauge, dimension_of
from microtome.readings.output import Reading
from microtome.readings.registry import readings
from microtome.results import provenance
from microtome.results.effects import CLEAN, SCREEN, Effects
from microtome.verbs.model import Model


def sweep(
    model: Model,
    prompts: Prompt | str | Iterable[Prompt | str],
    edit: Edit | str | Iterable[Edit | str],
    *,
    metrics: str | Iterable[str],
    over: Mapping[str, Sequence[Any]] | None = None,
    engine: str = "auto",
    verify: int = 4,
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
        verify: how many of the walk's cells to recompute on the reference path.
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
    asked = readings(metrics)
    encoded = model.encode(prompts)
    others = list(reference)
    references = model.encode(others) if others else encoded
    edits = as_edits(edit)
    for one in encoded:
        for reading in asked:
            reading.check(one, model.anatomy.dims)
    gauges = [gauge for gauge in asked if isinstance(gauge, Gauge)]
    budget = budget_of(model, memory)
    plan = plan_of(model, encoded, edits, over, references, engine, budget, gauges)
    rough = None if screen is None else screening.coarse(model, screen, asked[0], refine)
    again = 0 if rough is None else min(refine, len(plan.cells))
    with ticker(len(plan.cells) + again, progress) as tick, provenance.held(model):

        def compute(by: Loaded, cells: Plan, witnesses: frozenset[int] = frozenset()) -> Measured:
            needs = sources_of(by, cells, encoded, references)
            own = budget_of(by, memory)
            return measure(by, cells, encoded, asked, needs, tick, own, witnesses)

        began = time.perf_counter()
        first = None if rough is None else compute(rough, plan)
        exact = plan if first is None else screening.strongest(plan, first, asked[0], refine)
        chosen = choose(exact, verify, seed)
        measured = compute(model, exact, chosen)
        seconds = time.perf_counter() - began
    sources = sources_of(model, exact, encoded, references)
    verified = check(model, exact, encoded, measured, sources, chosen)
    screened = None
    if screen is not None and first is not None:
        measured, screened = screening.merged(screen, plan, exact, first, measured)
    record = {
        "model": provenance.of_model(model),
        **provenance.of_machine(),
        "seed": seed,
        "verify": verify,
        "memory": memory,
        "engine": {"name": plan.choice.engine, "why": plan.choice.why, "notes": measured.notes},
        "verification": verified.as_dict(),
        "screen": None if screened is None else screened.as_dict(),
        "predicted": {
            "cells": len(plan.cells),
            "absent": plan.absent,
            "why_absent": plan.why_absent,
            **asdict(plan.cost),
        },
        "actual": {"seconds": round(seconds, 3), **measured.work},
        "spec": {
            "edits": [str(e) for e in edits],
            "over": {
                name: [plain(value) for value in values] for name, values in (over or {}).items()
            },
            "metrics": [str(reading) for reading in asked],
            "prompts": [one.prompt.as_dict() for one in encoded],
            "reference": [one.prompt.as_dict() for one in references] if others else [],
        },
    }
    data = label(model, plan, encoded, measured, screened)
    effects = Effects(data.assign_attrs(provenance=json.dumps(record, ensure_ascii=False)))
    if out is not None:
        effects.save(out)
    return effects


def budget_of(model: Loaded, memory: int | None = None) -> Budget:
    """What a sweep on this model may use."""
    kind = model.device.type
    kind = kind if kind in TILES else "cuda"
    memory = DEFAULT_MEMORY if memory is None else memory
    return Budget(memory, TILES[kind], model.itemsize, READING[kind])


def plan_of(
    model: Loaded,
    encoded: Sequence[Encoded],
    edits: Sequence[Edit],
    over: Mapping[str, Sequence[Any]] | None = None,
    reference: Sequence[Encoded] = (),
    engine: str = "auto",
    budget: Budget | None = None,
    gauges: Sequence[Gauge] = (),
) -> Plan:
    """The plan of a sweep on a model, nothing run."""
    budget, dims = budget or budget_of(model), model.anatomy.dims
    return make_plan(dims, encoded, edits, over, reference, engine, budget, gauges)


def sources_of(
    model: Loaded, plan: Plan, encoded: Sequence[Encoded], references: Sequence[Encoded]
) -> Sources:
    """The donors' and reference prompts' activations that the cells of a plan need."""
    needs = ((edit, one) for edits in plan.cells.edits for edit in edits for one in encoded)
    return Sources(model.hf, model.anatomy, needs, [one.tokens for one in references])


def measure(
    model: Loaded,
    plan: Plan,
    encoded: Sequence[Encoded],
    asked: Sequence[Reading | Gauge],
    sources: Sources,
    tick: Callable[[float], None],
    budget: Budget,
    witnesses: frozenset[int] = frozenset(),
) -> Measured:
    """Compute the cells of a plan on the engine that it chose."""
    gauges = {gauge: _shape(gauge, model, encoded) for gauge in asked if isinstance(gauge, Gauge)}
    measured = Measured.empty(plan, [r for r in asked if isinstance(r, Reading)], gauges)
    if plan.choice.engine == "walk":
        walk(model, plan, encoded, sources, measured, tick, budget, witnesses)
    else:
        for prompt, one in enumerate(encoded):
            cells = np.flatnonzero(plan.cells.prompt == prompt).tolist()
            reference.measure(model, cells, prompt, one, sources, measured, tick)
    measured.settle()
    return measured


def _shape(gauge: Gauge, model: Loaded, encoded: Sequence[Encoded]) -> tuple[int, ...]:
    """How many values a gauge has along its dimensions, on the longest prompt."""
    shapes = [gauge.on(one, model.anatomy.dims).shape for one in encoded]
    return tuple(max(sizes) for sizes in zip(*shapes, strict=True))


# ----------------------------------------------------------------------------------------- label


def label(
    model: Model,
    plan: Plan,
    encoded: Sequence[Encoded],
    measured: Measured,
    screened: Screening | None = None,
) -> xr.Dataset:
    """What was measured, with the names of its dimensions and their coordinates."""
    dims = tuple(axis.name for axis in plan.axes)
    coordinates: dict[str, Any] = {
        axis.name: [coordinate(value) for value in axis.values] for axis in plan.axes
    }
    coordinates["text"] = ("prompt", _texts([one.prompt.text for one in encoded]))
    for name in (name for name in dims if name in POSITIONS):
        beside = (("prompt", name), _pieces(encoded, len(coordinates[name])))
        coordinates["token" if name == "pos" else f"{name}_token"] = beside
    variables: dict[str, Any] = {}
    for reading, values in measured.values.items():
        attributes = _attributes(reading)
        clean = measured.clean[reading]
        if reading.metric.name == "top1":
            variables[f"{reading}_token"] = (dims, _token_texts(values, model))
            variables[f"{CLEAN}{reading}_token"] = ("prompt", _token_texts(clean, model))
        variables[str(reading)] = (dims, _numbers(values, reading), attributes)
        variables[f"{CLEAN}{reading}"] = ("prompt", _numbers(clean, reading), attributes)
    for gauge, values in measured.inside.items():
        attributes = _attributes(gauge)
        variables[str(gauge)] = ((*dims, *gauge.dims), values, attributes)
        inner = measured.clean_inside[gauge]
        variables[f"{CLEAN}{gauge}"] = (("prompt", *gauge.dims), inner, attributes)
        for name, size in zip(gauge.dims, inner.shape[1:], strict=True):
            coordinates[name] = list(range(size))
            if dimension_of(name) in POSITIONS:
                pieces = _pieces(encoded, size)
                coordinates[f"{name}_token"] = (("prompt", name), pieces)
    variables["values_changed"] = (dims, measured.changed, {"unit": "values"})
    if screened is not None:
        variables["refined"] = (dims, screened.refined)
        for reading, values in screened.clean.items():
            variables[f"{SCREEN}{reading}"] = ("prompt", values, _attributes(reading))
        for gauge, inner in screened.clean_inside.items():
            there = ("prompt", *gauge.dims)
            variables[f"{SCREEN}{gauge}"] = (there, inner, _attributes(gauge))
    norm_of = {"unit": "L2 norm of the activations' change"}
    variables["change_norm"] = (dims, measured.norm, norm_of)
    return xr.Dataset(variables, coordinates)


def _attributes(reading: Reading | Gauge) -> dict[str, Any]:
    metric = reading.metric
    return {"about": metric.about, "unit": metric.unit, "direction": metric.direction}


def _numbers(values: Array, reading: Reading) -> np.ndarray[Any, Any]:
    """Token ids as integers, -1 where there is none; anything else as it is."""
    if reading.metric.unit != "token id":
        return values
    return np.nan_to_num(values, nan=-1).astype(np.int64)


def _texts(texts: Sequence[str]) -> np.ndarray[Any, Any]:
    return np.array(texts, dtype=object)


def _pieces(encoded: Sequence[Encoded], longest: int) -> np.ndarray[Any, Any]:
    pieces = np.full((len(encoded), longest), "", dtype=object)
    for row, one in enumerate(encoded):
        pieces[row, : len(one.tokens)] = one.tokens.pieces
    return pieces


def _token_texts(ids: np.ndarray[Any, Any], model: Model) -> np.ndarray[Any, Any]:
    known = {i: piece(int(i), model.tokenizer) for i in np.unique(ids) if i == i}
    flat = [known.get(i, "") for i in ids.ravel()]
    return _texts(flat).reshape(ids.shape)


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
