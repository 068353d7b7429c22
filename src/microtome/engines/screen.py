"""Screening: the whole map in a coarse type first, then its strongest cells again, exactly.

Half-precision matrix products are several times as fast, and most cells of a large map do nothing.
The result says which cells are which, how far the coarse values of the strong ones were off, and
every effect is a difference of two values of one precision.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from microtome.engines.assembled import Assembled
from microtome.engines.block import Array
from microtome.errors import MetricError, SweepError, there_are
from microtome.language.regions import Column
from microtome.model.loaded import Loaded
from microtome.model.placement import copy_in, why_no_copy
from microtome.plan.plan import Plan
from microtome.readings.registry import Asked

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True, eq=False)
class Screening:
    """What a screened sweep did.

    Attributes:
        dtype: the coarse type.
        refined: which cells were computed again, of the plan's shape.
        clean: per metric on the output, the clean values of the coarse runs, ``[prompt]``.
        clean_inside: the same of the metrics inside the model.
        off: per metric, the largest difference between the two values of a refined cell.
    """

    dtype: str
    refined: np.ndarray[Any, np.dtype[np.bool_]]
    clean: dict[str, Array]
    clean_inside: dict[str, Array]
    off: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """What the provenance keeps."""
        return {
            "dtype": self.dtype,
            "refined": int(self.refined.sum()),
            "verifiable": "the refined cells alone",
            "largest_difference": dict(self.off),
        }


def coarse(model: Loaded, dtype: str, first: Asked) -> Loaded:
    """A copy of a model in another type, beside it in memory.

    Raises:
        SweepError: the type does not exist, or is not coarser than the model's.
        MetricError: the first metric has no effects to rank cells by.
    """
    if first.metric.unit == "token id":
        raise MetricError(f"screen= ranks cells by the first metric, and {first} is a token id.")
    kind = dtype_of(dtype)
    if torch.finfo(kind).eps <= torch.finfo(model.dtype).eps:
        raise SweepError(
            f"screen={dtype!r} is not coarser than the model, which is in {model.dtype}: leave "
            "screen= out, or load the model in a finer type."
        )
    why = why_no_copy(model.hf)
    if why is not None:
        raise SweepError(
            f"screen={dtype!r} runs a copy of the model in a coarser type, and this one cannot be "
            f"copied: {why}. Leave screen= out."
        )
    return replace(model, hf=copy_in(model.hf, kind))


def dtype_of(name: str) -> torch.dtype:
    """The type of a name.

    Raises:
        SweepError: there is none.
    """
    if name not in DTYPES:
        raise SweepError(f"screen={name!r} does not exist; {there_are(name, DTYPES)}")
    return DTYPES[name]


def strongest(plan: Plan, rough: Assembled, refine: int) -> Column:
    """The numbers of the cells with the largest effects on the first metric, in order."""
    values = _effects(rough, plan.question.asked[0])
    own = np.abs(values[tuple(plan.cells.points.T)])
    own = np.where(np.isnan(own), np.inf, own)  # what overflowed has to be looked at again
    numbers: Column = np.sort(np.argsort(-own, kind="stable")[:refine])
    return numbers


def _effects(rough: Assembled, first: Asked) -> Array:
    """The effects on a metric, of the plan's shape; of the values of one inside the model the
    largest."""
    name = str(first)
    if not first.inside:
        values, clean = rough.values[name], rough.clean[name]
        return values - clean.reshape(-1, *[1] * (values.ndim - 1))
    values, clean = rough.inside[name], rough.clean_inside[name]
    inner = clean.ndim - 1
    between = [1] * (values.ndim - clean.ndim)
    clean = clean.reshape(len(clean), *between, *clean.shape[1:])
    # A shorter prompt has not all positions, and a cosine with nothing is undefined: no effect.
    change = np.where(np.isnan(clean), 0.0, np.abs(values - clean))
    largest: Array = change.reshape(*change.shape[: change.ndim - inner], -1).max(axis=-1)
    return largest


def merged(
    dtype: str, plan: Plan, numbers: Column, rough: Assembled, fine: Assembled
) -> tuple[Assembled, Screening]:
    """The fine values for the cells with these numbers, else the rough ones."""
    refined = np.zeros(plan.shape, dtype=bool)
    refined[tuple(plan.cells.points[numbers].T)] = True
    off: dict[str, float] = {}

    def both(of: str | None, coarse_: Array, exact: Array) -> Array:
        mask = refined.reshape(*refined.shape, *[1] * (exact.ndim - refined.ndim))
        mask = np.broadcast_to(mask, exact.shape)
        if of is not None:
            gap = np.abs(exact - coarse_)[mask]
            off[of] = float(np.nanmax(gap)) if np.isfinite(gap).any() else 0.0
        return np.where(mask, exact, coarse_)

    whole = replace(
        fine,
        values={r: both(r, rough.values[r], exact) for r, exact in fine.values.items()},
        inside={p: both(p, rough.inside[p], exact) for p, exact in fine.inside.items()},
        changed=both(None, rough.changed, fine.changed),
        norm=both(None, rough.norm, fine.norm),
        noise={name: max(own, rough.noise.get(name, 0.0)) for name, own in fine.noise.items()},
        work=fine.work + rough.work,
        notes=rough.notes + fine.notes,
    )
    return whole, Screening(dtype, refined, rough.clean, rough.clean_inside, off)
