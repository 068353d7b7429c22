"""What a head reads: the stream, by the norm and its own projection on to query, key or value."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from microtome.language.regions import Column
from microtome.language.sites import OF_HEADS, OF_READERS
from microtome.language.sites import site as find_site
from microtome.model.devices import onto
from microtome.model.families.taps import Tap
from microtome.passes.guests import Hook
from microtome.passes.visits import Place
from microtome.passes.way import Put, Way


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
