"""A crew of workers that are made here, which answer, die and hang as they are told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
import pytest

from microtome.engines.block import Block
from microtome.errors import WorkerError
from microtome.plan.units import Unit
from microtome.workers.crew import Crew
from microtome.workers.desk import Died, Done, Failed, Outcome, Ready

UNITS = [Unit(number, (0,), number, number + 1) for number in range(6)]
Behave = Callable[[int, Unit], Outcome | None]
"""What the worker of a number does with a unit: None, it hangs."""


def block(unit: Unit) -> Block:
    one = np.array([unit.number])
    return Block(unit.number, one, {}, {}, one, {}, {}, np.ones(1), np.ones(1))


@dataclass(eq=False)
class Acting:
    number: int
    behave: Behave
    ready: Outcome | None = field(default_factory=lambda: Ready(1))
    gone: bool = False

    def send(self, number: int, job: object, unit: Unit) -> None:
        assert not self.gone
        self.ready = self.behave(self.number, unit)

    def dismiss(self) -> None:
        self.gone = True

    part = dismiss


@dataclass(eq=False)
class Stage:
    behave: Behave
    first: Outcome | None = field(default_factory=lambda: Ready(1))
    hired: list[Acting] = field(default_factory=list)
    now: float = 0.0
    most: int = 0

    def hire(self) -> Acting:
        self.hired.append(Acting(len(self.hired), self.behave, self.first))
        self.most = max(self.most, sum(not hand.gone for hand in self.hired))
        return self.hired[-1]

    def publish(self, job: object) -> object:
        return job

    def wait(self, hands, seconds):
        found = [(hand, hand.ready) for hand in hands if hand.ready is not None]
        for hand, _ in found:
            hand.ready = None
        self.now += 1.0 if found else 100.0
        return found

    def close(self) -> None:
        self.now = -1.0


def works(number: int, unit: Unit) -> Outcome | None:
    return Done(block(unit))


def run(stage: Stage, count: int = 2, patience: float | None = None, units=UNITS):
    crew = Crew(stage, count, patience, clock=lambda: stage.now)
    lost: list[tuple[int, str]] = []
    try:
        found = [
            own.unit
            for own in crew.run(None, units, lose=lambda unit, why: lost.append((unit.number, why)))
        ]
    finally:
        crew.close()
    assert stage.now == -1.0
    assert all(hand.gone for hand in stage.hired)
    return found, lost


def test_every_unit_is_run_once_by_so_many_workers():
    stage = Stage(works)
    assert run(stage) == (pytest.approx(range(6)), [])
    assert (len(stage.hired), stage.most) == (2, 2)
    alone = Stage(works)
    run(alone, count=8, units=UNITS[:1])
    assert len(alone.hired) == 1


def test_a_unit_whose_worker_died_is_run_again_by_another():
    stage = Stage(lambda number, unit: Died("killed") if number == 0 else works(number, unit))
    found, lost = run(stage)
    assert (sorted(found), lost) == ([*range(6)], [])
    assert len(stage.hired) == 3


def test_a_unit_that_kills_three_workers_is_left_out_and_the_rest_goes_on():
    stage = Stage(lambda n, unit: Died(f"worker {n} ended") if unit.number == 3 else works(n, unit))
    found, lost = run(stage)
    assert sorted(found) == [0, 1, 2, 4, 5]
    [(number, why)] = lost
    assert (number, why.startswith("worker")) == (3, True)


@pytest.mark.parametrize(("patience", "least"), [(50.0, 50.0), (None, 600.0)])
def test_a_worker_that_hangs_is_given_up_after_its_time(patience, least):
    stage = Stage(lambda n, unit: None if (n, unit.number) == (0, 1) else works(n, unit))
    stage.behave, hung = stage.behave, []
    found, lost = run(stage, patience=patience)
    assert (sorted(found), lost) == ([*range(6)], [])
    always = Stage(lambda n, unit: hung.append(n) if unit.number == 5 else works(n, unit))
    found, lost = run(always, patience=patience)
    assert sorted(found) == [0, 1, 2, 3, 4]
    assert lost == [(5, f"it had not answered for {least:,.0f} s; patience= gives a unit more")]
    assert len(hung) == 3


def test_what_a_unit_raises_is_raised_here():
    wrong = ValueError("no such thing")
    stage = Stage(lambda n, unit: Failed(wrong) if unit.number == 2 else works(n, unit))
    with pytest.raises(ValueError, match="no such thing"):
        run(stage)
    assert all(hand.gone for hand in stage.hired)


def test_only_deaths_one_after_another_are_a_reason_to_stop():
    """Two that die before they are ready, one that works and dies, again and again."""

    class Fragile(Stage):
        def hire(self) -> Acting:
            self.first = Died("no memory") if len(self.hired) % 3 < 2 else Ready(1)
            return super().hire()

    died: set[int] = set()

    def dies_once(number: int, unit: Unit) -> Outcome:
        if unit.number in died:
            return works(number, unit)
        died.add(unit.number)
        return Died("killed")

    stage = Fragile(dies_once)
    found, lost = run(stage, count=1, units=UNITS[:2])
    assert (sorted(found), lost) == ([0, 1], [])
    assert len(stage.hired) == 9


@dataclass(eq=False)
class Slow(Stage):
    """Whose workers answer after so many seconds, by the unit; and are ready after some."""

    seconds: dict[int, float] = field(default_factory=dict)
    due: dict[int, float] = field(default_factory=dict)
    ready_after: float = 0.0

    def hire(self) -> Acting:
        hand = super().hire()
        self.due[hand.number] = self.now + self.ready_after
        return hand

    def wait(self, hands, seconds):
        self.now += 10.0
        return [(hand, hand.ready) for hand in hands if self.due[hand.number] <= self.now]


def slowly(seconds: dict[int, float], **more) -> Slow:
    def behave(number: int, unit: Unit) -> Outcome:
        stage.due[number] = stage.now + seconds.get(unit.number, 0.0)
        return works(number, unit)

    stage = Slow(behave, **more)
    return stage


def test_a_unit_may_take_ten_times_as_long_as_the_longest_before_it():
    stage = slowly({0: 300.0, 2: 2500.0})  # after a short one, too
    assert run(stage, count=1, units=UNITS[:3]) == ([0, 1, 2], [])
    assert len(stage.hired) == 1
    late = slowly({0: 300.0, 2: 3500.0})
    found, [(number, why)] = run(late, count=1, units=UNITS[:3])
    assert (found, number) == ([0, 1], 2)
    assert why.startswith("it had not answered for 3,000 s")


def test_no_more_are_hired_than_there_are_units_while_they_make_ready():
    stage = slowly({}, ready_after=50.0)
    assert run(stage, count=8, units=UNITS[:2])[1] == []
    assert len(stage.hired) == 2


@pytest.mark.parametrize("first", [Died("no memory"), None])
def test_workers_that_are_never_ready_are_no_workers(first):
    stage = Stage(works, first)
    with pytest.raises(WorkerError, match="3 workers, one after another, died before their model"):
        run(stage, count=1)
    assert len(stage.hired) == 3


def test_a_crew_goes_on_with_those_that_there_was_room_for():
    """The second is never ready, nor who comes in its place: it is not tried for ever."""

    class Small(Stage):
        def hire(self) -> Acting:
            self.first = Died("no room") if self.hired else Ready(1)
            return super().hire()

    stage = Small(works)
    found, lost = run(stage, units=[Unit(number, (0,), number, number + 1) for number in range(40)])
    assert (sorted(found), lost) == ([*range(40)], [])
    assert len(stage.hired) == 1 + 3


def test_what_others_have_done_is_taken_before_an_error_ends_it():
    stage = Stage(lambda n, unit: Failed(ValueError("no")) if unit.number == 0 else works(n, unit))
    crew, found = Crew(stage, 2, clock=lambda: stage.now), []
    blocks = crew.run(None, UNITS[:2], lose=lambda unit, why: None)
    with pytest.raises(ValueError, match="no"):
        found.extend(own.unit for own in blocks)
    assert found == [1]
    crew.close()


def test_whoever_takes_blocks_slowly_is_waited_for():
    """No worker has more than one unit that nobody has taken."""
    sent: list[int] = []
    stage = Stage(lambda n, unit: sent.append(unit.number) or works(n, unit))
    crew = Crew(stage, 2, clock=lambda: stage.now)
    blocks = crew.run(None, UNITS, lose=lambda unit, why: None)
    for taken, _ in enumerate(blocks, 1):
        assert len(sent) <= taken + 2
    crew.close()


def test_what_listens_may_end_it():
    def listen() -> None:
        raise KeyboardInterrupt

    crew = Crew(Stage(works), 2)
    with pytest.raises(KeyboardInterrupt):
        next(crew.run(None, UNITS, lose=lambda unit, why: None, listen=listen))


def test_whoever_is_at_work_when_nobody_listens_any_more_is_ended():
    """Or what it answers would be taken for a unit of the next job."""
    stage = slowly({0: 0.0, 1: 900.0})
    crew = Crew(stage, 2, clock=lambda: stage.now)
    first = crew.run("one", UNITS[:2], lose=lambda unit, why: None)
    assert next(first).unit == 0
    first.close()
    assert sorted(hand.gone for hand in stage.hired) == [False, True]
    found = [own.unit for own in crew.run("other", UNITS[2:], lose=lambda unit, why: None)]
    assert sorted(found) == [2, 3, 4, 5]
    crew.close()


def test_a_job_that_comes_again_is_not_sent_again():
    told: list[tuple[object, int]] = []

    class Telling(Stage):
        def publish(self, job: object) -> object:
            told.append((job, -1))
            return job

    class Hearing(Acting):
        def send(self, number: int, job: object, unit: Unit) -> None:
            told.append((job, number))
            super().send(number, job, unit)

    stage = Telling(works)
    stage.hire = lambda: stage.hired.append(Hearing(0, works)) or stage.hired[-1]
    crew = Crew(stage, 1, clock=lambda: stage.now)
    for job in ("one", "one", "other"):
        list(crew.run(job, UNITS[:1], lose=lambda unit, why: None))
    assert told == [("one", -1), ("one", 0), ("one", 0), ("other", -1), ("other", 1)]
    crew.close()


@dataclass(eq=False)
class Overlapping:
    """Two jobs of three units, the second begun while the first is under way.

    Attributes:
        behave: what their workers do; by default what they should.
        sent: the numbers of the units, as they were given out.
        lost: those that were left out, as it was told.
    """

    behave: Behave = works
    sent: list[int] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.all_sent = threading.Event()
        self.stage = Stage(self._given)
        self.crew = Crew(self.stage, 2, clock=lambda: 0.0)
        self.crew.begin("one", UNITS[:3])

    def _given(self, number: int, unit: Unit) -> Outcome | None:
        self.sent.append(unit.number)
        if len(self.sent) == len(UNITS):
            self.all_sent.set()
        return self.behave(number, unit)

    def begin(self) -> None:
        self.crew.begin("two", UNITS[3:])

    def run(self, job: str) -> Iterator[int]:
        units = UNITS[:3] if job == "one" else UNITS[3:]
        lose = lambda unit, why: self.lost.append(unit.number)  # noqa: E731
        with closing(self.crew.run(job, units, lose=lose)) as found:
            for own in found:
                yield own.unit


def test_units_of_the_next_job_are_given_out_once_there_are_no_others():
    both = Overlapping()
    both.begin()
    first = both.run("one")
    assert [next(first) for _ in range(3)] == [0, 1, 2]
    assert both.sent == [0, 1, 2, 3, 4]  # both workers have one again
    assert [*first] == []
    assert sorted(both.run("two")) == [3, 4, 5]
    assert sorted(both.sent) == [*range(6)]
    assert len(both.stage.hired) == 2
    both.crew.close()


def test_workers_are_minded_while_the_one_who_asks_does_something_else():
    both = Overlapping()
    both.begin()
    with both.crew.minded():
        assert both.all_sent.wait(600)
    assert sorted(both.run("one")) == [0, 1, 2]
    assert sorted(both.run("two")) == [3, 4, 5]
    both.crew.close()


def test_what_becomes_of_the_next_job_is_told_in_its_turn():
    """That a unit of it was lost, and an error of one, behind all that came before."""

    def behave(number: int, unit: Unit) -> Outcome | None:
        if unit.number == 3:
            return Died("killed")
        return Failed(ValueError("no such thing")) if unit.number == 5 else works(number, unit)

    both = Overlapping(behave)
    both.begin()
    with both.crew.minded():
        assert both.all_sent.wait(600)
    assert sorted(both.run("one")) == [0, 1, 2]
    assert both.lost == []
    found: list[int] = []
    with pytest.raises(ValueError, match="no such thing"):
        found.extend(both.run("two"))
    assert found == [4]
    assert both.lost in ([], [3])
    both.crew.close()


def test_a_model_that_cannot_be_had_ends_all_that_has_begun():
    stage = Stage(works, Failed(ValueError("other weights")))
    crew = Crew(stage, 2, clock=lambda: stage.now)
    crew.begin("one", UNITS[:3])
    crew.begin("two", UNITS[3:])
    with crew.minded():
        pass
    for job, units in (("one", UNITS[:3]), ("two", UNITS[3:])):
        with pytest.raises(ValueError, match="other weights"):
            list(crew.run(job, units, lose=lambda unit, why: None))
    assert len(stage.hired) <= 4
    crew.close()
    assert all(hand.gone for hand in stage.hired)


def test_what_has_begun_is_ended_and_nothing_of_it_comes():
    both = Overlapping(lambda n, unit: None if unit.number else works(n, unit))  # they hang
    with both.crew.minded():
        both.begin()
    first = both.run("one")
    assert next(first) == 0
    first.close()
    assert [hand.gone for hand in both.stage.hired if hand.ready is None] == [True, True]
    both.behave = works
    assert sorted(both.run("two")) == [3, 4, 5]
    both.crew.close()


def test_who_minds_the_workers_is_waited_for_before_they_are_ended():
    """An interrupt may come just when the block ends, and nobody is to be hired any more then."""

    class Held(Stage):
        def wait(self, hands, seconds):
            inside.set()
            assert go.wait(600)
            return super().wait(hands, seconds)

    inside, go, stage = threading.Event(), threading.Event(), Held(works)
    crew = Crew(stage, 2, clock=lambda: 0.0)
    crew.begin("one", UNITS)
    with crew.minded():
        assert inside.wait(600)
        stopping = threading.Thread(target=crew.close)
        stopping.start()
        stopping.join(0.2)
        go.set()
        stopping.join()
    assert len(stage.hired) == 2
    assert all(hand.gone for hand in stage.hired)


def test_units_of_a_job_that_comes_again_are_not_taken_for_those_of_before():
    both = Overlapping()
    first = both.run("one")
    assert next(first) == 0
    again = both.crew.run("one", UNITS[3:], lose=lambda unit, why: None)
    assert sorted(own.unit for own in again) == [3, 4, 5]
    assert sorted(first) == [1, 2]
    both.crew.close()
