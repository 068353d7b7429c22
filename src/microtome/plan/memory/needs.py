"""What one cell takes of the memory."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from microtome.language.edges import Edge
from microtome.language.operations import Source
from microtome.language.regions import Layout
from microtome.language.sites import APART, OF_GROUPS, OF_HEADS, Dimensions, Site
from microtome.plan.cells import Cells
from microtome.plan.memory.budget import Budget
from microtome.plan.memory.recorded import bytes_of_block
from microtome.plan.question import Question


@dataclass(frozen=True)
class Needs:
    """What one cell takes of the memory, whatever position it starts at.

    Attributes:
        dims: the model's.
        itemsize: bytes of one activation.
        edited: bytes of what the edits take of a layer: values before and after, what they come
            from, and the receipt in float64.
        scores: how many copies of the attention scores there are at once.
        branches: rows more in attention, one for each head whose own view is edited.
        copies: copies of the stream that are made for what single heads read and write.
        gauges: bytes of the numbers that metrics inside the model have read.
        look: bytes of the activations that they are read off.
        end: bytes at the end: what the unembedding reads, and its logits where metrics need all.
        exact: bytes of what metrics make of these in float64.
        places: how many positions they read at: each has an end.
    """

    dims: Dimensions
    itemsize: int
    edited: int
    scores: int
    branches: int
    copies: int
    gauges: int
    look: int
    end: int
    exact: int
    places: int = 1

    def stays(self, own: int) -> int:
        """Bytes of a cell of ``own`` positions between blocks."""
        return own * self.dims.d_model * self.itemsize + self.gauges + RECEIPT

    def inside(self, own: int, seen: int) -> int:
        """Bytes of a cell inside a block: ``own`` positions that attend to ``seen``.

        Residual stream, queries, keys and values, the MLP's intermediate results (an activation
        function makes several), and the attention scores, unless a fused kernel never has them: it
        does where a cell has no prefix and nobody looks at its weights. Keys and values from the
        first position on, twice, where the family's attention takes them copied for each cell.
        Attention once more for each branch, and the stream for what single heads read or write.
        """
        dims = self.dims
        block = bytes_of_block(dims, own, self.itemsize)
        if dims.copies_prefix:
            block += 4 * seen * dims.n_heads * dims.d_head * self.itemsize
        scores = self.scores if own < seen or dims.copies_prefix or self.scores > UNSEEN else 0
        attention = scores * dims.n_heads * own * seen * self.itemsize
        stream = own * dims.d_model * self.itemsize
        again = self.branches * (6 * stream + attention) + self.copies * stream
        return block + attention + again + self.edited


RECEIPT = 64
"""Bytes of a cell's receipt and numbers on their way."""


UNSEEN, SEEN = 3, 6
"""Copies of the attention scores that there are at once: nobody looks at them, or somebody does."""


COPIES, LOOKED = 3, 1
"""Copies of the stream for each head whose reading or writing is edited, and is looked at."""


LOOK = 8
"""Metrics inside the model look at as many cells at a time as take one part in so many."""


def needs_of(question: Question, cells: Cells, prompts: Sequence[int], budget: Budget) -> Needs:
    """What a cell of some prompts of one length takes, by the one that needs most."""
    dims, length = question.dims, len(question.encoded[prompts[0]].tokens.read)
    layouts = [cells.layouts[prompt] for prompt in prompts]
    sites = {layout.site.name for own in layouts for layout in own}
    fitted = [gauge.on(question.encoded[prompts[0]], dims) for gauge in question.gauges]
    return Needs(
        dims=dims,
        itemsize=budget.itemsize,
        edited=max(_edited(cells, own, length, budget.itemsize) for own in set(layouts)),
        scores=SEEN if "pattern" in sites else UNSEEN,
        branches=branches_of(cells, dims),
        copies=COPIES * apart_of(cells) + LOOKED * wide((g.site for g in question.gauges), dims),
        gauges=8 * sum(math.prod(one.shape) for one in fitted),
        look=max((one.bytes_of_looking(dims, budget.itemsize) for one in fitted), default=0),
        end=_end(question, budget.itemsize),
        exact=_exact(question),
        places=max(len(places_of(question, prompt)) for prompt in prompts),
    )


def places_of(question: Question, prompt: int) -> set[int]:
    """The positions of a prompt that metrics on the output read at."""
    one = question.encoded[prompt]
    return {reading.position(one, question.dims) for reading in question.readings}


def _edited(cells: Cells, layouts: Sequence[Layout], length: int, itemsize: int) -> int:
    """What the edits of one cell take of a layer, by the variant that needs most."""
    most = 0
    for edits in cells.edits:
        sources, changed = 0, 0
        for edit, layout in zip(edits, layouts, strict=True):
            widened = (
                length if axis == edit.widens else size
                for axis, size in zip(layout.site.axes, layout.shape, strict=True)
            )
            size = math.prod(widened)
            brought = edit.source is not Source.NOTHING or isinstance(edit.address, Edge)
            sources += 2 * size * itemsize if brought else 0
            changed = max(changed, size * (3 * itemsize + RECEIPT))
        most = max(most, sources + changed)
    return most


EXACT = 2**24
"""Bytes of float64 that metrics over the vocabulary take at a time: more are no faster, and would
leave holes of their size behind in the memory of the process."""


def _end(question: Question, itemsize: int) -> int:
    """What a cell takes after the last block: the final norm, and logits where metrics need all."""
    dims = question.dims
    final = dims.d_model * 4 * max(itemsize, 4)
    if all(one.metric.columns for one in question.readings):
        return final
    copies = 3 if dims.shapes_logits else 1  # a cap takes two steps
    return final + dims.d_vocab * itemsize * copies


def _exact(question: Question) -> int:
    """What the metrics that need the whole vocabulary make of a cell's logits, in float64."""
    wide = [one.metric for one in question.readings if not one.metric.columns]
    if not wide:
        return 0
    kept = 1 + any(metric.logprobs for metric in wide)
    return 8 * question.dims.d_vocab * (kept + max(metric.holds for metric in wide))


def branches_of(cells: Cells, dims: Dimensions) -> int:
    """How many rows more a cell takes in attention: one for each head whose own view it edits."""
    names = {*OF_HEADS, *OF_GROUPS.values()} if dims.n_kv_heads < dims.n_heads else {*OF_HEADS}
    return _heads_at(cells, names)


def apart_of(cells: Cells) -> int:
    """How many heads of a cell have what they read or write edited, each by itself.

    The MLP counts as one.
    """
    alone = sum(layout.site.name == "mlp_in" for layout in cells.layouts[0])
    return _heads_at(cells, APART) + alone


def _heads_at(cells: Cells, names: Collection[str]) -> int:
    """How many heads a cell edits at these sites, in a layer."""
    own = [layout for layout in cells.layouts[0] if layout.site.name in names]
    return sum(layout.shape[1] for layout in own)


def wide(sites: Iterable[Site], dims: Dimensions) -> int:
    """The most heads of a site among these that is as wide as the stream for each; 0: none is."""
    return max((dims.size(site.axes[1]) for site in sites if site.name in APART), default=0)
