"""Means over reference prompts: each reference runs once, and is added to running sums.

References of one length, in which positions are found at the same places, go through the model
together, as many as there is room for.
There is one sum for each place and each `Way` in which prompts find their positions in the
references: one for all prompts where a position is the same in every text, and one for each prompt
where texts are aligned. Nothing else of a reference is kept.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from microtome.language.operations import Operation, Source
from microtome.language.regions import Column
from microtome.language.sites import POSITIONS, Site, owner
from microtome.model.anatomy import Anatomy
from microtome.model.devices import onto
from microtome.passes.hooks import Place
from microtome.passes.trace import Piece, index, record
from microtome.prompts.alignment import ABSENT
from microtome.prompts.encoding import Encoded
from microtome.prompts.others import others_of
from microtome.prompts.resolve import counterpart, layout
from microtome.prompts.tokens import Tokens
from microtome.prompts.ways import Way, unlike, ways_of

Key = tuple[Site, int | None, tuple[Way, ...]]
"""What a mean is of: a site of a layer, and how its positions are found."""

Span = tuple[int, int]
"""The first row and the last one along the axis that owns values."""


class Means:
    """The means of reference prompts' activations that some edits ask for.

    Args:
        hf: the model.
        anatomy: its anatomy.
        edits: with the prompts that they edit; those that need no references are passed over.
        reference: the texts, at least two where an edit needs them; one given twice counts twice.

    Raises:
        EditError: there are fewer than two references.
        PromptError: a position has no counterpart in one of them.
    """

    def __init__(
        self,
        hf: PreTrainedModel,
        anatomy: Anatomy,
        edits: Iterable[tuple[Operation, Encoded]],
        reference: Sequence[Tokens],
    ) -> None:
        self._hf, self._anatomy, self._reference = hf, anatomy, tuple(reference)
        self._spans: dict[Key, Span] = {}
        self._means: dict[Key, Tensor] = {}
        kinds: dict[tuple[object, str], list[Tokens]] = {}
        for edit, one in edits:
            if edit.source is not Source.REFERENCE:
                continue
            others = others_of(edit, one, self._reference)
            asked = edit.place, edit.alignment
            if asked not in kinds:
                kinds[asked] = list(unlike(*asked, others))
            for other in kinds[asked]:
                counterpart(edit.place, anatomy.dims, one.tokens, other, edit.alignment)
            self._want(edit, one.tokens)

    def _want(self, edit: Operation, tokens: Tokens) -> None:
        found = layout(edit.place, self._anatomy.dims, tokens)
        ways = ways_of(edit.place, tokens, edit.alignment)
        chosen = found.indices[owner(found.site.axes)]
        first, last = 0, len(tokens) - 1
        if not isinstance(chosen, str):
            rows = _owners(found.site, ways).rows(tokens, np.array(chosen))
            first, last = int(rows.min()), int(rows.max())
        layers: Iterable[int | None] = found.layers if isinstance(found.layers, tuple) else [None]
        if isinstance(found.layers, str):
            layers = range(self._anatomy.dims.n_layers)
        for layer in layers:
            low, high = self._spans.get((found.site, layer, ways), (first, last))
            self._spans[found.site, layer, ways] = min(low, first), max(high, last)

    def gather(self, at_once: int = 1) -> None:
        """Run every reference once and take the means; nothing where that is done.

        Args:
            at_once: how many to run in a pass, at most.
        """
        if len(self._means) == len(self._spans):
            return
        sums: dict[Key, Tensor] = {}
        kinds: dict[Key, torch.dtype] = {}
        for texts, times, places in self._batches(at_once):
            kept, starts = self._recorded(texts, places)
            for key, span in self._spans.items():
                view = kept.get(key[:2])
                if view is None:  # nowhere in these texts: no cell can ask for it
                    continue
                kinds[key] = view.dtype
                each = _chosen(view, key, span, places, starts[key[:2]]).double()
                counted = onto(view.device, np.array(times, dtype=np.float64))
                values = (each * counted.view(-1, *[1] * (each.ndim - 1))).sum(0, keepdim=True)
                sums[key] = values if key not in sums else sums[key].add_(values)
        for key in list(sums):
            self._means[key] = (sums.pop(key) / len(self._reference)).to(kinds[key])

    def _batches(
        self, at_once: int
    ) -> Iterator[tuple[Sequence[Tokens], Sequence[int], Mapping[Way, Column]]]:
        """References to run together, how often each counts, where rows of means are in them."""
        ways = dict.fromkeys(way for _, _, own in self._spans for way in own)
        alike: dict[tuple[object, ...], list[Tokens]] = defaultdict(list)
        found: dict[tuple[object, ...], Mapping[Way, Column]] = {}
        counted = Counter(self._reference)
        for text in counted:
            places = {way: way.there(text) for way in ways}
            kind: tuple[object, ...] = (
                len(text.read),
                *(place.tobytes() for place in places.values()),
            )
            alike[kind].append(text)
            found[kind] = places
        for kind, texts in alike.items():
            for first in range(0, len(texts), at_once):
                some = texts[first : first + at_once]
                yield some, [counted[text] for text in some], found[kind]

    def _recorded(
        self, texts: Sequence[Tokens], places: Mapping[Way, Column]
    ) -> tuple[Mapping[Place, Tensor], Mapping[Place, int]]:
        """What is wanted of some texts, place by place, and the position at which each begins."""
        wanted: dict[Place, list[int]] = defaultdict(list)
        for (site, layer, ways), (first, last) in self._spans.items():
            there = places[_owners(site, ways)][first : last + 1]
            wanted[site, layer] += there[there != ABSENT].tolist()
        pieces = [Piece(place, min(own), max(own)) for place, own in wanted.items() if own]
        kept = record(self._hf, self._anatomy, texts, pieces)
        return kept, {piece.place: piece.first for piece in pieces}

    def of(
        self,
        edit: Operation,
        layer: int | None,
        one: Encoded,
        stars: Mapping[str, Column],
        cells: int,
    ) -> Tensor:
        """The mean that an edit of a prompt needs in one layer, ``[cell, *region]``."""
        self.gather()
        found = layout(edit.place, self._anatomy.dims, one.tokens)
        ways = ways_of(edit.place, one.tokens, edit.alignment)
        key = found.site, layer, ways
        mean, regions = self._means[key], found.at(layer, stars, cells)
        columns, left = [], iter(ways)
        for axis, column in zip(found.site.axes, regions.columns, strict=True):
            columns.append(next(left).rows(one.tokens, column) if axis in POSITIONS else column)
        columns[owner(found.site.axes)] = columns[owner(found.site.axes)] - self._spans[key][0]
        where = index(replace(regions, columns=tuple(columns)), mean.device)
        return mean[where].expand(cells, *found.shape)


def _owners(site: Site, ways: Sequence[Way]) -> Way:
    """The way of the axis that says to which token a value belongs."""
    named = dict(zip((axis for axis in site.axes if axis in POSITIONS), ways, strict=True))
    return named[site.axes[owner(site.axes)]]


def _chosen(view: Tensor, key: Key, span: Span, places: Mapping[Way, Column], start: int) -> Tensor:
    """The rows of a mean out of what was recorded of texts; NaN where they have none."""
    site, _, ways = key
    left = iter(ways)
    for number, axis in enumerate(site.axes, 1):
        if axis not in POSITIONS:
            continue
        there = places[next(left)]
        if number == 1 + owner(site.axes):
            there = np.where(there == ABSENT, ABSENT, there - start)[span[0] : span[1] + 1]
        view = view.index_select(number, onto(view.device, np.maximum(there, 0)))
        lost = np.flatnonzero(there == ABSENT)
        if len(lost):
            view = view.index_fill(number, onto(view.device, lost), torch.nan)
    return view
