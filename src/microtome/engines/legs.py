"""Several tokens behind a text: what the legs of a question gave, put together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from microtome.engines.block import Array, Block
from microtome.engines.executor import Executor
from microtome.plan.legs import is_split, steps_of
from microtome.plan.plan import Plan
from microtome.plan.units import Unit
from microtome.readings.output import Reading


@dataclass(frozen=True, eq=False)
class Legs:
    """An executor whose units are run once for each leg of the question.

    Attributes:
        plan: the plan of the question itself.
        executors: of the legs (`plan.legs`), in order; the first has what is not split.
    """

    plan: Plan
    executors: Sequence[Executor]

    def run(self, unit: Unit) -> Block:
        """Compute the cells of a unit: receipts are the first leg's, as the edits are the same."""
        blocks = [executor.run(unit) for executor in self.executors]
        first = blocks[0]
        values: dict[str, Array] = {}
        clean: dict[str, Array] = {}
        noise: dict[str, float] = {}
        work: Counter[str] = Counter()
        for block in blocks:  # no two have a reading in common
            values |= block.values
            clean |= block.clean
            noise |= block.noise
            work.update(block.work)
        question = self.plan.question
        for reading in question.readings:
            if is_split(question, reading):
                self._put_together(reading, first, values, clean, noise)
        names = {str(one) for one in question.asked}
        return replace(
            first,
            values={name: own for name, own in values.items() if name in names},
            clean={name: own for name, own in clean.items() if name in names},
            noise={name: own for name, own in noise.items() if name in names},
            verification=_together([block.verification for block in blocks]),
            work=dict(work),
            notes=list(dict.fromkeys(note for block in blocks for note in block.notes)),
        )

    def _put_together(
        self,
        reading: Reading,
        first: Block,
        values: dict[str, Array],
        clean: dict[str, Array],
        noise: dict[str, float],
    ) -> None:
        name = str(reading)
        steps = {
            field: [str(step) for step in steps_of(self.plan.question, reading, field)]
            for field in reading.fields
        }
        without = _sums(steps, clean)
        clean[name] = reading.together(without)
        rows = np.searchsorted(first.prompts, self.plan.cells.prompt[first.cells])
        own = {field: each[rows] for field, each in without.items()}
        values[name] = self._values(reading, _sums(steps, values), own, clean[name][rows])
        heard = {field: sum(noise.get(step, 0.0) for step in own) for field, own in steps.items()}
        noise[name] = reading.noise_together(heard, without)

    def _values(
        self,
        reading: Reading,
        logprobs: Mapping[str, Array],
        without: Mapping[str, Array],
        clean: Array,
    ) -> Array:
        """A reading of what a target and a contrast have in each cell.

        Args:
            reading: the metric.
            logprobs: log probabilities in each cell, ``[cell]``.
            without: the same of each cell's prompt without edits.
            clean: the reading of each cell's prompt without edits.
        """
        return reading.together(logprobs)


@dataclass(frozen=True, eq=False)
class LinearLegs(Legs):
    """The same of effects to first order: an effect on a product is so, too."""

    def _values(
        self,
        reading: Reading,
        logprobs: Mapping[str, Array],
        without: Mapping[str, Array],
        clean: Array,
    ) -> Array:
        """A probability changes by itself times what its logarithm changes by."""
        if reading.metric.name != "prob":
            return reading.together(logprobs)
        [field] = reading.fields
        return clean * (1 + logprobs[field] - without[field])


def _sums(steps: Mapping[str, Sequence[str]], values: Mapping[str, Array]) -> dict[str, Array]:
    """Per target or contrast, the sum of its tokens' log probabilities."""
    found = {}
    for field, names in steps.items():
        whole = values[names[0]].copy()
        for name in names[1:]:
            whole += values[name]
        found[field] = whole
    return found


def _together(each: Sequence[dict[str, Any] | None]) -> dict[str, Any] | None:
    """Of the legs' verifications the one that came nearest to what is allowed, and cells of all."""
    known = [one for one in each if one is not None]
    if not known:
        return None
    worst = max(known, key=_nearness)
    noise = [one["noise"] for one in known if one["noise"] is not None]
    return {
        **worst,
        "cells": min(one["cells"] for one in known),
        "noise": max(noise) if noise else None,
    }


def _nearness(one: Mapping[str, Any]) -> float:
    difference, tolerance = one["largest_difference"], one["tolerance"]
    return float(difference / tolerance) if tolerance and difference is not None else 0.0
