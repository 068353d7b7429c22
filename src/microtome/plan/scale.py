"""What several workers make of a sweep's time: a formula, from the work of its units.

Units are shared out as workers become free, so n of them are done within W/n + (1 − 1/n)·u, where W
is the work of all units and u that of the largest (Graham, "Bounds for certain multiprocessing
anomalies", 1966): the largest may begin last. Each window of a stream is such a round. While
workers are at one, the process that asks keeps the one before and makes the next, so a round takes
as long as the slower of the two; before the first and after the last workers wait.

Why no longer, for rounds alike: let c be what workers need for a round, p and q what that process
needs to make and to keep one, and M the moment at which round i is done and round i + 1 is made.
Round i + 1 has all workers from M on at the latest, and is done by M + c; round i + 2 is made by
M + q + p. So the next such moment is no later than M + max(c, q + p).

Pure: no tensor is touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from microtome.plan.plan import Plan
from microtome.plan.units import count_of, passes_of

COUNTS = (2, 4, 8, 16, 32, 64)
"""Numbers of workers that a plan speaks of, as far as there are units for them."""


@dataclass(frozen=True)
class Scale:
    """A sweep's units, as shares of its work.

    Attributes:
        seconds: of all of it, by one worker.
        shares: of each unit, of the whole; they sum up to 1.
        windows: rounds that are shared out one after another.
        start: seconds in which a worker makes its model ready.
        between: seconds of a round in which one process encodes, plans and keeps.

    >>> Scale(60.0, (0.25, 0.25, 0.25, 0.25)).seconds_of(2)
    37.5
    """

    seconds: float
    shares: Sequence[float]
    windows: int = 1
    start: float = 0.0
    between: float = 0.0

    def seconds_of(self, workers: int) -> float:
        """How long so many take at most."""
        each = self.seconds / workers
        last = (1 - 1 / workers) * max(self.shares) * self.seconds * self.windows
        rounds = max(each + last, self.between * self.windows)
        return self.start + self.between + rounds

    def efficiency(self, workers: int) -> float:
        """The share of the workers' time that they compute, at least, 0 … 1.

        >>> Scale(60.0, (0.01,) * 100).efficiency(2)
        0.9900990099009901
        """
        return self.seconds / (workers * self.seconds_of(workers))

    @property
    def counts(self) -> list[int]:
        """Numbers of workers that there are units for."""
        return [n for n in COUNTS if n <= len(self.shares) * self.windows]


def scale_of(plan: Plan, seconds: float) -> Scale:
    """How a plan's units share its work, by their operations.

    Args:
        plan: the plan.
        seconds: of all of it, by one worker.
    """
    dims, lengths = plan.question.dims, plan.question.lengths
    work = []
    for unit in plan.units:
        clean = len(unit.prompts)
        if plan.choice.engine == "walk":
            length = lengths[unit.prompts[0]]
            work.append(clean + passes_of(plan.cells, unit, length, dims))
        else:
            work.append(float(clean + count_of(plan.cells, unit)))
    shares = np.array(work) / sum(work)
    return Scale(seconds, tuple(shares.tolist()))
