"""The comparison of a walk's witnesses with the reference path, thing by thing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from microtome.edits.sources import Sources
from microtome.engines import judging
from microtome.engines.collector import Collector
from microtome.engines.judging import LOGITS, Gap, Pair, Precision
from microtome.engines.rerun import Rerun, Rows, first_position, rerun
from microtome.engines.witnesses import Witnesses
from microtome.errors import listing
from microtome.model.loaded import Loaded
from microtome.passes.hooks import Visit
from microtome.passes.shaking import shaking
from microtome.plan.plan import Plan
from microtome.readings.inside import Gauge
from microtome.readings.output import TOKEN_ID, Reading

Logits = dict[tuple[str, int, int], Tensor]
"""Logits, by what they are of (a side's clean run of a prompt, a cell, an idler) and a position."""

CELLS = ("idler", "walk", "reference")
"""Of what logits are of a cell or an idler; the others are of a prompt."""

Looks = Callable[[Rows], Iterable[Visit]]
"""What looks into a pass over some rows."""

SHAKES = 3
"""How many times cells in doubt are computed again, rounded otherwise."""

Look = tuple[int, int]
"""A prompt, and a position of it that is read."""

ROUTED = (
    " But first try dtype='float32': each token goes to the experts that score highest, and where "
    "two score alike, rounding chooses, in half precision now one and now the other."
)


@dataclass(eq=False)
class Comparison:
    """The comparison of a unit, as far as it has come.

    Attributes:
        witnesses: what the walk kept.
        precision: of the residual stream.
        at_once: cells of one pass.
        logits_at_once: rows of logits that are compared together, where they are not all of one
            prompt at one position.
        gaps: of all that was compared so far.
        local: the same of streams right behind an edit.
        done: these cells.
        starts: the positions that passes began at.
        noise: the largest norm of what an idler does to the logits.
    """

    model: Loaded
    sources: Sources
    witnesses: Witnesses
    precision: Precision
    at_once: int
    logits_at_once: int
    gaps: list[Gap] = field(default_factory=list)
    local: list[Gap] = field(default_factory=list)
    done: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    noise: float = 0.0

    @property
    def into(self) -> Collector:
        """What the walk brought back."""
        return self.witnesses.into

    @property
    def plan(self) -> Plan:
        """The plan."""
        return self.into.plan

    def take(self, cells: Sequence[int]) -> None:
        """Compare some of the witnesses, by the cells' numbers.

        What rounding does to cells in doubt is allowed to those beside them, and to no others.
        """
        promised = self.precision
        for first in range(0, len(cells), self.at_once):
            some = cells[first : first + self.at_once]
            with torch.no_grad():
                start = self._start(some)
                again = self._again(some, start, self._looks)
                found = self._compared(some, again)
                if self._rounds_inside and any(gap.is_beyond_fixed for gap in found):
                    self.precision = promised.hearing(self._moved(some, start, again))
                    found = self._compared(some, again)
            self.gaps += found
            for number in some:
                self.gaps += self._of_inside(number, again)
                self.local += self._of_stream(number)
            self.precision = promised
            self.done.extend(some)
            self.starts.append(start)

    def _again(self, cells: Sequence[int], start: int, looks: Looks) -> Rerun:
        """Some cells on the reference path."""
        past = self.witnesses.past
        return rerun(self.model, self.plan, cells, self.sources, looks, past, start)

    def _compared(self, cells: Sequence[int], again: Rerun) -> list[Gap]:
        """Some cells compared where there are logits of them."""
        found = list[Gap]()
        for looks in self._portions(cells, again):
            logits = self._logits(cells, again, looks)
            found += self._hear(logits)
            found += self._of_clean(again, logits)
            for number in cells:
                found += self._of_output(number, logits)
        return found

    @property
    def _rounds_inside(self) -> bool:
        """Whether attention rounds to float32 in a model of float64: how far depends on scores."""
        model = self.model
        return model.dtype == torch.float64 and model.anatomy.family.inner == "attention"

    def _moved(self, cells: Sequence[int], start: int, again: Rerun) -> float:
        """How far logits move where these cells are computed again and rounded otherwise."""
        hf, anatomy, farthest = self.model.hf, self.model.anatomy, 0.0
        for seed in range(SHAKES):
            other = self._shaken(cells, start, seed)
            for place, finals in again.final.items():
                for both in zip(other.final[place], finals, strict=True):
                    one, own = anatomy.unembed(hf, torch.stack(both)).double()
                    farthest = max(farthest, judging.moved(one, own))
        return farthest

    def _shaken(self, cells: Sequence[int], start: int, seed: int) -> Rerun:
        """Some cells on the reference path, rounded otherwise."""
        visits = shaking(self.model.anatomy, self.precision.eps, seed)
        return self._again(cells, start, lambda _: visits)

    def _start(self, cells: Sequence[int]) -> int:
        """The position from which some cells are computed again."""
        if self.witnesses.past is None:
            return 0
        streams = self.witnesses.streams
        kept = {} if streams is None else streams.walk
        looked = [min(kept[number].positions) for number in cells if number in kept]
        return min([first_position(self.plan, cells), *looked])

    def is_in_doubt(self, noise: Mapping[str, float]) -> bool:
        """Whether a cell is beyond the narrow measure, so that more have to be looked at."""
        heard = {**noise, LOGITS: self.noise}
        return any(gap.is_beyond_narrow(heard) for gap in self.gaps)

    def complaint(self, gap: Gap, allowed: float) -> str:
        """What is said of one that is beyond what is allowed."""
        where, edits = "the clean run", "no edit"
        if gap.cell is not None:
            cell = self.plan.cells[gap.cell]
            named = zip(self.plan.axes, cell.index, strict=True)
            where = str({axis.name: axis.values[n] for axis, n in named})
            edits = listing(cell.edits)
        return (
            f"The walk and the reference path disagree at {where} ({edits}): {gap.of} is "
            f"{gap.walk:.6g} and {gap.reference:.6g}; {gap.about} differ by "
            f"{gap.difference:.2g}, tolerance {allowed:.2g}. Nothing of this unit is kept. Use "
            f"engine='reference', and please report this with the model's name.{self._experts}"
        )

    @property
    def _experts(self) -> str:
        """What else may be the reason in a mixture of experts."""
        few = self.model.anatomy.family.down_proj is None and self.precision.promise is None
        return ROUTED if few else ""

    # ---------------------------------------------------------------------------------- logits

    def _places(self, prompt: int, logits: Logits) -> dict[int, list[Reading]]:
        """Position → what is read there, as far as there are logits of it."""
        question, found = self.plan.question, dict[int, list[Reading]]()
        for reading in self.into.values:
            place = reading.position(question.encoded[prompt], question.dims)
            if ("walk clean", prompt, place) in logits:
                found.setdefault(place, []).append(reading)
        return found

    def _portions(self, cells: Sequence[int], again: Rerun) -> Iterator[list[Look]]:
        """All that is looked at, as much at a time as there is room for the logits of."""
        idlers = Counter(map(self._prompt_of, self.witnesses.idlers))
        computed = Counter(map(self._prompt_of, cells))
        looks, rows = list[Look](), 0
        for prompt in dict.fromkeys([*again.rows.clean, *idlers]):
            own = 1 + (prompt in again.rows.clean) + idlers[prompt] + 2 * computed[prompt]
            for place in self.witnesses.clean[prompt]:
                if looks and rows + own > self.logits_at_once:
                    yield looks
                    looks, rows = [], 0
                looks.append((prompt, place))
                rows += own
        if looks:
            yield looks

    def _logits(self, cells: Sequence[int], again: Rerun, looks: Sequence[Look]) -> Logits:
        """What is compared of these, unembedded together: it rounds alike then."""
        kept, finals = self.witnesses, dict[tuple[str, int, int], Tensor]()
        for prompt, place in looks:
            finals["walk clean", prompt, place] = kept.clean[prompt][place]
        for idler, own in kept.idlers.items():
            finals |= {("idler", idler, place): final for place, final in own.items()}
        for number in cells:
            row = again.rows.cells[number]
            for place, final in kept.finals[number].items():
                finals["walk", number, place] = final
                finals["reference", number, place] = again.final[place][row]
        for prompt, row in again.rows.clean.items():
            for place in kept.clean[prompt]:
                finals["reference clean", prompt, place] = again.final[place][row]
        of = {key: self._prompt_of(key[1]) if key[0] in CELLS else key[1] for key in finals}
        asked = {*looks}
        finals = {key: one for key, one in finals.items() if (of[key], key[2]) in asked}
        whole = torch.stack([*finals.values()])
        return dict(zip(finals, self.model.anatomy.unembed(self.model.hf, whole), strict=True))

    def _prompt_of(self, number: int) -> int:
        """The prompt of a cell or an idler."""
        return int(self.plan.cells.prompt[self.into.twin(np.array([number]))][0])

    def _hear(self, logits: Logits) -> Iterator[Gap]:
        """Of the idlers, whose noise is measured."""
        for (of, number, place), own in logits.items():
            if of == "idler":
                clean = logits["walk clean", self._prompt_of(number), place]
                both = own.double(), clean.double()
                self.noise = max(self.noise, judging.heard(*both))
                off, allowed = judging.of_noise(self.precision, *both)
                yield Gap(None, LOGITS, 0.0, 0.0, off, allowed, about="cells that change nothing")

    # ------------------------------------------------------------------------------------ gaps

    def _of_clean(self, again: Rerun, logits: Logits) -> Iterator[Gap]:
        """Of the clean runs."""
        for prompt in again.rows.clean:
            for place, asked in self._places(prompt, logits).items():
                own, there = (
                    logits[of, prompt, place].double() for of in ("walk clean", "reference clean")
                )
                off, fixed, times = judging.of_clean(self.precision, own, there)
                yield Gap(None, str(asked[0]), 0.0, 0.0, off, fixed, times, about="its logits")
                for reading in asked:
                    pair = Pair(own, own, there, there)
                    yield self._of_reading(None, prompt, reading, pair)

    def _of_output(self, number: int, logits: Logits) -> Iterator[Gap]:
        """Of a cell's logits, and of the metrics that are read off them."""
        prompt = self._prompt_of(number)
        for place, asked in self._places(prompt, logits).items():
            pair = Pair(
                *(
                    logits[of, n, place].double()
                    for side in ("walk", "reference")
                    for of, n in ((side, number), (f"{side} clean", prompt))
                )
            )
            shown = [self._of_reading(number, prompt, reading, pair) for reading in asked]
            first = shown[0]
            for gap in judging.of_logits(self.precision, pair):
                yield Gap(number, first.of, first.walk, first.reference, **gap)
            yield from shown

    def _of_reading(self, number: int | None, prompt: int, reading: Reading, pair: Pair) -> Gap:
        """Of a metric in a cell; or of its clean value itself."""
        into, one = self.into, self.plan.question.encoded[prompt]
        clean = float(into.clean[reading][np.searchsorted(into.prompts, prompt)])
        if number is None:
            value, clean = clean, 0.0
        else:
            value = float(into.values[reading][into.rows(np.array([number]))][0])
        wanted, off, allowed = judging.of_reading(self.precision, reading, pair, one, value, clean)
        is_value = reading.metric.unit == TOKEN_ID or reading.metric.name == "rank"
        shown = value if is_value else value - clean
        return Gap(number, str(reading), shown, wanted, off, allowed, about="the values")

    def _looks(self, rows: Rows) -> Iterator[Visit]:
        """What sees the streams right behind some cells' edits."""
        if self.witnesses.streams is not None:
            yield from self.witnesses.streams.looks(rows)

    def _of_stream(self, number: int) -> Iterator[Gap]:
        """Of a cell's stream right behind its edits."""
        streams = self.witnesses.streams
        gap = None if streams is None else streams.gap(number, self.precision)
        if gap is not None:
            yield gap

    def _of_inside(self, number: int, again: Rerun) -> Iterator[Gap]:
        """Of the metrics inside the model in a cell."""
        prompt = self._prompt_of(number)
        row = int(self.into.rows(np.array([number]))[0])
        of_prompt = int(np.searchsorted(self.into.prompts, prompt))
        behind = again.rows.cells[number] - again.rows.clean[prompt]
        for gauge in self.into.inside:
            there = again.inside[gauge, prompt].cpu().numpy()
            shape = tuple(map(slice, there.shape[1:]))
            own = self.into.inside[gauge][row][shape]
            clean = self.into.clean_inside[gauge][of_prompt][shape]
            yield self._of_gauge(number, gauge, (own - clean, there[behind] - there[0]), again)

    def _of_gauge(
        self, number: int, gauge: Gauge, both: tuple[np.ndarray, np.ndarray], again: Rerun
    ) -> Gap:
        size = max(map(float, again.sizes[gauge]))
        at, off, fixed, times = judging.of_inside(self.precision, *both, size)
        walk, reference = (float(one.ravel()[at]) for one in both)
        name = str(gauge)
        return Gap(number, name, walk, reference, off, fixed, times, name, "the values")
