"""Prompts of one length whose gradients are taken together, and the edits of their cells."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from microtome.edits.application import Application
from microtome.edits.sources import Sources
from microtome.engines.walk.batches import Batch, Tile
from microtome.engines.walk.edited import edits_at
from microtome.language.regions import Column
from microtome.model.loaded import Loaded
from microtome.passes.backward import Around, Graph, Slopes, graph
from microtome.passes.hooks import Place, Visit
from microtome.passes.trace import Trace, ids_of, trace
from microtome.plan.plan import Plan
from microtome.prompts.encoding import Encoded

TOKENS = 512
"""Tokens that a block is run on at a time, about."""

VALUES = 2**22
"""Addressed values whose changes are computed at a time, about."""


@dataclass(frozen=True, eq=False)
class Stretch:
    """Some prompts of one length.

    Attributes:
        model: the model.
        plan: the plan.
        sources: activations of donors and reference prompts.
        prompts: the prompts, by number.
        cells: of each, the numbers of the cells to compute.
    """

    model: Loaded
    plan: Plan
    sources: Sources
    prompts: tuple[int, ...]
    cells: Mapping[int, Column]

    @property
    def encoded(self) -> list[Encoded]:
        """The prompts."""
        return [self.plan.question.encoded[prompt] for prompt in self.prompts]

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """Every site of a layer that an edit of these cells is made at."""
        found: dict[Place, None] = {}
        layouts = {own for prompt in self.prompts for own in self.plan.cells.layouts[prompt]}
        for one in sorted(layouts, key=str):
            layers: Sequence[int | None] = [None]
            if isinstance(one.layers, tuple):
                layers = one.layers
            elif isinstance(one.layers, str):
                star = self.plan.cells.values(np.concatenate([*self.cells.values()]))[one.layers]
                layers = np.unique(star).tolist()
            found |= {(one.site, layer): None for layer in layers}
        return tuple(found)

    @cached_property
    def trace(self) -> Trace:
        """These prompts' run, as much of it as is needed to go on from its middle."""
        texts = [one.tokens for one in self.encoded]
        return trace(self.model.hf, self.model.anatomy, texts)

    @cached_property
    def own(self) -> Slopes:
        """These prompts' run, with its gradients."""
        return self.slopes()

    def knows(self, own: Slopes) -> None:
        """Take this for these prompts' run, so that it is not run again."""
        vars(self)["own"] = own

    @cached_property
    def run(self) -> Slopes:
        """These prompts' run; with its gradients if those are there, or without."""
        return self.own if "own" in vars(self) else self.graph(records=False).found

    def slopes(
        self,
        encoded: Sequence[Encoded] | None = None,
        places: Sequence[Place] | None = None,
        before: Sequence[Visit] = (),
        around: Around = nullcontext,
    ) -> Slopes:
        """The readings' gradients; see `graph`."""
        return self.graph(encoded, places, before, around=around).back()

    def graph(
        self,
        encoded: Sequence[Encoded] | None = None,
        places: Sequence[Place] | None = None,
        before: Sequence[Visit] = (),
        behind: Sequence[Visit] = (),
        around: Around = nullcontext,
        records: bool = True,
    ) -> Graph:
        """A pass of these prompts, or of other texts of one length, read as the question says.

        Args:
            encoded: the texts, with the tokens that metrics are about.
            places: where gradients are wanted; where edits are made, unless given.
            before, behind: what else is done on the way, before gradients are taken and after.
            around: what the pass runs within.
            records: gradients are wanted.
        """
        texts = self.encoded if encoded is None else encoded
        question = self.plan.question
        looks = [
            (row, reading.position(one, question.dims))
            for reading in question.readings
            for row, one in enumerate(texts)
        ]

        hf, anatomy = self.model.hf, self.model.anatomy
        ids = ids_of([one.tokens for one in texts], hf)
        wanted = self.places if places is None else places
        read = partial(self._read, texts)
        return graph(hf, anatomy, ids, wanted, looks, read, before, behind, around, records)

    def _read(
        self, texts: Sequence[Encoded], logits: Float[Tensor, "look vocab"]
    ) -> list[Float[Tensor, " row"]]:
        """Each metric of each text."""
        found = []
        for number, reading in enumerate(self.plan.question.readings):
            own = logits[number * len(texts) : (number + 1) * len(texts)]
            values = [
                reading.measure(own[row : row + 1], own[row : row + 1].detach(), one)
                for row, one in enumerate(texts)
            ]
            found.append(torch.cat(values))
        return found

    def applications(
        self, prompt: int, sources: Sources | None = None
    ) -> Iterator[tuple[Column, Application]]:
        """The edits of a prompt's cells: which cells each is of, and how it is made.

        Args:
            prompt: one of these.
            sources: what edits get their values from, if not from donors and references.
        """
        plan, numbers = self.plan, self.cells[prompt]
        row = self.prompts.index(prompt)
        shapes = [layout.shape for layout in plan.cells.layouts[prompt]]
        most = max(1, VALUES // max(int(np.prod(shape)) for shape in shapes))
        for first in range(0, len(numbers), most):
            own = numbers[first : first + most]
            batch = Batch((prompt,), own[None], plan.cells.entry[own], 0)
            tile = Tile(slice(0, 1), slice(0, len(own)))
            for layer in range(plan.question.dims.n_layers):
                for one in edits_at(plan, sources or self.sources, layer, batch, tile):
                    assert one.rows is not None, "the walk's edits know their rows"
                    yield own[one.rows], replace(one, rows=np.full(len(one.rows), row))


def putting(values: Tensor) -> Callable[[Tensor], None]:
    """What puts values in the place of all that a site has."""

    def put(view: Tensor) -> None:
        view.copy_(values)

    return put
