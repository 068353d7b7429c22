"""What single heads read and write: sites that are no tensor of any module.

The sites ``q_in``, ``k_in`` and ``v_in`` are the residual stream as one head reads it, ``head_out``
is what one head adds to it. A pass holds neither: all heads read one stream, and what they add is
one sum. So a visit of theirs takes a **detour**. Where the stream (or the heads' ``z``) is, the
visit is made, on a copy for each head that is edited and no other. What comes of that, by the
model's own norm and projection, is put where the pass goes on (`microtome.passes.ways`): the stream
goes past. What an edit left alone keeps every bit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from microtome.errors import MicrotomeError
from microtome.language.regions import Column
from microtome.language.sites import APART, Site
from microtome.model.anatomy import Anatomy
from microtome.model.devices import onto
from microtome.passes.branches import Heads
from microtome.passes.visits import Place, Visit
from microtome.passes.way import Put, Way
from microtome.passes.ways import way_of


def detoured(
    visits: Sequence[Visit], hf: PreTrainedModel, anatomy: Anatomy, note: Callable[[Visit], None]
) -> Iterator[Visit]:
    """Visits that modules can make, in the place of these.

    Args:
        visits: in the order of the pass, at one place writers first.
        hf: the model.
        anatomy: its anatomy.
        note: is told when one that takes a detour was made.
    """
    apart: dict[Place, list[Visit]] = defaultdict(list)
    direct: list[Visit] = []
    for visit in visits:
        (
            apart[visit.place]
            if visit.tap is None and is_apart(visit.place[0], anatomy)
            else direct
        ).append(visit)
    for (site, layer), own in apart.items():
        assert layer is not None, "these sites are in layers"
        writers = [visit for visit in own if visit.writes]
        readers = [visit for visit in own if not visit.writes]
        yield from Detour(way_of(site.name, layer, hf, anatomy), writers, readers, note).visits()
    yield from direct  # behind a detour's at the same place


def is_apart(site: Site, anatomy: Anatomy) -> bool:
    """Whether a visit of this site takes a detour."""
    shares = site.name == "mlp_in" and anatomy.family.mlp_reads is not None
    return site.name in APART or shares


@dataclass(eq=False)
class Detour:
    """The visits of one such place in one pass.

    Attributes:
        way: where it begins and ends.
        writers, readers: the visits.
        note: is told when one was made.
        put: what puts the change in its place; None until the detour has begun.
    """

    way: Way
    writers: Sequence[Visit]
    readers: Sequence[Visit]
    note: Callable[[Visit], None]
    put: Put | None = None

    def visits(self) -> Iterator[Visit]:
        """The visits that modules make for it."""
        yield Visit(self.way.begin, self._begin)
        if self.writers:
            yield Visit(
                self.way.end,
                self._end,
                writes=True,
                heads=_together([visit.heads for visit in self.writers]),
                tap=self.way.tap,
            )

    def _begin(self, seen: Tensor) -> None:
        site, axes = self.way.begin[0], len(self.way.begin[0].axes)
        if seen.ndim != 1 + axes:
            raise MicrotomeError(f"{site} has shape {list(seen.shape)}, not {1 + axes} axes.")
        edited = self._edit(seen) if self.writers else None
        if not self.readers:
            return
        whole = self.way.whole(seen)
        whole = whole if edited is None else self.way.replaced(whole, *edited)
        for visit in self.readers:
            visit.act(whole)
            self.note(visit)

    def _edit(self, seen: Tensor) -> tuple[Tensor, Tensor, Float[Tensor, "pair pos d_model"]]:
        """Rows and heads of what is edited, and their values after it."""
        each = [_codes(visit.heads, len(seen), self.way.heads) for visit in self.writers]
        pairs = np.unique(np.concatenate([codes.ravel() for codes in each]))
        rows, heads = np.divmod(pairs, self.way.heads)
        before = self.way.parts(seen, rows, heads)
        after = before.clone()
        for visit, codes in zip(self.writers, each, strict=True):
            self._act(visit, after, onto(seen.device, np.searchsorted(pairs, codes)))
        self.put = self.way.change(before, after, rows, heads)
        return onto(seen.device, rows), onto(seen.device, heads), after

    def _act(
        self, visit: Visit, values: Float[Tensor, "pair pos d_model"], where: Int[Tensor, "cell n"]
    ) -> None:
        own = values[where].transpose(1, 2)  # [cell, pos, head, d_model]
        visit.act(own if self.way.is_headed else own[:, :, 0])
        values[where] = own.transpose(1, 2)

    def _end(self, view: Tensor) -> None:
        if self.put is None:
            site, layer = self.writers[0].place
            raise MicrotomeError(f"L{layer}.{site} is used before the pass gets there.")
        self.put(view)
        self.put = _nothing  # and what it held is gone
        for visit in self.writers:
            self.note(visit)


def _nothing(view: Tensor) -> None:
    """A change that was put in its place already."""


def _codes(given: Heads | None, rows: int, heads: int) -> Column:
    """A number for each head of each row that a writer changes, ``[cell, n]``."""
    own, chosen = (np.arange(rows), np.arange(heads)[None]) if given is None else given
    codes: Column = own[:, None] * heads + chosen
    return codes


def _together(given: Sequence[Heads | None]) -> Heads | None:
    """The heads that any of some writers changes; None: all."""
    known = [heads for heads in given if heads is not None]
    if len(known) < len(given):
        return None
    rows = [np.repeat(own, chosen.shape[1]) for own, chosen in known]
    heads = [
        np.broadcast_to(chosen, (len(own), chosen.shape[1])).reshape(-1, 1) for own, chosen in known
    ]
    return np.concatenate(rows), np.concatenate(heads)
