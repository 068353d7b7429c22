"""Where edits get values from: clean activations of donors and reference prompts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from types import MappingProxyType

from torch import Tensor
from transformers import PreTrainedModel

from microtome.edits.means import Means
from microtome.edits.paths import Path
from microtome.edits.shares import Change, Shares
from microtome.language.edges import Edge
from microtome.language.operations import Operation, Source
from microtome.language.order import recorded_of
from microtome.language.regions import Column, Layout
from microtome.language.sites import owner
from microtome.model.anatomy import Anatomy
from microtome.passes.hooks import Place
from microtome.passes.trace import Piece, index, record
from microtome.prompts.encoding import Encoded
from microtome.prompts.others import others_of
from microtome.prompts.resolve import aligned_stars, counterpart
from microtome.prompts.sides import sides
from microtome.prompts.tokens import Tokens

TEXTS = 2
"""Texts that are kept where none is held: a prompt and its donor."""


class Sources:
    """Clean activations of donors and reference prompts, for the edits that ask for them.

    A text is run once for all the places that these edits will ask for. Of donors, and of prompts
    whose writers are edited for one reader, the addressed positions are kept, those of the ones
    held (`hold`) or asked for last; of references, their `Means`. ``kind`` is the type of the
    model's stream.
    """

    def __init__(
        self,
        hf: PreTrainedModel,
        anatomy: Anatomy,
        edits: Iterable[tuple[Operation, Encoded]],
        reference: Sequence[Tokens] = (),
    ) -> None:
        self._hf, self._anatomy = hf, anatomy
        self.kind = anatomy.dtype(hf)
        self._wanted: dict[Tokens, dict[Place, tuple[int, int]]] = defaultdict(dict)
        asked = list(edits)
        self._means = Means(hf, anatomy, asked, reference)
        for edit, one in asked:
            if isinstance(edit.address, Edge):
                own = sides(edit.address, anatomy.dims, one.tokens).changed
                self._want(self._recorded_of(edit, own), one.tokens)
            if edit.source is Source.DONOR:
                [donor] = others_of(edit, one, ())
                self._want(self._recorded_of(edit, self._there(edit, one, donor)), donor)
        self._shares = Shares(hf, anatomy, self._recorded, self._means)
        self._held: dict[Tokens, Mapping[Place, Tensor]] = {}

    def _there(self, edit: Operation, one: Encoded, other: Tokens) -> Layout:
        """Where an edit of a prompt finds what it needs in another text."""
        dims = self._anatomy.dims
        return counterpart(edit.place, dims, one.tokens, other, edit.alignment)

    def _recorded_of(self, edit: Operation, found: Layout) -> Layout:
        """What is recorded at a place: of a head that writes to one reader, less than it adds."""
        is_edge = isinstance(edit.address, Edge)
        return recorded_of(found, self._anatomy.dims) if is_edge else found

    def _want(self, found: Layout, other: Tokens) -> None:
        chosen = found.layers
        layers: Iterable[int | None] = chosen if isinstance(chosen, tuple) else [None]
        if isinstance(chosen, str):
            layers = range(self._anatomy.dims.n_layers)
        indices = found.indices[owner(found.site.axes)]
        first, last = (
            (0, len(other) - 1) if isinstance(indices, str) else (min(indices), max(indices))
        )
        wanted = self._wanted[other]
        for layer in layers:
            low, high = wanted.get((found.site, layer), (first, last))
            wanted[found.site, layer] = min(low, first), max(high, last)

    def texts(self, encoded: Iterable[Encoded]) -> list[Tokens]:
        """The texts whose runs an edit of some prompts asks for, each once.

        Their donors; and they themselves, for what writers write.
        """
        asked = (text for one in encoded for text in (one.tokens, one.donor))
        return list({text: None for text in asked if text in self._wanted})

    def hold_references(self, at_once: int) -> None:
        """Run the reference prompts that an edit asks for, which are otherwise when it does.

        Args:
            at_once: how many in a pass, at most.
        """
        self._means.gather(at_once)

    def hold(self, texts: Sequence[Tokens], at_once: int) -> None:
        """Record donors, several of one length in a pass, and forget others."""
        self._held = {}
        for _, alike in groupby(sorted(texts, key=_read), key=_read):
            same = list(alike)
            for first in range(0, len(same), at_once):
                some = same[first : first + at_once]
                kept = record(self._hf, self._anatomy, some, self.pieces(some))
                self._held.update(self._split(some, kept))

    def hold_recorded(self, texts: Sequence[Tokens], kept: Mapping[Place, Tensor]) -> None:
        """Keep what was recorded of donors (`pieces`) beside other texts; forget others."""
        self._held = self._split(texts, kept)

    def pieces(self, texts: Sequence[Tokens]) -> list[Piece]:
        """What is wanted of any of some texts."""
        return [Piece(place, *span) for place, span in self._spans(texts).items()]

    def _spans(self, texts: Sequence[Tokens]) -> dict[Place, tuple[int, int]]:
        spans: dict[Place, tuple[int, int]] = {}
        for tokens in texts:
            for place, (first, last) in self._wanted[tokens].items():
                low, high = spans.get(place, (first, last))
                spans[place] = min(low, first), max(high, last)
        return spans

    def _split(
        self, texts: Sequence[Tokens], kept: Mapping[Place, Tensor]
    ) -> dict[Tokens, Mapping[Place, Tensor]]:
        """What was recorded of some texts together, text by text."""
        spans = self._spans(texts)
        return {
            tokens: {
                place: kept[place][n : n + 1].narrow(
                    1 + owner(place[0].axes), first - spans[place][0], last + 1 - first
                )
                for place, (first, last) in self._wanted[tokens].items()
            }
            for n, tokens in enumerate(texts)
        }

    def _alone(self, text: Tokens) -> dict[Tokens, Mapping[Place, Tensor]]:
        return self._split([text], record(self._hf, self._anatomy, [text], self.pieces([text])))

    def of(
        self,
        edit: Operation,
        layer: int | None,
        one: Encoded,
        stars: Mapping[str, Column] = MappingProxyType({}),
        cells: int = 1,
        since: int = 0,
    ) -> Tensor | None:
        """What an edit of a prompt needs in one layer, ``[cell, *region]``.

        Args:
            edit: its address may have stars; of an edge, the change of what is read is given.
            layer: a layer that it edits in all these cells.
            one: the prompt.
            stars: what each star is in each cell.
            cells: how many cells there are.
            since: the first position of which a donor's values are wanted.

        Raises:
            EditError: there are too few reference prompts.
            PromptError: there is no donor, or positions do not match the prompt's.
        """
        if isinstance(edit.address, Edge):
            return self._heard(edit, edit.address, layer, one, stars, cells, since)
        match edit.source:
            case Source.NOTHING:
                return None
            case Source.DONOR:
                [donor] = others_of(edit, one, ())
                return self._values(edit, layer, one, donor, stars, cells, since)
            case Source.REFERENCE:
                return self._means.of(edit, layer, one, stars, cells)

    def _heard(
        self,
        edit: Operation,
        edge: Edge,
        layer: int | None,
        one: Encoded,
        stars: Mapping[str, Column],
        cells: int,
        since: int,
    ) -> Tensor:
        """The change of what readers in a layer read, ``[cell, *region]``."""
        own = sides(edge, self._anatomy.dims, one.tokens)
        change = self._shares.change(edit, one, stars, cells, since)
        if not edge.is_path:
            return change.at(own.lands.since(since).at(layer, stars, cells))
        [share] = own.changed.regions()
        [lands] = (region for region in own.lands.regions() if region.layer == layer)
        return Path(self._hf, self._anatomy, edge, one.tokens).change(share, change.table, lands)

    def change(
        self, edit: Operation, one: Encoded, stars: Mapping[str, Column], cells: int, since: int
    ) -> Change:
        """What an edit of an edge changes of what is read, once for all cells of one writer."""
        return self._shares.change(edit, one, stars, cells, since)

    def _values(
        self,
        edit: Operation,
        layer: int | None,
        one: Encoded,
        other: Tokens,
        stars: Mapping[str, Column],
        cells: int,
        since: int,
    ) -> Tensor:
        there = self._there(edit, one, other).since(since)
        moved = aligned_stars(edit.place, one.tokens, other, edit.alignment)
        stars = {**stars, **{star: column[stars[star]] for star, column in moved.items()}}
        recorded, start = self._recorded(other, (there.site, layer))
        where = index(there.at(layer, stars, cells), recorded.device, start=start)
        return recorded[where].expand(cells, *there.shape)

    def _recorded(self, text: Tokens, place: Place) -> tuple[Tensor, int]:
        """What was recorded of a text at a place, and its first position."""
        if text not in self._held:
            kept = self._held if len(self._held) < TEXTS else {}
            self._held = {**kept, **self._alone(text)}
        return self._held[text][place], self._wanted[text][place][0]


def _read(tokens: Tokens) -> int:
    """How many tokens the model reads, those that are forced behind a text among them."""
    return len(tokens.read)
