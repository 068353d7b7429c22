"""How far a sweep over a stream is: its windows, told of as of one sweep."""

from __future__ import annotations

import math
from dataclasses import dataclass

from microtome.engines.observer import Observer, Relay
from microtome.model.loaded import Loaded
from microtome.plan.plan import Plan
from microtome.prompts.stream import Chain
from microtome.verbs.answer import Answer


@dataclass(frozen=True, eq=False)
class Begun:
    """A window whose units may begin.

    Attributes:
        number: its own, from 0.
        prompts: how many it has.
        chain: what the prompts up to its end are known by.
        answer: what answers it.
    """

    number: int
    prompts: int
    chain: Chain
    answer: Answer

    @classmethod
    def of(cls, number: int, prompts: int, chain: Chain, answer: Answer) -> Begun:
        """A window, with its units begun where somebody is free for them."""
        answer.begin()
        return cls(number, prompts, chain.copy(), answer)


@dataclass(frozen=True)
class Extent:
    """How much there is in all, guessed from the windows so far.

    Attributes:
        plan: of a window.
        prompts: how many it has.
        of: how many there are in all, where that is known.
    """

    plan: Plan
    prompts: int
    of: int | None

    @property
    def share(self) -> float:
        """How many times the window all is."""
        return 1.0 if self.of is None else max(1.0, self.of / self.prompts)

    @property
    def cells(self) -> int:
        """Cells of all prompts."""
        return round(len(self.plan.cells) * self.share)

    @property
    def units(self) -> int:
        """Units of all windows."""
        return math.ceil(len(self.plan.units) * self.share)


class Overall(Relay):
    """Tells of the windows as of one sweep.

    Attributes:
        chain: the prompts that were read so far.
    """

    def __init__(self, to: Observer, extent: Extent, model: Loaded) -> None:
        super().__init__(to)
        self.chain = Chain(model.tokenizer)
        self._of = extent.of
        self._each = len(extent.plan.cells) / extent.prompts
        self._prompts, self._cells, self._units, self._flops, self._done = 0, 0, 0, 0.0, 0

    def begin(self, one: Begun) -> None:
        """A window is about to be run: more is known of how much there is."""
        plan = one.answer.plan
        self._prompts += one.prompts
        self._cells += len(plan.cells)
        self._units += len(plan.units)
        self._flops += plan.cost.flops
        run = one.chain.prompts if self._of is None else max(self._of, one.chain.prompts)
        share = run / self._prompts
        self._to.expected(
            round(self._cells * share), math.ceil(self._units * share), self._flops * share
        )
        for note in one.answer.sink.notes:
            self.note(note)

    def skip(self, prompts: int) -> None:
        """A window is there already."""
        self._to.advanced(self._each * prompts)

    def unit_done(self, number: int, of: int) -> None:
        """A unit, counted over all windows."""
        share = 1.0 if self._of is None else max(1.0, self._of / self._prompts)
        self._to.unit_done(self._done, math.ceil(self._units * share))
        self._done += 1
