"""Segments: some rows of tokens that lie, with others of another length, in one row.

A block takes every token by itself, but in attention. So tokens of any rows can go through it one
behind another, as a batch of one; what knows of rows gets its own segment as a view.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Segment:
    """Some rows of tokens in a row of more.

    Attributes:
        first: where the first token is.
        rows: how many rows.
        own: tokens of each.
    """

    first: int
    rows: int
    own: int

    def __len__(self) -> int:
        return self.rows * self.own

    def of(self, x: Float[Tensor, "1 all *axes"]) -> Float[Tensor, "row own *axes"]:
        """The segment of a row, as a view.

        >>> import torch
        >>> Segment(1, 2, 3).of(torch.arange(8.0)[None])
        tensor([[1., 2., 3.],
                [4., 5., 6.]])
        """
        own = x[0, self.first : self.first + len(self)]
        return own.view(self.rows, self.own, *own.shape[1:])


def in_a_row(shapes: Iterable[tuple[int, int]]) -> list[Segment]:
    """Segments of so many rows of so many tokens, one behind another.

    >>> in_a_row([(2, 3), (1, 5)])
    [Segment(first=0, rows=2, own=3), Segment(first=6, rows=1, own=5)]
    """
    shapes = [*shapes]
    firsts = accumulate((rows * own for rows, own in shapes), initial=0)
    return [Segment(first, *shape) for first, shape in zip(firsts, shapes, strict=False)]
