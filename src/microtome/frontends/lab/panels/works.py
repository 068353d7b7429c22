"""Answers that take a while: computed beside the page, followed, and cancelled.

A work is shared by all who ask the same; who asks again while it is on its way follows it too.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Generic, TypeVar

from dash import html
from dash.development.base_component import Component

from microtome.engines.observer import Observer
from microtome.errors import Cancelled, MicrotomeError
from microtome.frontends.lab.panels.showing import Shown
from microtome.passes.session import lending
from microtome.texts import Texts

MOST_RUNNING = 16
"""Works that may be on their way at once; they take turns on the model."""
ENDING = 20.0
"""Seconds that the end waits for what is on its way."""
STOP, LOOK = "stop", "look"
"""What a page says of a work besides that it be begun: no more of it; how far is it?"""
PATIENCE = 2.0
"""Seconds that a page waits for an answer before it is told how far that is."""
BEAT = 700
"""Milliseconds between two looks at what is on its way."""

Answer = TypeVar("Answer")


class Work(Observer, Generic[Answer]):
    """An answer on its way; it hears of itself what a sweep tells an observer."""

    def __init__(self, of: int) -> None:
        self.of, self.done = of, 0.0
        self.over, self._stop = threading.Event(), threading.Event()
        self._answer: Answer | None = None
        self.error: MicrotomeError | None = None

    def run(self, work: Callable[[Observer], Answer]) -> None:
        """Do the work, whatever comes of it."""
        try:
            with lending():
                self._answer = work(self)
        except MicrotomeError as error:
            self.error = error
        except Exception as error:  # the thread ends, and the page says why
            self.error = MicrotomeError(f"{type(error).__name__}: {error}")
        finally:
            self.over.set()

    def cancel(self) -> None:
        """Want no more."""
        self._stop.set()

    @property
    def answer(self) -> Answer:
        """What came of it, once it is over.

        Raises:
            MicrotomeError: that went wrong; `Cancelled` where it was cancelled.
        """
        if self.error is not None:
            raise self.error
        assert self._answer is not None, "it is over"
        return self._answer

    @property
    def failed(self) -> bool:
        """Whether it is over, and nothing came of it."""
        return self.error is not None

    @property
    def is_wanted(self) -> bool:
        """Whether its answer is there, or comes: it did not fail, and nobody has cancelled it."""
        return not self.failed and (self.over.is_set() or not self.cancelled)

    @property
    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._stop.is_set()

    def advanced(self, cells: float) -> None:
        """So many cells more."""
        self.done += cells


class Works(Generic[Answer]):
    """Works by what was asked: those that are on their way, and the last ones.

    Args:
        most: how many are kept.
    """

    def __init__(self, most: int = 32) -> None:
        self._most, self._guard = most, threading.Lock()
        self._works: OrderedDict[Hashable, Work[Answer]] = OrderedDict()
        # Also when the process ends: a thread that is in the middle of a pass then takes it down.
        weakref.finalize(self, _end, self._works)

    def find(self, key: Hashable) -> Work[Answer] | None:
        """The work that answers this, if anybody asked, unless it failed or was cancelled."""
        found = self.look(key)
        return found if found is not None and found.is_wanted else None

    def stop(self, key: Hashable) -> Work[Answer] | None:
        """Cancel the work that answers this, if it is on its way."""
        work = self.look(key)
        if work is not None:
            work.cancel()
        return work

    def look(self, key: Hashable) -> Work[Answer] | None:
        """The work that answers this, or would have, and failed or was cancelled: whoever followed
        it is told, and it does not begin anew by itself."""
        with self._guard:
            return self._works.get(key)

    def heard(
        self, key: Hashable, of: int, work: Callable[[Observer], Answer], by: str
    ) -> Work[Answer]:
        """The work that answers this, once a page has said what it wants of it.

        Args:
            key: what is asked.
            of: how many cells it has.
            work: does it, and tells an observer.
            by: what the page says: `STOP`, `LOOK`, or something else, which begins it.

        Raises:
            MicrotomeError: too many are on their way.
        """
        there = None
        if by in (STOP, LOOK):
            there = self.stop(key) if by == STOP else self.look(key)
        return there or self.begin(key, of, work)

    def begin(self, key: Hashable, of: int, work: Callable[[Observer], Answer]) -> Work[Answer]:
        """The work that answers this: one that is there already, or a new one.

        Args:
            key: what is asked.
            of: how many cells it has.
            work: does it, and tells an observer.

        Raises:
            MicrotomeError: too many are on their way.
        """
        with self._guard:
            known = self._works.get(key)
            if known is not None and known.is_wanted:
                self._works.move_to_end(key)
                return known
            self._refuse()
            if known is not None and not known.over.is_set():  # cancelled, and about to let go
                self._works[object()] = known
            made: Work[Answer] = Work(of)
            self._works[key] = made
            self._works.move_to_end(key)
            over = [one for one, own in self._works.items() if own.over.is_set()]
            for one in over[: max(0, len(self._works) - self._most)]:
                del self._works[one]
        threading.Thread(target=made.run, args=(work,), daemon=True).start()
        return made

    def _refuse(self) -> None:
        running = sum(not one.over.is_set() for one in self._works.values())
        if running >= MOST_RUNNING:
            raise MicrotomeError(
                f"{running} such questions are on their way already: wait for one, or cancel it."
            )


def _end(works: Mapping[Hashable, Work[Answer]]) -> None:
    """Cancel what is on its way, and wait until it has let go."""
    running = [one for one in works.values() if not one.over.is_set()]
    for one in running:
        one.cancel()
    until = time.monotonic() + ENDING
    for one in running:
        one.over.wait(max(0.0, until - time.monotonic()))


def shown(
    work: Work[Answer], words: Texts, made: Callable[[Answer], Shown], far: str = "trace.running"
) -> tuple[Shown, bool]:
    """What came of a work, or how far it is; and whether it is on its way yet.

    Args:
        work: it is waited for a moment.
        words: of the page.
        made: what is shown of its answer.
        far: the text that says how far it is.

    Raises:
        MicrotomeError: it went wrong.
    """
    is_running = not work.over.wait(PATIENCE)
    if is_running or isinstance(work.error, Cancelled):
        return told(work, words, far), is_running
    return made(work.answer), False


def told(work: Work[Answer], words: Texts, far: str = "trace.running") -> list[Component]:
    """How far a work is, or that it was cancelled; ``far`` is the text that says it."""
    if isinstance(work.error, Cancelled):
        return [html.P(words("trace.cancelled"), className="quiet")]
    share = min(1.0, work.done / work.of) if work.of else 0.0
    said = (
        words("map.begun")
        if not work.of
        else words(far, cells=f"{work.done:,.0f}", of=f"{work.of:,}")
    )
    bar = html.Progress(value=f"{share:.3f}", max="1", **{"aria-label": said})
    return [html.Div([bar, html.Span(said)], className="status", role="status")]
