"""Workers that are processes of this machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import cast

import numcodecs

from microtome.errors import WorkerError
from microtome.workers.crew import Crew, Hand
from microtome.workers.desk import Desk, Died, Failed, Job, Outcome, Recipe, Unit

PARTING = 10.0
"""Seconds in which a process that is not needed any more ends by itself, or is ended."""

UNREADY = (
    " (what it wrote on standard error says more; a script that starts processes has its own "
    "beginning in: if __name__ == '__main__')"
)
"""Of a process that ended before it was given anything."""


@dataclass(frozen=True)
class Processes:
    """Processes of this machine, each with a model of its own; see `processes`.

    Attributes:
        count: how many.
        patience: seconds that a unit may take; see `microtome.workers.crew.Crew`.
    """

    count: int
    patience: float | None = None

    @property
    def device(self) -> str | None:
        """The device that workers load the model on: that of the model at hand."""
        return None

    def crew(self, recipe: Recipe) -> Crew:
        """Workers who load a model by its recipe, when they are needed."""
        return Crew(Shop(packed(recipe)), self.count, self.patience)

    def __str__(self) -> str:
        return f"processes:{self.count}"


def processes(count: int, *, patience: float | None = None) -> Processes:
    """Processes of this machine, each with a model of its own.

    A script that starts processes has its own beginning in ``if __name__ == "__main__":``, as
    Python asks it.

    Args:
        count: how many, such as the cores that a sweep may have.
        patience: seconds after which a unit's worker is given up, and another runs the unit; unless
            given, ten times as long as the longest unit so far, and ten minutes at least.

    Raises:
        WorkerError: count is none.

    >>> processes(2)
    Processes(count=2, patience=None)
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise WorkerError(f"count={count!r}: give how many processes, at least 1.")
    return Processes(count, patience)


class Shop:
    """Where processes come from."""

    def __init__(self, recipe: bytes) -> None:
        self._recipe = recipe

    def hire(self) -> Hand:
        """A process, which makes its model ready."""
        return _Process(self._recipe)

    def publish(self, job: Job) -> object:
        """The job as it is sent."""
        return packed(job)

    def wait(self, hands: Sequence[Hand], seconds: float) -> list[tuple[Hand, Outcome]]:
        """What some of these processes answered."""
        by_pipe = {own.pipe: own for own in cast("Sequence[_Process]", hands)}
        return [
            (by_pipe[pipe], by_pipe[pipe].answer())
            for pipe in cast("list[Connection]", wait([*by_pipe], seconds))
        ]

    def close(self) -> None:
        """Processes are ended one by one."""


class _Process:
    """A process, from this one's side."""

    def __init__(self, recipe: bytes) -> None:
        context = multiprocessing.get_context("spawn")  # a fork of threads that compute may hang
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, recipe), daemon=True)
        with _deaf():
            self._process.start()
        theirs.close()
        self._knows: set[int] = set()

    @property
    def pid(self) -> int | None:
        """The process's number."""
        return self._process.pid

    def send(self, number: int, job: object, unit: Unit) -> None:
        """Give it a unit; the job with its first one."""
        first = None if number in self._knows else job
        self._knows.add(number)
        try:
            self.pipe.send((number, first, unit))
        except OSError:  # it is dead, which is heard when it is asked
            self._process.kill()

    def answer(self) -> Outcome:
        """What it answered; the end of its pipe is its death."""
        try:
            return cast("Outcome", self.pipe.recv())
        except (EOFError, OSError):
            self._process.join()
            unready = "" if self._knows else UNREADY
            return Died(f"its process ended with code {self._process.exitcode}{unready}")
        except Exception as error:  # whatever is raised where something has no such name here
            return Failed(
                WorkerError(
                    "What a worker answered cannot be read in this process "
                    f"({type(error).__name__}: {error})."
                )
            )

    def part(self) -> None:
        """Let it end by itself: the end of its pipe tells it."""
        self.pipe.close()
        self._process.join(PARTING)
        self.dismiss()

    def dismiss(self) -> None:
        """End it."""
        self._process.kill()
        self._process.join()
        self.pipe.close()


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """What is started in this block hears no Ctrl-C, not even before `serve` can see to that."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # whoever starts it hears again afterwards
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def serve(pipe: Connection, recipe: bytes) -> None:
    """What a process does until its pipe ends."""
    # Ctrl-C at a terminal reaches every process; whoever asked decides what it ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _make_lock()
    desk, known = Desk(recipe), b""
    with contextlib.suppress(EOFError, OSError):  # whoever asked is gone, or wants no more
        pipe.send(desk.open())
        while True:
            number, job, unit = pipe.recv()
            known = known if job is None else job
            pipe.send(desk.run(number, partial(_unpacked, known), unit))


def _make_lock() -> None:
    """Have the compressor of units make the lock that it makes once, without a name.

    A started process gives its locks names, of which Python complains when it is killed.
    """
    if sys.platform == "win32":
        return
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("fork", force=True)
    try:
        numcodecs.blosc.get_mutex()
    finally:
        multiprocessing.set_start_method(before, force=True)


def _unpacked(job: bytes) -> Job:
    return cast("Job", pickle.loads(job))


def packed(sent: Recipe | Job) -> bytes:
    """A recipe or a job as it is sent.

    Raises:
        WorkerError: something in it cannot be sent.
    """
    try:
        return pickle.dumps(sent, protocol=pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # whatever an object of somebody else's raises
        raise WorkerError(
            f"What is asked cannot be sent to workers ({type(error).__name__}: {error}). A "
            "function made on the spot stays in its process: put it in a module and name it, "
            'apply("package.module:function"); a model with hooks of your own is swept here.'
        ) from error
