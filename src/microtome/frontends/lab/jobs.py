"""Sweeps, one after another on each model: who waits, how far they are, and what they gave.

A result is kept in memory while it is looked at, and on disk for good, unit by unit as it comes:
whatever ends the server, what was finished is there at the next start, and the rest goes on.
A sweep lends its model to whoever clicks meanwhile, between two layers. It is cancelled once nobody
who follows it wants it any more.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import microtome as mt
from microtome.amounts import many
from microtome.engines.observer import Observer
from microtome.errors import Cancelled, MicrotomeError, SweepError
from microtome.frontends.lab import shelf
from microtome.frontends.lab.asked import Asked
from microtome.frontends.lab.desk import Desk
from microtome.passes.session import lending

if TYPE_CHECKING:
    import xarray as xr

    from microtome import Effects

MOST_WAITING = 32
"""Sweeps that may wait on one model."""
MOST_KEPT = 64
"""Results in memory."""
AWAY = 120.0
"""Seconds after which a page that does not ask for a sweep any more is taken to be closed; one that
is in the background may ask but once a minute."""

WAITING, RUNNING, DONE, CANCELLED, FAILED = "waiting", "running", "done", "cancelled", "failed"


@dataclass(frozen=True)
class Progress:
    """How far a sweep is.

    Attributes:
        state: ``"waiting"``, ``"running"``, ``"done"``, ``"cancelled"`` or ``"failed"``.
        place: how many are before it.
        cells: how many are computed, of `of_cells`; 0 of 0 where that is not known yet.
        of_cells: how many there are.
        units: how many are finished and kept, of `of_units`.
        of_units: how many there are.
        seconds: since it began.
        effects: the map; while it runs, as far as it is computed, from the first unit on.
        why: what is wrong, where it failed.
    """

    state: str
    place: int = 0
    cells: float = 0.0
    of_cells: int = 0
    units: int = 0
    of_units: int = 0
    seconds: float = 0.0
    effects: Effects | None = None
    why: str = ""

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes."""
        return self.state in (DONE, CANCELLED, FAILED)


class Job(Observer):
    """One sweep on its way; it hears of itself what `mt.sweep` tells an observer."""

    def __init__(self, asked: Asked, key: str, number: int) -> None:
        self.asked, self.key, self.number = asked, key, number
        self._guard = threading.Lock()
        self.state, self.why = WAITING, ""
        self.effects: Effects | None = None
        self.over = threading.Event()
        self._stop = threading.Event()
        self._askers: dict[str, float] = {}
        self._left: set[str] = set()
        self._cells, self._of_cells, self._units, self._of_units = 0.0, 0, 0, 0
        self._began, self._ended = time.monotonic(), 0.0
        self._so_far: Callable[[], xr.Dataset] | None = None

    def run(self, work: Callable[[Job], Effects]) -> None:
        """Do the work, unless it is not wanted any more."""
        with self._guard:
            if self.over.is_set():
                return
            self._began, self.state = time.monotonic(), RUNNING
        try:
            self.effects = work(self)
            self.state = DONE
        except Cancelled:
            self.state = CANCELLED
        except MicrotomeError as error:
            self.why, self.state = str(error), FAILED
        except Exception as error:  # the thread goes on, and the page says it
            self.why, self.state = f"{type(error).__name__}: {error}", FAILED
        finally:
            self._so_far, self._ended = None, time.monotonic()
            self.over.set()

    def follow(self, asker: str) -> None:
        """Know that somebody looks at it, and does not want it to end."""
        with self._guard:
            if asker not in self._left:
                self._askers[asker] = time.monotonic()

    def join(self, asker: str) -> None:
        """Know that somebody wants it, whether or not they did not before."""
        with self._guard:
            self._left.discard(asker)
        self.follow(asker)

    def leave(self, asker: str) -> None:
        """Know that somebody wants it no more; it is cancelled where nobody else does."""
        with self._guard:
            self._left.add(asker)
            self._askers.pop(asker, None)
            now = time.monotonic()
            others = [one for one, seen in self._askers.items() if now - seen <= AWAY]
        if not others:
            self.cancel()

    def is_left_by(self, asker: str) -> bool:
        """Whether somebody wanted it no more, and it is for others that it goes on."""
        with self._guard:
            return asker in self._left and not self.over.is_set()

    def cancel(self) -> None:
        """End it; units that are finished are kept."""
        self._stop.set()
        with self._guard:
            if self.state == WAITING:
                self.state, self._ended = CANCELLED, time.monotonic()
                self.over.set()

    def progress(self, place: int = 0) -> Progress:
        """How far it is, with so many before it."""
        until = self._ended if self.over.is_set() else time.monotonic()
        return Progress(
            state=self.state,
            place=place if self.state == WAITING else 0,
            cells=self._cells,
            of_cells=self._of_cells,
            units=self._units,
            of_units=self._of_units,
            seconds=until - self._began,
            effects=self.effects,
            why=self.why,
        )

    @property
    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._stop.is_set()

    def planned(self, cells: int, units: int) -> None:
        """So much is to be done."""
        self._of_cells, self._of_units = cells, units

    def growing(self, so_far: Callable[[], xr.Dataset]) -> None:
        """From now on the map can be seen as it grows."""
        self._so_far = so_far

    def advanced(self, cells: float) -> None:
        """So many cells more."""
        self._cells += cells

    def unit_there(self, number: int, of: int) -> None:
        """Count what was kept before."""
        self._units += 1

    def unit_done(self, number: int, of: int) -> None:
        """Show what there is."""
        self._units += 1
        if self._so_far is not None and self._units < of:
            self.effects = mt.Effects(self._so_far())


class Jobs:
    """All sweeps of a server.

    Args:
        desk: the models.
        keep: where results are kept; None: in memory alone.
        most: bytes of those that are kept; without a bound unless given.
    """

    def __init__(self, desk: Desk, keep: Path | None = None, most: int | None = None) -> None:
        self.desk, self.keep, self.most = desk, keep, most
        self._guard = threading.Lock()
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._lines: dict[str, ThreadPoolExecutor] = {}
        self._closed, self._asked = False, 0

    def submit(self, asked: Asked, asker: str = "") -> Job:
        """The sweep that answers this: one that is there already, or a new one, last in its line.

        Args:
            asked: what it answers.
            asker: who wants it: until they leave it, or are not heard of any more.

        Raises:
            LoadError: there is no such model.
            SweepError: too many wait already, or the server is about to end.
        """
        key = self._key(asked)
        with self._guard:
            known = self._jobs.get(key)
            if known is not None and known.state not in (CANCELLED, FAILED) and not known.cancelled:
                self._jobs.move_to_end(key)
                known.join(asker)
                return known
            self._refuse(asked.model)
            self._asked += 1
            job = self._jobs[key] = Job(asked, key, self._asked)
            job.join(asker)
            self._jobs.move_to_end(key)
            self._forget()
            line = self._lines.setdefault(asked.model, ThreadPoolExecutor(1, "lab sweeps"))
            line.submit(job.run, self._work)
            line.submit(self._tidy, key)
        return job

    def find(self, asked: Asked) -> Job | None:
        """The sweep that answers this, if anybody asked."""
        with self._guard:
            return self._jobs.get(self._key(asked))

    def progress(self, asked: Asked, asker: str | None = None) -> Progress | None:
        """How far it is; None where nobody asked.

        Args:
            asked: what it answers.
            asker: who follows it, and wants it to go on; who has left it is told that it ended.
        """
        job = self.find(asked)
        if job is None:
            return None
        found = job.progress(self._place(job))
        if asker is None:
            return found
        job.follow(asker)
        return replace(found, state=CANCELLED) if job.is_left_by(asker) else found

    def is_kept(self, asked: Asked) -> bool:
        """Whether the whole result lies on disk."""
        place = self._out(self._key(asked))
        return place is not None and place.is_dir()

    def waiting(self, model: str) -> list[Asked]:
        """What is running on a model or waits for it, in order."""
        with self._guard:
            return [job.asked for job in self._line(model)]

    def close(self, patience: float = 20.0) -> None:
        """Cancel everything, and wait until what runs has let go; finished units are kept."""
        with self._guard:
            self._closed = True
            jobs = [job for job in self._jobs.values() if not job.over.is_set()]
        for job in jobs:
            job.cancel()
        until = time.monotonic() + patience
        for job in jobs:
            job.over.wait(max(0.0, until - time.monotonic()))
        for line in self._lines.values():
            line.shutdown(wait=False, cancel_futures=True)

    def _work(self, job: Job) -> Effects:
        asked, model = job.asked, self.desk.model(job.asked.model)
        if asked.key(model) != job.key:
            raise SweepError(
                f"{asked.model!r} is another model than when this was asked: its files were "
                "changed meanwhile. Ask again."
            )
        asked.check_size(model)
        with lending():
            return mt.sweep(
                model,
                asked.prompt,
                asked.edit,
                metrics=asked.metric,
                out=self._out(job.key),
                overwrite=True,  # the place is the question's: what else is there is stale
                progress=job,
            )

    def _tidy(self, key: str) -> None:
        """Note that a map was looked at, and see that those on disk take no more than they may."""
        place = self._out(key)
        if self.keep is None or place is None:
            return
        shelf.look_at(place)
        if self.most is not None:
            with self._guard:
                using = frozenset(self._jobs)
            shelf.trim(self.keep, self.most, using)

    def _key(self, asked: Asked) -> str:
        return asked.key(self.desk.model(asked.model))

    def _out(self, key: str) -> Path | None:
        return None if self.keep is None else self.keep / f"{key}.zarr"

    def _line(self, model: str) -> list[Job]:
        """The jobs of a model that are not over, in the order in which they were asked, and run."""
        of_model = [job for job in self._jobs.values() if job.asked.model == model]
        unfinished = [job for job in of_model if not job.over.is_set()]
        return sorted(unfinished, key=lambda job: job.number)

    def _place(self, job: Job) -> int:
        with self._guard:
            line = self._line(job.asked.model)
        return line.index(job) if job in line else 0

    def _refuse(self, model: str) -> None:
        if self._closed:
            raise SweepError("The lab is about to end: start it again.")
        waiting = len(self._line(model))
        if waiting >= MOST_WAITING:
            raise SweepError(
                f"{many(waiting, 'map')} wait for {model!r} already: cancel one, or wait for "
                "the next."
            )

    def _forget(self) -> None:
        """Let go of the results that nobody looked at the longest."""
        over = [key for key, job in self._jobs.items() if job.over.is_set()]
        for key in over[: max(0, len(self._jobs) - MOST_KEPT)]:
            del self._jobs[key]
