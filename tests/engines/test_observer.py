"""Observers: what they are told, what a bar shows, and how they stop a sweep."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from microtome.engines.observer import (
    EVERY,
    Observer,
    ProgressBar,
    Silent,
    as_observer,
    go_on,
    observed,
)
from microtome.errors import Cancelled, SweepError


class Telling(Observer):
    def __init__(self) -> None:
        self.told: list[object] = []

    def planned(self, cells: int, units: int) -> None:
        self.told.append((cells, units))

    def finished(self) -> None:
        self.told.append("finished")


def console(terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=100)


def test_an_observer_is_told_the_plan_and_the_end_whatever_happens():
    observer = Telling()

    def interrupted() -> None:
        with observed(observer, 8, 2) as same:
            assert same is observer
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert observer.told == [(8, 2), "finished"]


def test_a_note_is_told_letter_by_letter(capsys):
    ProgressBar().note("put back: the tokens of ':smile:' [bold]")
    assert capsys.readouterr().err == "put back: the tokens of ':smile:' [bold]\n"


def test_a_bar_goes_on_and_back_and_leaves_the_terminal_as_it_was():
    where = console(terminal=True)
    bar = ProgressBar(where)
    bar.planned(8, 2)
    bar.advanced(6)
    bar.advanced(-3)
    bar.advanced(5)
    bar.note("a note")
    bar.finished()
    bar.finished()
    shown = where.file.getvalue()
    assert "8/8" in shown
    assert "a note" in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1, "the cursor is back"


def test_without_a_terminal_a_line_is_shown_about_every_minute():
    where, now = console(terminal=False), [0.0]
    bar = ProgressBar(where, clock=lambda: now[0])
    bar.planned(1000, 4)
    bar.expected(1000, 4, 3e12)
    for _ in range(4):
        now[0] += EVERY / 2
        bar.advanced(250)
    bar.finished()
    assert where.file.getvalue().splitlines() == [
        "sweep: 500 of 1,000 cells, 8.3 cells/s, 1.50 of 3.00 TFLOP, about 1 min left",
        "sweep: 1,000 of 1,000 cells, 8.3 cells/s, 3.00 of 3.00 TFLOP",
    ]


def test_flags_and_observers_are_observers_and_nothing_else_is():
    mine = Silent()
    assert as_observer(mine) is mine
    assert type(as_observer(progress=True)) is ProgressBar
    assert type(as_observer(progress=False)) is Silent


@pytest.mark.parametrize("wrong", [None, 1, "yes", Silent])
def test_anything_else_is_refused_with_what_to_do(wrong):
    # Without the annotations that tests execute: a user has none.
    with pytest.raises(SweepError, match="takes True, False or an Observer"):
        as_observer.__wrapped__(wrong) if hasattr(as_observer, "__wrapped__") else as_observer(
            wrong
        )


def test_a_cancelled_sweep_says_what_is_kept():
    class Cancelling(Observer):
        cancelled = True

    go_on(Observer())
    with pytest.raises(Cancelled, match=r"^The sweep was cancelled\. 3 of 8 units are kept\.$"):
        go_on(Cancelling(), "3 of 8 units are kept.")
