"""The end of a walk: what the metrics of one prompt's cells read, and no more.

What comes after the last block, the unembedding included, runs only at the positions that a metric
reads; for metrics of the prompt's own tokens only for these, else over the vocabulary in slices.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from microtome.engines.collector import Collector
from microtome.language.regions import Column
from microtome.model.devices import onto
from microtome.model.loaded import Loaded
from microtome.prompts.encoding import Encoded
from microtome.readings.output import Reading


@dataclass(frozen=True, eq=False)
class Ending:
    """One prompt's end.

    Attributes:
        prompt: its number in the plan.
        final: what the unembedding reads of its clean run.
    """

    model: Loaded
    one: Encoded
    prompt: int
    final: Float[Tensor, "pos d_model"]
    into: Collector

    @cached_property
    def places(self) -> Mapping[int, Sequence[Reading]]:
        """Position → what is read there."""
        found: dict[int, list[Reading]] = defaultdict(list)
        for reading in self.into.values:
            found[reading.position(self.one, self.model.anatomy.dims)].append(reading)
        return found

    def clean(self) -> None:
        """The metrics without edits."""
        for place, asked in self.places.items():
            for reading in asked:
                self.into.store_clean(reading, self.prompt, self._unedited(place, reading))

    def still(self, cells: Column) -> None:
        """The metrics of cells that change nothing: those without edits."""
        for place, asked in self.places.items():
            self._unreached(cells, place, asked)

    def measure(
        self,
        cells: Column,
        position: int,
        x: Float[Tensor, "cell own d_model"],
        rows: int,
    ) -> None:
        """The metrics of some cells, from the last block's output from a position on.

        So many rows of the vocabulary are held at a time.
        """
        for place, asked in self.places.items():
            reached = self._reached(cells, place)
            if not reached.all():  # before anything was edited: the clean run, exactly
                self._unreached(cells[~reached], place, asked)
            if reached.any():
                own = x[:, place - position]
                own = own if reached.all() else own[onto(x.device, np.flatnonzero(reached))]
                final = self.model.anatomy.final(self.model.hf, own)
                self._read(cells[reached], place, asked, final, rows)

    def finals(
        self,
        cells: Column,
        columns: Sequence[int],
        position: int,
        x: Float[Tensor, "all own d_model"],
    ) -> dict[int, Float[Tensor, "cell d_model"]]:
        """What the unembedding reads of some cells at each position that a metric reads.

        Args:
            cells: their numbers.
            columns: where they are in ``x``.
            position: where it begins.
            x: the last block's output.
        """
        found = {}
        for place in self.places:
            final = self.final[place].repeat(len(cells), 1)
            reached = np.flatnonzero(self._reached(cells, place))
            if len(reached):
                rows = onto(x.device, np.asarray(columns, dtype=np.int64)[reached])
                own = self.model.anatomy.final(self.model.hf, x[rows, place - position])
                final[onto(x.device, reached)] = own
            found[place] = final
        return found

    def _reached(self, cells: Column, place: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which cells may differ from the clean run at a position, ``[cell]``."""
        reached: np.ndarray[Any, np.dtype[np.bool_]] = (
            self.into.plan.cells.position[self.into.twin(cells)] <= place
        )
        return reached

    def _unreached(self, cells: Column, place: int, asked: Sequence[Reading]) -> None:
        for reading in asked:
            value = self._unedited(place, reading)
            self.into.store(reading, cells, value.expand(len(cells)))

    def _read(
        self,
        cells: Column,
        place: int,
        asked: Sequence[Reading],
        final: Float[Tensor, "cell d_model"],
        rows: int,
    ) -> None:
        narrow = [reading for reading in asked if reading.metric.columns]
        if narrow:
            logits = self._of_columns(final)
            clean = self._of_columns(self.final[place : place + 1])
            for reading in narrow:
                self.into.store(reading, cells, reading.measure(logits, clean, self._narrowed))
        wide = [reading for reading in asked if not reading.metric.columns]
        if wide:
            self._over_vocabulary(cells, place, wide, final, rows)

    def _over_vocabulary(
        self,
        cells: Column,
        place: int,
        asked: Sequence[Reading],
        final: Float[Tensor, "cell d_model"],
        rows: int,
    ) -> None:
        clean = self._clean_logits(place)
        found: dict[Reading, list[Tensor]] = {reading: [] for reading in asked}
        for first in range(0, len(cells), rows):
            logits = self._logits(final[first : first + rows])
            for reading in asked:
                found[reading].append(reading.measure(logits, clean, self.one))
        for reading, values in found.items():
            self.into.store(reading, cells, torch.cat(values))

    # ------------------------------------------------------------------------------------ logits

    def _unedited(self, place: int, reading: Reading) -> Float[Tensor, "1"]:
        if reading.metric.columns:
            clean = self._of_columns(self.final[place : place + 1])
            return reading.measure(clean, clean, self._narrowed)
        clean = self._clean_logits(place)
        return reading.measure(clean, clean, self.one)

    def _logits(self, final: Tensor) -> Float[Tensor, "cell vocab"]:
        return self.model.anatomy.unembed(self.model.hf, final)

    def _clean_logits(self, place: int) -> Float[Tensor, "1 vocab"]:
        return self._logits(self.final[place : place + 1])

    @property
    def _columns(self) -> list[int]:
        """The prompt's own token ids."""
        return [token for token in (self.one.target, self.one.contrast) if token is not None]

    @cached_property
    def _narrowed(self) -> Encoded:
        """The prompt, with the tokens' places among its columns in the place of their ids."""
        target = None if self.one.target is None else 0
        contrast = None if self.one.contrast is None else len(self._columns) - 1
        return replace(self.one, target=target, contrast=contrast)

    def _of_columns(self, final: Tensor) -> Float[Tensor, "cell column"]:
        return self.model.anatomy.unembed(self.model.hf, final, self._columns)
