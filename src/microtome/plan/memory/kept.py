"""Memory of what is kept of clean runs and cells until they are verified."""

from __future__ import annotations

from microtome.language.sites import Dimensions
from microtome.plan.memory.budget import Budget
from microtome.plan.memory.recorded import bytes_of_trace

STREAMS = 8
"""Cells whose residual stream behind their edits is kept for verification, at most."""


STREAMS_SHARE = 16
"""They take one part in so many of the memory at most, with those that they are held against."""


PAST_SHARE = 16
"""So does the past of a prompt, or it is not kept."""


def streams_kept(dims: Dimensions, length: int, budget: Budget) -> int:
    """Of how many cells of a prompt of so many tokens.

    Of none in a mixture of experts, where they are not compared.
    """
    if not budget.verified or dims.experts > 1:
        return 0
    most = STREAMS if budget.itemsize < 4 else min(STREAMS, budget.verified)
    pair = 4 * length * dims.d_model * max(budget.itemsize, 4)
    return min(most, budget.memory // STREAMS_SHARE // pair)


def bytes_of_streams(dims: Dimensions, length: int, start: int, budget: Budget) -> int:
    """What is kept of these from a position on: edited and clean, in float32 at least."""
    each = 2 * (length - start) * dims.d_model * max(budget.itemsize, 4)
    return streams_kept(dims, length, budget) * each


def bytes_of_past(dims: Dimensions, length: int, budget: Budget) -> int:
    """What is kept of a prompt's clean run so that cells may be computed again from its middle.

    0 where that is more than a part of the memory: they are computed in whole then.
    """
    own = bytes_of_trace(dims, length, length, budget.itemsize)
    return own if own <= budget.memory // PAST_SHARE else 0
