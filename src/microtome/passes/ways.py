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

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from microtome.language.regions import Column
from microtome.language.sites import site as find_site
from microtome.model.anatomy import Anatomy
from microtome.model.devices import onto
from microtome.model.families.taps import Tap
from microtome.model.matrices import bias_of
from microtome.passes.guests import Hook
from microtome.passes.head_reads import HeadReads
from microtome.passes.visits import Place
from microtome.passes.way import Put, Way


def way_of(site: str, layer: int, hf: PreTrainedModel, anatomy: Anatomy) -> Way:
    """The way of a site in a layer."""
    if site == "head_out":
        return Adds(hf, anatomy, layer)
    return MlpReads(hf, anatomy, layer) if site == "mlp_in" else HeadReads(hf, anatomy, layer, site)


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
