"""Keys and values for one query head alone, where several heads share them.

Under grouped-query attention a key belongs to all the heads of its group, and an edit of the site
``k`` moves all of them. The sites ``k_head`` and ``v_head`` are the same keys and values as each
query head by itself sees them. An edit of one is made in a **branch**: a copy of the row, which
goes through the layer's own attention beside it. Before W_O mixes the heads, the edited head's
output is taken from the branch and all others' from the row, and the branch ends. So rotary
embeddings, norms and caches are the model's own, in every family.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from microtome.language.regions import Column
from microtome.language.sites import OF_HEADS, Dimensions
from microtome.model.devices import onto
from microtome.model.families.taps import Tap

Heads = tuple[Column, Column]
"""Rows ``[n]`` of a batch, and which heads are edited in each, ``[n, heads]``."""


@dataclass(eq=False)
class Branches:
    """The branches of one layer in one pass.

    A batch of rows becomes one of ``1 + slots`` rows for each, one after the other: the row itself
    and its branches, each for one head of every group at most: what a head sees of its own group
    is nothing to another group's. So there are as many as heads of one group are edited. Where a
    norm goes over the keys of all groups together, it is something to them, and there is a branch
    for each head.

    Attributes:
        dims: the model's.
        edited: which heads are edited in which rows; None: all in all.
        apart: groups are normed together, so that each head has a branch of its own.
        heads: per row and branch, whose it is, ``[row, slot, head]``; the same one several times
            where it is of fewer. Known when the batch is.
    """

    dims: Dimensions
    edited: Sequence[Heads | None]
    apart: bool = False
    heads: Tensor = field(
        default_factory=lambda: torch.empty(0, 0, 1, dtype=torch.long, device="cpu")
    )

    def fork(self, x: Float[Tensor, "row pos d"]) -> Float[Tensor, "all pos d"]:
        """What enters attention: every row and its branches."""
        chosen: list[dict[int, None]] = [{} for _ in range(len(x))]  # in order, each once
        everything = np.arange(len(x)), np.arange(self.dims.n_heads)[None]
        for rows, heads in (given or everything for given in self.edited):
            several = np.broadcast_to(heads, (len(rows), heads.shape[1]))
            for row, own in zip(rows.tolist(), several.tolist(), strict=True):
                chosen[row].update(dict.fromkeys(own))
        packed = [self._packed(own) for own in chosen]
        slots = max(map(len, packed))
        width = max((len(own) for row in packed for own in row), default=1)
        # A row with fewer has branches that nothing is edited in.
        table = [
            [own + own[:1] * (width - len(own)) for own in row] + [[0] * width] * (slots - len(row))
            for row in packed
        ]
        self.heads = onto(x.device, torch.tensor(table, dtype=torch.long, device="cpu"))
        return self._repeated(x)

    def _packed(self, heads: Iterable[int]) -> list[list[int]]:
        """Heads in as few branches as there can be."""
        group = self.dims.n_heads if self.apart else self.dims.n_heads // self.dims.n_kv_heads
        found = list[list[int]]()
        taken: Counter[int] = Counter()
        for head in heads:
            slot = taken[head // group]
            taken[head // group] += 1
            if slot == len(found):
                found.append([])
            found[slot].append(head)
        return found

    def beside(self, given: Any, entered: Tensor) -> Any:
        """What attention gets besides, for every row and its branches, once those are known.

        A mask, positions or their embeddings may be of each row. What is one for all rows stays,
        as does what is no tensor.

        Args:
            given: an argument of the attention module.
            entered: what entered attention before the fork, ``[row, pos, d]``.
        """
        if isinstance(given, tuple | list):
            return type(given)(self.beside(part, entered) for part in given)
        if not isinstance(given, Tensor) or given.ndim < 2:
            return given
        if len(entered) == 1:  # Falcon's own attention takes no slopes of one row for others
            each = given.ndim == 4 and len(given) == 1
            return given.expand(1 + self.heads.shape[1], -1, -1, -1) if each else given
        # One table of positions may have as many lines as the batch has rows.
        own = 2 if given.ndim == 2 else 1
        return self._repeated(given) if given.shape[:own] == entered.shape[:own] else given

    def _repeated(self, x: Tensor) -> Tensor:
        return x.repeat_interleave(1 + self.heads.shape[1], dim=0)

    def join(self, z: Float[Tensor, "all pos width"]) -> Float[Tensor, "row pos width"]:
        """What the output projection reads: each branch's own head, and the row's others."""
        rows = self._by_row(z.view(*z.shape[:2], self.dims.n_heads, -1))
        joined = rows[:, 0].clone()
        for slot, heads in enumerate(self.heads.unbind(1), start=1):
            where = _along(2, heads, joined)
            joined.scatter_(2, where, rows[:, slot].gather(2, where))
        return joined.flatten(2)

    def visit(self, tap: Tap, site: str, act: Callable[[Tensor], None], full: Tensor) -> None:
        """Let a site's values be looked at and changed, as if there were no branches.

        A change of what all heads share is made in the branches too; of what one head sees, in its
        branch alone.
        """
        rows = self._by_row(full)
        if site in OF_HEADS:
            seen = self._seen_by_heads(rows, tap)
            act(seen)
            self._give(rows, tap, seen)
            return
        view = self._weights(rows) if site == "pattern" else tap.view(rows[:, 0], self.dims)
        act(view)
        for slot in range(rows.shape[1]):
            own = rows[:, slot]
            if tap.put is not None:
                tap.put(own, view, self.dims)
            else:
                tap.view(own, self.dims).copy_(view)

    def _by_row(self, full: Tensor) -> Float[Tensor, "row branch ..."]:
        return full.view(len(self.heads), -1, *full.shape[1:])

    def _seen_by_heads(
        self, rows: Float[Tensor, "row branch pos d"], tap: Tap
    ) -> Float[Tensor, "row pos head d_head"]:
        seen = by_head(tap.view(rows[:, 0], self.dims), self.dims)
        for slot, heads in enumerate(self.heads.unbind(1), start=1):
            own = by_head(tap.view(rows[:, slot], self.dims), self.dims)
            where = _along(2, heads, own)
            seen.scatter_(2, where, own.gather(2, where))
        return seen

    def _give(
        self,
        rows: Float[Tensor, "row branch pos d"],
        tap: Tap,
        seen: Float[Tensor, "row pos head d_head"],
    ) -> None:
        group = self.dims.n_heads // self.dims.n_kv_heads
        for slot, heads in enumerate(self.heads.unbind(1), start=1):
            where = _along(2, heads, seen)
            tap.view(rows[:, slot], self.dims).scatter_(2, where // group, seen.gather(2, where))

    def _weights(
        self, rows: Float[Tensor, "row branch head query key"]
    ) -> Float[Tensor, "row head query key"]:
        """Each head's attention weights, from where it is edited."""
        joined = rows[:, 0].clone()
        for slot, heads in enumerate(self.heads.unbind(1), start=1):
            where = _along(1, heads, joined)
            own = rows[:, slot]
            own = own.clone() if own.requires_grad else own  # a gradient needs it as it is now
            joined.scatter_(1, where, own.gather(1, where))
        return joined


def _along(axis: int, heads: Int[Tensor, "row head"], of: Tensor) -> Tensor:
    """Some indices per row along an axis, to gather and scatter with."""
    shape, own = list(of.shape), [1] * of.ndim
    shape[axis] = own[axis] = heads.shape[1]
    own[0] = len(heads)
    return heads.view(own).expand(shape)


def by_head(
    values: Float[Tensor, "row pos kv_head d_head"], dims: Dimensions
) -> Float[Tensor, "row pos head d_head"]:
    """Keys or values, once for each head of their group."""
    return values.repeat_interleave(dims.n_heads // dims.n_kv_heads, dim=2)
