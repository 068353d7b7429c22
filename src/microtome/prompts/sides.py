"""Where edits land in a prompt, those of edges too: plain indices, one name for every star.

An edge has two sides: what its writer adds, and where its reader reads that.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from microtome.errors import AddressError
from microtome.language.edges import NORMED, Edge, Where
from microtome.language.order import exists, refuse
from microtome.language.regions import Layout
from microtome.language.sites import Dimensions
from microtome.prompts.resolve import layout, spans
from microtome.prompts.tokens import Tokens


class Sides(NamedTuple):
    """Where an edit lands, and of an edge what its writer adds; else None."""

    lands: Layout
    share: Layout | None = None

    @property
    def changed(self) -> Layout:
        """Whose values the edit changes."""
        return self.lands if self.share is None else self.share


def sides(where: Where, dims: Dimensions, tokens: Tokens) -> Sides:
    """Where an edit at an address or an edge lands; stars stay open.

    Raises:
        AddressError: a part of it names nothing in the model or in the prompt; or there is no such
            edge, whatever its stars are.
        PromptError: a word or a role is not in the prompt.

    >>> from microtome.language.edges import parse_edge
    >>> dims = Dimensions(2, 3, 3, 12, 4, 48, 99)
    >>> found = sides(parse_edge("L0.z.h1 -> L*.q_in.h*@*"), dims, Tokens.of_texts("a", " b"))
    >>> found.share.indices[:2], found.lands.indices[:2]
    (('pos', (1,)), ('pos', 'head'))
    """
    if not isinstance(where, Edge):
        return Sides(layout(where, dims, tokens))
    if not dims.sums:
        raise AddressError(f"{where}: {NORMED}.")
    lands = renamed(where, layout(where.heard, dims, tokens))
    share = renamed(where, layout(where.share, dims, tokens))
    starred = isinstance(share.layers, str) or isinstance(lands.layers, str)
    if not starred and not exists(where, share, lands, {}, dims).all():
        raise refuse(where, dims)
    return Sides(lands, share)


def renamed(where: Where, found: Layout) -> Layout:
    """A side of an edge, with the one name for a star that is on the positions of both."""
    star = where.position_star if isinstance(where, Edge) else None
    return found if star is None else replace(found, indices=(star, *found.indices[1:]))


def spanned(where: Where, dims: Dimensions, tokens: Tokens) -> dict[str, range]:
    """What each star of an address or an edge ranges over, by dimension, in order."""
    if not isinstance(where, Edge):
        return spans(where, dims, tokens)
    return {**spans(where.writer, dims, tokens), **spans(where.reader, dims, tokens)}
