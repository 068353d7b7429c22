"""Memory of what is there while some prompts are walked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from microtome.amounts import many
from microtome.errors import SweepError
from microtome.language.operations import Operation, Source
from microtome.language.order import recorded_of
from microtome.language.sites import Dimensions
from microtome.plan.cells import Cells
from microtome.plan.memory.budget import Budget
from microtome.plan.memory.kept import bytes_of_streams
from microtome.plan.memory.needs import LOOKED, wide
from microtome.plan.memory.recorded import (
    bytes_of_block,
    bytes_of_gauges,
    bytes_of_means,
    bytes_of_source,
    bytes_of_trace,
)
from microtome.plan.paths import bytes_beside, bytes_on_the_way
from microtome.plan.question import Question


@dataclass(frozen=True)
class Held:
    """What is recorded while some prompts of one length are walked.

    Attributes:
        prompts: how many at a time.
        bytes: of their clean runs, of the donors' and reference prompts' activations, and of the
            streams that verification keeps.
        passes: bytes that the pass of the clean runs takes, besides.
    """

    prompts: int
    bytes: int
    passes: int


def held_for(
    question: Question,
    cells: Cells,
    prompts: Sequence[int],
    length: int,
    start: int,
    budget: Budget,
) -> Held:
    """How many of a unit's prompts to walk together, from a first edited position on.

    As many as fill a tile, if they take no more than a quarter of the memory.

    Raises:
        SweepError: not even one of them fits.
    """
    dims, gauges, itemsize = question.dims, question.gauges, budget.itemsize
    recorded = max(
        sum(_recorded(cells, edits, prompts[0], dims, length, itemsize)) for edits in cells.edits
    )
    each = bytes_of_trace(dims, length, start, itemsize) + recorded
    each += bytes_of_gauges(dims, gauges, length, itemsize)
    each += bytes_beside(cells, dims, length, itemsize)
    fixed = bytes_of_means(question)
    fixed += bytes_on_the_way(cells, prompts, dims, length - start, budget.memory, itemsize)
    if budget.verified:
        fixed += bytes_of_streams(dims, length, start, budget)
    # Donors may go along in the pass; and prompts again, of which more is recorded.
    inside = bytes_of_block(dims, length, itemsize) * (1 + texts_of(cells))
    looked = [*(layout.site for layout in cells.layouts[prompts[0]]), *(g.site for g in gauges)]
    inside += LOOKED * wide(looked, dims) * length * dims.d_model * itemsize
    fit = min(budget.tile // length, len(prompts), budget.memory // 4 // max(each, inside))
    together = max(1, fit)
    held = Held(together, fixed + together * each, together * inside)
    if held.bytes + held.passes > budget.memory:
        raise SweepError(
            f"memory={budget.memory:,} bytes are too few: the clean run of a prompt of "
            f"{many(length, 'token')} needs {held.bytes + held.passes:,}. Give more, or ask for "
            "shorter prompts."
        )
    return held


def _recorded(
    cells: Cells,
    edits: Sequence[Operation],
    prompt: int,
    dims: Dimensions,
    length: int,
    itemsize: int,
) -> Iterator[int]:
    """Bytes of what edits need of a prompt's donor, and of what its writers write in both."""
    layouts, shares = cells.layouts[prompt], cells.shares[prompt]
    for edit, layout, share in zip(edits, layouts, shares, strict=True):
        own = layout if share is None else recorded_of(share, dims)
        texts = (edit.source is Source.DONOR) + (share is not None)
        yield texts * bytes_of_source(own, dims, length, itemsize)


def texts_of(cells: Cells) -> int:
    """How many texts of each prompt are run besides its clean run: of its donor, and its own."""
    donors = any(edit.source is Source.DONOR for edits in cells.edits for edit in edits)
    return donors + any(share is not None for share in cells.shares[0])
