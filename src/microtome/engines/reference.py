"""The reference path: one full forward pass per cell, with plain hooks. Slow, obviously right.

It is the oracle that the walk is held against, so it stays plain.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from microtome.edits.application import Receipt, intervene
from microtome.edits.sources import Sources
from microtome.engines.block import Block
from microtome.engines.collector import Collector
from microtome.engines.corrupting import corrupting
from microtome.errors import SweepError
from microtome.language.operations import Operation
from microtome.model.additions import named, unsteady
from microtome.model.loaded import Loaded
from microtome.passes.hooks import Visit, forward
from microtome.passes.session import opened, session
from microtome.passes.trace import Piece, ids_of, record
from microtome.plan.cells import Cell
from microtome.plan.plan import Plan
from microtome.plan.units import Unit
from microtome.prompts.encoding import Encoded
from microtome.readings.inside import Gauge
from microtome.readings.watch import Watch


@dataclass(frozen=True, eq=False)
class Reference:
    """The reference path as an executor.

    Attributes:
        model: the model.
        plan: the plan whose units are run.
        sources: activations of donors and reference prompts.
        tick: is told of every cell.
    """

    model: Loaded
    plan: Plan
    sources: Sources
    tick: Callable[[float], None]

    def run(self, unit: Unit) -> Block:
        """Compute the cells of a unit, a forward pass each."""
        into = Collector.of(self.plan, unit)
        with session(self.model.hf, self.model.anatomy):
            for prompt in unit.prompts:
                own = self.plan.cells.of_prompt(prompt)[unit.first : unit.last]
                self._measure(own.tolist(), prompt, into)
        return into.block(unit)

    def _measure(self, numbers: Iterable[int], prompt: int, into: Collector) -> None:
        """Run some cells of one prompt."""
        model, one = self.model, self.plan.question.encoded[prompt]
        clean = self._unedited(prompt)
        self._check_steady(prompt, clean)
        watch = watch_of(model, one, list(into.inside), self._corrupting(prompt))
        for gauge in into.inside:
            into.store_clean_inside(gauge, prompt, watch.without_edits(gauge, 0))
        places = {reading: reading.position(one, model.anatomy.dims) for reading in into.values}
        numbers = [*numbers]
        if numbers and (into.twins < 0).all():
            self._measure_noise(numbers[0], prompt, clean, into)
        for reading, at in places.items():
            into.store_clean(reading, prompt, reading.measure(clean[:, at], clean[:, at], one))
        for number in numbers:
            cell, own = self.plan.cells[number], np.array([number])
            logits, receipts, inside = run_cell(
                model, cell, one, self.sources, watch, self._corruption(prompt)
            )
            for gauge, values in inside.items():
                into.store_inside(gauge, own, values)
            for reading, at in places.items():
                into.store(reading, own, reading.measure(logits[:, at], clean[:, at], one))
            into.changed[into.rows(own)] = sum(receipt.changed for receipt in receipts)
            into.norm[into.rows(own)] = math.hypot(*(receipt.norm for receipt in receipts))
            into.work["token_blocks"] += model.anatomy.dims.n_layers * len(one.tokens.read)
            into.settle()
            self.tick(1)
            opened(model.hf).give_way()

    def _corruption(self, prompt: int) -> Sequence[Operation]:
        corruption = self.plan.question.corruption
        return corruption[prompt] if corruption else ()

    def _corrupting(self, prompt: int) -> list[Visit]:
        return [*corrupting(self.model, self.plan.question, {prompt: (0,)}, self.sources)]

    def _unedited(self, prompt: int, visits: Sequence[Visit] = ()) -> Float[Tensor, "1 pos vocab"]:
        """The logits of a prompt's run without edits; it may be looked at."""
        ids = ids_of([self.plan.question.encoded[prompt].tokens], self.model.hf)
        own = [*self._corrupting(prompt), *visits]
        return forward(self.model.hf, self.model.anatomy, ids, own)

    def _check_steady(self, prompt: int, clean: Float[Tensor, "1 pos vocab"]) -> None:
        """Of what somebody has added it is not known whether it does the same each time.

        Raises:
            SweepError: it does not.
        """
        own = self.model.additions
        if not own:
            return
        again = self._unedited(prompt)
        if not torch.equal(clean.nan_to_num(), again.nan_to_num()):
            raise SweepError(unsteady(named(own)))

    def _measure_noise(
        self, number: int, prompt: int, clean: Float[Tensor, "1 pos vocab"], into: Collector
    ) -> None:
        """The effects of a cell whose edits are left out.

        None, to the bit, but where attention weights are looked at: that layer computes its
        attention in the open then, and rounds otherwise.
        """
        model, cell = self.model, self.plan.cells[number]
        one, twin = self.plan.question.encoded[prompt], np.array([number])
        idler = into.ride([prompt], 0, twin)
        watch = watch_of(model, one, list(into.inside), self._corrupting(prompt))
        inside, logits = watch.unedited([0], 1), clean
        looked = {
            (region.site, region.layer)
            for regions in cell.regions
            for region in regions
            if region.site.name == "pattern"
        }
        if looked:
            visits = [Visit(place, lambda view: None, writes=True) for place in looked]
            for layer in range(model.anatomy.dims.n_layers):
                visits += watch.visits(layer, [0], 0, inside)
            logits = self._unedited(prompt, visits)
        for gauge, values in inside.items():
            into.store_inside(gauge, idler, values[0])
        for reading in into.values:
            at = reading.position(one, model.anatomy.dims)
            value = reading.measure(logits[:, at], clean[:, at], one)
            into.store(reading, idler, value)


def watch_of(
    model: Loaded, one: Encoded, gauges: Sequence[Gauge], edits: Sequence[Visit] = ()
) -> Watch:
    """The gauges on one prompt, whose run may be edited."""
    dims = model.anatomy.dims
    last = len(one.tokens) - 1
    pieces = [Piece(place, 0, last) for place in {p for own in gauges for p in own.places(dims)}]
    kept = record(model.hf, model.anatomy, [one.tokens], pieces, edits) if pieces else {}
    return Watch.over(gauges, [one], dims, kept)


def run_cell(
    model: Loaded,
    cell: Cell,
    one: Encoded,
    sources: Sources,
    watch: Watch,
    corruption: Sequence[Operation] = (),
) -> tuple[Float[Tensor, "1 pos vocab"], list[Receipt], dict[Gauge, Float[Tensor, " 1 *shape"]]]:
    """One cell: its logits, a receipt per edit, and what the gauges read."""
    inside = watch.unedited([0], 1)
    visits = [
        visit
        for layer in range(model.anatomy.dims.n_layers)
        for visit in watch.visits(layer, [0], 0, inside)
    ]
    logits, receipts = intervene(
        model.hf,
        model.anatomy,
        one,
        cell.edits,
        sources,
        visits,
        prompt=cell.prompt,
        corruption=corruption,
    )
    return logits, receipts, {gauge: values[0] for gauge, values in inside.items()}
