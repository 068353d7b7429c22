"""What writers write, and what an edit of an edge makes of it: the change of what a reader reads.

Both shares, as it is and as it is edited, are of clean runs, so that the change is known before
anything runs. A head's share is its ``z`` times its own part of W_O: what is recorded is ``z``, and
one share is made for all cells of a writer. Where what heads add is normed before it is added, the
change is that of the norm of the whole, in which the one part is edited.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from microtome.edits.base import Context
from microtome.edits.keys import Keys
from microtome.edits.means import Means
from microtome.language.edges import Edge
from microtome.language.operations import Operation, Source
from microtome.language.regions import Column, Layout, Regions
from microtome.language.sites import site as find_site
from microtome.model.anatomy import Anatomy
from microtome.model.devices import onto
from microtome.passes.guests import Hook
from microtome.passes.hooks import Place
from microtome.passes.trace import index
from microtome.prompts.encoding import Encoded
from microtome.prompts.others import others_of
from microtome.prompts.resolve import aligned_stars, counterpart
from microtome.prompts.sides import sides
from microtome.prompts.tokens import Tokens

Recorded = Callable[[Tokens, Place], tuple[Tensor, int]]
"""A text and a place → what was recorded there, ``[1, *axes]``, and its first position."""


@dataclass(frozen=True, eq=False)
class Change:
    """The change of what is read of some writers, in some cells.

    Attributes:
        table: per writer, ``[writer, pos, d_model]``, at the positions of the edge.
        of: which of these each cell has, ``[cell]``.
    """

    table: Float[Tensor, "writer pos d_model"]
    of: Column

    def at(self, regions: Regions) -> Float[Tensor, " cell *region"]:
        """In each cell's region of a reader's site; no memory is taken for its heads."""
        each = self.table[onto(self.table.device, self.of)]
        units = onto(each.device, regions.columns[-1])
        if units.shape[1] < each.shape[2]:
            units = units[:, None].expand(len(each), each.shape[1], -1)
            each = each.gather(2, units)
        if len(regions.columns) == 3:
            each = each.unsqueeze(2).expand(-1, -1, regions.columns[1].shape[1], -1)
        return each


@dataclass(frozen=True, eq=False)
class Shares:
    """Shares of writers in clean runs.

    Attributes:
        hf: the model.
        anatomy: its anatomy.
        recorded: what was recorded of a text.
        means: of reference prompts.
    """

    hf: PreTrainedModel
    anatomy: Anatomy
    recorded: Recorded
    means: Means

    def change(
        self,
        edit: Operation,
        one: Encoded,
        stars: Mapping[str, Column],
        cells: int,
        since: int = 0,
    ) -> Change:
        """What an edit of an edge changes in some cells of a prompt.

        Args:
            edit: its edge may have stars.
            one: the prompt.
            stars: what each star is in each cell.
            cells: how many there are.
            since: the first position that is wanted.
        """
        share = sides(edit.address, self.anatomy.dims, one.tokens).share
        assert share is not None, "an edge has a writer"
        share = share.since(since)
        kinds, of = share.unlike(stars, cells)
        with torch.no_grad():
            table = self._table(edit, one, share, kinds, int(of.max()) + 1, since)
        return Change(table, of)

    def _table(
        self,
        edit: Operation,
        one: Encoded,
        share: Layout,
        stars: Mapping[str, Column],
        writers: int,
        since: int,
    ) -> Float[Tensor, "writer pos d_model"]:
        """The changes of some writers, each of which may be of several layers together."""
        table = None
        for layer, rows in _by_layer(share, stars, writers):
            own = {name: column[rows] for name, column in stars.items()}
            found = self._in_layer(edit, one, share, layer, own, len(rows), since)
            if table is None:
                table = found.new_zeros(writers, *found.shape[1:])
            table.index_add_(0, onto(table.device, rows), found)
        assert table is not None, "a writer is somewhere"
        return table

    def _in_layer(
        self,
        edit: Operation,
        one: Encoded,
        share: Layout,
        layer: int | None,
        stars: Mapping[str, Column],
        writers: int,
        since: int,
    ) -> Float[Tensor, "writer pos d_model"]:
        regions = share.at(layer, stars, writers)
        clean = self._share(one.tokens, regions)
        source = self._source(edit, one, layer, stars, writers, since)
        context = Context(regions.site.axes, Keys(regions, [one.tokens]), source)
        edited = edit.change(clean, context)
        changed: Tensor = edited - clean
        if regions.site.name != "head_out":
            return changed
        if self.anatomy.family.attn_norm is None or layer is None:
            return changed.sum(dim=2)
        whole = self._whole(one.tokens, layer, regions.columns[0])
        before: Tensor = self.anatomy.attention_normed(self.hf, layer, whole)
        if regions.shape[1] == self.anatomy.dims.n_heads:
            # The others add nothing: what is left of a difference would be rounding, blown up.
            left = self._of_nothing(layer, whole) + _sum(edited)
            after = torch.where((changed != 0).any(-1).any(-1, keepdim=True), left, whole)
        else:
            after = whole + changed.sum(dim=2)
        return self.anatomy.attention_normed(self.hf, layer, after) - before

    def _of_nothing(self, layer: int, like: Tensor) -> Float[Tensor, " d_model"]:
        """What all heads add together where each adds nothing."""
        dims = self.anatomy.dims
        z = like.new_zeros(1, 1, dims.n_heads, dims.d_head)
        nothing: Tensor = self.anatomy.mixes(self.hf, layer, z)[0, 0]
        return nothing

    def _source(
        self,
        edit: Operation,
        one: Encoded,
        layer: int | None,
        stars: Mapping[str, Column],
        writers: int,
        since: int,
    ) -> Tensor | None:
        """What the edit asks for, of the same writers."""
        assert isinstance(edit.address, Edge), "an address has no writer"
        stars = edit.address.of_share(stars)
        match edit.source:
            case Source.NOTHING:
                return None
            case Source.REFERENCE:
                return self.means.of(edit, layer, one, stars, writers)
            case Source.DONOR:
                [donor] = others_of(edit, one, ())
                dims, align = self.anatomy.dims, edit.alignment
                there = counterpart(edit.place, dims, one.tokens, donor, align)
                moved = aligned_stars(edit.place, one.tokens, donor, align)
                stars = {**stars, **{name: own[stars[name]] for name, own in moved.items()}}
                return self._share(donor, there.since(since).at(layer, stars, writers))

    def _share(self, text: Tokens, regions: Regions) -> Float[Tensor, " writer *region"]:
        """What writers write in a text's clean run."""
        if regions.site.name != "head_out":
            values, first = self.recorded(text, (regions.site, regions.layer))
            found = values[index(regions, values.device, start=first)]
            return found.expand(regions.cells, *regions.shape)
        assert regions.layer is not None, "heads are in layers"
        values, first = self.recorded(text, (find_site("z"), regions.layer))
        pos, heads, _ = (onto(values.device, column) for column in regions.columns)
        z = values[0][(pos - first)[:, :, None], heads[:, None]]
        matrix = self.anatomy.out_matrix(self.hf, regions.layer, values, besides=Hook)[heads]
        found = (z.transpose(1, 2) @ matrix).transpose(1, 2)
        return found.expand(regions.cells, *regions.shape)

    def _whole(
        self, text: Tokens, layer: int, positions: Column
    ) -> Float[Tensor, "writer pos d_model"]:
        """What all heads add together, before its norm."""
        z, first = self.recorded(text, (find_site("z"), layer))
        where = onto(z.device, positions - first)
        whole: Tensor = self.anatomy.mixes(self.hf, layer, z[0][where])
        return whole


def _sum(shares: Float[Tensor, "writer pos head d_model"]) -> Float[Tensor, "writer pos d_model"]:
    """What heads add together, rounded once."""
    wide = torch.promote_types(shares.dtype, torch.float32)
    return shares.sum(dim=2, dtype=wide).to(shares.dtype)


def _by_layer(
    share: Layout, stars: Mapping[str, Column], writers: int
) -> Iterator[tuple[int | None, Column]]:
    """The layers of some writers, each with the writers that are in it."""
    if not isinstance(share.layers, str):
        for layer in share.layers or (None,):
            yield layer, np.arange(writers)
        return
    layers = stars[share.layers]
    for number in np.unique(layers).tolist():
        yield number, np.flatnonzero(layers == number)
