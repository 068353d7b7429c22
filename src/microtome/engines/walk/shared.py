"""What cells that enter a block together need only once.

They are one, the clean run, up to where they are edited or something is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from transformers import PreTrainedModel

from microtome.edits.application import Application
from microtome.engines.walk.batches import Tile
from microtome.engines.walk.entering import Entering, is_entry
from microtome.language.sites import BEHIND, OF_READERS
from microtome.language.sites import site as find_site
from microtome.model.anatomy import Anatomy
from microtome.model.call import Call
from microtome.model.loaded import Loaded
from microtome.passes.head_reads import HeadReads
from microtome.passes.hooks import End, Visit, once_for_alike

BEFORE_ATTENTION = (
    *("embed", "resid_pre", *OF_READERS, "q", "k", "k_head", "v", "v_head", "pattern"),
)
"""Sites of a block up to its attention."""

ATTENTION = ("z", "head_out", "attn_out")
"""Sites at the end of its attention."""

AFTER_ATTENTION = ("mlp_post", "mlp_out", *BEHIND)
"""Sites of a block at and after its MLP."""


@dataclass(frozen=True, eq=False)
class Shared:
    """A tile of cells in a block, of which some enter there.

    Attributes:
        hf: the model.
        anatomy: its anatomy.
        layer: the block.
        call: with what it is called.
        prompts: of the tile.
        apart: cells of each that differ already, in front.
        same: cells of each that are alike, behind them.
    """

    hf: PreTrainedModel
    anatomy: Anatomy
    layer: int
    call: Call
    prompts: int
    apart: int
    same: int

    @classmethod
    def of(cls, model: Loaded, call: Call, layer: int, tile: Tile, alike: int) -> Shared:
        """A tile, whose cells are alike from one on."""
        cells, prompts = (part.stop - part.start for part in (tile.cells, tile.prompts))
        apart = min(max(alike - tile.cells.start, 0), cells)
        return cls(model.hf, model.anatomy, layer, call, prompts, apart, cells - apart)

    def entering(self, edits: Sequence[Application], measured: Sequence[Visit]) -> Entering | None:
        """The cells that enter here by what single heads read, if that is all that is done."""
        looked = {visit.place[0].name for visit in measured}
        if not is_entry(edits, self.anatomy.dims.d_model) or looked.intersection(BEFORE_ATTENTION):
            return None
        if not self._can_run_apart:
            return None
        [edit] = edits
        way = HeadReads(self.hf, self.anatomy, self.layer, edit.regions.site.name)
        return Entering.of(way, edit, self.prompts, self.apart, self.same)

    def packed(self, entering: Entering) -> AbstractContextManager[None]:
        """Attention with one row for all heads that read the same."""
        begin: End = (self.anatomy.attention(self.hf, self.layer), "input")
        return entering.meanwhile(begin, (self.anatomy.out_proj(self.hf, self.layer), "input"))

    def once(self, visits: Sequence[Visit]) -> Iterator[AbstractContextManager[None]]:
        """Attention of the cells that are alike, unless they are edited or looked at before it.

        And the first half of their MLP, if that is at the neurons or later.
        """
        hf, anatomy, layer = self.hf, self.anatomy, self.layer
        names = {visit.place[0].name for visit in visits}
        if self.same < 2 or names.intersection(BEFORE_ATTENTION):
            return
        attention, mlp = anatomy.attention(hf, layer), anatomy.mlp(hf, layer)
        rows = self.prompts, self.apart, self.same
        if attention is not None and self._can_run_apart:
            end: End = (attention, "output")
            if names.intersection(ATTENTION):
                end = (anatomy.out_proj(hf, layer), "input")
            yield once_for_alike(attention, end, *rows)
        late = names <= set(AFTER_ATTENTION)
        if mlp is not None and late and not self._is_flat("mlp_post"):
            yield once_for_alike(mlp, (anatomy.down_proj(hf, layer), "input"), *rows)

    @property
    def _can_run_apart(self) -> bool:
        """Whether attention can run on other rows than the block."""
        alibi = "alibi" in self.call.arguments
        return self.anatomy.family.looks_up and not alibi and not self._is_flat("z")

    def _is_flat(self, name: str) -> bool:
        return self.anatomy.tap(find_site(name), self.layer).flat
