"""What a worker does: it makes a model ready, then runs units on it, one at a time."""

from __future__ import annotations

import gc
import os
import pickle
import traceback
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from microtome.errors import WorkerError

JOBS = 2
"""Jobs whose executors a worker keeps: a stream goes from one window to the next."""


class Recipe(Protocol):
    """How a model is made ready; it pickles, and is followed where the worker is."""

    def open(self) -> Any:
        """The model.

        Raises:
            MicrotomeError: it is not there, or another than the one that is asked about.
        """


class Unit(Protocol):
    """What one worker runs at a time: cells of a sweep, or rows of circuits; it pickles."""

    @property
    def number(self) -> int:
        """Its own, among all of its job."""


UnitOf = TypeVar("UnitOf", bound=Unit)
Result = TypeVar("Result")
_Given = TypeVar("_Given", bound=Unit, contravariant=True)
_Gives = TypeVar("_Gives", covariant=True)


class JobOf(Protocol[_Given, _Gives]):
    """How units of one kind are run; it pickles, and what they give does."""

    def start(self, model: Any) -> Callable[[_Given], _Gives]:
        """What runs a unit on a model."""


Job = JobOf[Any, object]


@dataclass(frozen=True)
class Ready:
    """The model is there, in the process of this number."""

    pid: int


@dataclass(frozen=True, eq=False)
class Done:
    """A unit was run, and gave this."""

    result: object


@dataclass(frozen=True, eq=False)
class Failed:
    """An error was raised: it would be anywhere."""

    error: Exception


@dataclass(frozen=True)
class Died:
    """The worker is no more."""

    why: str


Outcome = Ready | Done | Failed | Died


class Desk:
    """A worker's own part: the same in a process and in a Ray actor.

    Args:
        recipe: of the model, pickled.
    """

    def __init__(self, recipe: bytes) -> None:
        self._recipe = recipe
        self._model: Any = None
        self._running: OrderedDict[int, Callable[[Unit], object]] = OrderedDict()

    def open(self) -> Outcome:
        """Make the model ready."""
        try:
            self._model = _read(self._unpacked).open()
        except Exception as error:
            return Failed(_portable(error))
        return Ready(os.getpid())

    def _unpacked(self) -> Any:
        """The recipe, with all that it imports.

        That takes seconds, and a tenth more where garbage is looked for in what is imported.
        """
        looking = gc.isenabled()
        gc.disable()
        try:
            return pickle.loads(self._recipe)
        finally:
            if looking:
                gc.enable()

    def run(self, number: int, job: Callable[[], Job], unit: Unit) -> Outcome:
        """Run a unit of a job.

        Args:
            number: the job's.
            job: gives it; asked when a unit of it is first run.
            unit: the unit.
        """
        try:
            if number not in self._running:
                self._running[number] = _read(job).start(self._model)
                while len(self._running) > JOBS:
                    self._running.popitem(last=False)
            return Done(self._running[number](unit))
        except Exception as error:
            return Failed(_portable(error))


def _read(sent: Callable[[], Any]) -> Any:
    """What was sent, as it is read here.

    Raises:
        WorkerError: something in it has no such name here.
    """
    try:
        return sent()
    except (AttributeError, ImportError) as error:
        raise WorkerError(
            f"What is asked cannot be read by a worker ({error}). Functions and classes go by "
            "their names, and those of a notebook, or of a script's own beginning, are not there: "
            "put them in a module that can be imported."
        ) from error


def _portable(error: Exception) -> Exception:
    """An error that can be sent, and that says where it was raised."""
    where = "".join(traceback.format_exception(error)).rstrip()
    try:
        if type(error).__module__ == "__mp_main__":  # a worker's name for the script that asks
            raise TypeError
        sent: Exception = pickle.loads(pickle.dumps(error))
    except Exception:  # whatever an error of somebody else's has in it
        sent = RuntimeError(f"{type(error).__name__}: {error}")
    sent.add_note(f"Raised by a worker:\n{where}")
    return sent
