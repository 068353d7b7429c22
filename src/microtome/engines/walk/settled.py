"""Cells of edges whose writer's share is not changed at all: they are the clean run.

A donor's embedding is the prompt's where their tokens are the same; a head may write exactly what
it writes there. What an edge changes is known before anything runs, so such cells need no run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from microtome.edits.sources import Sources
from microtome.engines.walk.batches import Company
from microtome.language.edges import Edge
from microtome.language.regions import Column
from microtome.plan.plan import Plan
from microtome.plan.starts import Starts

Bools = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]

TOGETHER = 64
"""Writers whose changes are made at a time."""


def settled(plan: Plan, company: Company, sources: Sources) -> tuple[Company, Mapping[int, Column]]:
    """Some prompts without the cells that change nothing; and those, per prompt."""
    still = {prompt: _still(plan, prompt, company, sources) for prompt in company.prompts}
    moving = {
        prompt: Starts(*(column[~np.isin(own.cells, still[prompt])] for column in own))
        for prompt, own in company.starts.items()
    }
    return replace(company, starts=moving), still


def _still(plan: Plan, prompt: int, company: Company, sources: Sources) -> Column:
    """The cells of a prompt all of whose edits change exactly nothing, by number."""
    cells = plan.cells
    numbers: Column = company.starts[prompt].cells
    still = np.full(len(numbers), all(isinstance(e.address, Edge) for e in plan.question.edits))
    for variant, edits in enumerate(cells.edits):
        for number in range(len(edits)):
            asked = np.flatnonzero(still & (cells.variant[numbers] == variant))
            if len(asked):
                still[asked] = _inert(plan, prompt, sources, (variant, number), numbers[asked])
    found: Column = numbers[still]
    return found


def _inert(
    plan: Plan, prompt: int, sources: Sources, which: tuple[int, int], numbers: Column
) -> Bools:
    """In which cells an edit changes nothing of the writer's share, ``[cell]``."""
    variant, number = which
    cells, one = plan.cells, plan.question.encoded[prompt]
    share = cells.shares[prompt][number]
    assert share is not None, "an edge has a writer"
    if not share.since(cells.live[prompt]).shape[0]:
        return np.ones(len(numbers), dtype=bool)
    values = cells.values(numbers)
    kinds, of = share.unlike(values, len(numbers))
    edit = cells.edits[variant][number]
    same = np.empty((int(of.max()) + 1, share.since(cells.live[prompt]).shape[0]), dtype=bool)
    for first in range(0, len(same), TOGETHER):
        some = {name: column[first : first + TOGETHER] for name, column in kinds.items()}
        size = min(TOGETHER, len(same) - first)
        table = sources.change(edit, one, some, size, cells.live[prompt]).table
        same[first : first + size] = (table == 0).all(2).cpu().numpy()
    found: Bools = same[of]
    if isinstance(edit.address, Edge) and edit.address.is_path:
        found = found | ~_leads(edit.address, plan, prompt, number, values, len(numbers))
    return np.asarray(found.all(1))


def _leads(
    path: Edge, plan: Plan, prompt: int, number: int, stars: Mapping[str, Column], cells: int
) -> Bools:
    """Whether a way leads from a position of the writer to one of the reader's, ``[cell, pos]``.

    Heads alone move anything, to later positions in a decoder: those that the path goes through,
    and those that it ends at.
    """
    share, lands = plan.cells.shares[prompt][number], plan.cells.layouts[prompt][number]
    assert share is not None, "an edge has a writer"
    written = share.since(plan.cells.live[prompt]).at(None, stars, cells).columns[0]
    read = lands.at(None, stars, cells).columns[0]
    if "head" not in (path.via or ()) and path.site.name != "z":
        return np.asarray((written[:, :, None] == read[:, None, :]).any(2))
    if not plan.cells.causal:
        return np.ones_like(written, dtype=bool)
    return np.asarray(written <= read.max(1, keepdims=True))
