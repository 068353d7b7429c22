"""The end of a walk: what the metrics of one prompt's cells read, and no more.

What comes after the last block, the unembedding included, runs only at the positions that a metric
reads; for metrics of the prompt's own tokens only for these, else over the vocabulary in slices.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from microtome.plan.memory.room import Room
from microtome.prompts.answers import Answer
from microtome.prompts.encoding import Encoded
from microtome.readings.outcome import Outcome
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
            clean = self._clean(place, asked)
            for reading in asked:
                self.into.store_clean(reading, self.prompt, self._unedited(reading, clean))

    def still(self, cells: Column) -> None:
        """The metrics of cells that change nothing: those without edits."""
        for place, asked in self.places.items():
            self._unreached(cells, place, asked)

    def reached(
        self, cells: Column, position: int, x: Float[Tensor, "cell own d_model"], most: int
    ) -> Iterator[_Piece]:
        """The cells whose end is to be computed, by position read, so many at a time at most.

        The metrics of the others are stored: before anything was edited it is the clean run.
        """
        for place, asked in self.places.items():
            reached = self._reached(cells, place)
            if not reached.all():
                self._unreached(cells[~reached], place, asked)
            rows = np.flatnonzero(reached)
            for first in range(0, len(rows), most):
                some = rows[first : first + most]
                yield _Piece(
                    self, place, asked, cells[some], x[onto(x.device, some), place - position]
                )

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

    def read_narrow(self, piece: _Piece, final: Tensor) -> None:
        """Store the metrics of the prompt's own tokens, whose logits alone are computed."""
        clean = Outcome(self._of_columns(self.final[piece.place : piece.place + 1]))
        columns = Outcome(self._of_columns(final))
        for reading in piece.narrow:
            self.into.store(reading, piece.cells, reading.value(columns, clean, self._narrowed))

    def read_wide(self, piece: _Piece, logits: Tensor, rows: int) -> None:
        """Store the metrics over the vocabulary, so many cells at a time, behind the clean run."""
        clean = Outcome(logits[:1])
        for first in range(0, len(piece.cells), rows):
            outcome = Outcome(logits[1 + first : 1 + first + rows])
            some = piece.cells[first : first + rows]
            for reading in piece.wide:
                self.into.store(reading, some, reading.value(outcome, clean, self.one))

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


def measure(
    model: Loaded,
    endings: Sequence[Ending],
    cells: Column,
    position: int,
    x: Float[Tensor, "prompt cell own d_model"],
    room: Room,
) -> None:
    """The metrics of some cells of some prompts, from the last block's output from a position on.

    The end of as many is computed at a time as there is room for, of several prompts together: the
    unembedding is read as slowly for one cell as for many.

    Args:
        model: the model.
        endings: of the prompts.
        cells: their cells' numbers, ``[prompt, cell]``.
        position: where ``x`` begins.
        x: the last block's output.
        room: what there is.
    """
    each = zip(endings, cells, x, strict=True)
    pieces = (
        piece
        for ending, own, rows in each
        for piece in ending.reached(own, position, rows, room.ends)
    )
    for some in _together(pieces, 1 + room.ends):
        _end(model, some, room.reads)


def _together(pieces: Iterable[_Piece], rows: int) -> Iterator[list[_Piece]]:
    """As many pieces at a time as have so many rows, those of their clean runs among them."""
    some: list[_Piece] = []
    for piece in pieces:
        if some and sum(map(len, some)) + len(piece) > rows:
            yield some
            some = []
        some.append(piece)
    if some:
        yield some


def _end(model: Loaded, pieces: Sequence[_Piece], reads: int) -> None:
    sizes = [len(piece.cells) for piece in pieces]
    whole = model.anatomy.final(model.hf, torch.cat([piece.x for piece in pieces]))
    finals = torch.split(whole, sizes)
    both = [*zip(pieces, finals, strict=True)]
    for piece, final in both:
        if piece.narrow:
            piece.ending.read_narrow(piece, final)
    wide = [(piece, final) for piece, final in both if piece.wide]
    if wide:
        rows = [own for piece, final in wide for own in (piece.clean, final)]
        logits = model.anatomy.unembed(model.hf, torch.cat(rows))
        for (piece, _), own in zip(
            wide, torch.split(logits, [len(p) for p, _ in wide]), strict=True
        ):
            piece.ending.read_wide(piece, own, reads)


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
class _Piece:
    """Some cells of a prompt whose end is computed.

    Attributes:
        ending: the prompt's.
        place: the position that is read.
        asked: the metrics that are.
        cells: the cells' numbers.
        x: the last block's output there.
    """

    ending: Ending
    place: int
    asked: Sequence[Reading]
    cells: Column
    x: Float[Tensor, "cell d_model"]

    def __len__(self) -> int:
        """Rows: the clean run's and the cells'."""
        return 1 + len(self.cells)

    @property
    def clean(self) -> Float[Tensor, "1 d_model"]:
        """What the unembedding reads of the clean run there."""
        return self.ending.final[self.place : self.place + 1]

    @property
    def narrow(self) -> list[Reading]:
        """Metrics that read the prompt's own tokens."""
        return [reading for reading in self.asked if reading.metric.columns]

    @property
    def wide(self) -> list[Reading]:
        """Metrics that read the whole vocabulary."""
        return [reading for reading in self.asked if not reading.metric.columns]


@dataclass(frozen=True, eq=False)
class _Clean:
    """The clean run at one position: the logits of the prompt's own tokens, and all; as needed."""

    columns: Outcome
    whole: Outcome
