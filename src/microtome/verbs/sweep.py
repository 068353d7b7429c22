"""The sweep, step by step: ask, plan, open a sink, run unit by unit, assemble, label."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

import xarray as xr

from microtome.edits import Edit, as_edits
from microtome.engines.approximate.audit import Audited
from microtome.engines.approximate.method import Method
from microtome.engines.assembled import Assembled, assemble
from microtome.engines.observer import Observer, observed
from microtome.engines.screen import Screening
from microtome.engines.sink import Sink
from microtome.errors import SweepError
from microtome.figures.pictures import refuse_file
from microtome.model.loaded import Loaded, check_loaded
from microtome.plan.audit import Audit
from microtome.plan.plan import Plan, make_plan
from microtome.plan.question import Question, coordinate
from microtome.plan.verify import Verify
from microtome.prompts.prompts import Given, Prompts, listed
from microtome.prompts.stream import Stream
from microtome.readings.registry import readings
from microtome.results import provenance
from microtome.results.aggregates import Aggregates
from microtome.results.effects import Effects
from microtome.results.form import storable
from microtome.results.labelled import label
from microtome.results.opening import open_effects
from microtome.results.sinks import MemorySink, StoreSink
from microtome.results.told import telling
from microtome.spoken import spoken
from microtome.verbs.answer import Answer, Runner, cells_of, units_of
from microtome.verbs.asking import asking as asking
from microtome.verbs.elsewhere import running
from microtome.verbs.model import Model
from microtome.verbs.options import Options, Screen
from microtome.verbs.record import identity, record
from microtome.verbs.streaming import Keep, Streamed, check_keep
from microtome.workers import Workers


@overload
def sweep(
    model: Model,
    prompts: Given | Iterable[Given] | Stream,
    edit: Edit | str | Iterable[Edit | str],
    *,
    metrics: str | Iterable[str],
    over: Mapping[str, Sequence[Any]] | None = ...,
    engine: str = ...,
    verify: Verify | int | str = ...,
    memory: int | str | None = ...,
    screen: str | Screen | None = ...,
    refine: int | str | None = ...,
    seed: int = ...,
    out: str | Path | None = ...,
    progress: bool | Observer = ...,
    reference: Iterable[Given] = ...,
    overwrite: bool = ...,
    keep: Literal["cells"] = ...,
    workers: Workers | str | None = ...,
    method: str | Method = ...,
    audit: int | Audit = ...,
) -> Effects: ...
@overload
def sweep(
    model: Model,
    prompts: Given | Iterable[Given] | Stream,
    edit: Edit | str | Iterable[Edit | str],
    *,
    metrics: str | Iterable[str],
    over: Mapping[str, Sequence[Any]] | None = ...,
    engine: str = ...,
    verify: Verify | int | str = ...,
    memory: int | str | None = ...,
    screen: str | Screen | None = ...,
    refine: int | str | None = ...,
    seed: int = ...,
    out: str | Path | None = ...,
    progress: bool | Observer = ...,
    reference: Iterable[Given] = ...,
    overwrite: bool = ...,
    keep: Literal["aggregates"],
    workers: Workers | str | None = ...,
    method: str | Method = ...,
    audit: int | Audit = ...,
) -> Aggregates: ...
@spoken
def sweep(
    model: Model,
    prompts: Given | Iterable[Given] | Stream,
    edit: Edit | str | Iterable[Edit | str],
    *,
    metrics: str | Iterable[str],
    over: Mapping[str, Sequence[Any]] | None = None,
    engine: str = "auto",
    verify: Verify | int | str = 4,
    memory: int | str | None = None,
    screen: str | Screen | None = None,
    refine: int | str | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    progress: bool | Observer = True,
    reference: Iterable[Given] = (),
    overwrite: bool = False,
    keep: Keep = "cells",
    workers: Workers | str | None = None,
    method: str | Method = "exact",
    audit: int | Audit = 64,
) -> Effects | Aggregates:
    """Measure every cell that an edit's stars span.

    Args:
        model: from `load`.
        prompts: one or several; each is run by itself, unpadded. A `Stream` is read, run and
            forgotten a window at a time, and may have any number of them.
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
        memory: bytes for the walk's batches besides the model, or a text such as ``"500MB"``;
            2 GiB unless given.
        screen: ``"bfloat16"`` or a `Screen`: compute the whole map in this type first, on a copy of
            the model, then the strongest cells again in the model's own.
        refine: how many cells a screen computes again, 64 unless given: those with the largest
            effects on the first metric. Of an approximate map how many more cells are exact, those
            that are most in doubt; or ``"below 0.05"``: so many that its bound is no more than
            this, in the metric's unit.
        seed: of the choice of the cells to verify. Edits carry their own seeds.
        out: a zarr directory for the result, or an address of fsspec's such as
            ``s3://bucket/map.zarr``; refused before anything runs where it cannot be one.
            What is done lies beside it, unit by unit, so that the same call goes on from there
            after whatever stopped it; where the result is there already, it is opened.
        progress: show a bar on standard error, where that is a terminal; or an `Observer`, who is
            told of everything and may cancel.
        reference: the prompts that `mean(over="prompts")` averages over; by default the prompts
            themselves.
        overwrite: replace what ``out`` holds of another question, once this one is answered.
        keep: ``"cells"`` of every prompt; or ``"aggregates"``, what is known of each cell over all
            prompts (mean, interval, p corrected for all cells), which takes no more room for more
            prompts.
        workers: who runs the units, in the place of this process: `mt.workers.ray` or
            `mt.workers.processes`, or a name such as ``"ray:auto"``. On devices of one kind the
            result is the same, bit for bit.
        method: ``"exact"``, or an approximation by gradients, as an object or its text:
            ``"atp"``, ``AtP(at="donor")``. A fixed number of passes, however many cells.
        audit: how many cells of an approximate map are computed exactly, or an `Audit`; they say
            how good the others are.

    Returns:
        The effects, with dimensions ``prompt``, then the stars, then the parameters in ``over``; or
        the `Aggregates`.

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
    check_loaded(model)
    options = Options.of(engine, verify, memory, screen, refine, seed, method, audit)
    others = listed(reference)
    with running(model, workers) as runner:
        if isinstance(prompts, Stream) or check_keep(keep) == "aggregates":
            if options.method is not None:
                raise SweepError(
                    f"method={str(options.method)!r} is audited on cells drawn from one map of "
                    "every prompt, and bounds single cells: those of windows are no audit of all, "
                    "nor of means. Take a list of prompts and keep='cells'; or method='exact'."
                )
            stream = prompts if isinstance(prompts, Stream) else Stream(Prompts.of(prompts))
            whole = (as_edits(edit), readings(metrics), over, others, options, keep)
            if out is not None:
                refuse_file(out)
            return Streamed(model, stream, *whole).run(out, progress, overwrite, runner)
        question = asking(model, prompts, edit, metrics=metrics, over=over, reference=others)
        return answered(model, question, options, runner, out, progress, overwrite, bool(others))


def answered(
    model: Model,
    question: Question,
    options: Options,
    runner: Runner,
    out: str | Path | None,
    progress: bool | Observer,
    overwrite: bool,
    referred: bool,
) -> Effects:
    """Plan a question, open a sink, run, assemble, label; arguments as of `sweep`.

    Args:
        model: the model.
        question: what is asked of it.
        options: how it is answered.
        runner: who runs the units.
        out, progress, overwrite: where to, who is told, and what may be replaced.
        referred: whether reference prompts were given.
    """
    plan = make_plan(question, options.engine, options.planned(model), model.whole, options.method)
    sink = _sink(out, model, plan, options, referred, overwrite, runner)
    try:
        if out is not None and isinstance(sink, StoreSink) and sink.finished:
            return open_effects(out)
        cells, units = cells_of(plan, options), units_of(plan, options)
        with observed(progress, cells, units) as observer:
            with provenance.held(model, sink.discard) as hashes:
                observer.expected(cells, units, plan.cost.flops)
                for note in sink.notes:
                    observer.note(note)

                def labelled(
                    measured: Assembled, beside: Screening | Audited | None = None
                ) -> xr.Dataset:
                    own = record(model, plan, options, measured, beside, referred, hashes)
                    kept = runner.located(own)
                    data = label(plan, model.tokenizer, measured, beside)
                    return telling(data, kept)

                if options.screen is None and options.method is None:
                    observer.growing(lambda: labelled(assemble(plan, sink.blocks())))
                data = labelled(*Answer(plan, options, sink, observer, runner).run())
            observer.finishing()
            sink.finish(data)
    finally:
        sink.close()
    return Effects(data)


def _sink(
    out: str | Path | None,
    model: Loaded,
    plan: Plan,
    options: Options,
    referred: bool,
    overwrite: bool,
    runner: Runner,
) -> Sink:
    """Where blocks go: the disk, where a place is given, which is proved to take them."""
    if out is None:
        return MemorySink()
    refuse_file(out)
    storable({axis.name: [coordinate(value) for value in axis.values] for axis in plan.axes})
    asked = runner.located(identity(model, plan, options, referred))
    return StoreSink(out, asked, units_of(plan, options), overwrite=overwrite)
