"""Edits inside a pass: where they land, what they need, and the receipt of what they did.

`Application` is the one piece of code that changes activations. The reference path runs it on a
batch of one cell, the walk on batches of many.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from microtome.edits.base import Context
from microtome.edits.keys import Keys
from microtome.edits.sources import Sources
from microtome.errors import EditError
from microtome.language.edges import Edge
from microtome.language.operations import Operation, Source
from microtome.language.regions import Column, Regions
from microtome.language.sites import APART, OF_HEADS
from microtome.model.anatomy import Anatomy
from microtome.model.devices import onto
from microtome.passes.hooks import Visit, forward
from microtome.passes.trace import ids_of, index
from microtome.prompts.encoding import Encoded
from microtome.prompts.resolve import check_single
from microtome.prompts.sides import sides

ULPS = {torch.float64: 16, torch.float32: 16, torch.bfloat16: 4, torch.float16: 4}
"""Type → units in the last place that are rounding of another pass."""

SCORES = 16
"""How many times as much attention weights round in float32 and float64: what a score is off by, in
units of its own size, a weight is off by in units of that times the score."""

SEEN = 64
"""Values of a token's row that are looked at to know how large they are, about."""


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
        source: what `Edit.source` asks for, ``[cell, *region]``; of an edge, the change of what is
            read, which is added.
        rows: per cell, its row in the batch; None for a batch of one.
        start: the position at which the batch begins.
        alike: per cell of an edge, a number of those that read the same; None: not known.
        kind: the model's own type: what it rounds to is not changed.
        changed: per cell, how many values the edit changed; None until it fired.
        squares: per cell, the squared L2 norm of the change.
    """

    edit: Operation
    regions: Regions
    keys: Sequence[str]
    source: Tensor | None = None
    rows: Column | None = None
    start: int = 0
    alike: Column | None = None
    kind: torch.dtype | None = None
    changed: Int[Tensor, " cell"] | None = None
    squares: Float[Tensor, " cell"] | None = None

    def visit(self) -> Visit:
        """The visit that makes the edit."""
        site, rows = self.regions.site, self.rows
        heads = None
        if site.name in OF_HEADS or site.name in APART:
            rows = np.zeros(1, dtype=np.int64) if rows is None else rows
            heads = rows, self.regions.columns[1]  # behind the positions
        fine = self.edit.widens is not None
        return Visit((site, self.regions.layer), self._act, writes=True, heads=heads, fine=fine)

    def _act(self, view: Tensor) -> None:
        regions, rows = self.regions, self.rows
        if regions.site.name in APART:  # the view is of the cells' own heads, and no others
            pos, _, units = regions.columns
            regions = replace(regions, columns=(pos, np.arange(view.shape[2])[None], units))
            rows = np.arange(len(view))
        where, _, after = self._made(view, regions, rows)
        view[where] = after

    def made(self, view: Tensor) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
        """The edit as it would be made in a view of all of the site, which stays as it is.

        Returns:
            Where it lands in the view, and the values there before it and after it,
            ``[cell, *region]``.
        """
        return self._made(view, self.regions, self.rows)

    def _made(
        self, view: Tensor, regions: Regions, rows: Column | None
    ) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
        chosen = None
        if self.edit.widens is not None:
            axis = regions.site.axes.index(self.edit.widens)
            chosen = onto(view.device, regions.columns[axis])
            regions = regions.widened(self.edit.widens, view.shape[1 + axis])
        where = index(regions, view.device, rows, self.start)
        before = view[where]
        source = None if self.source is None else self.source.to(before.dtype)
        is_edge = isinstance(self.edit.address, Edge)
        if is_edge:
            assert source is not None, "what is added is known before a pass"
            after = before + source
        else:
            context = Context(regions.site.axes, self.keys, source, chosen, regions.layer)
            after = self.edit.change(before, context)
        if after.shape != before.shape or after.dtype != before.dtype:
            raise EditError(
                f"{self.edit} turned values of shape {list(before.shape)}, {before.dtype}, into "
                f"{list(after.shape)}, {after.dtype}."
            )
        self._prove(before, after, view, where)
        return where, before, after

    def _prove(
        self, before: Tensor, after: Tensor, view: Tensor, where: tuple[Tensor, ...]
    ) -> None:
        """Write down what changes."""
        exact = self.edit.source is Source.NOTHING and not self.edit.rounds
        exact = exact and not isinstance(self.edit.address, Edge)
        by_token = not exact and self.regions.site.axes[0] == "pos"
        usual = _usual(view, where) if by_token else None
        if self.regions.site.name == "pattern" and self.kind is not None:  # unrounded, perhaps
            before, after = before.to(self.kind), after.to(self.kind)
        each = tuple(range(1, before.ndim))
        weights = self.regions.site.name == "pattern"
        weights = weights and before.dtype in (torch.float32, torch.float64)
        times = SCORES if weights else 1
        self.changed = differs(before, after, exact, usual, times).sum(dim=each)
        self.squares = (after.double() - before.double()).square().sum(dim=each)


def differs(
    before: Float[Tensor, " cell *region"],
    after: Float[Tensor, " cell *region"],
    exact: bool = True,
    usual: Float[Tensor, " cell *ones"] | None = None,
    times: int = 1,
) -> Bool[Tensor, " cell *region"]:
    """Which values are different, by more than rounding; NaN differs.

    An edit that computes on the values themselves is exact: equal is equal to the bit. What was
    computed in another pass is not: a batch of many cells rounds otherwise than a batch of one, so
    that a value patched by its equal may differ in its last places. There rounding is some units in
    the last place (`ULPS`) of the larger of the two; or of a value as it is usual in its token's
    row, from which a small one comes by sums and differences, and has its rounding. What is usual
    is the median: one huge coordinate does not count for the others.

    Args:
        before, after: the values.
        exact: the edit is.
        usual: how large values are in the rows of these, ``[cell, …]``.
        times: how many times as much these values round.
    """
    if exact:
        return before != after
    old, new = before.double(), after.double()
    size = torch.maximum(old.abs(), new.abs())
    size = size if usual is None else torch.maximum(size, usual)
    rounding = times * ULPS[before.dtype] * torch.finfo(before.dtype).eps
    return ~((new - old).abs() <= rounding * size)


def _usual(
    view: Float[Tensor, "row pos *units"], where: Sequence[Tensor]
) -> Float[Tensor, " cell *ones"]:
    """How large values are in the tokens' rows that regions are in: the median of some of each."""
    some = view[..., :: max(1, math.prod(view.shape[2:]) // SEEN)]
    rows, positions = where[0].flatten(1), where[1].flatten(1)
    if len(rows) * positions.shape[1] > math.prod(view.shape[:2]):  # tokens come again
        found = _median(some.flatten(2))[rows, positions]
    else:
        found = _median(some[rows, positions].flatten(2))
    return found.view(*found.shape, *[1] * (view.ndim - 2))


def _median(values: Tensor) -> Tensor:
    median: Tensor = values.abs().double().median(dim=-1).values
    return median


def intervene(
    hf: PreTrainedModel,
    anatomy: Anatomy,
    encoded: Encoded,
    edits: Sequence[Operation],
    sources: Sources,
    readers: Sequence[Visit] = (),
    prompt: int = 0,
    corruption: Sequence[Operation] = (),
) -> tuple[Float[Tensor, "1 pos vocab"], list[Receipt]]:
    """One full forward pass of one prompt with these edits: its logits, and a receipt per edit.

    Of what corrupts the run before them there is none.
    """
    applied = [_applications(anatomy, encoded, edit, sources) for edit in edits]
    visits = [*corrupted(anatomy, encoded, corruption, sources, [0])]
    visits += [application.visit() for group in applied for application in group]
    logits = forward(hf, anatomy, ids_of([encoded.tokens], hf), [*visits, *readers])
    receipts = [receipt_of(edit, group, prompt) for edit, group in zip(edits, applied, strict=True)]
    return logits, receipts


def _applications(
    anatomy: Anatomy, encoded: Encoded, edit: Operation, sources: Sources
) -> list[Application]:
    applied = []
    check_single(edit.address)
    own = sides(edit.address, anatomy.dims, encoded.tokens)
    edit.check_together(own.changed.regions(), anatomy.dims.causal)
    for region in own.lands.regions():
        where = Regions.of(region)
        source = sources.of(edit, region.layer, encoded)
        applied.append(
            Application(edit, where, Keys(where, [encoded.tokens]), source, kind=sources.kind)
        )
    return applied


def corrupted(
    anatomy: Anatomy,
    encoded: Encoded,
    edits: Sequence[Operation],
    sources: Sources,
    rows: Iterable[int],
) -> Iterator[Visit]:
    """The visits that corrupt a prompt's run in some rows of a batch of whole texts."""
    for row in rows:
        for edit in edits:
            for application in _applications(anatomy, encoded, edit, sources):
                yield replace(application, rows=np.array([row])).visit()


def no_number(where: str) -> str:
    """The complaint about an edit whose result is infinite or NaN."""
    return (
        f"{where}: the values after the edit are not all finite numbers. A knockout of all that a "
        "token attends to leaves nothing to share out, nor does one of all but what is 0 in the "
        "model's type (load it with a finer dtype=); a large factor, or a function, may overflow."
    )


def receipt_of(edit: Operation, group: Sequence[Application], prompt: int) -> Receipt:
    """Proof of what one edit did in all its layers.

    Raises:
        EditError: it gave what is not a finite number.
    """
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
