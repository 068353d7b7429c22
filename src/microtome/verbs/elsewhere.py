"""A sweep's units on workers: how each gets the model, and what comes back."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from microtome.amounts import many
from microtome.engines.block import Block
from microtome.engines.observer import Observer, go_on
from microtome.engines.sink import Delivered, Delivery, Sink
from microtome.errors import WorkerError, listing
from microtome.model.loaded import Loaded
from microtome.model.modes import set_modes
from microtome.model.proved import Said
from microtome.model.watching import watchers
from microtome.plan.plan import Plan
from microtome.plan.units import Unit
from microtome.results import provenance
from microtome.results.identity import difference
from microtome.verbs.answer import KEPT, Here, Job, Made, Runner
from microtome.verbs.load import load
from microtome.workers import Workers, workers_of
from microtome.workers.crew import DEATHS, Crew

SHOWN = 5
"""Lost units that a message names."""

OTHERS = "the others are done, and kept where out= was given, where the same call runs these again"
"""What is kept where units were left out."""

OF_MODEL = (
    *("weight_hash", "buffer_hash", "architecture", "dtype", "dtypes", "attention"),
    *("quantization", "adapters"),
)
"""What of a model's record is the same on every worker; where it came from and its device need not
be."""

OF_THREAD = ("grad", "inference_mode")
"""Modes that belong to the thread that runs, and decide no number."""


@dataclass(frozen=True, eq=False)
class Recipe:
    """How a worker gets the model that is asked about.

    Attributes:
        name: what it is loaded by where the worker is; None where it is sent.
        asked: how it was loaded.
        module, tokenizer: the model itself, where it is sent.
        device: where it is put.
        known: what it is known by.
        proved: where it is sent, what it said of itself when it was proved: where it says something
            else now it is run whole, there as here.
    """

    name: str | None
    asked: Mapping[str, Any]
    module: PreTrainedModel | None
    tokenizer: PreTrainedTokenizerBase | None
    device: str
    known: Mapping[str, Any]
    proved: Said | None = None

    @classmethod
    def of(cls, model: Loaded, device: str | None) -> Recipe:
        """Of a model: by its name, where it is as it was loaded by that; else the model itself.

        Raises:
            WorkerError: somebody has put something on it, which workers would not have.
        """
        added = [str(one) for one in model.additions if one.kind != "class"]
        if added:
            raise WorkerError(
                f"The model has {listing(added)}, and workers load models of their own, without "
                "them: take off what is there, or sweep here (no workers=)."
            )
        if watching := [*watchers(model.hf)]:
            raise WorkerError(
                f"{listing(watching)} would see nothing of what workers compute: take off what "
                "watches, or sweep here (no workers=)."
            )
        where, asked = device or str(model.device), dict(model.origin.asked)
        by_name = model.origin.loaded == "from files" and model.is_as_loaded
        if by_name and "tokenizer" not in asked:
            name = os.path.abspath(model.name) if os.path.exists(model.name) else model.name
            how = {key: own for key, own in asked.items() if key != "device"}
            return cls(name, how, None, None, where, known(model))
        return cls(None, {}, model.hf, model.tokenizer, where, known(model), model.proved)

    def open(self) -> Loaded:
        """The model, on this machine.

        Raises:
            LoadError: it is not here.
            WorkerError: it is another, or computes otherwise.
        """
        set_modes(self.known["modes"])
        transformers.logging.disable_progress_bar()  # a worker has no terminal of its own
        if self.module is not None:
            found = load(self.module.to(self.device), tokenizer=self.tokenizer)
            vars(found).update(proved=self.proved)
        else:
            spread = "device_map" in self.asked
            place: dict[str, Any] = {} if spread else {"device": self.device}
            found = load(str(self.name), **self.asked, **place)
        here = known(found)
        if here != self.known:
            raise WorkerError(
                f"A worker is of another kind (there: it; here: who asks): "
                f"{difference(here, self.known)}. Install the same versions on all machines, and "
                "see that they have the same files of the model."
            )
        return found


def known(model: Loaded) -> dict[str, Any]:
    """What has to be the same for a worker's numbers to be those of this process."""
    whole, machine = provenance.of_model(model), provenance.of_machine()
    return {
        **{name: whole[name] for name in OF_MODEL if name in whole},
        "modules": model.modules_hash,
        "tokenizer": whole["tokenizer"]["hash"],
        "versions": machine["versions"],
        "modes": {name: own for name, own in machine["modes"].items() if name not in OF_THREAD},
    }


@dataclass(frozen=True, eq=False)
class Sent:
    """A job on its way to workers, who put what it gives into the sink themselves if they can.

    Attributes:
        job: the job.
        delivery: how they do; None: what it gives is brought to whoever asks.
    """

    job: Job
    delivery: Delivery | None

    def start(self, model: Loaded) -> Callable[[Unit], Delivered | Block]:
        """What runs a unit on a model, and says that it is delivered, or gives it."""
        run, delivery = self.job.start(model), self.delivery
        if delivery is None:
            return run
        return lambda unit: delivery.deliver(run(unit))


@dataclass(eq=False)
class There:
    """Workers run the units.

    They are hired when there is a unit to run: to open what is finished takes none.

    Attributes:
        model: the model, which workers have too.
        workers: who they are.
    """

    model: Loaded
    workers: Workers
    _crew: list[Crew] = field(default_factory=list)
    _begun: dict[Job, Sent] = field(default_factory=dict)

    @property
    def crew(self) -> Crew:
        """The workers, who are hired as they are needed.

        Raises:
            WorkerError: the model cannot be given to them.
        """
        if not self._crew:
            self._crew.append(self.workers.crew(Recipe.of(self.model, self.workers.device)))
        return self._crew[0]

    def ahead(self, made: Iterator[Made]) -> Generator[Made, None, None]:
        """Each is made while workers are at the one before."""
        try:
            coming = self._next(made)
            while one := coming.result():
                coming = self._next(made)
                yield from one
        finally:
            self._begun.clear()
            for crew in self._crew:
                crew.stop()

    def _next(self, made: Iterator[Made]) -> Future[list[Made]]:
        """The next one, or none; an error is raised when it is its turn."""
        found = Future[list[Made]]()
        with self.meanwhile():
            try:
                found.set_result([*islice(made, 1)])
            except Exception as error:
                found.set_exception(error)
        return found

    def begin(self, job: Job, units: Sequence[Unit], sink: Sink) -> None:
        """Have workers begin with units once they have no others.

        Raises:
            WorkerError: the model, or the job, cannot be given to them.
        """
        if units:
            sent = Sent(job, sink.delivery())
            self.crew.begin(sent, units)
            self._begun[job] = sent

    def meanwhile(self) -> contextlib.AbstractContextManager[None]:
        """Within this block workers go on, and another thread minds them."""
        return self._crew[0].minded() if self._crew else contextlib.nullcontext()

    def run(
        self, job: Job, units: Sequence[Unit], sink: Sink, observer: Observer
    ) -> Generator[int, None, None]:
        """Run units, in the order in which they are done.

        Raises:
            WorkerError: units killed their workers; all others are done by then.
        """
        if not units:
            return
        lost: list[tuple[Unit, str]] = []

        def lose(unit: Unit, why: str) -> None:
            lost.append((unit, why))
            observer.note(f"{spelled(job.plan, unit)} killed {DEATHS} workers: left out ({why}).")

        sent = self._begun.pop(job, None) or Sent(job, sink.delivery())
        listen = partial(go_on, observer, KEPT)
        with contextlib.closing(self.crew.run(sent, units, lose=lose, listen=listen)) as results:
            for result in results:
                if isinstance(result, Delivered):
                    sink.heard(result)
                    observer.advanced(result.cells)
                else:
                    sink.take(result)
                    observer.advanced(len(result.cells))
                yield result.unit
        named = [(spelled(job.plan, unit), why) for unit, why in lost]
        refuse_lost(named, len(units), OTHERS)

    def located(self, told: dict[str, Any]) -> dict[str, Any]:
        """The same with the device of the workers."""
        if self.workers.device is None:
            return told
        return {**told, "model": {**told["model"], "device": self.workers.device}}

    def close(self) -> None:
        """Dismiss the workers."""
        while self._crew:
            self._crew.pop().close()


@contextlib.contextmanager
def running(model: Loaded, workers: Workers | str | None) -> Iterator[Runner]:
    """Who runs a sweep's units: this process, or workers, who are dismissed at the end."""
    if workers is None:
        yield Here(model)
        return
    there = There(model, workers_of(workers))
    try:
        yield there
    finally:
        there.close()


def refuse_lost(lost: Sequence[tuple[str, str]], of: int, kept: str) -> None:
    """Raise where units were left out.

    Args:
        lost: each in words, and why.
        of: how many there were.
        kept: what is kept of the others, in words.

    Raises:
        WorkerError: there are some.
    """
    if not lost:
        return
    named = [f"{unit}: {why}" for unit, why in lost[:SHOWN]]
    more = f"; and {len(lost) - SHOWN} more" if lost[SHOWN:] else ""
    raise WorkerError(
        f"{len(lost)} of {many(of, 'unit')} killed {DEATHS} workers each and were left out; "
        f"{kept}. {'; '.join(named)}{more}."
    )


def spelled(plan: Plan, unit: Unit) -> str:
    """A unit by its cells, in words."""
    numbers = plan.numbers(unit)
    first, last = (plan.cells[int(number)] for number in (numbers[0], numbers[-1]))
    edits = [listing(cell.edits) for cell in (first, last)]
    span = edits[0] if len(numbers) == 1 else f"'{edits[0]}' to '{edits[1]}'"
    cells = f"{many(len(numbers), 'cell')}, {span}"
    return f"Unit {unit.number} ({cells}, of prompts {listed(unit.prompts)})"


def listed(numbers: Sequence[int]) -> str:
    """The first of some numbers, in words."""
    return listing(numbers[:SHOWN]) + (", …" if numbers[SHOWN:] else "")
