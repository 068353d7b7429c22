"""Rows of circuits on workers: each has the model, and is sent the trial once."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace

from microtome.amounts import many
from microtome.circuits.ablations import Ablation
from microtome.circuits.checking import Check
from microtome.circuits.graph import Graph
from microtome.circuits.measures import on_the_output
from microtome.circuits.rows import Ran, Rows
from microtome.circuits.trial import Trial
from microtome.model.loaded import Loaded
from microtome.passes.session import session
from microtome.plan.memory.budget import Budget
from microtome.plan.verify import Verify
from microtome.prompts.encoding import Encoded
from microtome.readings.registry import readings
from microtome.verbs.elsewhere import There, listed, refuse_lost, running
from microtome.workers import Workers


@contextmanager
def lent(trial: Trial, workers: Workers | str | None) -> Iterator[Trial]:
    """A trial whose rows workers run, within this block; without any it is the same.

    Rows are the same whoever runs them, and so are the numbers, bit for bit. What is verified runs
    here, as rows come back, and is kept no longer.

    Raises:
        WorkerError: there are no such workers, or the model cannot be given to them.
    """
    with running(trial.model, workers) as runner:
        if isinstance(runner, There):
            trial = replace(trial, runner=Lent(runner, Sent.of(trial)))
        yield trial


@dataclass(frozen=True, eq=False)
class Lent:
    """Workers that run the rows of a trial.

    Attributes:
        there: the workers.
        job: the trial, as they are sent it.
    """

    there: There
    job: Sent

    def run(self, units: Sequence[Rows], listen: Callable[[], None]) -> Generator[Ran, None, None]:
        """What rows gave.

        Raises:
            WorkerError: some killed their workers.
        """
        lost: list[tuple[str, str]] = []

        def lose(rows: Rows, why: str) -> None:
            lost.append((spelled(rows), why))

        crew = self.there.crew
        with closing(crew.run(self.job, units, lose=lose, listen=listen)) as results:
            yield from results
        refuse_lost(lost, len(units), "what was measured before is kept where out= was given")


@dataclass(frozen=True, eq=False)
class Sent:
    """A trial without its model, which workers have; it pickles.

    Attributes:
        encoded, ablation, budget: the trial's own.
        asked: its metrics, by their texts.
    """

    encoded: tuple[Encoded, ...]
    asked: tuple[str, ...]
    ablation: Ablation
    budget: Budget

    @classmethod
    def of(cls, trial: Trial) -> Sent:
        """A trial as it is sent."""
        return cls(trial.encoded, tuple(map(str, trial.asked)), trial.ablation, trial.budget)

    def start(self, model: Loaded) -> Callable[[Rows], Ran]:
        """What runs rows on a model."""
        trial = Trial(
            model=model,
            graph=Graph.of(model),
            encoded=self.encoded,
            asked=tuple(map(on_the_output, readings(self.asked))),
            ablation=self.ablation,
            budget=self.budget,
            checked=Check(model, Verify.of(0)),
        )

        def run(rows: Rows) -> Ran:
            with session(model.hf, model.anatomy):
                return trial.run(rows)

        return run


def spelled(rows: Rows) -> str:
    """Rows, in words."""
    prompts = listed(sorted({*rows.pairs[:, 0].tolist()}))
    return f"Rows {rows.number} ({many(len(rows.pairs), 'circuit')}, of prompts {prompts})"
