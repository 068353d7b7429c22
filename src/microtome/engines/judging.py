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

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from microtome.engines.block import Array
from microtome.model.loaded import Loaded
from microtome.prompts.encoding import Encoded
from microtome.readings.output import TOKEN_ID, Reading

EXACT = 1e-9
"""Of any logit in float64."""

INNER = 1e-6
"""The same where the family's own code computes attention or norms in float32 all the same."""

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
                eps = torch.finfo(dtype if exact else torch.float32).eps
                return cls(eps, EXACT if exact else INNER)
            case torch.float32:
                return cls(torch.finfo(dtype).eps, ROUNDING, spreads=True)
            case _:
                return cls(torch.finfo(dtype).eps, None)

    @classmethod
    def of_stream(cls, model: Loaded) -> Precision:
        """Of a model's residual stream."""
        return cls.of(model.dtype, exact=not model.anatomy.family.inner)

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

    def clean_apart(self) -> Float[Tensor, " vocab"]:
        """The same of the clean runs."""
        return _apart(self.walk_clean, self.reference_clean)


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
        allowed = precision.allows(float(pair.reference.std()))
        yield {"difference": float(apart.abs().max()), "fixed": allowed}


def of_clean(
    precision: Precision, walk: Float[Tensor, " vocab"], reference: Float[Tensor, " vocab"]
) -> tuple[float, float, float]:
    """The gap of the clean runs' own logits."""
    apart = _apart(walk, reference)
    if precision.promise is not None:
        return float(apart.abs().max()), precision.allows(float(reference.std())), 0.0
    return float(apart.norm()), 2 * UNITS * precision.eps * _norm(reference), TIMES


def of_noise(
    precision: Precision, idler: Float[Tensor, " vocab"], clean: Float[Tensor, " vocab"]
) -> tuple[float, float]:
    """How far a cell that changes nothing is from the clean run on the walk, and may be."""
    apart = _apart(idler, clean)
    if precision.promise is not None:
        return float(apart.abs().max()), precision.allows(float(clean.std()))
    return float(apart.norm()), NOISIEST * precision.eps * _norm(clean)


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
    moved = _moved(precision, pair)
    if reading.metric.unit == TOKEN_ID:
        below = float(pair.reference.max() - pair.reference[int(value)])
        return wanted, below, 2 * moved
    if reading.metric.name == "rank":
        least, most = _ranks(pair.reference, int(getattr(one, reading.of)), 2 * moved)
        return wanted, max(least - value, value - most, 0.0), 0.5
    if clean:
        wanted -= float(reading.measure(without, without, one))
    steep = 1.0 if reading.metric.name == "logit" else 2.0
    if reading.metric.name == "logit_corr":
        spread = float(pair.reference.std())
        steep = 2.0 / spread if spread else float("inf")
    off = _number(value - clean - wanted, value - clean, wanted)
    return wanted, off, steep * moved


def _moved(precision: Precision, pair: Pair) -> float:
    """How far a logit may be off; in half precision as far as one was seen to be, and rounding."""
    if precision.promise is not None:
        return precision.allows(float(pair.reference.std()))
    seen = _apart(pair.walk, pair.reference).abs().max() + pair.clean_apart().abs().max()
    top = torch.maximum(pair.reference.abs().max(), pair.reference_clean.abs().max())
    return float(seen + 2 * precision.eps * top)


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
    return torch.where(~one.isfinite() & ~other.isfinite(), torch.zeros_like(apart), apart)


def _number(difference: float, one: float, other: float) -> float:
    """How large a difference is; none where both are no finite numbers."""
    return abs(difference) if np.isfinite(one) or np.isfinite(other) else 0.0


def _norm(values: Tensor) -> float:
    """Of what is finite."""
    return float(torch.where(values.isfinite(), values, torch.zeros_like(values)).norm())
