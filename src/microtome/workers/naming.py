"""Workers by their names, as the command line and files of experiments have them."""

from __future__ import annotations

from typing import Protocol

from microtome.errors import WorkerError, did_you_mean, glimpse
from microtome.spoken import spoken
from microtome.workers.clusters import ray
from microtome.workers.crew import Crew
from microtome.workers.desk import Recipe
from microtome.workers.here import processes

FORMS = "processes:2, ray, ray:auto, ray:ray://host:10001, ray:auto,count=8,gpus=1"


class Workers(Protocol):
    """Who is to run the units: `processes` or `ray` says."""

    @property
    def device(self) -> str | None:
        """The device that workers load the model on; None: that of the model at hand."""

    def crew(self, recipe: Recipe) -> Crew:
        """Workers who load a model by its recipe."""


@spoken
def workers_of(given: Workers | str) -> Workers:
    """The workers of a name, or those that are given themselves.

    Raises:
        WorkerError: it names none, or is something else, such as a number.

    >>> workers_of("processes:2")
    Processes(count=2, patience=None)
    >>> workers_of("ray:auto,count=8,gpus=1").gpus_per_worker
    1.0
    """
    if not isinstance(given, str):
        if not hasattr(given, "crew"):
            raise WorkerError(
                f"workers are mt.workers.processes(2), mt.workers.ray(…) or a name ({FORMS}), "
                f"not {glimpse(given)}."
            )
        return given
    kind, _, rest = given.strip().partition(":")
    first, *more = [part.strip() for part in rest.split(",")]
    if "=" in first and "://" not in first:
        first, more = "", [first, *more]
    options = dict(part.split("=", 1) for part in more if "=" in part)
    try:
        if len(options) != len(more) or set(options) - {"count", "gpus", "cpus", "patience"}:
            raise ValueError(rest)
        if kind == "processes" and not set(options) - {"patience"}:
            return processes(int(first), patience=_number(options, "patience"))
        if kind == "ray":
            return ray(
                first or None,
                count=int(options["count"]) if "count" in options else None,
                gpus_per_worker=_number(options, "gpus") or 0,
                cpus_per_worker=float(options.get("cpus", 1)),
                patience=_number(options, "patience"),
            )
    except ValueError:
        raise WorkerError(f"workers {given!r} cannot be read; such as {FORMS}.") from None
    hint = did_you_mean(kind, ("ray", "processes"))
    raise WorkerError(f"There are no workers {given!r}; there are: {FORMS}.{hint}")


def _number(options: dict[str, str], name: str) -> float | None:
    return float(options[name]) if name in options else None
