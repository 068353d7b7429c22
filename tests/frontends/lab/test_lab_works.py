"""Answers that take a while: shared, followed, cancelled, and said when they go wrong."""

from __future__ import annotations

import gc
import threading
import time

import pytest
from asked_panels import texts

import microtome as mt
from microtome.errors import MicrotomeError, PromptError
from microtome.frontends.lab import panels
from microtome.frontends.lab.desk import Desk
from microtome.frontends.lab.jobs import Jobs, Progress
from microtome.frontends.lab.panels import Context
from microtome.frontends.lab.panels.showing import Remembered, effect, value
from microtome.frontends.lab.panels.works import LOOK, MOST_RUNNING, STOP, Works, told

WAIT = 300


@pytest.fixture
def gate():
    made = threading.Event()
    yield made
    made.set()


def test_who_asks_the_same_follows_the_same_work(gate):
    works, asked = Works(), []

    def work(observer):
        asked.append(observer)
        assert gate.wait(WAIT)
        return "answer"

    first, second = (works.begin("key", 4, work) for _ in range(2))
    assert first is second is works.find("key")
    gate.set()
    assert first.over.wait(WAIT)
    assert first.answer == "answer"
    assert works.begin("key", 4, work) is first
    assert len(asked) == 1


def test_how_far_it_is_is_told_and_it_can_be_cancelled(gate):
    works, words = Works(), Context(Desk(), Jobs(Desk())).words("en")
    reached = threading.Event()

    def work(observer):
        observer.advanced(3)
        reached.set()
        assert gate.wait(WAIT)
        if observer.cancelled:
            raise mt.Cancelled("enough")
        return "answer"

    made = works.begin("key", 12, work)
    assert reached.wait(WAIT)
    assert "3 of 12 cells" in texts(told(made, words))
    made.cancel()
    gate.set()
    assert made.over.wait(WAIT)
    assert texts(told(made, words)) == ["Cancelled."]
    with pytest.raises(mt.Cancelled):
        _ = made.answer
    assert works.find("key") is None
    again = works.begin("key", 12, lambda observer: "whole")
    assert again.over.wait(WAIT)
    assert again.answer == "whole"


def test_what_was_cancelled_and_has_not_let_go_is_begun_anew_only_where_it_is_asked_for(gate):
    works = Works()

    def work(observer):
        assert gate.wait(WAIT)
        if observer.cancelled:
            raise mt.Cancelled("enough")
        return "answer"

    first = works.heard("key", 4, work, "begin")
    assert works.heard("key", 4, work, STOP) is first
    assert works.find("key") is None, "nobody has it any more"
    assert works.heard("key", 4, work, STOP) is works.heard("key", 4, work, LOOK) is first
    again = works.heard("key", 4, work, "begin")
    assert again is not first
    assert works.find("key") is works.heard("key", 4, work, LOOK) is again
    assert set(works._works.values()) == {first, again}, "the end waits for both"
    gate.set()
    assert first.over.wait(WAIT)
    assert again.over.wait(WAIT)
    assert (first.failed, again.answer) == (True, "answer")


def test_before_it_is_known_how_much_there_is_to_do_no_number_is_told(gate):
    words = Context(Desk(), Jobs(Desk())).words("en")
    works = Works()  # who lets go of it waits for what is on its way
    made = works.begin("key", 0, lambda observer: gate.wait(WAIT))
    begun = "It begins, when the model is free."
    assert texts(told(made, words)) == [begun]
    assert texts(panels.map._told(Progress("running"), words)) == [begun]
    assert "3 of 12 cells" in texts(
        panels.map._told(Progress("running", cells=3, of_cells=12), words)
    )
    gate.set()


@pytest.mark.parametrize(
    ("error", "says"),
    [(PromptError("no such word"), "no such word"), (KeyError("x"), "KeyError: 'x'")],
)
def test_what_goes_wrong_is_said_whatever_it_is(error, says):
    def work(observer):
        raise error

    made = Works().begin("key", 1, work)
    assert made.over.wait(WAIT)
    with pytest.raises(MicrotomeError, match=says):
        _ = made.answer


def test_only_so_many_are_on_their_way_and_so_many_kept(gate):
    works = Works(most=2)

    def work(observer):
        assert gate.wait(WAIT)
        return "answer"

    running = [works.begin(n, 1, work) for n in range(MOST_RUNNING)]
    with pytest.raises(MicrotomeError, match="16 such questions are on their way"):
        works.begin("more", 1, work)
    gate.set()
    for one in running:
        assert one.over.wait(WAIT)
    last = works.begin("more", 1, work)
    assert last.over.wait(WAIT)
    kept = [n for n in (*range(MOST_RUNNING), "more") if works.find(n) is not None]
    assert kept == [MOST_RUNNING - 1, "more"]


def test_at_the_end_what_is_on_its_way_is_cancelled_and_waited_for():
    works, began = Works(), threading.Event()

    def work(observer):
        began.set()
        until = time.monotonic() + WAIT
        while not observer.cancelled and time.monotonic() < until:
            time.sleep(0.01)
        return observer.cancelled

    made = works.begin("key", 1, work)
    assert began.wait(WAIT)
    del works
    gc.collect()
    assert made.over.is_set()
    assert made.answer is True


def test_quick_answers_are_remembered_and_the_oldest_forgotten():
    asked, answers = [], Remembered(most=2)

    def answer(key):
        return answers.get(key, lambda: asked.append(key) or key.upper())

    assert [answer(key) for key in "abacab"] == list("ABACAB")
    assert asked == ["a", "b", "c", "b"]
    assert [key for key in "abc" if answers.has(key)] == ["a", "b"]


def test_numbers_that_are_none_are_dashes_and_a_minus_is_one():
    assert (value(float("nan")), effect(float("nan"))) == ("–", "–")
    assert (value(-0.5), effect(-0.5), effect(0.5)) == ("−0.5", "−0.5", "+0.5")
