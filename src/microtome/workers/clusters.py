"""Workers that are actors of Ray, on this machine or on a cluster.

Ray has the machines, starts the actors, moves models, plans and results, and tells who died. One
actor holds one model on one device.
"""

from __future__ import annotations

import contextlib
import importlib
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from microtome.errors import WorkerError
from microtome.spoken import spoken
from microtome.workers.crew import Crew, Hand
from microtome.workers.desk import Desk, Died, Job, Outcome, Recipe, Unit
from microtome.workers.here import packed


@spoken
@dataclass(frozen=True)
class Ray:
    """Actors of Ray; see `ray`.

    Attributes:
        address: of the cluster; None: one is started on this machine, or joined where there is one.
        count: how many actors; None: as many as the cluster has devices for.
        gpus_per_worker: GPUs of each; 0: it computes on CPUs.
        cpus_per_worker: CPUs that Ray reserves for each.
        patience: seconds that a unit may take; see `microtome.workers.crew.Crew`.
        init: more arguments of `ray.init`.
    """

    address: str | None = None
    count: int | None = None
    gpus_per_worker: float = 0
    cpus_per_worker: float = 1
    patience: float | None = None
    init: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def device(self) -> str | None:
        """The device that workers load the model on; None: that of the model at hand."""
        return "cuda:0" if self.gpus_per_worker else None

    def crew(self, recipe: Recipe) -> Crew:
        """Workers who load a model by its recipe, when they are needed.

        Raises:
            WorkerError: Ray is not installed, or there is no such cluster, or nothing free on it.
        """
        cluster = Cluster(self, packed(recipe))
        try:
            return Crew(cluster, self.count or cluster.room(), self.patience)
        except BaseException:
            cluster.close()
            raise

    def __str__(self) -> str:
        return "ray" if self.address is None else f"ray:{self.address}"


@spoken
def ray(
    address: str | None = None,
    *,
    count: int | None = None,
    gpus_per_worker: float = 0,
    cpus_per_worker: float = 1,
    patience: float | None = None,
    init: Mapping[str, Any] | None = None,
) -> Ray:
    """Actors of Ray, each with a model of its own. ``pip install microtome[ray]``.

    Args:
        address: ``"auto"``, the cluster that this machine is in; ``"ray://host:10001"``, one
            elsewhere (which takes ``pip install ray[client]``). Unless given, one is started here.
        count: how many; as many as the cluster has devices for, unless given.
        gpus_per_worker: GPUs of each: 1 for a model that fits on one; several with a model that is
            loaded with ``device_map="auto"``. 0, the model is on CPUs.
        cpus_per_worker: CPUs that Ray reserves for each. How many threads compute is as in this
            process, since the last bits depend on it.
        patience: seconds after which a unit's worker is given up, and another runs the unit; unless
            given, ten times as long as the longest unit so far, and ten minutes at least.
        init: more arguments of `ray.init`.

    Raises:
        WorkerError: a number is none.

    >>> ray("auto", count=8, gpus_per_worker=1).device
    'cuda:0'
    """
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
        raise WorkerError(f"count={count!r}: give how many workers, at least 1, or leave it out.")
    for name, own in (("gpus_per_worker", gpus_per_worker), ("cpus_per_worker", cpus_per_worker)):
        if isinstance(own, bool) or not isinstance(own, int | float) or own < 0:
            raise WorkerError(f"{name}={own!r}: give how many, from 0 on.")
    return Ray(address, count, gpus_per_worker, cpus_per_worker, patience, dict(init or {}))


class Cluster:
    """Where actors come from.

    Raises:
        WorkerError: there is no Ray, or no such cluster.
    """

    def __init__(self, asked: Ray, recipe: bytes) -> None:
        self._asked, self._ray = asked, _library()
        self._began = not self._ray.is_initialized()
        if not self._began and (asked.address not in (None, "auto") or asked.init):
            raise WorkerError(
                f"This process is in a cluster of Ray's already, so that address={asked.address!r} "
                "and init= would count for nothing: leave them out, or call ray.shutdown() first."
            )
        if self._began:
            how = {"log_to_driver": False, "include_dashboard": False, **asked.init}
            if asked.address is not None:
                how = {"address": asked.address, "log_to_driver": False, **asked.init}
            try:
                self._ray.init(**how)
            except Exception as error:  # Ray's own are of many kinds
                raise WorkerError(
                    f"Ray cannot be reached at {asked.address or 'this machine'}: {error} "
                    "Start one with 'ray start --head', or leave the address out."
                ) from error
        try:
            self._recipe = self._ray.put(recipe)
        except BaseException:  # such as a store that is too small for the model
            self.close()
            raise
        self._kind = self._ray.remote(
            num_cpus=asked.cpus_per_worker,
            num_gpus=asked.gpus_per_worker,
            max_restarts=0,
            max_task_retries=0,
        )(Actor)

    def room(self) -> int:
        """How many actors the cluster has devices for.

        Raises:
            WorkerError: none.
        """
        have = self._ray.cluster_resources()
        asked = {"GPU": self._asked.gpus_per_worker, "CPU": self._asked.cpus_per_worker}
        fits = [int(have.get(kind, 0) // own) for kind, own in asked.items() if own]
        if not fits or min(fits) < 1:
            raise WorkerError(
                f"The cluster has {have.get('GPU', 0):g} GPUs and {have.get('CPU', 0):g} CPUs, and "
                f"a worker takes {asked['GPU']:g} and {asked['CPU']:g}: say less of each, or how "
                "many workers there are to be (count=)."
            )
        return min(fits)

    def hire(self) -> Hand:
        """An actor, which makes its model ready."""
        return _Actor(self._ray, self._kind.remote([self._recipe]))

    def publish(self, job: Job) -> object:
        """The job's place in the object store, from where each machine has it once."""
        return self._ray.put(packed(job))

    def wait(self, hands: Sequence[Hand], seconds: float) -> list[tuple[Hand, Outcome]]:
        """What some of these actors answered."""
        by_answer = {own.coming: own for own in cast("Sequence[_Actor]", hands)}
        self._ray.wait([*by_answer], num_returns=1, timeout=seconds)
        # All that answered: to one that is left out it would look as if it had not.
        ready, _ = self._ray.wait([*by_answer], num_returns=len(by_answer), timeout=0)
        return [(by_answer[one], by_answer[one].answer()) for one in ready]

    def close(self) -> None:
        """Leave the cluster, if it was joined for this."""
        if self._began:
            self._ray.shutdown()
            self._began = False


class _Actor:
    """An actor, from the driver's side.

    Attributes:
        coming: what it will answer.
    """

    def __init__(self, library: Any, actor: Any) -> None:
        self._ray, self._actor = library, actor
        self.coming: Any = actor.open.remote()

    def send(self, number: int, job: object, unit: Unit) -> None:
        """Give it a unit; the job's place in a list, so that it is fetched when it is needed."""
        self.coming = self._actor.run.remote(number, [job], unit)

    def answer(self) -> Outcome:
        """What it answered; Ray's own errors are its death."""
        try:
            return cast("Outcome", self._ray.get(self.coming))
        except self._ray.exceptions.RayError as error:
            return Died(" ".join(str(error).split())[:300])

    def part(self) -> None:
        """Let it end."""
        self.dismiss()

    def dismiss(self) -> None:
        """End it."""
        with contextlib.suppress(Exception):  # it is gone, or the cluster is
            self._ray.kill(self._actor, no_restart=True)


class Actor:
    """A worker's own part, where Ray has put it."""

    def __init__(self, recipe: list[Any]) -> None:
        self._desk = Desk(_library().get(recipe[0]))

    def open(self) -> Outcome:
        """Make the model ready."""
        return self._desk.open()

    def run(self, number: int, job: list[Any], unit: Unit) -> Outcome:
        """Run a unit of a job."""
        return self._desk.run(
            number, lambda: cast("Job", pickle.loads(_library().get(job[0]))), unit
        )


def _library() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise WorkerError(
            "Ray is not installed: pip install 'microtome[ray]'. Processes of this machine need "
            "nothing: mt.workers.processes(2)."
        ) from None
