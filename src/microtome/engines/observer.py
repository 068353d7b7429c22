"""Who is told how far a sweep is, and may stop it: a progress bar, a browser, a test."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import xarray as xr
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text
from tqdm.auto import tqdm

from microtome.amounts import many
from microtome.errors import Cancelled, SweepError

EVERY = 60.0
"""Seconds between two lines where there is no terminal to draw a bar on."""


class Observer:
    """Is told what is planned and done, and is asked whether to go on; does nothing by itself.

    A sweep calls `planned` once and `expected`, then `advanced` and `unit_done` as it goes,
    `finished` at the end, however it ends. All come from the thread that sweeps.

    >>> class Counting(Observer):
    ...     cells = 0.0
    ...     def advanced(self, cells: float) -> None:
    ...         self.cells += cells
    """

    def planned(self, cells: int, units: int) -> None:
        """So many cells are to be computed, in so many units; those that are there are not."""

    def expected(self, cells: int, units: int, flops: float) -> None:
        """So much is there to do in all, and so many operations, as far as is known by now.

        Told after `planned`; of a stream of prompts, again as more of them are known.
        """

    def growing(self, so_far: Callable[[], xr.Dataset]) -> None:
        """What there is of the result can be had, from the first unit on: whole but for its cells.

        Cells that are not computed yet are NaN. To be called in the thread that sweeps, such as in
        `unit_done`. Not told of a map that is screened or approximated first, or over a stream.
        """

    def advanced(self, cells: float) -> None:
        """So many cells more are done; fewer than 0 where a batch begins anew, in halves."""

    def unit_there(self, number: int, of: int) -> None:
        """A unit, from 0, was computed and kept before: this sweep goes on from there."""

    def unit_done(self, number: int, of: int) -> None:
        """A unit, from 0, is computed and kept."""

    def note(self, text: str) -> None:
        """Something that a reader should know of."""

    def finishing(self) -> None:
        """All is computed, and the result is about to be put in its place."""

    def finished(self) -> None:
        """Nothing more comes, whether all is done or not."""

    @property
    def cancelled(self) -> bool:
        """Whether to stop. Asked between batches; whole units are kept."""
        return False


class Relay(Observer):
    """Tells another observer all that it is told; for those who want to do something besides."""

    def __init__(self, to: Observer) -> None:
        self._to = to

    def planned(self, cells: int, units: int) -> None:
        """As told."""
        self._to.planned(cells, units)

    def expected(self, cells: int, units: int, flops: float) -> None:
        """As told."""
        self._to.expected(cells, units, flops)

    def growing(self, so_far: Callable[[], xr.Dataset]) -> None:
        """As told."""
        self._to.growing(so_far)

    def advanced(self, cells: float) -> None:
        """As told."""
        self._to.advanced(cells)

    def unit_done(self, number: int, of: int) -> None:
        """As told."""
        self._to.unit_done(number, of)

    def unit_there(self, number: int, of: int) -> None:
        """As told."""
        self._to.unit_there(number, of)

    def note(self, text: str) -> None:
        """As told."""
        self._to.note(text)

    def finishing(self) -> None:
        """As told."""
        self._to.finishing()

    def finished(self) -> None:
        """As told."""
        self._to.finished()

    @property
    def cancelled(self) -> bool:
        """As the other wants."""
        return self._to.cancelled


class Silent(Observer):
    """Shows nothing."""


class ProgressBar(Observer):
    """A bar on a terminal and in a notebook; elsewhere a line on standard error every minute.

    Args:
        console: where to show it; standard error unless given.
        clock: gives seconds.
    """

    def __init__(
        self, console: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console or Console(stderr=True, emoji=False)
        self._clock = clock
        self._bar: Progress | None = None
        self._cell: tqdm[Any] | None = None
        self._task = TaskID(0)
        self._cells, self._done, self._last, self._began = 0, 0.0, clock(), clock()
        self._flops = 0.0

    def planned(self, cells: int, units: int) -> None:
        """Begin."""
        self.finished()
        self._cells, self._done, self._last = cells, 0.0, self._clock()
        self._began = self._last
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("sweep"),
                BarColumn(),
                MofNCompleteColumn(),
                _Rate(),
                TextColumn("{task.fields[cost]}"),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task("sweep", total=cells, cost="")
            self._bar.start()
        elif self._console.is_jupyter:
            self._cell = tqdm(total=cells, desc="sweep", unit=" cells")

    def expected(self, cells: int, units: int, flops: float) -> None:
        """Go to another number of cells, and of operations."""
        self._cells, self._flops = cells, flops
        if self._bar is not None:
            self._bar.update(self._task, total=cells, cost=self._cost())
        elif self._cell is not None:
            self._cell.total = cells
            self._cell.refresh()

    def advanced(self, cells: float) -> None:
        """Go on, or back."""
        self._done += cells
        if self._bar is not None:
            self._bar.update(self._task, advance=cells, cost=self._cost())
        elif self._cell is not None:
            self._cell.update(cells)
        elif self._clock() - self._last >= EVERY:
            self._last = self._clock()
            cost = f", {self._cost()}" if self._flops else ""
            done = f"{self._done:,.0f} of {many(self._cells, 'cell')}, {self._rate()}"
            self._say(f"sweep: {done}{cost}{self._left()}")

    def note(self, text: str) -> None:
        """Say it, above the bar."""
        self._say(text)

    def finished(self) -> None:
        """Stop the bar; the terminal is as it was."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        if self._cell is not None:
            self._cell.close()
            self._cell = None

    def _rate(self) -> str:
        spent = self._clock() - self._began
        return f"{self._done / spent if spent > 0 else 0.0:,.1f} cells/s"

    def _cost(self) -> str:
        """Operations done, by the share of the cells, and those of all."""
        if not self._flops or not self._cells:
            return ""
        done = self._flops * self._done / self._cells
        return f"{done / 1e12:,.2f} of {self._flops / 1e12:,.2f} TFLOP"

    def _left(self) -> str:
        """About how long it will still take, once some of it is done."""
        spent = self._clock() - self._began
        if not 0 < self._done < self._cells or spent <= 0:
            return ""
        minutes = spent / self._done * (self._cells - self._done) / 60
        return f", about {max(1, round(minutes)):,} min left"

    def _say(self, line: str) -> None:
        self._console.print(line, style="dim", markup=False, highlight=False, soft_wrap=True)


def as_observer(progress: bool | Observer) -> Observer:
    """An observer as it is; of a truth value, a progress bar or nobody.

    Raises:
        SweepError: it is neither.

    >>> type(as_observer(False)).__name__, type(as_observer(True)).__name__
    ('Silent', 'ProgressBar')
    """
    if isinstance(progress, Observer):
        return progress
    if isinstance(progress, bool):
        return ProgressBar() if progress else Silent()
    raise SweepError(
        f"progress= takes True, False or an Observer, not {progress!r}: derive from "
        "microtome.Observer."
    )


@contextlib.contextmanager
def observed(progress: bool | Observer, cells: int, units: int) -> Iterator[Observer]:
    """An observer that has been told the plan, and is told of the end whatever happens."""
    observer = as_observer(progress)
    try:
        observer.planned(cells, units)
        yield observer
    finally:
        observer.finished()


def go_on(observer: Observer, kept: str = "") -> None:
    """Raise `Cancelled` where the observer wants to stop.

    Args:
        observer: who is asked.
        kept: what is kept, in a sentence.
    """
    if observer.cancelled:
        raise Cancelled(f"The sweep was cancelled. {kept}".rstrip())


class _Rate(ProgressColumn):
    """Cells per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.1f} cells/s")
