"""Edits inside a pass: where they land, what they need, and the receipt of what they did.

`Application` is the one piece of code that changes activations; the reference path runs it on a
batch of one cell.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from microtome.addresses import Region, counterpart, regions
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
        changed: how many of them are different now.
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
    """One edit in one layer of one pass: values in, values out, and what changed per cell.

    Attributes:
        keys: per cell, a text that names its region and prompt (`key`).
        source: what `Edit.source` asks for, ``[cell, *region]``.
        changed: per cell, how many values the edit changed; empty until it fired.
        squares: per cell, the squared L2 norm of the change.
    """

    edit: Edit
    region: Region
    keys: tuple[str, ...]
    source: Tensor | None = None
    changed: list[int] = field(default_factory=list)
    squares: list[float] = field(default_factory=list)

    def visit(self) -> Visit:
        """The visit that makes the edit."""
        return Visit((self.region.site, self.region.layer), self._act, writes=True)

    def _act(self, view: Tensor) -> None:
        where = index(self.region, view.device)
        before = view[where]
        after = self.edit.change(before, Context(self.region.site.axes, self.keys, self.source))
        if after.shape != before.shape or after.dtype != before.dtype:
            raise EditError(
                f"{self.edit} turned values of shape {list(before.shape)}, {before.dtype}, into "
                f"{list(after.shape)}, {after.dtype}."
            )
        view[where] = after
        each = tuple(range(1, before.ndim))
        self.changed += (after != before).sum(dim=each).tolist()
        self.squares += (after.double() - before.double()).square().sum(dim=each).tolist()


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

    def of(self, edit: Edit, encoded: Encoded) -> list[Tensor | None]:
        """What an edit of one prompt needs, ``[1, *region]`` for each layer that it edits.

        Raises:
            PromptError: there is no donor, or its positions do not match the prompt's.
            EditError: there are too few reference prompts.
        """
        match edit.source:
            case Source.NOTHING:
                return [None] * len(regions(edit.address, self._anatomy.dims, encoded.tokens))
            case Source.DONOR:
                donor = donor_of(edit, encoded)
                if self._donor is None or self._donor[0] != donor:
                    trace = record(self._hf, self._anatomy, donor, self._wanted)
                    self._donor = (donor, trace)
                return list(self._values(edit, encoded.tokens, *self._donor))
            case Source.REFERENCE:
                layers = zip(
                    *(
                        self._values(edit, encoded.tokens, tokens, trace)
                        for tokens, trace in zip(
                            self._reference, self._reference_traces(edit), strict=True
                        )
                    ),
                    strict=True,
                )
                return [torch.cat(values).mean(dim=0, keepdim=True) for values in layers]

    def _reference_traces(self, edit: Edit) -> list[Mapping[Place, Tensor]]:
        if len(self._reference) < 2:
            raise EditError(
                f"{edit} needs at least two reference prompts: the mean over one prompt is the "
                "value itself. Give more prompts, or reference=[…]."
            )
        if self._references is None:
            self._references = [
                record(self._hf, self._anatomy, tokens, self._wanted) for tokens in self._reference
            ]
        return self._references

    def _values(
        self, edit: Edit, tokens: Tokens, other: Tokens, trace: Mapping[Place, Tensor]
    ) -> list[Tensor]:
        there = regions(counterpart(edit.address, tokens, other), self._anatomy.dims, other)
        return [trace[r.site, r.layer][index(r, self._hf.device)] for r in there]


def donor_of(edit: Edit, encoded: Encoded) -> Tokens:
    """The donor that an edit takes activations from.

    Raises:
        PromptError: the prompt has none.
    """
    if encoded.donor is None:
        raise PromptError(
            f"{edit} takes activations from the prompt's donor, and {encoded.prompt.text!r} has "
            'none: give Prompt(…, donor="…").'
        )
    return encoded.donor


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
    applied: list[list[Application]] = []
    for edit in edits:
        found = regions(edit.address, anatomy.dims, encoded.tokens)
        for region in found:
            edit.check(region)
        applied.append(
            [
                Application(edit, region, (key(region, encoded.tokens),), source)
                for region, source in zip(found, sources.of(edit, encoded), strict=True)
            ]
        )
    visits = [application.visit() for group in applied for application in group]
    logits = forward(hf, anatomy, ids_of(encoded.tokens, hf), [*visits, *readers])
    receipts = [
        Receipt(
            edit=str(edit),
            prompt=prompt,
            layers=tuple(a.region.layer for a in group if a.region.layer is not None),
            selected=sum(a.region.size for a in group),
            changed=sum(sum(a.changed) for a in group),
            norm=math.sqrt(sum(sum(a.squares) for a in group)),
        )
        for edit, group in zip(edits, applied, strict=True)
    ]
    return logits, receipts
