"""The one-pass walk: every cell of a map in one pass through the layers, exactly.

The clean runs of some prompts of one length are traced. Then the layers are walked once, with a
growing batch:

- A cell **enters late**: at the first layer that it edits, with that block's clean input. Before
  that layer it is the clean run.
- A cell **starts late**: only positions from the first one that it edits are in the batch. Earlier
  positions cannot change in a causal model, so their keys and values come from the trace, shared
  by all cells of a prompt (`passes.prefix`).
- At every layer the model's own block runs once on every tile of the batch, with the ordinary hooks
  making the ordinary edits on the rows that they belong to.
- At the end the final norm and the unembedding run only at the positions that a metric reads, and
  for the tokens that it needs (`walk.ending`).

In an encoder every position sees all others, so none of them stays as it was: a cell starts at
position 0, and the block's own attention, whatever it is, runs on whole rows. It enters late all
the same.

So each block's weights are read once per batch and no work is done before a cell differs from the
clean run. What cannot be done this way goes to the reference path (`plan.choice`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from microtome.amounts import many
from microtome.edits.sources import Sources
from microtome.engines.block import Block
from microtome.engines.collector import Collector
from microtome.engines.corrupting import corrupting
from microtome.engines.walk.batches import (
    Batch,
    Company,
    Roomy,
    companies,
    convoys,
    halves,
    tiles,
)
from microtome.engines.walk.blocks import Blocks
from microtome.engines.walk.ending import Ending, measure
from microtome.engines.walk.idling import idler_alone, with_idlers
from microtome.engines.walk.pieces import Piece, rows_of
from microtome.engines.walk.resumed import Resumed
from microtome.engines.walk.routes import Routes
from microtome.engines.walk.settled import settled
from microtome.engines.walk.underway import Underway
from microtome.engines.witnesses import Witnesses
from microtome.language.order import beside
from microtome.language.regions import Column
from microtome.model.loaded import Loaded
from microtome.passes.activations import in_one_pass
from microtome.passes.hooks import Place, quiet
from microtome.passes.session import opened, session
from microtome.passes.trace import Trace, trace
from microtome.plan.memory.budget import Budget
from microtome.plan.memory.recorded import references_at_once
from microtome.plan.memory.room import Room
from microtome.plan.paths import paths_of
from microtome.plan.plan import Plan
from microtome.plan.units import Unit
from microtome.prompts.encoding import Encoded
from microtome.prompts.tokens import Tokens
from microtome.readings.watch import Watch


@dataclass(frozen=True, eq=False)
class Walk:
    """The walk as an executor.

    Attributes:
        model: the model.
        plan: the plan whose units are run.
        sources: activations of donors and reference prompts.
        budget: what may be used of the machine.
        tick: is told how many cells have arrived; a fraction where they are still on their way,
            and what is negative where a batch is begun again.
    """

    model: Loaded
    plan: Plan
    sources: Sources
    budget: Budget
    tick: Callable[[float], None]

    def run(self, unit: Unit) -> Block:
        """Compute the cells of a unit, its prompts together as far as memory allows."""
        into = Collector.of(self.plan, unit)
        self.collect(unit, into)
        return into.block(unit)

    def collect(self, unit: Unit, into: Collector, witnesses: Witnesses | None = None) -> None:
        """The same, into a collector; some cells are kept for verification."""
        question = self.plan.question
        places: list[Place] = []
        for gauge in into.inside:
            places += gauge.places(question.dims)
        for _, path in paths_of(self.plan.cells):
            places += beside(path, question.dims)
        with session(self.model.hf, self.model.anatomy):
            self.sources.hold_references(references_at_once(question, self.budget))
            for company in companies(self.plan, unit, self.budget):
                own = [question.encoded[prompt] for prompt in company.prompts]
                clean = self._trace(own, company, places)
                moving, still = settled(self.plan, company, self.sources)
                watch = Watch.over(list(into.inside), own, question.dims, clean.kept)
                Stretch(self, moving, still, clean, watch, into, witnesses).measure()

    def _trace(self, own: Sequence[Encoded], company: Company, places: Sequence[Place]) -> Trace:
        """The runs of some prompts without edits; their donors go along where that is cheap."""
        model, texts = self.model, [one.tokens for one in own]
        others = self.sources.texts(own)
        riders = others if _ride(others, texts, self.budget) else []
        pieces = self.sources.pieces(riders)
        rows = {prompt: (row,) for row, prompt in enumerate(company.prompts)}
        edits = [*corrupting(model, self.plan.question, rows, self.sources)]
        start = company.start
        clean = trace(model.hf, model.anatomy, texts, start, places, riders, pieces, edits)
        if riders:
            self.sources.hold_recorded(riders, clean.beside)
        else:
            self.sources.hold(others, at_once=len(own))
        return clean


def _ride(others: Sequence[Tokens], texts: Sequence[Tokens], budget: Budget) -> bool:
    """Whether the donors of some prompts, or whatever is recorded, go through the model with them.

    Few tokens read all weights as slowly as many do.
    """
    length = len(texts[0].read)
    fits = length * (len(others) + len(texts)) <= budget.tile
    return bool(others) and fits and all(len(other.read) == length for other in others)


@dataclass(frozen=True, eq=False)
class Stretch:
    """The walk of some prompts of one length.

    Attributes:
        walk: the executor that it is of.
        company: the prompts.
        inert: per prompt, cells of edges that change exactly nothing.
        trace: their clean runs.
        watch: the metrics inside the model, on them.
        into: where results go.
        witnesses: what is kept for verification; None where nothing is.
    """

    walk: Walk
    company: Company
    inert: Mapping[int, Column]
    trace: Trace
    watch: Watch
    into: Collector
    witnesses: Witnesses | None = None

    @property
    def model(self) -> Loaded:
        """The model."""
        return self.walk.model

    @property
    def plan(self) -> Plan:
        """The plan."""
        return self.walk.plan

    @cached_property
    def _resumed(self) -> Resumed:
        """The blocks, by themselves."""
        return Resumed(self.model, self.trace)

    @cached_property
    def routes(self) -> Routes:
        """Where edits get values from."""
        cells, encoded, budget = self.plan.cells, self.plan.question.encoded, self.walk.budget
        known = [
            (encoded[prompt], row, cells.values(self.company.starts[prompt].cells))
            for row, prompt in enumerate(self.company.prompts)
        ]
        rest = budget.memory, budget.tile, self._resumed
        return Routes(self.walk.sources, self.model, self.trace, known, *rest)

    @cached_property
    def _blocks(self) -> Blocks:
        """What is done in them."""
        rows = enumerate(self.company.prompts)
        places = [self._ending(prompt, row).places for row, prompt in rows]
        own = self.routes, self._resumed, self.watch, places
        return Blocks(self.model, self.plan, self.trace, *own)

    def measure(self) -> None:
        """Walk every cell of these prompts; those that change nothing are the clean run."""
        with quiet(self.model.hf):
            for row, prompt in enumerate(self.company.prompts):
                self._measure_clean(row, prompt)
            self.into.settle()
            self._show_clean()
            last = None
            for convoy in convoys(self.plan, self.company, self.walk.budget):
                self._as_memory_allows(
                    [(with_idlers(*own, self.company, self.into), own[1]) for own in convoy]
                )
                last = convoy[-1]
            if last is not None and (self.into.twins < 0).all():
                self._as_memory_allows([(idler_alone(last[0], self.into), last[1])])

    def _measure_clean(self, row: int, prompt: int) -> None:
        """The metrics of a prompt without edits, and those of its cells that change nothing."""
        ending = self._ending(prompt, row)
        ending.clean()
        clean = {gauge: self.watch.without_edits(gauge, row) for gauge in self.watch.fitted}
        for gauge, values in clean.items():
            self.into.store_clean_inside(gauge, prompt, values)
        still = self._still(prompt)
        if len(still):
            ending.still(still)
            for gauge, values in clean.items():
                self.into.store_inside(gauge, still, values.expand(len(still), *values.shape))
            self.into.prove(still, *torch.zeros(2, len(still), device=self.trace.final.device))

    def _show_clean(self) -> None:
        """Let the witnesses see the clean runs: they may compare at once, so all has arrived."""
        if self.witnesses is not None:
            self.witnesses.see_past(self.trace)
            for row, prompt in enumerate(self.company.prompts):
                self.witnesses.see_clean(self._ending(prompt, row), self._still(prompt))

    def _still(self, prompt: int) -> Column:
        """A prompt's cells that change nothing."""
        own = self.into.numbers[self.plan.cells.prompt[self.into.numbers] == prompt]
        still = own[self.plan.cells.still[own]]
        return np.concatenate([still, self.inert[prompt]])

    def _ending(self, prompt: int, row: int) -> Ending:
        one, final = self.plan.question.encoded[prompt], self.trace.final[row]
        return Ending(self.model, one, prompt, final, self.into)

    def _as_memory_allows(self, convoy: Sequence[Roomy]) -> None:
        """Walk some batches side by side; where memory runs out, halves of them."""
        told: list[float] = []
        try:
            self._walk(convoy, told)
        except RuntimeError as error:
            if sum(len(batch) for batch, _ in convoy) == 1 or not _is_out_of_memory(error):
                raise
        else:
            return
        # Outside of the handler, so that the failed batch's tensors are gone by now.
        self.into.forget()
        self.routes.fronts.clear()  # some of their writers may be a block further than others
        self.walk.tick(-sum(told))
        cells = sum(len(batch) for batch, _ in convoy)
        self.into.notes.append(f"out of memory: a batch of {many(cells, 'cell')} was halved")
        for half in halves(convoy):
            self._as_memory_allows(half)

    def _walk(self, convoy: Sequence[Roomy], told: list[float]) -> None:
        own, fronts = opened(self.model.hf), [*map(self._front, *zip(*convoy, strict=True))]
        layer = min(int(batch.layers[0]) for batch, _ in convoy)
        while layer <= self.model.anatomy.dims.n_layers:
            with in_one_pass(self.model.hf):
                layer = self._through_layers(layer, fronts, told)
            own.give_way()
        for front in fronts:
            self._arrive(front)

    def _front(self, batch: Batch, room: Room) -> Underway:
        rows = [*map(self.company.prompts.index, batch.prompts)]
        return Underway.of(batch, room, rows, self.trace, self.watch)

    def _through_layers(self, first: int, fronts: Sequence[Underway], told: list[float]) -> int:
        """Go on at a layer, to the end, or until another thread is to have the model; how far."""
        n_layers, own = self.model.anatomy.dims.n_layers, opened(self.model.hf)
        for layer in range(first, n_layers + 1):
            alike = [self._let_in(layer, front) for front in fronts]
            if layer < n_layers:
                for pieces in rows_of(self._pieces(layer, fronts, alike)):
                    self._blocks.run(layer, pieces)
            for front in fronts:
                told.append(self._progress(layer, front))
                self.walk.tick(told[-1])
            if own.is_awaited:
                return layer + 1
        return n_layers + 1

    def _let_in(self, layer: int, front: Underway) -> int:
        """Let cells in that enter a block; from which cell on they are alike there."""
        before, entered = front.entered(layer - 1), front.entered(layer)
        alike = before
        for tile in tiles(len(front.rows), range(before, entered), front.room.tile):
            if self._blocks.enter(layer, front, tile):
                alike = entered
        self._show(layer, front)
        return alike

    def _pieces(
        self, layer: int, fronts: Sequence[Underway], alike: Sequence[int]
    ) -> Iterator[tuple[Piece, float]]:
        """What runs through a block, and the share of a tile that each piece is."""
        for front, first in zip(fronts, alike, strict=True):
            entered, most = front.entered(layer), front.room.tile
            for tile in tiles(len(front.rows), range(entered), most):
                piece = self._blocks.piece(layer, front, tile, first)
                yield piece, piece.shape[0] / most
            self.into.work["token_blocks"] += len(front.rows) * entered * front.x.shape[2]

    def _arrive(self, front: Underway) -> None:
        """What is read of cells that have come through."""
        batch = front.batch
        endings = [*map(self._ending, batch.prompts, front.rows)]
        measure(self.model, endings, batch.cells, batch.position, front.x, front.room)
        for gauge, values in front.seen.items():
            self.into.store_inside(gauge, batch.cells.ravel(), values.flatten(0, 1))
        self.into.prove(batch.cells.ravel(), *front.proofs.flatten(1))
        self.into.settle()
        if self.witnesses is not None:
            self.witnesses.see(batch, endings, front.x)

    def _show(self, layer: int, front: Underway) -> None:
        """What enters a block is kept of some cells, for verification."""
        if self.witnesses is None or self.witnesses.streams is None:
            return
        inputs, offset = self.trace.inputs[layer], front.batch.position - self.trace.start
        self.witnesses.streams.see(
            layer, front.batch, front.x, lambda row: inputs[front.rows[row], offset:]
        )

    def _progress(self, layer: int, front: Underway) -> float:
        """How many cells' worth of work one layer was; the end counts as one."""
        batch, entered = front.batch, front.entered(layer)
        ours = batch.cells[0, :entered] < len(self.plan.cells)  # idlers are no cells of the map
        steps = self.model.anatomy.dims.n_layers + 1 - batch.layers[:entered][ours]
        return float((1 / steps).sum()) * len(batch.prompts)


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Of a device; or of the host, which says so in one of these ways."""
    told = ("can't allocate memory", "not enough memory")
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in told)
