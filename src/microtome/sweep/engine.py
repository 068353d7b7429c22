"""The one-pass walk: every cell of a map in one pass through the layers, exactly.

One clean run of a prompt is traced. Then the layers are walked once, with a growing batch:

- A cell **enters late**: at the first layer that it edits, with that block's clean input. Before
  that layer it is the clean run.
- A cell **starts late**: only positions from the first one that it edits are in the batch. Earlier
  positions cannot change in a causal model, so their keys and values come from the trace, shared
  by all cells (`sweep.prefix`).
- At every layer the model's own block runs once on the whole batch, with the ordinary hooks making
  the ordinary edits on the rows that they belong to.
- At the end the final norm and the unembedding run only at the positions that a metric reads, and
  for the tokens that it needs.

So each block's weights are read once per batch and no work is done before a cell differs from the
clean run. What cannot be done this way goes to the reference path (`plan.unwalkable`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from microtome.addresses import Region, parse
from microtome.edits import Edit
from microtome.interventions import Application, Sources, key
from microtome.metrics import Reading
from microtome.model.model import Model
from microtome.prompts import Encoded
from microtome.run import Trace, quiet, visited
from microtome.sweep.measured import Index, Measured
from microtome.sweep.plan import DEFAULT_MEMORY, Cell, bytes_of_row
from microtome.sweep.prefix import SharedPrefix, attending_to

ANYWHERE = parse("logits")
"""Stands in for the address when edits are compared by what they do, not where."""


@dataclass(frozen=True)
class Walk:
    """One prompt's walk: what its batches have in common.

    Attributes:
        into: where results go.
        tick: is told how many cells have arrived.
        witnesses: the cells whose whole logits are kept, for verification.
    """

    model: Model
    one: Encoded
    trace: Trace
    sources: Sources
    into: Measured
    tick: Callable[[int], None]
    witnesses: frozenset[Index] = frozenset()

    def measure(self, cells: Iterable[Cell], memory: int = DEFAULT_MEMORY) -> None:
        """Walk cells of this prompt, in batches that fit into so many bytes."""
        dims, tokens = self.model.anatomy.dims, self.one.tokens
        starts: dict[int, list[Cell]] = defaultdict(list)
        for cell in cells:
            starts[cell.position].append(cell)
        for position, group in sorted(starts.items()):
            group.sort(key=lambda cell: cell.layer)
            row = bytes_of_row(dims, len(tokens) - position, len(tokens), self.itemsize)
            size = max(1, int(memory // row))
            for first in range(0, len(group), size):
                self._as_memory_allows(group[first : first + size], position)

    @property
    def itemsize(self) -> int:
        """Bytes of one activation."""
        return self.model.dtype.itemsize

    def _as_memory_allows(self, batch: Sequence[Cell], position: int) -> None:
        """Walk a batch; where memory runs out, walk its halves."""
        try:
            self._batch(batch, position)
        except RuntimeError as error:
            if len(batch) == 1 or not _is_out_of_memory(error):
                raise
            half = len(batch) // 2
        else:
            self.tick(len(batch))
            return
        # Outside of the handler, so that the failed batch's tensors are gone by now.
        self.into.notes.append(f"out of memory: a batch of {half * 2} cells was halved")
        self._as_memory_allows(batch[:half], position)
        self._as_memory_allows(batch[half:], position)

    def _batch(self, batch: Sequence[Cell], position: int) -> None:
        hf, anatomy = self.model.hf, self.model.anatomy
        applied: list[tuple[Sequence[int], Application]] = []
        entered = 0
        x = self.trace.inputs[0][:0, position:]  # no cell yet
        with quiet(hf):
            for layer in range(batch[0].layer, anatomy.dims.n_layers):
                entering = sum(cell.layer == layer for cell in batch)
                if entering:
                    fresh = self.trace.inputs[layer][:, position:].expand(entering, -1, -1)
                    x = torch.cat([x, fresh])
                    entered += entering
                groups = list(self._edits_at(layer, batch[:entered], position))
                applied += groups
                visits = [edit.visit() for _, edit in groups]
                prefix = SharedPrefix(
                    self.trace.keys[layer][:, :, :position],
                    self.trace.values[layer][:, :, :position],
                )
                with visited(hf, anatomy, visits), attending_to(hf, prefix):
                    x = anatomy.resume(hf, layer, x)
                self.into.work["token_blocks"] += entered * x.shape[1]
            self._read(batch, position, x)
        self._receipts(batch, applied)

    def _edits_at(
        self, layer: int, batch: Sequence[Cell], position: int
    ) -> Iterator[tuple[Sequence[int], Application]]:
        """The edits of a layer, those that do the same to regions of one shape together."""
        alike: dict[object, list[tuple[int, Edit, Region]]] = defaultdict(list)
        for row, cell in enumerate(batch):
            for number, (edit, places) in enumerate(zip(cell.edits, cell.places, strict=True)):
                for region in places:
                    if (region.layer or 0) == layer:
                        what = replace(edit, address=ANYWHERE)
                        kind = (number, region.site.name, region.shape, what)
                        alike[kind].append((row, edit, region))
        # In the order of the edits of a cell, which decides where two meet at one tensor.
        for _, group in sorted(alike.items(), key=lambda item: item[0][0]):  # type: ignore[index]
            rows, edits, places = zip(*group, strict=True)
            yield (
                rows,
                Application(
                    edit=edits[0],
                    regions=places,
                    keys=tuple(key(region, self.one.tokens) for region in places),
                    source=self.sources.of(edits, places[0].layer, self.one),
                    rows=rows,
                    start=position,
                ),
            )

    # ---------------------------------------------------------------------------------- the end

    def _read(
        self, batch: Sequence[Cell], position: int, x: Float[Tensor, "cell own d_model"]
    ) -> None:
        """The metrics of every cell, from the last block's output."""
        by_place: dict[int, list[Reading]] = defaultdict(list)
        for reading in self.into.values:
            by_place[reading.position(self.one, self.model.anatomy.dims)].append(reading)
        for place, asked in by_place.items():
            clean = self.trace.logits[:, place]
            if place < position:  # before anything was edited: the clean run, exactly
                same = clean.expand(len(batch), -1)
                self._witness(batch, range(len(batch)), place, same)
                for reading in asked:
                    value = reading.measure(clean, clean, self.one).expand(len(batch))
                    self._store(batch, range(len(batch)), reading, value)
                continue
            final = self.model.anatomy.final_norm(self.model.hf)(x[:, place - position])
            self._read_place(batch, place, asked, final)

    def _read_place(
        self,
        batch: Sequence[Cell],
        place: int,
        asked: Sequence[Reading],
        final: Float[Tensor, "cell d_model"],
    ) -> None:
        head: nn.Module = self.model.hf.get_output_embeddings()
        clean = self.trace.logits[:, place]
        narrow = [reading for reading in asked if reading.metric.columns]
        wide = [reading for reading in asked if not reading.metric.columns]
        if narrow:
            columns, one = _narrowed(self.one)
            logits = _columns_of(head, final, columns)
            for reading in narrow:
                values = reading.measure(logits, clean[:, columns], one)
                self._store(batch, range(len(batch)), reading, values)
        whole = range(len(batch)) if wide else self._rows_of_witnesses(batch)
        for rows in _slices(whole, self._vocabulary_rows()):
            logits = head(final[list(rows)])
            self._witness(batch, rows, place, logits)
            for reading in wide:
                self._store(batch, rows, reading, reading.measure(logits, clean, self.one))

    def _vocabulary_rows(self) -> int:
        """How many rows of the whole vocabulary are held at a time: at most 64 MiB in float64."""
        return max(1, 2**23 // self.model.anatomy.dims.d_vocab)

    def _rows_of_witnesses(self, batch: Sequence[Cell]) -> Sequence[int]:
        return [n for n, cell in enumerate(batch) if cell.index in self.witnesses]

    def _witness(
        self, batch: Sequence[Cell], rows: Sequence[int], place: int, logits: Tensor
    ) -> None:
        for row, own in zip(rows, logits, strict=True):
            index = batch[row].index
            if index in self.witnesses:
                self.into.witnesses[index, place] = own.clone()

    def _store(
        self, batch: Sequence[Cell], rows: Sequence[int], reading: Reading, values: Tensor
    ) -> None:
        target = self.into.values[reading]
        for row, value in zip(rows, values.tolist(), strict=True):
            target[batch[row].index] = value

    def _receipts(
        self, batch: Sequence[Cell], applied: Sequence[tuple[Sequence[int], Application]]
    ) -> None:
        changed = torch.zeros(len(batch), dtype=torch.float64)
        squares = torch.zeros(len(batch), dtype=torch.float64)
        for rows, edit in applied:
            assert edit.changed is not None, "visits are proved"
            assert edit.squares is not None, "visits are proved"
            changed[list(rows)] += edit.changed.cpu()
            squares[list(rows)] += edit.squares.cpu()
        for cell, count, square in zip(batch, changed.tolist(), squares.tolist(), strict=True):
            self.into.changed[cell.index] = count
            self.into.norm[cell.index] = math.sqrt(square)


def _narrowed(one: Encoded) -> tuple[list[int], Encoded]:
    """The prompt's own token ids, and the prompt with their places among these in their place."""
    columns = [token for token in (one.target, one.contrast) if token is not None]
    target = None if one.target is None else 0
    contrast = None if one.contrast is None else len(columns) - 1
    return columns, replace(one, target=target, contrast=contrast)


def _columns_of(
    head: nn.Module, final: Float[Tensor, "cell d_model"], columns: Sequence[int]
) -> Float[Tensor, "cell column"]:
    """The logits of a few tokens: their rows of the unembedding alone."""
    bias = getattr(head, "bias", None)
    own = None if bias is None else bias[list(columns)]
    weight: Tensor = head.weight[list(columns)]  # type: ignore[index]
    return nn.functional.linear(final, weight, own)


def _slices(rows: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (rows[first : first + size] for first in range(0, len(rows), size))


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error)
