"""The sweep, step by step: encode, check, plan, measure, label."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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

from microtome import provenance
from microtome.edits import Edit
from microtome.edits import edit as parse_edit
from microtome.effects import CLEAN, Effects
from microtome.metrics import Reading, readings
from microtome.model.model import Model
from microtome.prompts import Encoded, Prompt, piece
from microtome.sites import POSITIONS
from microtome.sweep.engine import Choice, choose
from microtome.sweep.plan import Plan, make_plan
from microtome.sweep.reference import Measured, measure

Edits = Edit | str | Iterable[Edit | str]


def sweep(
    model: Model,
    prompts: Prompt | str | Iterable[Prompt | str],
    edit: Edits,
    *,
    metrics: str | Iterable[str],
    over: Mapping[str, Sequence[Any]] | None = None,
    engine: str = "auto",
    verify: int = 4,
    memory: int | None = None,
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
        engine: ``"auto"``, ``"reference"``, or ``"walk"`` (not available yet).
        verify: how many cells of a faster engine to recompute on the reference path. On the
            reference path itself there is nothing to hold against, and the result says so.
        memory: budget of the one-pass walk in bytes (not available yet).
        seed: of the choice of the cells to verify. Edits carry their own seeds.
        out: a zarr directory to save the result in.
        progress: show a bar on standard error, where that is a terminal.
        reference: the prompts that `mean(over="prompts")` averages over; by default the prompts
            themselves.

    Returns:
        The effects, with dimensions ``prompt``, then the stars, then the parameters in ``over``.

    Raises:
        SweepError, AddressError, EditError, PromptError, MetricError: found before anything runs.

    >>> import microtome as mt
    >>> prompt = mt.Prompt("Berlin is the capital of", target=" Germany", contrast=" France")
    >>> effects = mt.sweep(mt.load(), prompt, mt.zero("L*.z.h*@-1"), metrics=["logit_diff"])
    >>> effects.dims
    ('prompt', 'layer', 'head')
    """
    choice = choose(engine, memory)
    asked = readings(metrics)
    encoded = model.encode(prompts)
    others = list(reference)
    references = model.encode(others) if others else encoded
    edits = as_edits(edit)
    for one in encoded:
        for reading in asked:
            reading.check(one, model.anatomy.dims)
    plan = plan_of(model, encoded, edits, over, references)
    with ticker(len(plan.cells), progress) as tick:
        measured = measure(model.hf, model.anatomy, plan, encoded, asked, references, tick)
    data = label(model, plan, encoded, measured)
    record = {
        "model": provenance.of_model(model),
        **provenance.of_machine(),
        "seed": seed,
        "engine": {"name": choice.engine, "why": choice.why},
        "verification": verification(choice, verify),
        "plan": {"cells": len(plan.cells), "passes": plan.cost.passes, "flops": plan.cost.flops},
        "spec": {
            "edits": [str(e) for e in edits],
            "over": {name: list(values) for name, values in (over or {}).items()},
            "metrics": [str(reading) for reading in asked],
            "prompts": [one.prompt.as_dict() for one in encoded],
            "reference": [one.prompt.as_dict() for one in references] if others else [],
        },
    }
    effects = Effects(data.assign_attrs(provenance=json.dumps(record, ensure_ascii=False)))
    if out is not None:
        effects.save(out)
    return effects


def as_edits(edit: Edits) -> list[Edit]:
    """One edit or several, as objects or as text."""
    given = [edit] if isinstance(edit, Edit | str) else list(edit)
    return [parse_edit(e) if isinstance(e, str) else e for e in given]


def plan_of(
    model: Model,
    encoded: Sequence[Encoded],
    edits: Sequence[Edit],
    over: Mapping[str, Sequence[Any]] | None = None,
    reference: Sequence[Encoded] = (),
) -> Plan:
    """The plan of a sweep on a model, nothing run."""
    return make_plan(
        model.anatomy.dims, encoded, edits, over, reference, bytes_per_value=model.dtype.itemsize
    )


def verification(choice: Choice, verify: int) -> dict[str, Any]:
    """What was recomputed on the reference path."""
    assert choice.engine == "reference", "a faster engine must be verified"
    why = "every cell was computed on the reference path itself"
    return {"asked": verify, "cells": 0, "largest_difference": None, "why": why}


# ----------------------------------------------------------------------------------------- label


def label(model: Model, plan: Plan, encoded: Sequence[Encoded], measured: Measured) -> xr.Dataset:
    """What was measured, with the names of its dimensions and their coordinates."""
    dims = tuple(axis.name for axis in plan.axes)
    data = xr.Dataset(coords={axis.name: list(axis.values) for axis in plan.axes})
    data = data.assign_coords(text=("prompt", _texts([one.prompt.text for one in encoded])))
    for name in (name for name in dims if name in POSITIONS):
        data = data.assign_coords(token=(("prompt", name), _pieces(encoded, data.sizes[name])))
    for reading, values in measured.values.items():
        attributes = _attributes(reading)
        clean = measured.clean[reading]
        if reading.metric.name == "top1":
            data[f"{reading}_token"] = (dims, _token_texts(values, model))
            data[f"{CLEAN}{reading}_token"] = ("prompt", _token_texts(clean, model))
            values, clean = (np.nan_to_num(x, nan=-1).astype(np.int64) for x in (values, clean))
        data[str(reading)] = (dims, values, attributes)
        data[f"{CLEAN}{reading}"] = ("prompt", clean, attributes)
    data["values_changed"] = (dims, measured.changed, {"unit": "values"})
    data["change_norm"] = (dims, measured.norm, {"unit": "L2 norm of the activations' change"})
    return data


def _attributes(reading: Reading) -> dict[str, Any]:
    metric = reading.metric
    return {"about": metric.about, "unit": metric.unit, "direction": metric.direction}


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
def ticker(cells: int, show: bool) -> Iterator[Callable[[], None]]:
    """A progress bar on standard error; yields what advances it by one cell."""
    console = Console(stderr=True)
    columns = (
        TextColumn("sweep"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    if not show or not console.is_terminal:
        yield lambda: None
        return
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("sweep", total=cells)
        yield lambda: bar.advance(task)
