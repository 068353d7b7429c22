"""The sweep, step by step: ask, plan, open a sink, run unit by unit, assemble, label."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from microtome.edits import Edit, as_edits
from microtome.engines.approximate.method import Method
from microtome.engines.observer import Observer, observed
from microtome.engines.sink import Sink
from microtome.figures.pictures import refuse_file
from microtome.model.loaded import Loaded
from microtome.plan.audit import Audit
from microtome.plan.plan import Plan, make_plan
from microtome.plan.question import Question, ask, coordinate
from microtome.plan.verify import Verify
from microtome.prompts.prompts import Given
from microtome.readings.registry import readings
from microtome.results import provenance
from microtome.results.effects import Effects, open_effects
from microtome.results.form import storable
from microtome.results.labelled import label
from microtome.results.sinks import MemorySink, StoreSink
from microtome.verbs.answer import Answer, cells_of, units_of
from microtome.verbs.model import Model
from microtome.verbs.options import Options, Screen
from microtome.verbs.record import identity, record


def sweep(
    model: Model,
    prompts: Given | Iterable[Given],
    edit: Edit | str | Iterable[Edit | str],
    *,
    metrics: str | Iterable[str],
    over: Mapping[str, Sequence[Any]] | None = None,
    engine: str = "auto",
    verify: Verify | int | str = 4,
    memory: int | str | None = None,
    screen: str | Screen | None = None,
    refine: int = 64,
    seed: int = 0,
    out: str | Path | None = None,
    progress: bool | Observer = True,
    reference: Iterable[Given] = (),
    overwrite: bool = False,
    method: str | Method = "exact",
    audit: int | Audit = 64,
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
            where a map is computed in several units, so many of each, or fewer where that would
            cost more than a twentieth of it.
        memory: bytes for the walk's batches besides the model, or a text such as ``"2GiB"``, which
            it is unless given.
        screen: ``"bfloat16"`` or a `Screen`: compute the whole map in this type first, on a copy of
            the model, then the strongest cells again in the model's own.
        refine: how many cells to compute again: those with the largest effects on the first
            metric.
        seed: of the choice of the cells to verify. Edits carry their own seeds.
        out: a zarr directory for the result, refused before anything runs where it cannot be one.
            What is done lies beside it, unit by unit, so that the same call goes on from there
            after whatever stopped it; where the result is there already, it is opened.
        progress: show a bar on standard error, where that is a terminal; or an `Observer`, who is
            told of everything and may cancel.
        reference: the prompts that `mean(over="prompts")` averages over; by default the prompts
            themselves.
        overwrite: replace what ``out`` holds of another question, once this one is answered.
        method: ``"exact"``, or an approximation by gradients, as an object or its text:
            ``"atp"``, ``AtP(at="donor")``. A fixed number of passes, however many cells.
        audit: how many cells of an approximate map are computed exactly, or an `Audit`; they say
            how good the others are.

    Returns:
        The effects, with dimensions ``prompt``, then the stars, then the parameters in ``over``.

    Raises:
        SweepError, AddressError, EditError, PromptError, MetricError: found before anything runs.
        EffectsError: ``out`` holds something else, is in use, or cannot be written to.
        VerificationError: a recomputed cell differs by more than rounding.
        Cancelled: the observer wanted no more.

    >>> import microtome as mt
    >>> prompt = mt.Prompt("Berlin is the capital of", target=" Germany", contrast=" France")
    >>> effects = mt.sweep(mt.load(), prompt, mt.zero("L*.z.h*@-1"), metrics=["logit_diff"])
    >>> effects.dims
    ('prompt', 'layer', 'head')
    """
    options = Options.of(engine, verify, memory, screen, refine, seed, method, audit)
    others = list(reference)
    question = asking(model, prompts, edit, metrics=metrics, over=over, reference=others)
    plan = make_plan(question, options.engine, options.budget(model), model.whole, options.method)
    sink = _sink(out, model, plan, options, bool(others), overwrite)
    try:
        if out is not None and isinstance(sink, StoreSink) and sink.finished:
            return open_effects(out)
        told = observed(progress, cells_of(plan, options), units_of(plan, options))
        with told as observer, provenance.held(model):
            for note in sink.notes:
                observer.note(note)
            measured, beside = Answer(model, plan, options, sink, observer).run()
            kept = record(model, plan, options, measured, beside, bool(others))
            data = label(plan, model.tokenizer, measured, beside)
            data = data.assign_attrs(provenance=json.dumps(kept, ensure_ascii=False))
            observer.finishing()
            sink.finish(data)
    finally:
        sink.close()
    return Effects(data)


def asking(
    model: Loaded,
    prompts: Given | Iterable[Given],
    edit: Edit | str | Iterable[Edit | str],
    *,
    metrics: str | Iterable[str],
    over: Mapping[str, Sequence[Any]] | None = None,
    reference: Iterable[Given] = (),
    to_run: bool = True,
) -> Question:
    """The question that a sweep's arguments ask, resolved against a model.

    Not ``to_run``, it is there to be planned: prompts need no targets.
    """
    encoded = model.encode(prompts)
    others = list(reference)
    references = model.encode(others) if others else encoded
    dims = model.anatomy.dims
    asked = readings(metrics)
    return ask(dims, encoded, as_edits(edit), asked, over, references, to_run)


def _sink(
    out: str | Path | None,
    model: Loaded,
    plan: Plan,
    options: Options,
    referred: bool,
    overwrite: bool,
) -> Sink:
    """Where blocks go: the disk, where a place is given, which is proved to take them."""
    if out is None:
        return MemorySink()
    refuse_file(out)
    storable({axis.name: [coordinate(value) for value in axis.values] for axis in plan.axes})
    asked = identity(model, plan, options, referred)
    return StoreSink(out, asked, units_of(plan, options), overwrite=overwrite)
