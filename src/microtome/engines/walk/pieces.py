"""What a block runs on at a time: a tile of one batch, or tiles of several, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.edits.application import Application
from microtome.engines.walk.batches import Tile
from microtome.engines.walk.resumed import Beside
from microtome.engines.walk.underway import Underway
from microtome.passes.segments import Segment, in_a_row
from microtome.passes.visits import Visit
from microtome.plan.beside import STREAMS

SEEN_BESIDE = frozenset({*STREAMS, "z", "mlp_post"})
"""Sites that can be seen of one part of a row of tokens by itself."""


@dataclass(frozen=True, eq=False)
class Piece:
    """A tile of a batch in a block, and what is done to it there.

    Attributes:
        front: the batch.
        tile: which part of it.
        edits: what changes something there.
        visits: these, and what looks.
        savings: what is computed once for cells that are alike.
    """

    front: Underway
    tile: Tile
    edits: Sequence[Application]
    visits: Sequence[Visit]
    savings: Sequence[AbstractContextManager[None]]

    @property
    def x(self) -> Float[Tensor, "prompt cell own d_model"]:
        """The residual stream of the tile."""
        return self.front.x[self.tile.prompts, self.tile.cells]

    @property
    def position(self) -> int:
        """Where its rows begin."""
        return self.front.batch.position

    @property
    def prompts(self) -> Sequence[int]:
        """Its clean runs."""
        return self.front.rows[self.tile.prompts]

    @property
    def shape(self) -> tuple[int, int]:
        """How many rows, and the tokens of each."""
        prompts, cells, own, _ = self.x.shape
        return prompts * cells, own

    @property
    def can_go_beside(self) -> bool:
        """Whether others can go through the block with it."""
        return not self.savings and all(v.place[0].name in SEEN_BESIDE for v in self.visits)


@dataclass(frozen=True, eq=False)
class Row:
    """Pieces in one row of tokens.

    Attributes:
        pieces: they.
        segments: where each is.
    """

    pieces: Sequence[Piece]
    segments: Sequence[Segment]

    @classmethod
    def of(cls, pieces: Sequence[Piece]) -> Row:
        """One behind another."""
        return cls(pieces, in_a_row(piece.shape for piece in pieces))

    @property
    def is_single(self) -> bool:
        """Whether there is one piece, whose rows are the batch's that the block runs on."""
        return len(self.pieces) == 1

    @property
    def x(self) -> Float[Tensor, "row own d_model"]:
        """What enters the block."""
        if self.is_single:
            return self.pieces[0].x.flatten(0, 1)
        return torch.cat([piece.x.flatten(0, 2) for piece in self.pieces])[None]

    def put(self, out: Float[Tensor, "row own d_model"]) -> None:
        """Take what left it."""
        for piece, segment in zip(self.pieces, self.segments, strict=True):
            own = piece.x
            own[:] = (out if self.is_single else segment.of(out)).view_as(own)

    @property
    def visits(self) -> list[Visit]:
        """What is done to the pieces, each within its own segment."""
        if self.is_single:
            return [*self.pieces[0].visits]
        both = zip(self.pieces, self.segments, strict=True)
        return [replace(visit, within=own) for piece, own in both for visit in piece.visits]

    @property
    def beside(self) -> list[Beside]:
        """Where each is, of which clean runs, and where it begins."""
        return [
            Beside(segment, piece.prompts, piece.position)
            for piece, segment in zip(self.pieces, self.segments, strict=True)
        ]

    def read(self, places: Callable[[int], Iterable[int]]) -> list[int]:
        """Which positions of what the block runs on are some positions of the clean runs.

        Of a single piece those that any of its rows has; else each row's own.
        """
        found: set[int] = set()
        for piece, segment in zip(self.pieces, self.segments, strict=True):
            read = {place for prompt in piece.prompts for place in places(prompt)}
            own = {place - piece.position for place in read if place >= piece.position}
            firsts = (
                [0]
                if self.is_single
                else range(segment.first, segment.first + len(segment), segment.own)
            )
            found.update(first + place for first in firsts for place in own)
        return sorted(found)


def rows_of(pieces: Iterable[tuple[Piece, float]]) -> Iterator[list[Piece]]:
    """What goes through a block together, of pieces with the share of a tile that each is.

    A tile at most; so a batch without others goes by itself, piece by piece: two fill more.
    """
    some: list[Piece] = []
    filled = 0.0
    for piece, share in pieces:
        if not piece.can_go_beside:
            yield [piece]
            continue
        if some and filled + share > 1:
            yield some
            some, filled = [], 0.0
        some.append(piece)
        filled += share
    if some:
        yield some
