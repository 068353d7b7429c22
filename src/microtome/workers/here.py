"""Workers that are processes of this machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from typing import cast

import numcodecs

from microtome.amounts import single
from microtome.errors import WorkerError
from microtome.spoken import spoken
from microtome.workers.crew import Crew, Hand
from microtome.workers.desk import Desk, Died, Failed, Job, Outcome, Recipe, Unit

PARTING = 10.0
"""Seconds in which a process that is not needed any more ends by itself, or is ended."""

UNREADY = (
    " (what it wrote on standard error says more; a script that starts processes has its own "
    "beginning in: if __name__ == '__main__')"
)
"""Of a process that ended before it was given anything."""


@spoken
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


@spoken
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
    count = single(count)
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise WorkerError(f"count={count!r}: give how many processes, at least 1.")
    return Processes(count, patience)


class Shop:
    """Where processes come from."""

    def __init__(self, recipe: bytes) -> None:
        self._recipe = recipe
        self._heard: SimpleQueue[tuple[_Process, Outcome | None]] = SimpleQueue()

    def hire(self) -> Hand:
        """A process, which makes its model ready."""
        return _Process(self._recipe, self._heard.put)

    def publish(self, job: Job) -> object:
        """The job as it is sent."""
        return packed(job)

    def wait(self, hands: Sequence[Hand], seconds: float) -> list[tuple[Hand, Outcome]]:
        """What some of these processes answered."""
        heard = []
        with contextlib.suppress(Empty):
            heard.append(self._heard.get(timeout=seconds))
            while True:
                heard.append(self._heard.get_nowait())
        return [
            (hand, hand.death() if outcome is None else outcome)
            for hand, outcome in heard
            if hand in hands  # who was dismissed is none of them any more
        ]

    def close(self) -> None:
        """Processes are ended one by one."""


class _Process:
    """A process, from this one's side.

    A thread talks with it: it may stand still at any moment, and who waits for it then must be able
    to give it up.

    Args:
        recipe: of its model.
        hear: is told what it answers; None once it is dead.
    """

    def __init__(
        self, recipe: bytes, hear: Callable[[tuple[_Process, Outcome | None]], None]
    ) -> None:
        context = multiprocessing.get_context("spawn")  # a fork of threads that compute may hang
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs,), daemon=True)
        with _deaf():
            self._process.start()
        theirs.close()
        self._knows: set[int] = set()
        self._letters: SimpleQueue[object] = SimpleQueue()
        self._letters.put(recipe)
        self._talk = threading.Thread(target=self._talking, args=(hear,), daemon=True)
        self._talk.start()

    @property
    def pid(self) -> int | None:
        """The process's number."""
        return self._process.pid

    def send(self, number: int, job: object, unit: Unit) -> None:
        """Give it a unit; the job with its first one."""
        first = None if number in self._knows else job
        self._knows.add(number)
        self._letters.put((number, first, unit))

    def death(self) -> Died:
        """How it ended."""
        self._process.join(PARTING)
        unready = "" if self._knows else UNREADY
        return Died(f"its process ended with code {self._process.exitcode}{unready}")

    def part(self) -> None:
        """Let it end by itself: the end of its pipe tells it."""
        self._hang_up()
        self._process.join(PARTING)
        self.dismiss()

    def dismiss(self) -> None:
        """End it."""
        self._process.kill()
        self._process.join()
        self._hang_up()

    def _talking(self, hear: Callable[[tuple[_Process, Outcome | None]], None]) -> None:
        """Say something, hear what it answers, and so on."""
        while (letter := self._letters.get()) is not None:
            hear((self, self._answer(letter)))

    def _answer(self, letter: object) -> Outcome | None:
        """What it answers to a letter; the end of its pipe is its death."""
        try:
            self._pipe.send(letter)
        except OSError:
            return None
        except Exception as error:  # whatever an object that cannot be sent raises
            return Failed(error)
        try:
            return cast("Outcome", self._pipe.recv())
        except (EOFError, OSError):
            return None
        except Exception as error:  # whatever is raised where something has no such name here
            return Failed(
                WorkerError(
                    "What a worker answered cannot be read in this process "
                    f"({type(error).__name__}: {error})."
                )
            )

    def _hang_up(self) -> None:
        """Say no more, and hear no more: it does nothing, or is dead."""
        self._letters.put(None)
        self._talk.join(PARTING)
        if not self._talk.is_alive():  # else a process that it started has its pipe
            self._pipe.close()


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """What is started in this block hears nothing of a terminal, not even before `serve` can see to
    that."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # whoever starts it hears again afterwards
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def serve(pipe: Connection) -> None:
    """What a process does until its pipe ends: the first that comes is its recipe."""
    # What a terminal sends reaches every process; whoever asked decides what it ends.
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    _make_lock()
    with contextlib.suppress(EOFError, OSError):  # whoever asked is gone, or wants no more
        desk, known = Desk(pipe.recv()), b""
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
