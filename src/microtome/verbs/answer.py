"""How a question is answered: its plans, its units, and what they gave, put together."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from types import FunctionType
from typing import Any, Protocol, TypeVar

import numpy as np

from microtome.edits import Apply
from microtome.edits.sources import Sources
from microtome.engines import screen as screening
from microtome.engines.approximate.audit import Audited, audited, choose
from microtome.engines.approximate.doubt import other_of
from microtome.engines.approximate.executor import Gradients
from microtome.engines.approximate.method import Method
from microtome.engines.approximate.precision import widened
from microtome.engines.assembled import Assembled, assemble
from microtome.engines.block import Block
from microtome.engines.executor import Executor
from microtome.engines.legs import Legs, LinearLegs
from microtome.engines.observer import Observer, go_on
from microtome.engines.reference import Reference
from microtome.engines.screen import Screening
from microtome.engines.sink import Sink
from microtome.engines.verification import Verified
from microtome.engines.walk.walk import Walk
from microtome.errors import WorkerError
from microtome.language.regions import Column
from microtome.model.code import code_of
from microtome.model.loaded import Loaded
from microtome.plan.choice import GRADIENTS
from microtome.plan.plan import Plan
from microtome.plan.units import Unit
from microtome.readings.registry import readings
from microtome.verbs.options import Options

KEPT = "Whole units are kept where out= was given."

Made = TypeVar("Made")


@dataclass(frozen=True, eq=False)
class Job:
    """Units of a plan, and how they are run; where it is to be done somewhere else, it pickles.

    Attributes:
        plan: the plan.
        options: how it is answered.
        verified: whether cells are held against the reference path.
        coarse: whether on a copy of the model in the type of the screen.
        among: of a plan of some cells of another, which of the other's these are, ``[n]``.
    """

    plan: Plan
    options: Options
    verified: bool = True
    coarse: bool = False
    among: Column | None = None

    def __reduce__(self) -> tuple[Callable[..., Job], tuple[object, ...]]:
        # Metrics go by their texts: functions of the registry have no names to be found by.
        question = self.plan.question
        texts = tuple(map(str, question.asked))
        bare = replace(self.plan, question=replace(question, asked=()))
        how = self.options, self.verified, self.coarse, self.among
        return _job, (bare, texts, _codes(self.plan), *how)

    def start(
        self, model: Loaded, tick: Callable[[float], None] = lambda cells: None
    ) -> Callable[[Unit], Block]:
        """What runs a unit on a model: with the whole plan's cells, and how long it took."""
        screen = self.options.screen
        if self.coarse and screen is not None:
            model = screening.coarse(model, screen.dtype, self.plan.question.asked[0])
        if self.plan.choice.engine == GRADIENTS:
            model = widened(model)
        executor = executor_of(model, self.plan, self.options, tick, self.verified)

        def run(unit: Unit) -> Block:
            began = time.perf_counter()
            block = executor.run(unit)
            cells = block.cells if self.among is None else self.among[block.cells]
            work = {**block.work, "seconds": time.perf_counter() - began}
            return replace(block, cells=cells, work=work)

        return run


def _job(
    bare: Plan,
    metrics: Sequence[str],
    codes: Mapping[str, str],
    options: Options,
    verified: bool,
    coarse: bool,
    among: Column | None,
) -> Job:
    """A job that was sent.

    Raises:
        WorkerError: a function goes by its name, and is another here.
    """
    here = _codes(bare)
    for edit, code in codes.items():
        if here.get(edit) != code:
            raise WorkerError(
                f"The function of '{edit}' is another where the worker is than in the process "
                "that asks: its file was changed since it was imported there, or it was put in the "
                "place of another. Start that process again."
            )
    question = replace(bare.question, asked=readings(metrics))
    return Job(replace(bare, question=question), options, verified, coarse, among)


def _codes(plan: Plan) -> dict[str, str]:
    """What the user's functions do, by the edits that apply them."""
    every = (edit for variant in plan.question.variants for edit in variant)
    plain = (edit for edit in every if isinstance(edit, Apply) and _is_plain(edit.fn))
    return {str(edit): code_of([edit.fn]) for edit in plain}


def _is_plain(function: object) -> bool:
    """Whether all that a function does is in its code: it closes over nothing."""
    return isinstance(function, FunctionType) and not function.__closure__


class Runner(Protocol):
    """Who runs the units: this process, or workers."""

    def ahead(self, made: Iterator[Made]) -> Generator[Made, None, None]:
        """What is made one after another, such as windows whose units `begin`.

        Workers have the next one made while they are at one. What has begun is ended with it.
        """

    def begin(self, job: Job, units: Sequence[Unit], sink: Sink) -> None:
        """Have units begun, where somebody is free for them; `run` of the job goes on with that."""

    def meanwhile(self) -> AbstractContextManager[None]:
        """Within this block this process does something else, and what has begun goes on."""

    def run(
        self, job: Job, units: Sequence[Unit], sink: Sink, observer: Observer
    ) -> Generator[int, None, None]:
        """Run units, in any order; each by its number as the sink has it.

        The observer hears of cells. Whoever wants no more closes it: nothing is run then.
        """

    def located(self, told: dict[str, Any]) -> dict[str, Any]:
        """What a result says of its model, with the device that it ran on."""


@dataclass(frozen=True, eq=False)
class Here:
    """This process runs the units, one after another."""

    model: Loaded

    def ahead(self, made: Iterator[Made]) -> Generator[Made, None, None]:
        """Each as it is needed."""
        yield from made

    def begin(self, job: Job, units: Sequence[Unit], sink: Sink) -> None:
        """Nobody is free for it."""

    def meanwhile(self) -> AbstractContextManager[None]:
        """Nothing goes on."""
        return nullcontext()

    def run(
        self, job: Job, units: Sequence[Unit], sink: Sink, observer: Observer
    ) -> Generator[int, None, None]:
        """Run units; each as the sink has it."""

        def tick(cells: float) -> None:
            observer.advanced(cells)
            go_on(observer, KEPT)

        if not units:
            return
        run = job.start(self.model, tick)
        for unit in units:
            go_on(observer, KEPT)
            sink.take(run(unit))
            yield unit.number

    def located(self, told: dict[str, Any]) -> dict[str, Any]:
        """The same: the device is the model's own."""
        return told


@dataclass(frozen=True, eq=False)
class Answer:
    """A plan on its way to its result.

    Attributes:
        plan: the plan of the whole question.
        options: how it is answered.
        sink: where blocks go.
        observer: who is told.
        runner: who runs the units.
    """

    plan: Plan
    options: Options
    sink: Sink
    observer: Observer
    runner: Runner

    def begin(self) -> None:
        """Have the units that the sink does not have begun; `run` goes on with that."""
        missing = [unit for unit in self.plan.units if unit.number not in self.sink.done]
        self.runner.begin(self._whole, missing, self.sink)

    def run(self) -> tuple[Assembled, Screening | Audited | None]:
        """Run the units that the sink does not have, and lay all of them on the map.

        Raises:
            Cancelled: the observer wants no more; whole units are kept.
            VerificationError: a cell computed again is beyond the tolerance.
        """
        screen = self.options.screen
        if self.options.method is not None:
            return self._approximate(self.options.method)
        if screen is None:
            self._run(self._whole)
            with self.runner.meanwhile():
                return assemble(self.plan, self.sink.blocks()), None
        self._run(Job(self.plan, self.options, verified=False, coarse=True))
        rough = assemble(self.plan, self._blocks(self.plan.units))
        numbers = screening.strongest(self.plan, rough, screen.refine)
        exact = self.plan.of_cells(numbers)
        self._run(Job(exact, self.options, among=numbers))
        fine = assemble(self.plan, self._blocks(exact.units))
        return screening.merged(screen.dtype, self.plan, numbers, rough, fine)

    @cached_property
    def _whole(self) -> Job:
        """All units of the plan."""
        return Job(self.plan, self.options)

    def _approximate(self, method: Method) -> tuple[Assembled, Audited]:
        """The whole map by gradients, and then the cells of its audit, exactly."""
        plan, audit, seed = self.plan, self.options.audit, self.options.seed
        self._run(Job(plan, self.options, verified=False))
        rough = assemble(plan, self._blocks(plan.units))
        other = other_of(method, plan.question, audit)
        beside = None if other is None else self._by(other)
        name = None if other is None else str(other)
        chosen = choose(plan, rough, audit, seed, beside)
        exact: list[Unit] = []
        while True:
            turn = plan.of_cells(chosen.fresh, chosen.turn)
            self._run(Job(turn, self.options, among=chosen.fresh))
            exact.extend(turn.units)
            fine = assemble(plan, self._blocks(exact))
            whole, found = audited(plan, str(method), audit, chosen, rough, fine, name)
            if found.enough or chosen.turn + 1 == audit.rounds:
                break
            chosen = choose(plan, rough, audit, seed, beside, chosen)
        self._leave(chosen.turn + 1, audit.rounds)
        return whole, found

    def _by(self, other: Method) -> Assembled:
        """The map by another approximation, in units behind all others."""
        first = units_of(self.plan, self.options) - len(self.plan.units)
        plan = self.plan.numbered(first)
        self._run(Job(plan, replace(self.options, method=other), verified=False))
        return assemble(plan, self._blocks(plan.units))

    def _leave(self, first: int, last: int) -> None:
        """Units of rounds that were not needed, without cells: so that all units are there."""
        nobody, nothing = np.empty(0, dtype=np.int64), np.empty(0)
        for turn in range(first, last):
            for unit in self.plan.of_cells(nobody, turn).units:
                self.sink.take(Block(unit.number, nobody, {}, {}, nobody, {}, {}, nothing, nothing))

    def _run(self, job: Job) -> None:
        """Run what is missing of a plan."""
        total, done = units_of(self.plan, self.options), self._done(job.plan, job.among)
        missing = [unit for unit in job.plan.units if unit.number not in done]
        for unit in job.plan.units:
            if unit.number in done:
                self.observer.advanced(len(job.plan.numbers(unit)))
                self.observer.unit_there(unit.number, total)
        with closing(self.runner.run(job, missing, self.sink, self.observer)) as numbers:
            for number in numbers:
                self.observer.unit_done(number, total)

    def _done(self, plan: Plan, among: Column | None) -> frozenset[int]:
        """The units that are there; of chosen cells, those of the cells that are chosen now."""
        if among is None:
            return self.sink.done
        wanted = {unit.number: among[plan.numbers(unit)] for unit in plan.units}
        kept = self._blocks(plan.units)
        same = (block.unit for block in kept if np.array_equal(block.cells, wanted[block.unit]))
        return frozenset(same)

    def _blocks(self, units: Sequence[Unit]) -> Iterator[Block]:
        numbers = {unit.number for unit in units}
        return (block for block in self.sink.blocks() if block.unit in numbers)


def executor_of(
    model: Loaded,
    plan: Plan,
    options: Options,
    tick: Callable[[float], None],
    verified: bool = True,
) -> Executor:
    """What runs the units of a plan on a model, all its legs."""
    legs = plan.legs
    if len(legs) == 1 and legs[0].question is plan.question:
        return _executor_of(model, plan, options, tick, verified)
    kind = LinearLegs if plan.choice.engine == GRADIENTS else Legs
    return kind(
        plan,
        [
            _executor_of(model, leg, options, lambda n: tick(n / len(legs)), verified)
            for leg in legs
        ],
    )


def _executor_of(
    model: Loaded, plan: Plan, options: Options, tick: Callable[[float], None], verified: bool
) -> Executor:
    sources = sources_of(model, plan)
    if plan.choice.engine == "reference":
        return Reference(model, plan, sources, tick)
    if plan.choice.engine == GRADIENTS:
        assert options.method is not None, "nothing else is computed by gradients"
        return Gradients(model, plan, sources, options.budget(model), tick, options.method)
    walk = Walk(model, plan, sources, options.budget(model), tick)
    return Verified(walk, options.verify, options.seed) if verified else walk


def sources_of(model: Loaded, plan: Plan) -> Sources:
    """The donors' and reference prompts' activations that the cells of a plan need."""
    question = plan.question
    needs = (
        (edit, one) for edits in question.variants for edit in edits for one in question.encoded
    )
    texts = [one.tokens for one in question.references]
    return Sources(model.hf, model.anatomy, needs, texts)


def units_of(plan: Plan, options: Options) -> int:
    """How many units the question has; of one screened or approximated the exact ones too."""
    if options.method is not None:
        twice = other_of(options.method, plan.question, options.audit) is not None
        return len(plan.units) * (1 + twice) + len(plan.again) * options.audit.rounds
    return len(plan.units) + (0 if options.screen is None else len(plan.again))


def cells_of(plan: Plan, options: Options) -> int:
    """How many cells are computed; those that are refined or audited twice."""
    again = 0 if options.screen is None else min(options.screen.refine, len(plan.cells))
    if options.method is not None:
        audit = options.audit
        most = audit.cells * (1 if audit.below is None else 2 ** (audit.rounds - 1))
        twice = other_of(options.method, plan.question, audit) is not None
        again = min(most + audit.refine, len(plan.cells)) + twice * len(plan.cells)
    return len(plan.cells) + again
