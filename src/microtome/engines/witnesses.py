"""What verification keeps of a walk: what the unembedding reads of a few of its cells.

Which cell is the strongest is known afterwards only, so the strongest so far is kept, and what was
changed most so far: a walk that leaves its edits out has no strong cells.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from torch import Tensor

from microtome.engines.block import Array
from microtome.engines.collector import Collector
from microtome.engines.local import Streams
from microtome.engines.walk.batches import Batch
from microtome.engines.walk.ending import Ending
from microtome.language.regions import Column
from microtome.passes.past import Past
from microtome.passes.trace import Trace
from microtome.plan.idlers import IDLERS
from microtome.readings.output import TOKEN_ID
from microtome.readings.registry import Asked

DEPTHS = 8
"""Parts of the layers of which each has what was changed most in it kept."""

Final = dict[int, Tensor]
"""Position → what the unembedding reads there, ``[d_model]``."""


@dataclass(eq=False)
class Witnesses:
    """Cells of a unit, kept while they walk.

    Attributes:
        into: what the walk brings back.
        chosen: cells to keep, by number.
        full: is called when so many are kept that they have to be looked at (and forgotten) now.
        most: how many that is; None: never.
        finals: of each cell that is kept.
        clean: of each prompt.
        idlers: of the first idlers.
        strongest: the cell with the largest effect so far, and how large that is.
        changed: per part of the layers the cell that was changed most, and the norm of that.
        streams: the residual stream of some chosen cells, right behind their edits.
        remembers: whether the past of the prompts is kept, of which there is one then.
        past: it.
    """

    into: Collector
    chosen: frozenset[int]
    full: Callable[[], None] = lambda: None
    most: int | None = None
    finals: dict[int, Final] = field(default_factory=dict)
    clean: dict[int, Final] = field(default_factory=dict)
    idlers: dict[int, Final] = field(default_factory=dict)
    strongest: tuple[int, float] | None = None
    changed: dict[int, tuple[int, float]] = field(default_factory=dict)
    streams: Streams | None = None
    remembers: bool = False
    past: Past | None = None

    @property
    def first(self) -> Asked | None:
        """The first metric that has effects."""
        asked = self.into.plan.question.asked
        return next((one for one in asked if one.metric.unit != TOKEN_ID), None)

    def see_past(self, trace: Trace) -> None:
        """Keep what the clean run attended to, if it is to be gone on from."""
        if self.remembers:
            self.past = Past(trace.keys, trace.values)

    def see_clean(self, ending: Ending, still: Column) -> None:
        """Keep a prompt's clean run, which cells that change nothing are too."""
        clean = {place: ending.final[place] for place in ending.places}
        self.clean[ending.prompt] = clean
        for number in self.chosen.intersection(still.tolist()):
            self._keep(number, clean)

    def see(
        self,
        batch: Batch,
        endings: Sequence[Ending],
        x: Float[Tensor, "prompt cell own d_model"],
    ) -> None:
        """Keep what is wanted of a batch whose results have arrived.

        Args:
            batch: its cells.
            endings: of its prompts.
            x: the last block's output from the batch's position on.
        """
        for numbers, ending, own in zip(batch.cells, endings, x, strict=True):
            columns = self._wanted(numbers)
            if not columns:
                continue
            found = ending.finals(numbers[columns], columns, batch.position, own)
            for n, number in enumerate(numbers[columns].tolist()):
                final = {place: values[n] for place, values in found.items()}
                if number >= len(self.into.plan.cells):
                    self.idlers[number] = final
                else:
                    self._keep(number, final)
        self._forget()

    def _keep(self, number: int, final: Final) -> None:
        self.finals[number] = final
        if self.most is not None and len(self.finals) >= self.most:
            self.full()
            self.finals.clear()

    def _forget(self) -> None:
        """What is no longer the strongest of anything."""
        if self.most is None:
            held = self.chosen | {number for number, _ in self.changed.values()}
            held |= set() if self.strongest is None else {self.strongest[0]}
            for number in self.finals.keys() - held:
                del self.finals[number]

    def _wanted(self, numbers: Column) -> list[int]:
        """The columns of a batch to keep: chosen ones, idlers, and the strongest of all so far.

        A batch that ran out of memory comes again in halves, so a cell may be the strongest already
        and not be kept yet.
        """
        cells = self.into.plan.cells
        ours = np.flatnonzero(numbers < len(cells))
        wanted = {n for n in ours.tolist() if int(numbers[n]) in self.chosen}
        riding = np.flatnonzero(numbers >= len(cells)).tolist()
        wanted.update(riding[: IDLERS - len(self.idlers)])
        if not len(ours):
            return sorted(wanted)
        effects = self._effects(numbers[ours])
        if effects is not None:
            top = int(effects.argmax())
            number = int(numbers[ours[top]])
            if self.strongest is None or effects[top] > self.strongest[1]:
                self.strongest = number, float(effects[top])
            if self.strongest[0] == number:
                wanted.add(int(ours[top]))
        norms = np.nan_to_num(self.into.norm[self.into.rows(numbers[ours])], nan=math.inf)
        parts = cells.entry[numbers[ours]] * DEPTHS // (self.into.plan.question.dims.n_layers + 1)
        for part in np.unique(parts).tolist():
            top = int(np.where(parts == part, norms, -1.0).argmax())
            number = int(numbers[ours[top]])
            if part not in self.changed or norms[top] > self.changed[part][1]:
                self.changed[part] = number, float(norms[top])
            if self.changed[part][0] == number:
                wanted.add(int(ours[top]))
        return sorted(wanted)

    def _effects(self, numbers: Column) -> Array | None:
        """How large effects on the first metric are; what is no number is larger than any."""
        if self.first is None:
            return None
        effects = self.into.effects(self.first, numbers)
        largest = effects.reshape(len(numbers), -1).max(axis=1)
        found: Array = np.where(np.isnan(largest), math.inf, largest)
        return found
