"""A crew: workers that are hired as needed, and replaced when they die, with units to share out.

One unit is with a worker at a time, so no more results are on their way than there are workers:
whoever takes them slowly is waited for. A worker that dies, or has not answered for too long, is
replaced, and its unit is run again by another; a unit that has killed three is left out and
reported. An error that a unit raises would be raised anywhere, and ends the sweep, as it does
without workers.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

from microtome.errors import WorkerError
from microtome.workers.desk import (
    Died,
    Done,
    Failed,
    Job,
    JobOf,
    Outcome,
    Ready,
    Result,
    Unit,
    UnitOf,
)

DEATHS = 3
"""Workers that a unit may kill, and that may die before their model is ready."""

AT_FIRST = 3600.0
"""Seconds that a worker may take to make ready, and for a unit before any was done."""

TIMES = 10.0
"""How many times as long as the longest unit so far a unit may take."""

LEAST = 600.0
"""Seconds that any unit may take."""

LISTEN = 0.5
"""Seconds between two looks at whether the sweep is still wanted."""


class Hand(Protocol):
    """A worker, from its employer's side."""

    def send(self, number: int, job: object, unit: Unit) -> None:
        """Give it a unit of a job that was published."""

    def part(self) -> None:
        """Let it end: it does nothing."""

    def dismiss(self) -> None:
        """End it, whatever it does."""


class Employer(Protocol):
    """Where workers come from: `here.Shop` has processes, `clusters.Cluster` has actors of Ray."""

    def hire(self) -> Hand:
        """A new worker, which makes its model ready."""

    def publish(self, job: Job) -> object:
        """What workers are given in a job's place: it is sent once to each."""

    def wait(self, hands: Sequence[Hand], seconds: float) -> list[tuple[Hand, Outcome]]:
        """What some of these workers answered, after so many seconds at most."""

    def close(self) -> None:
        """Let everything go."""


@dataclass(eq=False)
class _Busy:
    """What a worker does: a unit, or making ready where there is none."""

    since: float
    unit: Unit | None = None


@dataclass(frozen=True)
class _Posted:
    """A job that workers have been told of, by its number and by what they are given of it."""

    job: Job
    number: int
    published: object


@dataclass(eq=False)
class Crew:
    """Workers with one model.

    Attributes:
        employer: where they come from.
        count: how many at most.
        patience: seconds that a unit may take; None: ten times the longest so far, and ten minutes
            at least, or an hour before any was done.
    """

    employer: Employer
    count: int
    patience: float | None = None
    clock: Callable[[], float] = time.monotonic
    _idle: list[Hand] = field(default_factory=list)
    _busy: dict[Hand, _Busy] = field(default_factory=dict)
    _posted: _Posted | None = None
    _longest: float = 0.0
    _stillborn: int = 0

    def run(
        self,
        job: JobOf[UnitOf, Result],
        units: Sequence[UnitOf],
        *,
        lose: Callable[[UnitOf, str], None],
        listen: Callable[[], None] = lambda: None,
    ) -> Generator[Result, None, None]:
        """What the units of a job gave, each as it is done.

        Whoever wants no more closes it: workers that run a unit then are ended.

        Args:
            job: what runs them; one that comes again is not sent again.
            units: which.
            lose: is told of a unit that is left out, since it killed its workers, and why.
            listen: is called every now and then; what it raises ends it all.

        Raises:
            WorkerError: workers die before they are ready.
            Exception: what a unit raised.
        """
        if not units:
            return
        posted = self._post(job)
        own = {unit.number: unit for unit in units}
        waiting, deaths = deque[Unit](units), Counter[int]()
        try:
            while waiting or self._running:
                listen()
                self._share_out(waiting, posted)
                for hand, outcome in self._answers():
                    busy = self._busy.pop(hand)
                    match outcome:
                        case Ready():
                            self._idle.append(hand)
                            self._stillborn = 0
                        case Done(result):
                            self._idle.append(hand)
                            self._longest = max(self._longest, self.clock() - busy.since)
                            # The worker has its next unit before the result is looked at.
                            self._share_out(waiting, posted)
                            yield cast("Result", result)
                        case Failed(error):
                            hand.dismiss()  # it is none of ours any more
                            raise error
                        case Died(why):
                            unit = busy.unit
                            if unit is None:
                                self._bury(why)
                                continue
                            deaths[unit.number] += 1
                            if deaths[unit.number] < DEATHS:
                                waiting.appendleft(unit)
                            else:
                                lose(own[unit.number], why)
        finally:
            # Nobody hears any more what they are at, and the next to ask must not take it for his.
            for hand in self._running:
                hand.dismiss()
                del self._busy[hand]

    def close(self) -> None:
        """Dismiss everybody; again, nothing happens."""
        for hand in self._busy:
            hand.dismiss()
        for hand in self._idle:
            hand.part()
        self._idle, self._busy = [], {}
        self.employer.close()

    @property
    def _running(self) -> list[Hand]:
        """Those who run a unit."""
        return [hand for hand, own in self._busy.items() if own.unit is not None]

    def _post(self, job: Job) -> _Posted:
        """Let workers be told of a job; again, nothing is sent."""
        if self._posted is None or self._posted.job is not job:
            number = 0 if self._posted is None else self._posted.number + 1
            self._posted = _Posted(job, number, self.employer.publish(job))
        return self._posted

    def _share_out(self, waiting: deque[Unit], posted: _Posted) -> None:
        """Give units to those who do nothing, and hire where there are more units than workers."""
        while self._idle and waiting:
            hand, unit = self._idle.pop(), waiting.popleft()
            hand.send(posted.number, posted.published, unit)
            self._busy[hand] = _Busy(self.clock(), unit)
        there = len(self._busy) + len(self._idle)
        if there and self._stillborn >= DEATHS:
            return  # there is room for no more than these
        starting = sum(own.unit is None for own in self._busy.values())
        wanted = min(self.count - there, len(waiting) - starting)
        for _ in range(wanted):
            self._busy[self.employer.hire()] = _Busy(self.clock())

    def _answers(self) -> list[tuple[Hand, Outcome]]:
        """What workers answered; those who have not for too long are dead."""
        found = self.employer.wait([*self._busy], LISTEN)
        answered = {id(hand) for hand, _ in found}
        for hand, busy in self._busy.items():
            late = self.clock() - busy.since > self._allowed(busy)
            if id(hand) not in answered and late:
                hand.dismiss()
                seconds = self._allowed(busy)
                more = "" if busy.unit is None else "; patience= gives a unit more"
                found.append((hand, Died(f"it had not answered for {seconds:,.0f} s{more}")))
        for hand, outcome in found:
            if isinstance(outcome, Died):
                hand.dismiss()
        # An error ends it: what others have done by then is taken first.
        return sorted(found, key=lambda own: isinstance(own[1], Failed))

    def _allowed(self, busy: _Busy) -> float:
        """Seconds that a worker may take for what it does."""
        if busy.unit is None:
            return AT_FIRST
        if self.patience is not None:
            return self.patience
        return max(LEAST, TIMES * self._longest) if self._longest else AT_FIRST

    def _bury(self, why: str) -> None:
        """Count one that was never ready; those that are there go on without it."""
        self._stillborn += 1
        if self._stillborn >= DEATHS and not (self._idle or self._busy):
            raise WorkerError(
                f"{DEATHS} workers, one after another, died before their model was ready; the last "
                f"one: {why}. Is there room for the model on each? Nothing that was done is lost."
            )
