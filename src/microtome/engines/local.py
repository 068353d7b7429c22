"""The residual stream right behind an edit, in the walk and on the reference path.

What an edit at an early position does to the last token's logits may be less than rounding. But
right behind the last block that a cell edits its change is undiluted: there a walk that leaves the
edit out, or makes it elsewhere, is seen in every type. So the streams of a few cells, chosen before
the walk, are kept there, and their changes are held against those in the hooked reference pass,
position by position: one position with huge values does not hide the others.

What is allowed at a position is some units of rounding of the clean stream there, for each block
that an edit has gone through; as much as the two clean runs differ there, since a patch brings the
same values onto both; and a share of the change. Mixtures of experts are left out: rounding may
send a token to another expert, which is no small difference right there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.engines.judging import SHARE, Gap, Precision
from microtome.engines.rerun import Rows
from microtome.engines.walk.batches import Batch
from microtome.language.sites import BEHIND
from microtome.language.sites import site as find_site
from microtome.model.devices import numbers
from microtome.passes.hooks import Visit
from microtome.plan.memory.kept import STREAMS
from microtome.plan.plan import Plan
from microtome.readings.output import Reading

CANDIDATES = STREAMS
"""Cells whose streams are kept at most: they are in memory beside the batch."""

LEAST = 3
"""Cells whose streams are compared at least, in half precision."""

UNITS = 3.0
"""Units of rounding of the clean stream that two changes may be apart, per block."""

MORE_UNITS = 64.0
"""The same in float32 and float64, where that is little all the same."""

CLEAN = 2.0
"""How many times the difference of the clean runs there is allowed besides."""


@dataclass(frozen=True, eq=False)
class Stream:
    """The stream behind a cell's last edit, at some positions: edited, and clean."""

    positions: Sequence[int]
    edited: Float[Tensor, "pos d_model"]
    clean: Float[Tensor, "pos d_model"]

    def on_host(self) -> Stream:
        """The same in the host's memory."""
        return Stream(self.positions, self.edited.cpu(), self.clean.cpu())

    @property
    def change(self) -> Float[Tensor, "pos d_model"]:
        """What the edits did to it."""
        return self.edited - self.clean


@dataclass(eq=False)
class Streams:
    """The streams of some cells, as far as they have been seen.

    Attributes:
        plan: the plan.
        behind: of each cell the block behind which its stream is compared.
        walk: the streams in the walk, by the cell's number.
        reference: the same on the reference path.
    """

    plan: Plan
    behind: dict[int, int]
    walk: dict[int, Stream] = field(default_factory=dict)
    reference: dict[int, Stream] = field(default_factory=dict)

    @classmethod
    def of(cls, plan: Plan, cells: Iterable[int]) -> Streams:
        """Of some cells, none of them seen yet."""
        if plan.question.dims.experts > 1:
            return cls(plan, {})
        return cls(plan, {number: _layers(plan, number)[1] for number in cells})

    def see(
        self,
        layer: int,
        batch: Batch,
        x: Float[Tensor, "prompt cell own d_model"],
        clean: Callable[[int], Float[Tensor, "own d_model"]],
    ) -> None:
        """Keep what enters a block in the walk, of the cells whose last edit is right before it.

        Args:
            layer: the block.
            batch: the cells.
            x: what enters it.
            clean: the same of the clean run of the prompt in a row of the batch.
        """
        for row, cells in enumerate(batch.cells.tolist()):
            for column, number in enumerate(cells):
                if self.behind.get(number) != layer - 1:
                    continue
                places = self._places(layer, batch, row, x.shape[2])
                if places:
                    here = numbers(x.device, [place - batch.position for place in places])
                    both = x[row, column], clean(row).to(x.device)
                    own = (_wide(stream.index_select(0, here)) for stream in both)
                    self.walk[number] = Stream(places, *own)

    def _places(self, layer: int, batch: Batch, row: int, own: int) -> list[int]:
        """The positions to compare; the last block's MLP runs only where metrics look."""
        question = self.plan.question
        every = range(batch.position, batch.position + own)
        if layer < question.dims.n_layers:
            return [*every]
        one = question.encoded[batch.prompts[row]]
        asked = [own for own in question.asked if isinstance(own, Reading)]
        return sorted({own.position(one, question.dims) for own in asked}.intersection(every))

    def looks(self, rows: Rows) -> Iterator[Visit]:
        """What sees the same streams in a reference pass whose rows these are."""
        end, last = (find_site("final_in"), None), self.plan.question.dims.n_layers - 1
        for number in rows.cells.keys() & self.walk.keys():
            layer = self.behind[number]
            place = (find_site("resid_post"), layer)
            yield Visit(place if layer < last else end, self._look(number, rows))

    def _look(self, number: int, rows: Rows) -> Callable[[Tensor], None]:
        pair = rows.cells[number], rows.clean[int(self.plan.cells.prompt[number])]
        places = self.walk[number].positions

        def look(view: Tensor) -> None:
            here = numbers(view.device, [place - rows.start for place in places])
            streams = (view[row].index_select(0, here) for row in pair)
            self.reference[number] = Stream(places, *map(_wide, streams))

        return look

    def gap(self, number: int, precision: Precision) -> Gap | None:
        """How far apart a cell's changes are, at the position where that is worst."""
        if number not in self.reference:
            return None
        own, there = self.walk[number].on_host(), self.reference[number].on_host()
        first, last = _layers(self.plan, number)
        units = (UNITS if precision.promise is None else MORE_UNITS) * (last - first + 1)
        off, change = _norms(own.change - there.change), _norms(there.change)
        clean = _norms(own.clean - there.clean)
        allowed = units * precision.eps * _norms(there.clean) + CLEAN * clean + SHARE * change
        over = torch.nan_to_num(off - allowed, nan=torch.inf)
        at = int(over.argmax())
        return Gap(
            number,
            "the norm of its change",
            float(_norms(own.change)[at]),
            float(change[at]),
            float(off[at]),
            float(allowed[at]),
            about=f"the changes of the residual stream behind layer {last} at position "
            f"{own.positions[at]}",
            promised=False,
        )


def _layers(plan: Plan, number: int) -> tuple[int, int]:
    """The first and the last layer that a cell edits.

    What is before the layers counts to the first, and what is behind them to the last.
    """
    end = plan.question.dims.n_layers - 1
    edited = [
        (end if region.site.name in BEHIND else 0) if region.layer is None else region.layer
        for region in plan.cells.regions(number)
    ]
    return min(edited), max(edited)


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32), copy=True)


def _norms(values: Float[Tensor, "pos d_model"]) -> Float[Tensor, " pos"]:
    """Of what is finite, at each position."""
    finite = torch.where(values.isfinite(), values, torch.zeros_like(values))
    norms: Tensor = finite.double().norm(dim=-1)
    return norms
