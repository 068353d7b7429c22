"""How far apart two ways of computing a cell may be.

What is compared are effects: a cell minus the clean run, each on its own path. The logits over the
whole vocabulary are, where metrics look, as one vector; so whatever is read off them is right, and
where an edit is left out, or lands elsewhere, the two vectors are as far apart as its effect is
large. What is allowed has three parts:

- what cells that change nothing were seen to do (the noise floor of the unit), some times;
- rounding of the type, of logits as large as these: it may come in where no idler met it;
- a share of the change itself, since what follows an edit rounds otherwise than the clean run.

In float32 and float64 the promise counts besides: no logit, nor any value, is off by more.

In half precision one value that is rounded to its other neighbour may be heard in all logits after
some layers, as loudly as a weak edit. But where idlers are silent that is rare, and a walk that is
wrong is so in every cell. So there are two measures: no cell may be beyond the wide one, and not
nearly all beyond the narrow one (`are_many_off`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from microtome.engines.block import Array
from microtome.model.loaded import Loaded
from microtome.prompts.encoding import Encoded
from microtome.readings.output import TOKEN_ID, Reading

EXACT = 1e-9
"""Of any logit in float64."""

INNER = 1e-6
"""The same where the family's own code computes attention or norms in float32 all the same, times
the logits' standard deviation where that is above 1."""

ROUNDING = 5e-5
"""Of any logit in float32, times their standard deviation where that is above 1."""

TIMES = 4.0
"""How many times the noise floor two effects may be apart."""

UNITS = 2.0
"""And how many units of rounding of their type, of logits of their size."""

MORE_UNITS = 64.0
"""The same in float32 and float64, where a change is small beside what is promised anyway."""

NOISIEST = 8.0
"""Units of rounding that idlers may have in half precision. A walk that is wrong in cells that
change nothing is not excused by calling that its noise."""

NARROW = 0.125
"""The same by the narrow measure."""

MANY = 0.75
"""The share of cells that may be beyond it."""

FEW = 2
"""Cells say nothing about a share that are fewer."""

SHARE = 0.1
"""And what share of the change."""

MOST_MOVED = 100.0
"""Logits that move farther leave nothing of a probability as it was."""

LOGITS = "logits"
"""The name of the logits' own noise: the norm over the vocabulary."""


@dataclass(frozen=True)
class Precision:
    """What rounding may do.

    Attributes:
        eps: the unit of rounding of what is computed in.
        promise: of any value in float32 and float64; None in half precision.
        spreads: the promise grows with the standard deviation of the logits.
    """

    eps: float
    promise: float | None
    spreads: bool = False

    @classmethod
    def of(cls, dtype: torch.dtype, exact: bool = True) -> Precision:
        """Of the residual stream's type, in a family that computes in it throughout, or does not.

        >>> Precision.of(torch.float64).promise, Precision.of(torch.bfloat16).promise
        (1e-09, None)
        """
        match dtype:
            case torch.float64:
                if exact:
                    return cls(torch.finfo(dtype).eps, EXACT)
                return cls(torch.finfo(torch.float32).eps, INNER, spreads=True)
            case torch.float32:
                return cls(torch.finfo(dtype).eps, ROUNDING, spreads=True)
            case _:
                return cls(torch.finfo(dtype).eps, None)

    @classmethod
    def of_stream(cls, model: Loaded) -> Precision:
        """Of a model's residual stream."""
        return cls.of(model.dtype, exact=not model.anatomy.family.inner)

    def hearing(self, moved: float) -> Precision:
        """The same, where rounding alone moves a logit so far for each unit of `allows`' spread."""
        assert self.promise is not None, "half precision promises no figure"
        return replace(self, promise=max(self.promise, TIMES * moved))

    def allows(self, spread: float) -> float:
        """The promise, for values that spread so far."""
        assert self.promise is not None, "half precision promises no figure"
        return self.promise * max(1.0, spread) if self.spreads else self.promise


@dataclass(frozen=True)
class Gap:
    """How far apart the two paths are in one thing.

    Attributes:
        cell: its number; None where it is the clean run.
        of: the metric.
        walk, reference: its effect on either path.
        difference: of effects: the norm over the vocabulary, or the largest.
        fixed: what is allowed whatever the noise is.
        times: how many times the noise is allowed besides.
        noise: of what.
        about: what it is that differs.
        promised: what is allowed is what is promised, or nothing is.
        narrow: what is allowed by the narrow measure, whatever the noise is; None where there is
            none.
        change: how large the larger of the two changes is.
    """

    cell: int | None
    of: str
    walk: float
    reference: float
    difference: float
    fixed: float
    times: float = 0.0
    noise: str = LOGITS
    about: str = "the changes of its logits"
    promised: bool = True
    narrow: float | None = None
    change: float = 0.0

    def tolerance(self, noise: Mapping[str, float]) -> float:
        """What is allowed."""
        return self.fixed + self._heard(noise)

    @property
    def is_beyond_fixed(self) -> bool:
        """Whether it is beyond what is allowed where no noise counts."""
        return not self.times and not self.difference <= self.fixed

    def is_beyond_narrow(self, noise: Mapping[str, float]) -> bool | None:
        """Whether it is beyond the narrow measure; None where that is larger than the change."""
        if self.narrow is None or not self.change > self.narrow + self._heard(noise):
            return None
        return not self.difference <= self.narrow + self._heard(noise)

    def _heard(self, noise: Mapping[str, float]) -> float:
        return self.times * noise.get(self.noise, 0.0) if self.times else 0.0


@dataclass(frozen=True, eq=False)
class Pair:
    """Logits of one cell at one position, and those of the clean run, on both paths, float64."""

    walk: Float[Tensor, " vocab"]
    walk_clean: Float[Tensor, " vocab"]
    reference: Float[Tensor, " vocab"]
    reference_clean: Float[Tensor, " vocab"]

    def apart(self) -> Float[Tensor, " vocab"]:
        """How far the two changes are apart; what is no number on both paths is not."""
        return _apart(self.walk - self.walk_clean, self.reference - self.reference_clean)

    def apart_edited(self) -> Float[Tensor, " vocab"]:
        """The same of the cell's logits themselves."""
        return _apart(self.walk, self.reference)

    def clean_apart(self) -> Float[Tensor, " vocab"]:
        """The same of the clean runs."""
        return _apart(self.walk_clean, self.reference_clean)

    @property
    def possible(self) -> Bool[Tensor, " vocab"]:
        """The tokens that both runs of the reference path hold possible."""
        return self.reference.isfinite() & self.reference_clean.isfinite()


def are_many_off(gaps: Iterable[Gap], noise: Mapping[str, float]) -> Gap | None:
    """The worst gap, where nearly all are beyond the narrow measure."""
    heard = [(gap, gap.is_beyond_narrow(noise)) for gap in gaps]
    off = [gap for gap, beyond in heard if beyond]
    said = sum(beyond is not None for _, beyond in heard)
    if said < FEW or len(off) <= MANY * said:
        return None
    return max(off, key=lambda gap: gap.difference)


def of_logits(precision: Precision, pair: Pair) -> Iterator[dict[str, Any]]:
    """What the gaps of the changes of logits have: differences, and what is allowed."""
    change, own = _norm(pair.reference - pair.reference_clean), _norm(pair.walk - pair.walk_clean)
    size, clean = _norm(pair.reference), _norm(pair.reference_clean)
    apart, rounding = pair.apart(), precision.eps * max(size, clean)
    grown = max(1.0, size / clean) if clean else 1.0
    exact = precision.promise is not None
    yield {
        "difference": float(apart.norm()),
        "fixed": (MORE_UNITS if exact else UNITS) * rounding + SHARE * change,
        "times": TIMES * grown,
        "promised": not exact,
        "narrow": None if exact else NARROW * rounding + SHARE * change,
        "change": max(change, own),
    }
    if exact:
        allowed = precision.allows(_spread(pair.reference))
        yield {"difference": float(apart.abs().max()), "fixed": allowed}


def of_clean(
    precision: Precision, walk: Float[Tensor, " vocab"], reference: Float[Tensor, " vocab"]
) -> tuple[float, float, float]:
    """The gap of the clean runs' own logits."""
    apart = _apart(walk, reference)
    if precision.promise is not None:
        return float(apart.abs().max()), precision.allows(_spread(reference)), 0.0
    return float(apart.norm()), 2 * UNITS * precision.eps * _norm(reference), TIMES


def of_noise(
    precision: Precision, idler: Float[Tensor, " vocab"], clean: Float[Tensor, " vocab"]
) -> tuple[float, float]:
    """How far a cell that changes nothing is from the clean run on the walk, and may be."""
    apart = _apart(idler, clean)
    if precision.promise is not None:
        return float(apart.abs().max()), precision.allows(_spread(clean))
    return float(apart.norm()), NOISIEST * precision.eps * _norm(clean)


def heard(idler: Float[Tensor, " vocab"], clean: Float[Tensor, " vocab"]) -> float:
    """The noise of a cell that changes nothing: the norm of what is finite of its change."""
    return _norm(_apart(idler, clean))


def moved(one: Float[Tensor, " vocab"], other: Float[Tensor, " vocab"]) -> float:
    """How far the farthest logit of a run is from another's, for each unit of their spread."""
    return _top(_apart(one, other)) / max(1.0, _spread(other))


def of_reading(
    precision: Precision, reading: Reading, pair: Pair, one: Encoded, value: float, clean: float
) -> tuple[float, float, float]:
    """Of a metric in the walk: its effect on the reference path, how far it is off, what may be.

    A metric moves no more than logits do, times its steepness. What jumps (a rank, a token) has to
    be what some logits near the reference path's have.

    Args:
        precision: of the stream.
        reading: the metric.
        pair: the logits.
        one: the prompt.
        value: of the metric in the walk.
        clean: the same without edits; 0 where the value itself is compared.
    """
    there, without = pair.reference[None], pair.reference_clean[None]
    wanted = float(reading.measure(there, without, one))
    if math.isnan(wanted) or math.isnan(value):  # of no logits that are numbers nothing is read
        return wanted, 0.0 if math.isnan(wanted) and math.isnan(value) else math.nan, 0.0
    moved = _moved(precision, pair)
    if reading.metric.unit == TOKEN_ID:
        below = float(pair.reference.max() - pair.reference[int(value)])
        return wanted, below, 2 * moved
    if reading.metric.name == "rank":
        least, most = _ranks(pair.reference, int(getattr(one, reading.of)), 2 * moved)
        return wanted, max(least - value, value - most, 0.0), 0.5
    if clean:
        wanted -= float(reading.measure(without, without, one))
    off = _number(value - clean - wanted, value - clean, wanted)
    return wanted, off, _reach(reading, pair, moved)


def _reach(reading: Reading, pair: Pair, moved: float) -> float:
    """How far a metric moves at most where the logits of the two runs move so far, together."""
    match reading.metric.name:
        case "logit":
            return moved
        case "logit_corr":
            # Two directions turn, each by a move's share of what it spreads.
            spreads = [
                _spread(one[pair.possible]) for one in (pair.reference, pair.reference_clean)
            ]
            return moved * sum(1 / own if own else math.inf for own in spreads)
        case "kl":
            return 2 * moved + _tilt(pair, moved)
        case _:
            return 2 * moved


def _tilt(pair: Pair, moved: float) -> float:
    """How far KL(P‖Q) moves by moving the weights P, the terms log P/Q as they are.

    Each weight grows or shrinks by a factor of e^(2·moved) at most, so the mean of terms moves by
    so much of their mean distance from it, and by no more than the terms are apart.
    """
    clean, edited = (
        one[pair.possible].log_softmax(-1) for one in (pair.reference_clean, pair.reference)
    )
    if not len(clean):
        return 0.0
    terms, weights = clean - edited, clean.exp()
    distance = float((weights * (terms - (weights * terms).sum()).abs()).sum())
    grown = math.expm1(min(2 * moved, MOST_MOVED)) * distance
    return min(grown, float(terms.max() - terms.min()))


def _moved(precision: Precision, pair: Pair) -> float:
    """How far a logit may be off; in half precision as far as one was seen to be, and rounding."""
    if precision.promise is not None:
        return precision.allows(_spread(pair.reference))
    seen = _top(pair.apart_edited()) + _top(pair.clean_apart())
    top = max(_top(pair.reference), _top(pair.reference_clean))
    return seen + 2 * precision.eps * top


def _ranks(logits: Float[Tensor, " vocab"], token: int, moved: float) -> tuple[float, float]:
    """The least and the most that a token's rank may be where logits move."""
    own = logits[token]
    return float((logits > own + moved).sum() + 1), float((logits > own - moved).sum() + 1)


def of_inside(
    precision: Precision, walk: Array, reference: Array, size: float
) -> tuple[int, float, float, float]:
    """Of a metric inside the model: where the gap is largest, how large, and what may be."""
    both = np.isnan(walk) & np.isnan(reference)
    apart = np.where(both, 0.0, np.abs(walk - reference))
    at = int(np.argmax(apart))  # a NaN comes first
    off = float(apart.ravel()[at])
    if precision.promise is not None:
        return at, off, precision.allows(size), 0.0
    change = np.nan_to_num(np.abs(reference), nan=0.0, posinf=0.0).max(initial=0.0)
    return at, off, UNITS * precision.eps * size + SHARE * float(change), TIMES


def _apart(one: Tensor, other: Tensor) -> Tensor:
    apart = one - other
    if _is_finite(apart):
        return apart
    return torch.where(~one.isfinite() & ~other.isfinite(), torch.zeros_like(apart), apart)


def _number(difference: float, one: float, other: float) -> float:
    """How large a difference is; none where both are no finite numbers."""
    return abs(difference) if np.isfinite(one) or np.isfinite(other) else 0.0


def _finite(values: Tensor) -> Tensor:
    """What is finite: a logit of −∞ is a token that cannot be, and says nothing of rounding."""
    return values if _is_finite(values) else values[values.isfinite()]


def _is_finite(values: Tensor) -> bool:
    """Whether all are, as far as their sum tells: a look at each takes ten times as long."""
    return math.isfinite(values.sum())


def _norm(values: Tensor) -> float:
    return float(_finite(values).norm())


def _spread(values: Tensor) -> float:
    """The standard deviation."""
    own = _finite(values)
    return float(own.std()) if len(own) > 1 else 0.0


def _top(values: Tensor) -> float:
    """The largest absolute value."""
    return float(torch.nn.functional.pad(_finite(values).abs(), (0, 1)).max())
