"""Edits inside a pass: where they land, what they need, and the receipt of what they did.

`Application` is the one piece of code that changes activations. The reference path runs it on a
batch of one cell, the walk on batches of many.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType
from typing import overload

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from microtome.addresses import aligned_stars, counterpart, regions
from microtome.devices import onto
from microtome.edits import Context, Edit, Source
from microtome.errors import EditError, PromptError
from microtome.model.anatomy import Anatomy
from microtome.prompts import Encoded, Tokens
from microtome.regions import Column, Layout, Region, Regions
from microtome.run import Piece, Place, Visit, forward, ids_of, index, record
from microtome.sites import OF_HEADS, owner


@dataclass(frozen=True)
class Receipt:
    """Proof of what one edit did to one prompt's run.

    Attributes:
        edit: its text.
        prompt: index of the prompt.
        layers: where it fired, in order; empty for a site of no layer.
        selected: how many values it addressed.
        changed: how many of them are different now, by more than rounding (`differs`).
        norm: L2 norm of the change, in the units of the activation.
    """

    edit: str
    prompt: int
    layers: tuple[int, ...]
    selected: int
    changed: int
    norm: float


@dataclass
class Application:
    """One edit in one layer of one pass, in some of its rows: the code that changes activations.

    Every cell has a region of its own, all of one site, layer and shape. The reference path has
    one cell in a batch of one; the walk has many.

    Attributes:
        edit: the operation; its address is not looked at.
        regions: where it lands in each cell.
        keys: per cell, a text that names its region and prompt.
        source: what `Edit.source` asks for, ``[cell, *region]``.
        rows: per cell, its row in the batch; None for a batch of one.
        start: the position at which the batch begins.
        changed: per cell, how many values the edit changed; None until it fired.
        squares: per cell, the squared L2 norm of the change.
    """

    edit: Edit
    regions: Regions
    keys: Sequence[str]
    source: Tensor | None = None
    rows: Column | None = None
    start: int = 0
    changed: Int[Tensor, " cell"] | None = None
    squares: Float[Tensor, " cell"] | None = None

    def visit(self) -> Visit:
        """The visit that makes the edit."""
        site, rows = self.regions.site, self.rows
        heads = None
        if site.name in OF_HEADS:
            rows = np.zeros(1, dtype=np.int64) if rows is None else rows
            heads = rows, self.regions.columns[site.axes.index("head")]
        return Visit((site, self.regions.layer), self._act, writes=True, heads=heads)

    def _act(self, view: Tensor) -> None:
        regions, chosen = self.regions, None
        if self.edit.widens is not None:
            axis = regions.site.axes.index(self.edit.widens)
            chosen = onto(view.device, regions.columns[axis])
            regions = regions.widened(self.edit.widens, view.shape[1 + axis])
        where = index(regions, view.device, self.rows, self.start)
        before = view[where]
        context = Context(regions.site.axes, self.keys, self.source, chosen)
        after = self.edit.change(before, context)
        if after.shape != before.shape or after.dtype != before.dtype:
            raise EditError(
                f"{self.edit} turned values of shape {list(before.shape)}, {before.dtype}, into "
                f"{list(after.shape)}, {after.dtype}."
            )
        view[where] = after
        each = tuple(range(1, before.ndim))
        self.changed = differs(before, after).sum(dim=each)
        self.squares = (after.double() - before.double()).square().sum(dim=each)


def differs(
    before: Float[Tensor, " cell *region"], after: Float[Tensor, " cell *region"]
) -> Bool[Tensor, " cell *region"]:
    """Which values are different by more than rounding.

    A batch of many cells rounds otherwise than a batch of one, so that a value patched by its
    equal may differ in its last places. Rounding is taken as 16 units in the last place of the
    value, or of the root mean square of the cell's region where that is larger. NaN differs.
    """
    old, new = before.double(), after.double()
    each = tuple(range(1, before.ndim))
    size = torch.maximum(old.abs(), old.square().mean(dim=each, keepdim=True).sqrt())
    return ~((new - old).abs() <= 16 * torch.finfo(before.dtype).eps * size)


def key(region: Region, tokens: Tokens) -> str:
    """A text that names a region of a prompt's run: the root of its random numbers."""
    return f"{region.site}|{region.layer}|{region.indices}|{tokens.ids}"


@dataclass(frozen=True, eq=False)
class Keys(Sequence[str]):
    """A key per cell, made when an edit draws random numbers and asks for it.

    Attributes:
        regions: where each cell's edit lands.
        tokens: the prompts that the cells are of.
        prompt: per cell, which of these; None where there is one prompt.
    """

    regions: Regions
    tokens: Sequence[Tokens]
    prompt: Column | None = None

    def __len__(self) -> int:
        return self.regions.cells

    @overload
    def __getitem__(self, cell: int) -> str: ...
    @overload
    def __getitem__(self, cell: slice) -> Sequence[str]: ...
    def __getitem__(self, cell: int | slice) -> str | Sequence[str]:
        if isinstance(cell, slice):
            return [self[n] for n in range(*cell.indices(len(self)))]
        if not 0 <= cell < len(self):
            raise IndexError(cell)
        prompt = 0 if self.prompt is None else int(self.prompt[cell])
        return key(self.regions[cell], self.tokens[prompt])


class Sources:
    """Clean activations of donors and reference prompts, for the edits that ask for them.

    A text is run once for all the places that these edits will ask for, of which the addressed
    positions are kept: of every reference prompt, and of the donors held (`hold`) or asked for
    last.
    """

    def __init__(
        self,
        hf: PreTrainedModel,
        anatomy: Anatomy,
        edits: Iterable[tuple[Edit, Encoded]],
        reference: Sequence[Tokens] = (),
    ) -> None:
        self._hf, self._anatomy, self._reference = hf, anatomy, tuple(reference)
        self._wanted: dict[Tokens, dict[Place, tuple[int, int]]] = defaultdict(dict)
        self._averaged: set[Tokens] = set()
        for edit, one in edits:
            for other in others_of(edit, one, self._reference):
                self._want(self._there(edit, one, other), other)
                if edit.source is Source.REFERENCE:
                    self._averaged.add(other)
        self._held: dict[Tokens, Mapping[Place, Tensor]] = {}
        self._references: dict[Tokens, Mapping[Place, Tensor]] = {}

    @property
    def references(self) -> int:
        """How many reference prompts there are."""
        return len(self._reference)

    def _there(self, edit: Edit, one: Encoded, other: Tokens) -> Layout:
        """Where an edit of a prompt finds what it needs in another text."""
        dims = self._anatomy.dims
        return counterpart(edit.address, dims, one.tokens, other, edit.alignment)

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

    def donors(self, encoded: Iterable[Encoded]) -> list[Tokens]:
        """The donors of some prompts that an edit asks for, each once."""
        return list({one.donor: None for one in encoded if one.donor in self._wanted})

    def hold_references(self) -> None:
        """Record the reference prompts that an edit asks for, which are otherwise when it does."""
        for text in self._averaged - self._references.keys():
            self._references.update(self._alone(text))

    def hold(self, texts: Sequence[Tokens], at_once: int) -> None:
        """Record donors, several of one length in a pass, and forget others."""
        self._held = {}
        for _, alike in groupby(sorted(texts, key=len), key=len):
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
        edit: Edit,
        layer: int | None,
        one: Encoded,
        stars: Mapping[str, Column] = MappingProxyType({}),
        cells: int = 1,
    ) -> Tensor | None:
        """What an edit of a prompt needs in one layer, ``[cell, *region]``.

        Args:
            edit: its address may have stars.
            layer: a layer that it edits in all these cells.
            one: the prompt.
            stars: what each star is in each cell.
            cells: how many cells there are.

        Raises:
            EditError: there are too few reference prompts.
            PromptError: there is no donor, or positions do not match the prompt's.
        """
        values = [
            self._values(edit, layer, one, other, stars, cells)
            for other in others_of(edit, one, self._reference)
        ]
        match edit.source:
            case Source.NOTHING:
                return None
            case Source.DONOR:
                return values[0]
            case Source.REFERENCE:
                return torch.stack(values).mean(dim=0)

    def _values(
        self,
        edit: Edit,
        layer: int | None,
        one: Encoded,
        other: Tokens,
        stars: Mapping[str, Column],
        cells: int,
    ) -> Tensor:
        there = self._there(edit, one, other)
        moved = aligned_stars(edit.address, one.tokens, other, edit.alignment)
        stars = {**stars, **{star: column[stars[star]] for star, column in moved.items()}}
        recorded = self._of_text(other, edit.source)[there.site, layer]
        start = self._wanted[other][there.site, layer][0]
        where = index(there.at(layer, stars, cells), recorded.device, start=start)
        return recorded[where].expand(cells, *there.shape)

    def _of_text(self, text: Tokens, source: Source) -> Mapping[Place, Tensor]:
        if source is Source.REFERENCE:
            if text not in self._references:
                self._references.update(self._alone(text))
            return self._references[text]
        if text not in self._held:
            self._held = self._alone(text)
        return self._held[text]


def others_of(edit: Edit, encoded: Encoded, reference: Sequence[Tokens]) -> Sequence[Tokens]:
    """The texts whose activations an edit of a prompt needs.

    Raises:
        PromptError: it needs a donor, and the prompt has none.
        EditError: it needs reference prompts, and there are fewer than two.
    """
    if edit.source is Source.DONOR:
        if encoded.donor is None:
            raise PromptError(
                f"{edit} takes activations from the prompt's donor, and {encoded.prompt.text!r} "
                'has none: give Prompt(…, donor="…").'
            )
        return [encoded.donor]
    if edit.source is Source.REFERENCE:
        if len(reference) < 2:
            raise EditError(
                f"{edit} needs at least two reference prompts: the mean over one prompt is the "
                "value itself. Give more prompts, or reference=[…]."
            )
        return reference
    return []


def intervene(
    hf: PreTrainedModel,
    anatomy: Anatomy,
    encoded: Encoded,
    edits: Sequence[Edit],
    sources: Sources,
    readers: Sequence[Visit] = (),
    prompt: int = 0,
) -> tuple[Float[Tensor, "1 pos vocab"], list[Receipt]]:
    """One full forward pass of one prompt with these edits: its logits, and a receipt per edit."""
    applied = [_applications(anatomy, encoded, edit, sources) for edit in edits]
    visits = [application.visit() for group in applied for application in group]
    logits = forward(hf, anatomy, ids_of([encoded.tokens], hf), [*visits, *readers])
    receipts = [_receipt(edit, group, prompt) for edit, group in zip(edits, applied, strict=True)]
    return logits, receipts


def _applications(
    anatomy: Anatomy, encoded: Encoded, edit: Edit, sources: Sources
) -> list[Application]:
    applied = []
    for region in regions(edit.address, anatomy.dims, encoded.tokens):
        edit.check(region, anatomy.dims.causal)
        where = Regions.of(region)
        source = sources.of(edit, region.layer, encoded)
        applied.append(Application(edit, where, Keys(where, [encoded.tokens]), source))
    return applied


def no_number(where: str) -> str:
    """The complaint about an edit whose result is infinite or NaN."""
    return (
        f"{where}: the values after the edit are not all finite numbers. A knockout of all that a "
        "token attends to leaves nothing to share out; a large factor, or a function, may overflow."
    )


def _receipt(edit: Edit, group: Sequence[Application], prompt: int) -> Receipt:
    fired = [a for a in group if a.changed is not None and a.squares is not None]
    norm = math.sqrt(sum(float(a.squares) for a in fired if a.squares is not None))
    if not math.isfinite(norm):
        raise EditError(no_number(str(edit)))
    layers = (application.regions.layer for application in fired)
    return Receipt(
        edit=str(edit),
        prompt=prompt,
        layers=tuple(layer for layer in layers if layer is not None),
        selected=sum(math.prod(application.regions.shape) for application in fired),
        changed=sum(int(a.changed) for a in fired if a.changed is not None),
        norm=norm,
    )
