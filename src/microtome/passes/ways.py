"""The ways of detours: where each begins and ends, and what comes of an edit on it.

| site | begins | what comes of an edit | is put into |
|---|---|---|---|
| ``q_in`` | at the block's input | norm and projection of it, one head's | ``q`` |
| ``k_in_group``, ``v_in_group`` | likewise | likewise | ``k``, ``v`` |
| ``k_in``, ``v_in`` | likewise | likewise | that query head's branch, if it shares its key |
| ``head_out`` | at ``z`` | the change itself | the sum of what heads add, before its norm |
| ``mlp_in``, of a norm shared | at the block's input | the norm of it | the MLP's input |
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from microtome.language.regions import Column
from microtome.language.sites import OF_HEADS, OF_READERS
from microtome.language.sites import site as find_site
from microtome.model.anatomy import Anatomy
from microtome.model.devices import onto
from microtome.model.families.family import Tap
from microtome.model.matrices import bias_of
from microtome.passes.guests import Hook
from microtome.passes.visits import Place

Put = Callable[[Tensor], None]
"""Puts what came of an edit into a view of the place where the way ends."""


def way_of(site: str, layer: int, hf: PreTrainedModel, anatomy: Anatomy) -> Way:
    """The way of a site in a layer."""
    if site == "head_out":
        return Adds(hf, anatomy, layer)
    return MlpReads(hf, anatomy, layer) if site == "mlp_in" else HeadReads(hf, anatomy, layer, site)


@dataclass(frozen=True, eq=False)
class Way(ABC):
    """The way of one site in one layer.

    Values that are edited are those of pairs: of a head in a row.
    """

    hf: PreTrainedModel
    anatomy: Anatomy
    layer: int

    is_headed = True

    @property
    @abstractmethod
    def heads(self) -> int:
        """How many heads the site has; 1 where it has no such axis."""

    @property
    @abstractmethod
    def begin(self) -> Place:
        """Where it begins."""

    @property
    @abstractmethod
    def end(self) -> Place:
        """Where it ends."""

    @property
    def tap(self) -> Tap | None:
        """Where the values at its end are, if that is not where the site is."""
        return None

    @abstractmethod
    def whole(self, seen: Tensor) -> Tensor:
        """All values of the site, ``[row, *axes]``."""

    @abstractmethod
    def parts(self, seen: Tensor, rows: Column, heads: Column) -> Float[Tensor, "pair pos d_model"]:
        """A copy of the values of some pairs."""

    @abstractmethod
    def change(
        self,
        before: Float[Tensor, "pair pos d_model"],
        after: Float[Tensor, "pair pos d_model"],
        rows: Column,
        heads: Column,
    ) -> Put:
        """What puts the change of some pairs in its place."""

    @abstractmethod
    def pulled(self, seen: Tensor, slope: Tensor) -> Tensor:
        """The gradient at the site, ``[row, *axes]``, of the one where the way ends.

        Args:
            seen: what was seen where it begins, in the pass that the gradient is of.
            slope: the gradient where it ends.
        """

    def replaced(
        self, whole: Tensor, rows: Tensor, heads: Tensor, after: Float[Tensor, "pair pos d_model"]
    ) -> Tensor:
        """All values of the site, after the edit of some pairs."""
        edited = whole.clone(memory_format=torch.contiguous_format)
        edited[rows, :, heads] = after
        return edited


@dataclass(frozen=True, eq=False)
class HeadReads(Way):
    """What a head's queries, keys or values read; or a group's keys or values."""

    site: str

    @property
    def heads(self) -> int:
        """How many read, each by itself."""
        return self.anatomy.dims.size(find_site(self.site).axes[1])

    @property
    def begin(self) -> Place:
        """The stream that enters the block."""
        return find_site("resid_pre"), self.layer

    @property
    def end(self) -> Place:
        """What is made of it; as one query head sees it, where others share that."""
        own = {of: site for site, of in OF_HEADS.items()}
        site = own[self._part] if self._is_one_of_group else self._part
        return find_site(site), self.layer

    @property
    def whole_end(self) -> Place:
        """The same for all heads at once."""
        return find_site(self._part), self.layer

    @property
    def tap(self) -> Tap | None:
        """Behind a norm that goes over all heads together, or other heads would see the edit."""
        family = self.anatomy.family
        norm = family.joint.get(self._part)
        if norm is None:
            return None
        return replace(family.taps[self._part], module=norm.format(layer=self.layer))

    @property
    def _part(self) -> str:
        return OF_READERS[self.site]

    @property
    def _is_one_of_group(self) -> bool:
        return self._part in OF_HEADS.values() and self.heads > self.anatomy.dims.n_kv_heads

    def whole(self, seen: Tensor) -> Float[Tensor, "row pos head d_model"]:
        """The stream, once for each head; no memory is taken."""
        return seen.unsqueeze(2).expand(-1, -1, self.heads, -1)

    def parts(self, seen: Tensor, rows: Column, heads: Column) -> Float[Tensor, "pair pos d_model"]:
        """The stream of the pairs' rows."""
        return seen[onto(seen.device, rows)]

    def change(
        self,
        before: Float[Tensor, "pair pos d_model"],
        after: Float[Tensor, "pair pos d_model"],
        rows: Column,
        heads: Column,
    ) -> Put:
        """Query, key or value of what is different now, in the place of the head's own."""
        where, head = onto(before.device, rows), onto(before.device, heads)
        differs = (after != before).any(-1, keepdim=True)
        made = self._made(after, heads, max(1, len(np.unique(rows))))

        def put(view: Float[Tensor, "row pos head d_head"]) -> None:
            view[where, :, head] = made.where(differs, view[where, :, head])

        return put

    def of_all(
        self, stream: Float[Tensor, "row pos d_model"]
    ) -> Float[Tensor, "row pos head d_head"]:
        """What all heads make of a stream, each as it does by itself: the keys that there are."""
        if self._part in self.anatomy.family.joint:
            return self._together(stream)
        normed = self.anatomy.normed(self.hf, self.layer, stream)
        heads = range(self.anatomy.dims.size(find_site(self._part).axes[1]))
        return torch.stack([self._of_head(normed, head) for head in heads], dim=2)

    def _together(
        self, stream: Float[Tensor, "row pos d_model"]
    ) -> Float[Tensor, "row pos head d_head"]:
        """The same by one projection, whose norm goes over all heads."""
        normed = self.anatomy.normed(self.hf, self.layer, stream)
        every = self.anatomy.projected(self.hf, self.layer, self._part, normed)
        return self.anatomy.joint(self.hf, self.layer, self._part, every)

    def pulled(
        self,
        seen: Float[Tensor, "row pos d_model"],
        slope: Float[Tensor, "row pos head d_head"],
    ) -> Float[Tensor, "row pos head d_model"]:
        """Back through the head's own projection, then the norm of the stream that it reads."""
        hf, anatomy, layer = self.hf, self.anatomy, self.layer
        heads = onto(seen.device, np.arange(self.heads))
        group = anatomy.dims.n_heads // anatomy.dims.n_kv_heads
        chosen = heads // group if self._is_one_of_group else heads
        with torch.enable_grad():
            each = self.whole(seen.detach()).clone().requires_grad_()
            normed = anatomy.normed(hf, layer, each)
            if anatomy.family.joint.get(self._part) is None:
                matrix = anatomy.in_matrix(hf, layer, self._part, normed)[chosen].detach()
                back = torch.einsum("rphd,hdm->rphm", slope, matrix)
                return torch.autograd.grad(normed, each, back)[0]
            every = self._together(each.flatten(0, 1))[:, heads, chosen]
            own = every.view(*each.shape[:3], -1)
            return torch.autograd.grad(own, each, slope)[0]

    def _made(
        self, stream: Float[Tensor, "pair pos d_model"], heads: Column, at_once: int
    ) -> Float[Tensor, "pair pos d_head"]:
        """What each pair's head makes of a stream; of as many pairs at a time as there are rows."""
        group = self.anatomy.dims.n_heads // self.anatomy.dims.n_kv_heads
        chosen = heads // group if self._is_one_of_group else heads
        if self._part in self.anatomy.family.joint:
            return self._made_together(stream, chosen, at_once)
        found = stream.new_empty(*stream.shape[:2], self.anatomy.dims.d_head)
        for head in np.unique(chosen).tolist():
            mine = np.flatnonzero(chosen == head)
            for first in range(0, len(mine), at_once):
                some = onto(stream.device, mine[first : first + at_once])
                normed = self.anatomy.normed(self.hf, self.layer, stream[some])
                found[some] = self._of_head(normed, head)
        return found

    def _of_head(
        self, normed: Float[Tensor, "row pos d_model"], head: int
    ) -> Float[Tensor, "row pos d_head"]:
        return self.anatomy.projected_head(
            self.hf, self.layer, self._part, normed, head, besides=Hook
        )

    def _made_together(
        self, stream: Float[Tensor, "pair pos d_model"], chosen: Column, at_once: int
    ) -> Float[Tensor, "pair pos d_head"]:
        """The same, where a norm goes over what all heads make together."""
        found = []
        for first in range(0, len(stream), at_once):
            some = slice(first, first + at_once)
            every = self._together(stream[some])
            own = onto(stream.device, np.arange(len(every)))
            found.append(every[own, :, onto(stream.device, chosen[some])])
        return torch.cat(found)


@dataclass(frozen=True, eq=False)
class Adds(Way):
    """What a head adds to the residual stream, before a norm of what all add."""

    @property
    def heads(self) -> int:
        """How many add."""
        return self.anatomy.dims.n_heads

    @property
    def begin(self) -> Place:
        """The heads' outputs."""
        return find_site("z"), self.layer

    @property
    def end(self) -> Place:
        """Their sum."""
        return find_site("attn_out"), self.layer

    @property
    def tap(self) -> Tap | None:
        """Before its norm."""
        mixed = self.anatomy.mixed
        return replace(mixed, module=mixed.module.format(layer=self.layer))

    def _matrix(self, z: Tensor) -> Float[Tensor, "head d_head d_model"]:
        return self.anatomy.out_matrix(self.hf, self.layer, z, besides=Hook)

    def whole(
        self, seen: Float[Tensor, "row pos head d_head"]
    ) -> Float[Tensor, "row pos head d_model"]:
        """Each head's share."""
        return (seen.transpose(1, 2) @ self._matrix(seen)).transpose(1, 2)

    def pulled(
        self, seen: Tensor, slope: Float[Tensor, "row pos d_model"]
    ) -> Float[Tensor, "row pos head d_model"]:
        """The sum's own, for every head."""
        return slope.unsqueeze(2).expand(-1, -1, self.heads, -1)

    def parts(
        self, seen: Float[Tensor, "row pos head d_head"], rows: Column, heads: Column
    ) -> Float[Tensor, "pair pos d_model"]:
        """The pairs' shares, head by head."""
        matrix = self._matrix(seen)
        found = seen.new_empty(len(rows), seen.shape[1], matrix.shape[2])
        for head in np.unique(heads).tolist():
            own = np.flatnonzero(heads == head)
            share = seen[onto(seen.device, rows[own]), :, head] @ matrix[head]
            found[onto(seen.device, own)] = share
        return found

    def change(
        self,
        before: Float[Tensor, "pair pos d_model"],
        after: Float[Tensor, "pair pos d_model"],
        rows: Column,
        heads: Column,
    ) -> Put:
        """The differences, added to the sum: one head of each row at a time, in their order.

        Where a norm follows and all heads of a row are edited, the sum is made anew: what is left
        of heads that add nothing would be rounding, and that the norm would blow up.
        """
        changed = after - before
        _, first, counts = np.unique(rows, return_index=True, return_counts=True)
        turn = np.arange(len(rows)) - np.repeat(first, counts)
        is_normed = self.anatomy.family.attn_norm is not None
        whole = first[counts == self.heads] if is_normed else first[:0]
        every = onto(after.device, whole[:, None] + np.arange(self.heads))  # in order, all of a row

        def put(view: Float[Tensor, "row pos d_model"]) -> None:
            for number in range(int(counts.max())):
                own = np.flatnonzero(turn == number)
                view[onto(view.device, rows[own])] += changed[onto(view.device, own)]
            if len(whole):
                here = onto(view.device, rows[whole])
                wide = torch.promote_types(view.dtype, torch.float32)
                anew = (after[every].sum(1, dtype=wide) + self._nothing(view)).to(view.dtype)
                moved = (changed[every] != 0).any(-1, keepdim=True).any(1)
                view[here] = torch.where(moved, anew, view[here])

        return put

    def _nothing(self, like: Tensor) -> Float[Tensor, " d_model"]:
        """What the projection gives where no head adds anything."""
        dims = self.anatomy.dims
        return bias_of(
            self.anatomy.out_proj(self.hf, self.layer), dims.n_heads * dims.d_head, like, Hook
        )


@dataclass(frozen=True, eq=False)
class MlpReads(Way):
    """What the MLP reads, where it shares the norm of attention."""

    is_headed = False

    @property
    def heads(self) -> int:
        """It has none."""
        return 1

    @property
    def begin(self) -> Place:
        """The stream that enters the block."""
        return find_site("resid_pre"), self.layer

    @property
    def end(self) -> Place:
        """The MLP's input."""
        return find_site("mlp_in"), self.layer

    @property
    def tap(self) -> Tap | None:
        """It is tapped there already."""
        return self.anatomy.tap(find_site("mlp_in"), self.layer)

    def whole(self, seen: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row pos d_model"]:
        """The stream."""
        return seen

    def pulled(
        self, seen: Float[Tensor, "row pos d_model"], slope: Float[Tensor, "row pos d_model"]
    ) -> Float[Tensor, "row pos d_model"]:
        """Back through the norm."""
        with torch.enable_grad():
            own = seen.detach().clone().requires_grad_()
            normed = self.anatomy.mlp_normed(self.hf, self.layer, own)
            return torch.autograd.grad(normed, own, slope)[0]

    def parts(self, seen: Tensor, rows: Column, heads: Column) -> Float[Tensor, "pair pos d_model"]:
        """The stream of some rows."""
        return seen[onto(seen.device, rows)]

    def change(
        self,
        before: Float[Tensor, "pair pos d_model"],
        after: Float[Tensor, "pair pos d_model"],
        rows: Column,
        heads: Column,
    ) -> Put:
        """The norm of what is different now, in the place of what the MLP gets."""
        where = onto(before.device, rows)
        differs = (after != before).any(-1, keepdim=True)
        made = self.anatomy.mlp_normed(self.hf, self.layer, after)

        def put(view: Float[Tensor, "row pos d_model"]) -> None:
            view[where] = made.where(differs, view[where])

        return put

    def replaced(
        self, whole: Tensor, rows: Tensor, heads: Tensor, after: Float[Tensor, "pair pos d_model"]
    ) -> Tensor:
        """The stream, with the edited rows in their place."""
        return whole.index_copy(0, rows, after)
