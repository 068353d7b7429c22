"""Edits inside a pass: where they land, what they need, and the receipt of what they did.

`Application` is the one piece of code that changes activations. The reference path runs it on a
batch of one cell, the walk on batches of many.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from microtome.addresses import Region, counterparts, regions
from microtome.edits import Context, Edit, Source
from microtome.errors import EditError, PromptError
from microtome.model.anatomy import Anatomy
from microtome.prompts import Encoded, Tokens
from microtome.run import Place, Visit, forward, ids_of, index, record


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
        regions: per cell, where it lands.
        keys: per cell, a text that names its region and prompt (`key`).
        source: what `Edit.source` asks for, ``[cell, *region]``.
        rows: per cell, its row in the batch.
        start: the position at which the batch begins.
        changed: per cell, how many values the edit changed; None until it fired.
        squares: per cell, the squared L2 norm of the change.
    """

    edit: Edit
    regions: Sequence[Region]
    keys: tuple[str, ...]
    source: Tensor | None = None
    rows: Sequence[int] = (0,)
    start: int = 0
    changed: Int[Tensor, " cell"] | None = None
    squares: Float[Tensor, " cell"] | None = None

    def visit(self) -> Visit:
        """The visit that makes the edit."""
        return Visit((self.regions[0].site, self.regions[0].layer), self._act, writes=True)

    def _act(self, view: Tensor) -> None:
        where = index(self.regions, view.device, self.rows, self.start)
        before = view[where]
        axes = self.regions[0].site.axes
        after = self.edit.change(before, Context(axes, self.keys, self.source))
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


class Sources:
    """Clean activations of donors and reference prompts, for the edits that ask for them.

    A text is run once for all the places that these edits will ask for. Every reference prompt's
    activations are kept, and the latest donor's.
    """

    def __init__(
        self,
        hf: PreTrainedModel,
        anatomy: Anatomy,
        edits: Iterable[tuple[Edit, Encoded]],
        reference: Sequence[Tokens] = (),
    ) -> None:
        self._hf, self._anatomy, self._reference = hf, anatomy, tuple(reference)
        self._wanted: dict[Place, None] = {}
        for edit, encoded in edits:
            if edit.source is not Source.NOTHING:
                found = regions(edit.address, anatomy.dims, encoded.tokens)
                self._wanted.update({(r.site, r.layer): None for r in found})
        self._donor: tuple[Tokens, Mapping[Place, Tensor]] | None = None
        self._references: list[Mapping[Place, Tensor]] | None = None

    def of(self, edits: Sequence[Edit], layer: int | None, encoded: Encoded) -> Tensor | None:
        """What some edits of one prompt need in one layer, ``[cell, *region]``: one edit a cell.

        The edits are alike but for their addresses, whose regions have one shape.

        Raises:
            EditError: there are too few reference prompts.
            PromptError: there is no donor, or positions do not match the prompt's.
        """
        match edits[0].source:
            case Source.NOTHING:
                return None
            case Source.DONOR:
                [donor] = others_of(edits[0], encoded, self._reference)
                if self._donor is None or self._donor[0] != donor:
                    trace = record(self._hf, self._anatomy, donor, self._wanted)
                    self._donor = (donor, trace)
                return self._values(edits, layer, encoded.tokens, *self._donor)
            case Source.REFERENCE:
                others = others_of(edits[0], encoded, self._reference)
                return torch.stack(
                    [
                        self._values(edits, layer, encoded.tokens, tokens, trace)
                        for tokens, trace in zip(others, self._reference_traces(), strict=True)
                    ]
                ).mean(dim=0)

    def _reference_traces(self) -> list[Mapping[Place, Tensor]]:
        if self._references is None:
            self._references = [
                record(self._hf, self._anatomy, tokens, self._wanted) for tokens in self._reference
            ]
        return self._references

    def _values(
        self,
        edits: Sequence[Edit],
        layer: int | None,
        tokens: Tokens,
        other: Tokens,
        trace: Mapping[Place, Tensor],
    ) -> Tensor:
        there = [
            region
            for edit in edits
            for region in counterparts(edit.address, self._anatomy.dims, tokens, other)
            if region.layer == layer
        ]
        return trace[there[0].site, layer][index(there, self._hf.device)]


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
    logits = forward(hf, anatomy, ids_of(encoded.tokens, hf), [*visits, *readers])
    receipts = [_receipt(edit, group, prompt) for edit, group in zip(edits, applied, strict=True)]
    return logits, receipts


def _applications(
    anatomy: Anatomy, encoded: Encoded, edit: Edit, sources: Sources
) -> list[Application]:
    found = regions(edit.address, anatomy.dims, encoded.tokens)
    for region in found:
        edit.check(region)
    return [
        Application(
            edit,
            [region],
            (key(region, encoded.tokens),),
            sources.of([edit], region.layer, encoded),
        )
        for region in found
    ]


def _receipt(edit: Edit, group: Sequence[Application], prompt: int) -> Receipt:
    fired = [a for a in group if a.changed is not None and a.squares is not None]
    layers = (application.regions[0].layer for application in fired)
    return Receipt(
        edit=str(edit),
        prompt=prompt,
        layers=tuple(layer for layer in layers if layer is not None),
        selected=sum(application.regions[0].size for application in fired),
        changed=sum(int(a.changed) for a in fired if a.changed is not None),
        norm=math.sqrt(sum(float(a.squares) for a in fired if a.squares is not None)),
    )
