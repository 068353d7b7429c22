"""Some cells on the reference path again: one hooked pass of the unmodified model for all of them.

Its rows are the clean runs of some prompts of one length and the cells to compare; each row has the
edits of its cell, made by the same code as on the reference path. The unembedding reads no more
than where metrics look.

Where the past of a prompt is given, the pass goes on from it: it begins at the first position that
any of the cells edits or a metric reads, with transformers' own cache of the clean run before it.
The row of the clean run begins there too, so whatever is wrong with that cache is seen in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from microtome.edits.application import Application
from microtome.edits.keys import Keys
from microtome.edits.sources import Sources
from microtome.engines.corrupting import corrupting
from microtome.language.regions import Regions
from microtome.language.sites import owner
from microtome.language.sites import site as find_site
from microtome.model.call import cache_name
from microtome.model.devices import numbers
from microtome.model.loaded import Loaded
from microtome.passes.hooks import Visit, quiet, visited
from microtome.passes.past import Past
from microtome.passes.trace import ids_of
from microtome.plan.memory.budget import Budget
from microtome.plan.memory.needs import needs_of
from microtome.plan.memory.whole import verified_at_once
from microtome.plan.plan import Plan
from microtome.plan.units import Unit
from microtome.prompts.sides import sides
from microtome.readings.inside import Gauge
from microtome.readings.output import Reading


@dataclass(frozen=True, eq=False)
class Rows:
    """Which row is what: every prompt's clean run, and behind it its cells.

    Attributes:
        clean: of each prompt.
        cells: of each cell, by number.
        start: the position at which they begin.
    """

    clean: dict[int, int]
    cells: dict[int, int]
    start: int = 0

    def __len__(self) -> int:
        return len(self.clean) + len(self.cells)

    @classmethod
    def of(cls, plan: Plan, cells: Sequence[int], start: int = 0) -> Rows:
        """A row for each of some cells, and of their prompts."""
        found, row = cls({}, {}, start), 0
        for number in sorted(cells):  # prompt by prompt
            prompt = int(plan.cells.prompt[number])
            if prompt not in found.clean:
                found.clean[prompt] = row
                row += 1
            found.cells[number] = row
            row += 1
        return found

    @property
    def prompts(self) -> Iterator[tuple[int, slice]]:
        """Each prompt with its rows, the clean run first."""
        firsts = [*self.clean.values(), len(self)]
        for prompt, first, end in zip(self.clean, firsts, firsts[1:], strict=False):
            yield prompt, slice(first, end)


@dataclass(frozen=True, eq=False)
class Rerun:
    """What the reference path says of some cells.

    Attributes:
        rows: which row is what.
        final: position → what the unembedding reads there, ``[row, d_model]``.
        inside: per metric inside the model and prompt, what it read, ``[row of the prompt,
            *shape]``, in the clean run first.
        sizes: per metric inside the model, how large what it reads is: the largest norm of a layer
            in a clean run; 1 for a cosine, which does not depend on it.
    """

    rows: Rows
    final: dict[int, Float[Tensor, "row d_model"]]
    inside: dict[tuple[Gauge, int], Tensor]
    sizes: dict[Gauge, list[Tensor]]


def rerun(
    model: Loaded,
    plan: Plan,
    cells: Sequence[int],
    sources: Sources,
    looks: Callable[[Rows], Iterable[Visit]] = lambda rows: (),
    past: Past | None = None,
    start: int = 0,
) -> Rerun:
    """Run some cells, of prompts of one length, in one pass; it may be looked at besides.

    With the past of their one prompt, from a position on (`first_position`).
    """
    hf, anatomy, rows = model.hf, model.anatomy, Rows.of(plan, cells, start)
    encoded = plan.question.encoded
    texts = [
        encoded[prompt].tokens for prompt, own in rows.prompts for _ in range(own.stop - own.start)
    ]
    places = _places(plan, rows)
    found = Rerun(rows, {}, {}, {})
    whole = {prompt: range(own.start, own.stop) for prompt, own in rows.prompts}
    visits = [*corrupting(model, plan.question, whole, sources)]
    visits += [
        visit for number in rows.cells for visit in _edits(model, plan, number, rows, sources)
    ]
    visits += _gauges(plan, found)
    visits += looks(rows)
    end = find_site("final_in"), None
    ended: list[Tensor] = []
    here = [place - start for place in places]
    visits.append(Visit(end, lambda view: ended.append(view[:, numbers(view.device, here)])))
    how: dict[str, Any] = {"use_cache": False}
    if past is not None and start:
        how = {"use_cache": True, cache_name(hf.base_model): past.before(start, len(rows))}
    with quiet(hf):
        with visited(hf, anatomy, visits):
            hf.base_model(input_ids=ids_of(texts, hf)[:, start:], **how)
        final = anatomy.final(hf, ended[0])
    found.final.update({place: final[:, n] for n, place in enumerate(places)})
    return found


def rows_at_once(plan: Plan, unit: Unit, budget: Budget) -> int:
    """How many cells to run in one pass: as many as fill a tile, and fit into half the memory."""
    length = len(plan.question.encoded[unit.prompts[0]].tokens.read)
    needs = needs_of(plan.question, plan.cells, unit.prompts, budget)
    return verified_at_once(needs, length, budget)


def first_position(plan: Plan, cells: Sequence[int]) -> int:
    """The first position that any of some cells edits, or a metric reads in them."""
    edited = (
        min(region.indices[owner(region.site.axes)])
        for number in cells
        for region in plan.cells.regions(number)
    )
    return min([*edited, *_places(plan, Rows.of(plan, cells))])


def _places(plan: Plan, rows: Rows) -> list[int]:
    question = plan.question
    return sorted(
        {
            one.position(question.encoded[prompt], question.dims)
            for one in question.asked
            if isinstance(one, Reading)
            for prompt in rows.clean
        }
    )


def _edits(model: Loaded, plan: Plan, number: int, rows: Rows, sources: Sources) -> Iterator[Visit]:
    """The edits of one cell, in its row."""
    cell, row = plan.cells[number], np.array([rows.cells[number]])
    one = plan.question.encoded[cell.prompt]
    dims = model.anatomy.dims
    for edit, regions in zip(cell.edits, cell.regions, strict=True):
        edit.check_together(sides(edit.address, dims, one.tokens).changed.regions(), dims.causal)
        for region in regions:
            where = Regions.of(region)
            source = sources.of(edit, region.layer, one)
            keys = Keys(where, [one.tokens])
            made = Application(edit, where, keys, source, row, rows.start, kind=sources.kind)
            yield made.visit()


def _gauges(plan: Plan, found: Rerun) -> Iterator[Visit]:
    """What reads the metrics inside the model."""
    dims = plan.question.dims
    for gauge in plan.question.gauges:
        found.sizes[gauge] = []
        for layer in {layer for _, layer in gauge.places(dims)}:
            yield Visit((gauge.site, layer), _look(plan, gauge, layer, found))


def _look(plan: Plan, gauge: Gauge, layer: int, found: Rerun) -> Callable[[Tensor], None]:
    def look(view: Tensor) -> None:
        for prompt, rows in found.rows.prompts:
            fitted = gauge.on(plan.question.encoded[prompt], plan.question.dims)
            own = view[rows].index_select(1, numbers(view.device, fitted.positions))
            clean = own[:1]
            values = fitted.measure(own, clean)
            whole = found.inside.get((gauge, prompt))
            if whole is None:
                whole = values.new_empty(len(own), *fitted.shape)
                found.inside[gauge, prompt] = whole
            whole.movedim(0, -1)[fitted.within(layer)] = values.movedim(0, -1)
            scaled = gauge.metric.compute is not None
            size = clean.double().norm() if scaled else clean.new_ones((), dtype=torch.float64)
            found.sizes[gauge].append(size)

    return look
