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
from jaxtyping import Float
from torch import Tensor

from microtome.engines.collector import Collector
from microtome.language.regions import Column
from microtome.model.devices import onto
from microtome.model.loaded import Loaded
from microtome.plan.memory import Room
from microtome.prompts.answers import Answer
from microtome.prompts.encoding import Encoded
from microtome.readings.output import Outcome, Reading


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
            clean = self._clean(place, asked)
            for reading in asked:
                self.into.store_clean(reading, self.prompt, self._unedited(reading, clean))

    def still(self, cells: Column) -> None:
        """The metrics of cells that change nothing: those without edits."""
        for place, asked in self.places.items():
            self._unreached(cells, place, asked)

    def measure(
        self,
        cells: Column,
        position: int,
        x: Float[Tensor, "cell own d_model"],
        room: Room,
    ) -> None:
        """The metrics of some cells, from the last block's output from a position on.

        The end of as many cells is computed at a time as there is room for.
        """
        for place, asked in self.places.items():
            reached = self._reached(cells, place)
            if not reached.all():  # before anything was edited: the clean run, exactly
                self._unreached(cells[~reached], place, asked)
            if reached.any():
                self._end(
                    cells, np.flatnonzero(reached), place, asked, x[:, place - position], room
                )

    def _end(
        self,
        cells: Column,
        reached: Column,
        place: int,
        asked: Sequence[Reading],
        x: Float[Tensor, "cell d_model"],
        room: Room,
    ) -> None:
        model = self.model
        clean = self._clean(place, asked)
        for first in range(0, len(reached), room.ends):
            some = reached[first : first + room.ends]
            final = model.anatomy.final(model.hf, x[onto(x.device, some)])
            self._read(cells[some], place, asked, final, clean, room.reads)

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
        clean = self._clean(place, asked)
        for reading in asked:
            value = self._unedited(reading, clean)
            self.into.store(reading, cells, value.expand(len(cells)))

    def _read(
        self,
        cells: Column,
        place: int,
        asked: Sequence[Reading],
        final: Float[Tensor, "cell d_model"],
        clean: _Clean,
        rows: int,
    ) -> None:
        narrow = [reading for reading in asked if reading.metric.columns]
        if narrow:
            columns = Outcome(self._of_columns(final))
            for reading in narrow:
                found = reading.value(columns, clean.columns, self._narrowed)
                self.into.store(reading, cells, found)
        wide = [reading for reading in asked if not reading.metric.columns]
        if wide:
            logits = self._logits(final)
            for first in range(0, len(cells), rows):
                outcome = Outcome(logits[first : first + rows])
                some = cells[first : first + rows]
                for reading in wide:
                    self.into.store(reading, some, reading.value(outcome, clean.whole, self.one))

    # ------------------------------------------------------------------------------------ logits

    def _clean(self, place: int, asked: Sequence[Reading]) -> _Clean:
        """The clean run's logits at a position, as far as metrics read them."""
        final = self.final[place : place + 1]
        wide = any(not reading.metric.columns for reading in asked)
        narrow = any(reading.metric.columns for reading in asked)
        nothing = Outcome(final[:, :0])
        return _Clean(
            columns=Outcome(self._of_columns(final)) if narrow else nothing,
            whole=Outcome(self._logits(final)) if wide else nothing,
        )

    def _unedited(self, reading: Reading, clean: _Clean) -> Float[Tensor, "1"]:
        if reading.metric.columns:
            return reading.value(clean.columns, clean.columns, self._narrowed)
        return reading.value(clean.whole, clean.whole, self.one)

    def _logits(self, final: Tensor) -> Float[Tensor, "cell vocab"]:
        return self.model.anatomy.unembed(self.model.hf, final)

    @cached_property
    def _columns(self) -> list[int]:
        """The prompt's own token ids."""
        return [*_tokens(self.one.target), *_tokens(self.one.contrast)]

    @cached_property
    def _narrowed(self) -> Encoded:
        """The prompt, with the tokens' places among its columns in the place of their ids."""
        first = len(_tokens(self.one.target))
        places = range(first), range(first, len(self._columns))
        target, contrast = (
            _placed(answer, own)
            for answer, own in zip((self.one.target, self.one.contrast), places, strict=True)
        )
        return replace(self.one, target=target, contrast=contrast)

    def _of_columns(self, final: Tensor) -> Float[Tensor, "cell column"]:
        return self.model.anatomy.unembed(self.model.hf, final, self._columns)


def _tokens(answer: Answer | None) -> list[int]:
    """The tokens whose logits are looked at by themselves; several in a row are read otherwise."""
    if isinstance(answer, frozenset):
        return sorted(answer)
    return [answer] if isinstance(answer, int) else []


def _placed(answer: Answer | None, places: range) -> Answer | None:
    """The same with a place for each token."""
    if isinstance(answer, frozenset):
        return frozenset(places)
    return places[0] if isinstance(answer, int) else None


@dataclass(frozen=True, eq=False)
class _Clean:
    """The clean run at one position: the logits of the prompt's own tokens, and all; as needed."""

    columns: Outcome
    whole: Outcome
