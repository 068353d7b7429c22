"""Gradients as an executor: the cells of a unit, approximated."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from microtome.edits.sources import Sources
from microtome.engines.approximate.method import Change, Method, Take
from microtome.engines.approximate.stretch import Stretch
from microtome.engines.block import Block
from microtome.engines.collector import Collector
from microtome.model.devices import onto
from microtome.model.loaded import Loaded
from microtome.passes.session import session
from microtome.plan.approximation import together
from microtome.plan.memory.budget import Budget
from microtome.plan.memory.recorded import references_at_once
from microtome.plan.plan import Plan
from microtome.plan.units import Unit


@dataclass(frozen=True, eq=False)
class Gradients:
    """An approximation as an executor.

    Attributes:
        model: the model, in float32 at least.
        plan: the plan whose units are run.
        sources: activations of donors and reference prompts.
        budget: what may be used of the machine.
        tick: is told of every cell.
        method: the approximation.
    """

    model: Loaded
    plan: Plan
    sources: Sources
    budget: Budget
    tick: Callable[[float], None]
    method: Method

    def run(self, unit: Unit) -> Block:
        """Compute the cells of a unit, its prompts together as far as memory allows."""
        into = Collector.of(self.plan, unit)
        with session(self.model.hf, self.model.anatomy):
            self.sources.hold_references(references_at_once(self.plan.question, self.budget))
            for stretch in self._stretches(unit):
                self._measure(stretch, into)
                into.settle()
                self.tick(sum(map(len, stretch.cells.values())))
        return into.block(unit)

    def _stretches(self, unit: Unit) -> Iterator[Stretch]:
        cells = self.plan.cells
        most = together(self.plan.question, cells, unit.prompts, self.budget)
        for first in range(0, len(unit.prompts), most):
            prompts = unit.prompts[first : first + most]
            own = {one: cells.of_prompt(one)[unit.first : unit.last] for one in prompts}
            encoded = [self.plan.question.encoded[prompt] for prompt in prompts]
            self.sources.hold(self.sources.texts(encoded), at_once=len(prompts))
            yield Stretch(self.model, self.plan, self.sources, prompts, own)

    def _measure(self, stretch: Stretch, into: Collector) -> None:
        each: dict[int, list[Float[Tensor, "reading cell"]]] = defaultdict(list)
        for take in self.method.takes(stretch):
            for prompt in stretch.prompts:
                proofs = into if prompt not in each else None
                each[prompt].append(self._effects(stretch, take, prompt, proofs))
        for prompt, takes in each.items():
            row, numbers = stretch.prompts.index(prompt), stretch.cells[prompt]
            for number, reading in enumerate(self.plan.question.readings):
                clean = stretch.run.values[number][row]
                effects = self.method.together([one[number] for one in takes])
                into.store_clean(reading, prompt, clean[None])
                into.store(reading, numbers, clean + effects)

    def _effects(
        self, stretch: Stretch, take: Take, prompt: int, proofs: Collector | None
    ) -> Float[Tensor, "reading cell"]:
        """The effects of a prompt's cells on each reading, by one take; receipts once."""
        numbers, readings = stretch.cells[prompt], range(len(self.plan.question.readings))
        device = stretch.run.values[0].device
        found = torch.zeros(len(readings), len(numbers), dtype=torch.float64, device=device)
        receipts = torch.zeros(2, len(numbers), dtype=torch.float64, device=device)
        for cells, application in stretch.applications(prompt):
            own = onto(device, np.searchsorted(numbers, cells))
            place = application.regions.site, application.regions.layer
            where, before, after = application.made(stretch.run.kept[place])
            values = after.double() - before.double()
            change = Change(stretch, application, cells, where, values)
            for number in readings:
                effect = self.method.effect(take, number, change)
                found[number].index_add_(0, own, effect.to(device))
            assert application.changed is not None, "it was made"
            assert application.squares is not None, "it was made"
            receipts[0].index_add_(0, own, application.changed.double().to(device))
            receipts[1].index_add_(0, own, application.squares.to(device))
        if proofs is not None:
            proofs.prove(numbers, *receipts)
        return found
