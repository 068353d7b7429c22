"""Which cells are computed again: some that are spread over the map, chosen before it is walked."""

from __future__ import annotations

import hashlib

import numpy as np

from microtome.language.regions import Column
from microtome.plan.plan import Plan
from microtome.plan.question import Question, plain
from microtome.plan.units import Unit


def spread(plan: Plan, unit: Unit, some: int, seed: int) -> list[int]:
    """Cells of a unit, by number, as far from one another along every axis as may be.

    At random otherwise, with a seed; another question or another unit has others.
    """
    numbers = plan.numbers(unit)
    chance = np.random.default_rng([seed % 2**64, unit.number, *digest(plan.question)])
    if some >= len(numbers):
        return [int(number) for number in chance.permutation(numbers)]
    points = plan.cells.points[numbers]
    parts = _parts(points, some)
    met = [np.zeros(some, dtype=np.int64) for _ in range(parts.shape[1])]
    order = chance.permutation(len(numbers))
    chosen: list[int] = []
    left = np.ones(len(numbers), dtype=bool)
    for _ in range(some):
        crowded = sum(met[axis][parts[order, axis]] for axis in range(len(met)))
        crowded = np.where(left[order], crowded, np.iinfo(np.int64).max)
        at = int(order[int(np.argmin(crowded))])
        chosen.append(int(numbers[at]))
        left[at] = False
        for axis, own in enumerate(met):
            own[parts[at, axis]] += 1
    return chosen


def _parts(points: Column, some: int) -> Column:
    """In which of so many parts of each axis some cells are, ``[cell, axis]``."""
    least, most = points.min(axis=0), points.max(axis=0)
    found: Column = (points - least) * some // (most - least + 1)
    return found


def digest(question: Question) -> list[int]:
    """Numbers that another question has others of."""
    asked = [
        *map(str, question.edits),
        *map(str, question.asked),
        *(f"{axis.name}={[plain(one) for one in axis.values]}" for axis in question.varied),
        *(str(one.tokens.ids) for one in question.encoded),
    ]
    found = hashlib.sha256("\n".join(asked).encode("utf-8", "surrogatepass")).digest()
    return [int.from_bytes(found[n : n + 8], "big") for n in range(0, 32, 8)]
