"""An experiment: everything that a sweep is told, as one object and as a file."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import Field, PlainValidator

from microtome.amounts import whole_of
from microtome.engines.approximate.text import EXACT, method_of
from microtome.engines.observer import Observer, as_observer
from microtome.engines.screen import dtype_of
from microtome.frontends.experiment import sources
from microtome.frontends.experiment.fields import (
    Bytes,
    Count,
    Edits,
    Hired,
    Metrics,
    Named,
    Over,
    Verified,
    Whole,
    text_that_reads_back,
)
from microtome.frontends.experiment.form import Filed, path_of, text_of
from microtome.frontends.experiment.sources import Source
from microtome.plan.audit import Audit, bound_of
from microtome.plan.choice import choose
from microtome.plan.plan import Plan, make_plan
from microtome.plan.verify import Verify
from microtome.prompts.prompts import Prompts
from microtome.prompts.stream import Stream
from microtome.report import (
    Beginning,
    Folder,
    document_of_aggregates,
    document_of_sweep,
    summary_of_aggregates,
    summary_of_sweep,
)
from microtome.report.of_sweep import MOST_PROMPTS
from microtome.results.aggregates import Aggregates
from microtome.results.effects import Effects
from microtome.sheets import dump
from microtome.verbs.model import Model
from microtome.verbs.options import budget_of, widened_for
from microtome.verbs.streaming import Keep, check_keep
from microtome.verbs.sweep import asking, sweep

ADDRESS = re.compile(r"[a-z][a-z0-9+]+:/")
"""How an address of fsspec's begins, once a `Path` has taken two slashes for one."""


def _engine(given: Any) -> str:
    name = text_of(given)
    choose(name, [])
    return name


def _folder(given: Any) -> Path:
    path = path_of(given)
    if ADDRESS.match(str(path)):
        raise ValueError(
            f"{given} is an address, and figures and report are written to a folder of this "
            "machine; in Python, mt.sweep(…, out='s3://…') keeps the numbers there"
        )
    return path


def _screen(given: Any) -> str:
    name = text_of(given)
    dtype_of(name)
    return name


def _method(given: Any) -> str:
    found = method_of(given)
    return EXACT if found is None else str(found)


def _refine(given: Any) -> int | str:
    """A number of cells, on the command line as a text; or a bound."""
    if isinstance(given, str) and not given.strip().isdecimal():
        return f"below {bound_of(given)!r}"
    return whole_of(int(given) if isinstance(given, str) else given, least=1)


def _audit(given: Any) -> int:
    audit = Audit.of(given)
    if audit.refines:
        raise ValueError(
            f"a file says how many cells are exact, and not {audit}: say the number as audit, and "
            "the others as refine"
        )
    return audit.cells


class Experiment(Filed):
    """Everything that a sweep is told, checked: the Python, command line and YAML forms are one.

    Attributes:
        model: a name, or a `Checkpoint`'s fields (name, revision, dtype, device, attention).
        prompts: prompts, or their texts or fields; ``{file: prompts.jsonl}``; or ``{task: {name:
            ioi, n: 64, seed: 0}}``, made in the words of the model's tokenizer.
        edits: one or several, which make one cell together.
        metrics: one or several.
        over: values for parameters of the edits.
        reference: the prompts that ``mean(over="prompts")`` averages over, given as prompts are.
        engine, verify, seed: as `sweep` takes them.
        memory: bytes for the walk's batches, or a text such as ``2GiB``.
        screen, refine: as `sweep` takes them.
        window: how many prompts are run at a time, as a `Stream`; all, unless given.
        keep: ``cells`` of every prompt, or ``aggregates`` over all of them.
        workers: who runs the units, by name: ``processes:2``, ``ray:auto``.
        method, audit: as `sweep` takes them; a method as its text, ``"atp"``.
        out: a folder for report, figures and numbers, as ``-o`` on the command line.

    Raises:
        ExperimentError: a field is missing, unknown or wrong; the message names each that is.

    >>> experiment = Experiment(
    ...     model="nano",
    ...     prompts={"task": {"name": "capitals", "n": 2}},
    ...     edits="zero L*.z.h*@-1",
    ...     metrics="prob",
    ... )
    >>> experiment.run().dims
    ('prompt', 'layer', 'head')
    >>> Experiment.from_yaml(experiment.to_yaml()) == experiment
    True
    """

    if TYPE_CHECKING:
        # The fields are wider than what they become: texts for edits, names for models.
        def __init__(self, **fields: Any) -> None: ...

    model: Named
    prompts: Source
    edits: Edits
    metrics: Metrics
    over: Over = Field(default={})
    reference: Source | None = None
    engine: Annotated[str, PlainValidator(_engine)] = "auto"
    verify: Verified = 4
    memory: Bytes | None = None
    screen: Annotated[str, PlainValidator(_screen)] | None = None
    refine: Annotated[int | str, PlainValidator(_refine)] | None = None
    method: Annotated[str, PlainValidator(_method)] = EXACT
    audit: Annotated[int, PlainValidator(_audit)] = 64
    seed: Whole = 0
    window: Count | None = None
    keep: Annotated[Keep, PlainValidator(check_keep)] = "cells"
    workers: Hired | None = None
    out: Annotated[Path, PlainValidator(_folder)] | None = None

    def to_yaml(self) -> str:
        """The experiment as YAML, which reads back equal; fields at their defaults are left out.

        Raises:
            ExperimentError: an edit has no text that reads back (a function made on the spot).
        """
        return dump(self.plain())

    def plain(self) -> dict[str, Any]:
        """The fields that are not at their defaults, in YAML's own types."""
        fields: dict[str, Any] = {
            **dict(self),
            "model": self.model.plain(),
            "prompts": sources.plain(self.prompts),
            "edits": [text_that_reads_back(one) for one in self.edits],
            "metrics": list(self.metrics),
            "reference": None if self.reference is None else sources.plain(self.reference),
            "out": None if self.out is None else str(self.out),
        }
        return self._told(fields)

    def load(self) -> Model:
        """The model."""
        return self.model.load()

    def prompts_for(self, model: Model) -> Prompts:
        """The prompts, written out."""
        return sources.make(self.prompts, model)

    def reference_for(self, model: Model) -> tuple[Any, ...]:
        """The reference prompts, written out; none where the prompts are their own reference."""
        return () if self.reference is None else tuple(sources.make(self.reference, model))

    def given_to(self, model: Model) -> Prompts | Stream:
        """The prompts as the sweep takes them: all at once, or a window at a time."""
        prompts = self.prompts_for(model)
        return prompts if self.window is None else Stream(prompts, self.window)

    def plan(self, model: Model | None = None) -> Plan:
        """The plan of the sweep, nothing run."""
        model = model or self.load()
        question = asking(
            model,
            self.prompts_for(model),
            self.edits,
            metrics=self.metrics,
            over=self.over,
            reference=self.reference_for(model),
            to_run=False,
        )
        method = method_of(self.method)
        budget = budget_of(model, self.memory, Verify.of(self.verify).most)
        budget = budget if method is None else widened_for(model, budget)
        return make_plan(question, self.engine, budget, model.whole, method)

    def run(
        self,
        model: Model | None = None,
        *,
        progress: bool | Observer = True,
        overwrite: bool = False,
    ) -> Effects | Aggregates:
        """Run the sweep; where ``out`` is given, leave its folder.

        Args:
            model: one that is loaded already, in the place of the experiment's.
            progress: show a bar on standard error, where that is a terminal; or an `Observer`.
            overwrite: replace a result of another question that is in ``out``.

        Raises:
            MicrotomeError: as `load` and `sweep` do.
            EffectsError: ``out`` cannot be written to: found before anything runs.
            ReportError: figures or report failed; the effects are in ``out``.
        """
        with nullcontext() if self.out is None else Folder(self.out) as folder:
            return self._run(model or self.load(), folder, progress, overwrite)

    def _run(
        self, model: Model, folder: Folder | None, progress: bool | Observer, overwrite: bool
    ) -> Effects | Aggregates:
        """Run the sweep, into a folder where there is one."""
        run = cast("Callable[..., Effects | Aggregates]", sweep)  # which, `keep` says
        found = run(
            model,
            self.given_to(model),
            self.edits,
            metrics=self.metrics,
            over=self.over,
            engine=self.engine,
            verify=self.verify,
            memory=self.memory,
            screen=self.screen,
            refine=self.refine,
            method=self.method,
            audit=self.audit,
            seed=self.seed,
            out=None if folder is None else folder.path_of(),
            progress=progress if folder is None else Beginning(as_observer(progress), folder),
            reference=self.reference_for(model),
            overwrite=overwrite,
            keep=self.keep,
            workers=self.workers,
        )
        if folder is not None:
            folder.kept()
            if isinstance(found, Aggregates):
                folder.finish(document_of_aggregates(found), summary_of_aggregates(found))
            else:
                shown = self.prompts_for(model)[:MOST_PROMPTS]
                folder.finish(
                    lambda: document_of_sweep(found, model.run(shown)), summary_of_sweep(found)
                )
        return found
