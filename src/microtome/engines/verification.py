"""Verification: some cells of a unit computed again on the reference path, and held against it.

They are the cell with the largest effect, the one that was changed most, and others spread over the
map; of some of them the residual stream right behind their edits is compared too (`engines.local`).
How far the two paths are apart in a cell is part of the noise floor.

Where nothing stands out from the noise there is more to doubt, and more are computed: a walk that
left its edits out would look just so. How closely effects have to agree is in `engines.judging`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from microtome.engines.block import Block
from microtome.engines.choosing import spread
from microtome.engines.collector import Collector
from microtome.engines.comparison import Comparison
from microtome.engines.judging import LOGITS, Precision, are_many_off
from microtome.engines.local import CANDIDATES, LEAST, Streams
from microtome.engines.rerun import rows_at_once
from microtome.engines.walk.walk import Walk
from microtome.engines.witnesses import Witnesses
from microtome.errors import VerificationError
from microtome.language.sites import APART, OF_HEADS
from microtome.passes.session import session
from microtome.plan.memory.kept import bytes_of_past, streams_kept
from microtome.plan.memory.whole import compared_at_once
from microtome.plan.plan import Plan
from microtome.plan.units import Unit, passes_of
from microtome.plan.verify import SHARE, Verify
from microtome.readings.inside import Gauge

DOUBT = 4.0
"""Effects up to so many times the noise floor may be noise, and nothing else."""

UNITS = 16.0
"""So may effects of so many units of rounding of the clean value."""


IN_THE_OPEN = ("pattern", *OF_HEADS, *APART)
"""Sites whose edits take attention, or what it reads and writes, apart."""


@dataclass(frozen=True)
class Verification:
    """What was recomputed, and how far apart the two paths were.

    Attributes:
        cells: how many cells were recomputed.
        largest_difference: of what came nearest to its tolerance; None where nothing was
            recomputed.
        tolerance: what was allowed for it.
        why: what this rests on, in words.
        noise: the largest norm, over the vocabulary, of what a cell that changes nothing does to
            the logits.
    """

    cells: int
    largest_difference: float | None
    tolerance: float | None
    why: str
    noise: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Its fields as plain values."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Verified:
    """An executor that holds some cells of every unit against the reference path.

    Attributes:
        walk: the executor whose cells are verified.
        verify: how many.
        seed: of their choice.
    """

    walk: Walk
    verify: Verify
    seed: int

    def run(self, unit: Unit) -> Block:
        """Compute the cells of a unit, and some of them again.

        Raises:
            VerificationError: a cell is beyond the tolerance.
        """
        with session(self.walk.model.hf, self.walk.model.anatomy):
            return self._run(unit)

    def _run(self, unit: Unit) -> Block:
        plan, model = self.walk.plan, self.walk.model
        length = len(plan.question.encoded[unit.prompts[0]].tokens.read)
        passes = passes_of(plan.cells, unit, length, plan.question.dims)
        some = self.verify.of_unit(len(plan.numbers(unit)), passes, len(plan.units))
        if not some:
            nothing = Verification(0, None, None, "nothing was recomputed")
            return replace(self.walk.run(unit), verification=nothing.as_dict())
        every = self.verify.cells is None
        precision = Precision.of_stream(model)
        few = CANDIDATES if precision.promise is None else 0
        chosen = spread(plan, unit, max(some, few), self.seed)
        into, at_once = (
            Collector.of(plan, unit),
            rows_at_once(plan, unit, self.walk.budget),
        )
        budget = replace(self.walk.budget, verified=max(some, self.walk.budget.verified))
        streams = streams_kept(plan.question.dims, length, budget)
        witnesses = Witnesses(into, frozenset(chosen), most=at_once if every else None)
        witnesses.streams = Streams.of(plan, chosen[:streams])
        cheap = 1 + some <= SHARE * passes
        fits = bytes_of_past(plan.question.dims, length, budget) > 0
        witnesses.remembers = not (every or cheap) and fits and _go_on(plan, unit, precision)
        logits = compared_at_once(plan.question.dims, budget)
        compared = Comparison(model, self.walk.sources, witnesses, precision, at_once, logits)
        witnesses.full = lambda: compared.take([*witnesses.finals])
        self.walk.collect(unit, into, witnesses)
        block = into.block(unit)
        kept = [*witnesses.finals]
        compared.take(kept if every else _among(witnesses, chosen, some, block, precision))
        if compared.is_in_doubt(block.noise):
            compared.take([number for number in witnesses.finals if number not in compared.done])
        found = _judged(compared, block.noise, every)
        noise = _uncertainty(compared, block.noise)
        return replace(block, noise=noise, verification=found.as_dict())


def _go_on(plan: Plan, unit: Unit, precision: Precision) -> bool:
    """Whether cells may be computed again from the first edited position on.

    Of one prompt in a decoder, where attention is the model's own as a whole, and rounds to float32
    at least: in half precision it would round otherwise than in the walk, which does so on purpose
    as whole prompts do. Not of a corrupted run, whose edits might be before that position.
    """
    question = plan.question
    sites = {layout.site.name for layout in plan.cells.layouts[unit.prompts[0]]}
    plain = not question.gauges and sites.isdisjoint(IN_THE_OPEN)
    alone = len(unit.prompts) == 1 and question.dims.causal and not question.corruption
    return alone and plain and precision.promise is not None


def _among(
    witnesses: Witnesses, chosen: Sequence[int], some: int, block: Block, precision: Precision
) -> list[int]:
    """The cells to compute again: so many, or more where nothing stands out from the noise."""
    changed = sorted(witnesses.changed.values(), key=lambda own: -own[1])
    by_change = [number for number, _ in changed]
    first, strongest, stands_out = witnesses.first, [], False
    if witnesses.strongest is not None and first is not None:
        number, effect = witnesses.strongest
        values = block.clean_inside if isinstance(first, Gauge) else block.clean
        clean = values[str(first)]
        size = float(np.abs(clean[np.isfinite(clean)]).max(initial=0.0))
        noise = DOUBT * block.noise.get(str(first), 0.0) + UNITS * precision.eps * size
        # An effect that is no number (of a token that cannot be) does not tell an edit from none.
        strongest, stands_out = [number], noise < effect < np.inf
    found = [*dict.fromkeys([*strongest, *by_change[:1], *chosen])][:some]
    if precision.promise is None:
        found = [*dict.fromkeys([*found, *_local(witnesses, chosen)])]
    if stands_out or first is None:
        return found
    return [*dict.fromkeys([*found, *by_change])]


def _local(witnesses: Witnesses, chosen: Sequence[int]) -> list[int]:
    """Cells whose streams are compared: one of those kept, and those that were changed most."""
    streams = witnesses.streams
    kept = [] if streams is None else [number for number in chosen if number in streams.walk]
    norm = witnesses.into.norm[witnesses.into.rows(np.array(kept, dtype=np.int64))]
    by_change = [kept[n] for n in np.argsort(-norm, kind="stable")]
    return [*dict.fromkeys([*kept[:1], *by_change])][:LEAST]


def _uncertainty(compared: Comparison, noise: Mapping[str, float]) -> dict[str, float]:
    """The noise floor: what idlers do, or how far the two paths are apart in a cell."""
    found = dict(noise)
    for gap in compared.gaps:
        apart = abs(gap.walk - gap.reference)
        if gap.cell is not None and gap.of in found and np.isfinite(apart):
            found[gap.of] = max(found[gap.of], apart)
    return found


def _judged(compared: Comparison, noise: Mapping[str, float], every: bool) -> Verification:
    """The verdict.

    Raises:
        VerificationError: something is beyond what is allowed.
    """
    noise = {**noise, LOGITS: compared.noise}
    worst = None
    gaps = [*compared.gaps, *compared.local]
    for gap in sorted(gaps, key=lambda own: own.cell is None):  # of cells first
        allowed = gap.tolerance(noise)
        if not gap.difference <= allowed:
            raise VerificationError(compared.complaint(gap, allowed))
        ratio = gap.difference / allowed if allowed else 0.0
        if gap.promised and (worst is None or ratio > worst[0]):
            worst = ratio, gap.difference, allowed
    many = are_many_off(compared.gaps, noise)
    if many is not None:
        raise VerificationError(compared.complaint(many, many.narrow or 0.0))
    which = "the cell with the largest effect, the one that was changed most, and some over the map"
    why = (
        f"{'every cell' if every else which}; compared were their effects, the changes of all "
        "logits at the positions read, and in some the change right behind the edit"
    )
    if max(compared.starts, default=0):
        why += (
            f"; they ran from position {min(compared.starts)} on, behind the clean run's own keys "
            "and values, which the clean run was held to from there as well"
        )
    difference, tolerance = (None, None) if worst is None else worst[1:]
    return Verification(len(compared.done), difference, tolerance, why, compared.noise)
