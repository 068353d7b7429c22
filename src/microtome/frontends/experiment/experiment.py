"""An experiment: everything that a sweep is told, as one object and as a file."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator

from microtome.amounts import bytes_of, whole_of
from microtome.edits import Edit, as_edits
from microtome.engines.approximate.text import EXACT, method_of
from microtome.engines.observer import Observer, as_observer
from microtome.engines.screen import dtype_of
from microtome.errors import ExperimentError
from microtome.frontends.experiment import sources
from microtome.frontends.experiment.form import Filed, Form, at, path_of, text_of
from microtome.frontends.experiment.sources import Source
from microtome.plan.audit import Audit, bound_of
from microtome.plan.choice import choose
from microtome.plan.plan import Plan, make_plan
from microtome.plan.question import is_list, plain
from microtome.plan.verify import Verify
from microtome.prompts.prompts import Prompts
from microtome.prompts.stream import Stream
from microtome.readings.registry import readings
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
from microtome.verbs.load import load
from microtome.verbs.model import Model
from microtome.verbs.options import budget_of
from microtome.verbs.record import reads_back
from microtome.verbs.streaming import Keep, check_keep
from microtome.verbs.sweep import asking, sweep
from microtome.workers import workers_of

ADDRESS = re.compile(r"[a-z][a-z0-9+]+:/")
"""How an address of fsspec's begins, once a `Path` has taken two slashes for one."""

Text = Annotated[str, PlainValidator(text_of)]


class Checkpoint(Form):
    """A model by its name, and how it is loaded; see `load`.

    Attributes:
        name: ``nano``, a hub id, or a directory.
        revision: branch, tag or commit of a hub id.
        dtype: the type of the weights; the checkpoint's own by default.
        device: where to put them.
        attention: the attention implementation, such as ``eager``.
    """

    name: Text
    revision: Text | None = None
    dtype: Text | None = None
    device: Text | None = None
    attention: Text | None = None

    def load(self) -> Model:
        """The model."""
        more: dict[str, Any] = {}
        if self.attention is not None:
            more["attn_implementation"] = self.attention
        return load(self.name, revision=self.revision, dtype=self.dtype, device=self.device, **more)

    def plain(self) -> str | dict[str, str]:
        """In YAML's own types."""
        fields = {name: value for name, value in self if value is not None}
        return self.name if len(fields) == 1 else fields


def by_name(given: Any) -> Any:
    """A model's name as the fields of a checkpoint."""
    return {"name": str(given)} if isinstance(given, str | Path) else given


def edit_of(given: Any) -> Edit:
    """An edit, or the text of one."""
    if not isinstance(given, Edit | str):
        raise ValueError(
            f"expected an edit such as 'zero L5.z.h3', not {given!r}; in YAML, put a text that "
            "ends in a colon in quotes"
        )
    return as_edits(given)[0]


def metric_of(given: Any) -> str:
    """A metric, in its canonical text."""
    return str(readings(text_of(given))[0])


def several(given: Any) -> Any:
    """One thing as a tuple of one, a list as a tuple."""
    listed = isinstance(given, Sequence) and not isinstance(given, str)
    found = tuple(given) if listed else (given,)
    if not found:
        raise ValueError("give at least one")
    return found


def some(given: Any) -> Any:
    """The same as `several`, or nothing."""
    return () if given in ((), []) else several(given)


def once(metrics: tuple[str, ...]) -> tuple[str, ...]:
    """Metrics, if none of them is given twice."""
    readings(metrics)
    return metrics


def parameters_of(given: Any) -> dict[str, list[Any]]:
    """Values for parameters of edits, by name, in YAML's own types."""
    if not isinstance(given, Mapping):
        raise ValueError(
            f"expected parameters with their values, {{factor: [0.1, 10]}}, not {given!r}"
        )
    found = {}
    for name, values in given.items():
        if not is_list(values):
            raise at(name, f"expected a list of values, at least one, not {values!r}.")
        found[str(name)] = [plain(value) for value in values]
        for value, own in zip(values, found[str(name)], strict=True):
            if isinstance(own, str) and not isinstance(value, str):
                raise at(name, f"expected numbers, words or lists of numbers, not {value!r}.")
    return found


def _engine(given: Any) -> str:
    name = text_of(given)
    choose(name, [])
    return name


def verify_of(given: Any) -> int | Literal["all"]:
    """How many cells are verified."""
    return Verify.of(given).given


def _folder(given: Any) -> Path:
    path = path_of(given)
    if ADDRESS.match(str(path)):
        raise ValueError(
            f"{given} is an address, and figures and report are written to a folder of this "
            "machine; in Python, mt.sweep(…, out='s3://…') keeps the numbers there"
        )
    return path


def workers_named(given: Any) -> str:
    """Workers by their name, as it was given."""
    name = text_of(given)
    workers_of(name)
    return name


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

    model: Annotated[Checkpoint, BeforeValidator(by_name)]
    prompts: Source
    edits: Annotated[tuple[Annotated[Edit, PlainValidator(edit_of)], ...], BeforeValidator(several)]
    metrics: Annotated[
        tuple[Annotated[str, PlainValidator(metric_of)], ...],
        BeforeValidator(several),
        AfterValidator(once),
    ]
    over: Annotated[dict[str, list[Any]], PlainValidator(parameters_of)] = Field(default={})
    reference: Source | None = None
    engine: Annotated[str, PlainValidator(_engine)] = "auto"
    verify: Annotated[int | Literal["all"], PlainValidator(verify_of)] = 4
    memory: Annotated[int, PlainValidator(bytes_of)] | None = None
    screen: Annotated[str, PlainValidator(_screen)] | None = None
    refine: Annotated[int | str, PlainValidator(_refine)] | None = None
    method: Annotated[str, PlainValidator(_method)] = EXACT
    audit: Annotated[int, PlainValidator(_audit)] = 64
    seed: Annotated[int, PlainValidator(whole_of)] = 0
    window: Annotated[int, PlainValidator(lambda given: whole_of(given, least=1))] | None = None
    keep: Annotated[Keep, PlainValidator(check_keep)] = "cells"
    workers: Annotated[str, PlainValidator(workers_named)] | None = None
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
        known = type(self).model_fields
        return {name: value for name, value in fields.items() if value != known[name].default}

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
        budget = budget_of(model, self.memory, Verify.of(self.verify).most)
        return make_plan(question, self.engine, budget, model.whole, method_of(self.method))

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


def text_that_reads_back(one: Edit) -> str:
    """The text of an edit in a file.

    Raises:
        ExperimentError: it has none (a function made on the spot).
    """
    if reads_back(one):
        return str(one)
    raise ExperimentError(
        f"The edit '{one}' has a function made on the spot, which no text can bring back: put it "
        'in a module and name it, apply("package.module:function").'
    )
