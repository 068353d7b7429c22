"""A crew: workers that are hired as needed, and replaced when they die, with units to share out.

One unit is with a worker at a time, so no more results are on their way than there are workers:
whoever takes them slowly is waited for. Who has something else to do says so (`minded`);
then as many may be as have begun. Units of a next job are given out once there are no others.

A worker that dies, or has not answered for too long, is replaced, and its unit is run again by
another; a unit that has killed three is left out and reported. An error that a unit raises would be
raised anywhere, and ends the sweep, as it does without workers.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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

BRIEF = 0.02
"""The same for who minds the workers, and is waited for when it is to end."""


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


@dataclass(frozen=True)
class _Posted:
    """A job that workers have been told of, by its number and by what they are given of it."""

    job: Job
    number: int
    published: object


@dataclass(frozen=True)
class _Lost:
    """A unit that is left out, since it killed its workers, and why."""

    unit: Unit
    why: str


@dataclass(eq=False)
class _Round:
    """Units of one job.

    Attributes:
        posted: the job.
        waiting: those that no worker has yet.
        deaths: how many workers each has killed.
        came: what came of others, and nobody has taken yet.
        taken: whether somebody takes it, so that the same job may come again.
    """

    posted: _Posted
    waiting: deque[Unit]
    deaths: Counter[int] = field(default_factory=Counter)
    came: deque[Done | Failed | _Lost] = field(default_factory=deque)
    taken: bool = False


@dataclass(frozen=True)
class _Busy:
    """What a worker does: a unit of a round, or making ready where there is none."""

    since: float
    work: tuple[_Round, Unit] | None = None


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
    _heard: deque[tuple[Hand, Outcome]] = field(default_factory=deque)
    _rounds: tuple[_Round, ...] = ()
    _posted: _Posted | None = None
    _longest: float = 0.0
    _stillborn: int = 0
    _alone: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, job: Job, units: Sequence[Unit]) -> None:
        """Have units of a job given out once there are no others to give.

        `run` of the same job goes on with them.

        Args:
            job: what runs them; one that comes again is not sent again.
            units: which.
        """
        if units and self._begun(job) is None:
            # Another tuple: whoever minds the workers meanwhile has the one or the other.
            self._rounds = (*self._rounds, _Round(self._post(job), deque(units)))

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
        self.begin(job, units)
        own = self._begun(job)
        assert own is not None, "it has begun just now"
        own.taken = True
        try:
            while own.came or self._is_under_way(own):
                listen()
                self._step(0.0 if own.came else LISTEN)
                if not own.came:
                    continue
                match own.came.popleft():
                    case Done(result):
                        yield cast("Result", result)
                    case Failed(error):
                        raise error
                    case _Lost(unit, why):
                        lose(cast("UnitOf", unit), why)
        except BaseException:
            self.stop()
            raise
        self._rounds = tuple(one for one in self._rounds if one is not own)

    @contextlib.contextmanager
    def minded(self) -> Iterator[None]:
        """Within this block another thread minds the workers, while this one does something else.

        What comes of their units is there when they are run. Nothing else is asked of a crew in the
        block than to `begin`.
        """
        if not any(map(self._is_under_way, self._rounds)):
            yield
            return
        back = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            try:
                minding = pool.submit(self._mind, back)
                yield
            finally:
                back.set()
        minding.result()

    def stop(self) -> None:
        """End whoever is at work: nobody wants any more what has begun."""
        self._rounds = ()
        with self._alone:
            for hand in [hand for hand, own in self._busy.items() if own.work is not None]:
                hand.dismiss()
                del self._busy[hand]
            self._heard = deque(own for own in self._heard if own[0] in self._busy)

    def close(self) -> None:
        """Dismiss everybody; again, nothing happens."""
        self._rounds = ()
        with self._alone:
            for hand in self._busy:
                hand.dismiss()
            for hand in self._idle:
                hand.part()
            self._idle, self._busy = [], {}
            self._heard.clear()
            self.employer.close()

    def _mind(self, back: threading.Event) -> None:
        """Give units out and hear what comes, as long as there are any, until someone is back."""
        while not back.is_set() and any(map(self._is_under_way, self._rounds)):
            self._step(BRIEF)

    def _begun(self, job: Job) -> _Round | None:
        """The round of a job that has begun, and that nobody takes yet."""
        mine = (own for own in self._rounds if own.posted.job is job and not own.taken)
        return next(mine, None)

    def _is_under_way(self, own: _Round) -> bool:
        """Whether anything of a round is still to come."""
        return bool(own.waiting) or any(
            busy.work is not None and busy.work[0] is own for busy in self._busy.values()
        )

    def _post(self, job: Job) -> _Posted:
        """Let workers be told of a job; again, nothing is sent."""
        if self._posted is None or self._posted.job is not job:
            number = 0 if self._posted is None else self._posted.number + 1
            self._posted = _Posted(job, number, self.employer.publish(job))
        return self._posted

    def _step(self, seconds: float) -> None:
        """Give units out, and go by one answer, if there is one after so many seconds."""
        with self._alone:  # an interrupt may come while one who minds is waited for
            if not self._heard:
                self._share_out()
                self._heard.extend(self._answers(seconds) if self._busy else ())
            if self._heard:
                self._hear(*self._heard.popleft())

    def _hear(self, hand: Hand, outcome: Outcome) -> None:
        """Go by what a worker answered."""
        busy = self._busy.pop(hand)
        work = busy.work
        match outcome:
            case Ready():
                self._idle.append(hand)
                self._stillborn = 0
            case Done():
                assert work is not None, "who makes ready does no unit"
                self._idle.append(hand)
                self._longest = max(self._longest, self.clock() - busy.since)
                work[0].came.append(outcome)
                # The worker has its next unit before the result is looked at.
                self._share_out()
            case Failed(error):
                hand.dismiss()  # it is none of ours any more
                self._end(self._rounds if work is None else work[:1], error)
            case Died(why):
                if work is None:
                    self._bury(why)
                else:
                    self._mourn(*work, why)

    def _mourn(self, own: _Round, unit: Unit, why: str) -> None:
        """Have a unit whose worker died run again, or leave it out."""
        own.deaths[unit.number] += 1
        if own.deaths[unit.number] < DEATHS:
            own.waiting.appendleft(unit)
        else:
            own.came.append(_Lost(unit, why))

    def _end(self, rounds: Sequence[_Round], error: Exception) -> None:
        """Let an error be the last that comes of some rounds."""
        for own in rounds:
            own.waiting.clear()
            own.came.append(Failed(error))

    def _share_out(self) -> None:
        """Give units to those who do nothing, and hire where there are more units than workers.

        A round's are given once there are none of those before it.
        """
        for own in self._rounds:
            while self._idle and own.waiting:
                hand, unit = self._idle.pop(), own.waiting.popleft()
                hand.send(own.posted.number, own.posted.published, unit)
                self._busy[hand] = _Busy(self.clock(), (own, unit))
        there = len(self._busy) + len(self._idle)
        if there and self._stillborn >= DEATHS:
            return  # there is room for no more than these
        waiting = sum(len(own.waiting) for own in self._rounds)
        starting = sum(own.work is None for own in self._busy.values())
        wanted = min(self.count - there, waiting - starting)
        for _ in range(wanted):
            self._busy[self.employer.hire()] = _Busy(self.clock())

    def _answers(self, seconds: float) -> list[tuple[Hand, Outcome]]:
        """What workers answered; those who have not for too long are dead."""
        found = self.employer.wait([*self._busy], seconds)
        answered = {id(hand) for hand, _ in found}
        for hand, busy in self._busy.items():
            late = self.clock() - busy.since > self._allowed(busy)
            if id(hand) not in answered and late:
                hand.dismiss()
                allowed = self._allowed(busy)
                more = "" if busy.work is None else "; patience= gives a unit more"
                found.append((hand, Died(f"it had not answered for {allowed:,.0f} s{more}")))
        for hand, outcome in found:
            if isinstance(outcome, Died):
                hand.dismiss()
        # An error ends it: what others have done by then is taken first.
        return sorted(found, key=lambda own: isinstance(own[1], Failed))

    def _allowed(self, busy: _Busy) -> float:
        """Seconds that a worker may take for what it does."""
        if busy.work is None:
            return AT_FIRST
        if self.patience is not None:
            return self.patience
        return max(LEAST, TIMES * self._longest) if self._longest else AT_FIRST

    def _bury(self, why: str) -> None:
        """Count one that was never ready; those that are there go on without it."""
        self._stillborn += 1
        if self._stillborn >= DEATHS and not (self._idle or self._busy):
            text = (
                f"{DEATHS} workers, one after another, died before their model was ready; the last "
                f"one: {why}. Is there room for the model on each? Nothing that was done is lost."
            )
            self._end(self._rounds, WorkerError(text))
