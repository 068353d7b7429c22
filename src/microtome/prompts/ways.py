"""Ways: how positions of a prompt are found in reference texts, and which prompts find them alike.

A mean over reference texts depends on a prompt only by where its positions are in them. Prompts of
one way share the mean, so that it is taken once. Pure: no tensor is touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from microtome.language.addresses import Address
from microtome.language.regions import Column
from microtome.language.selectors import Group, Index, Role, Selector, Word
from microtome.language.sites import POSITIONS
from microtome.prompts.alignment import SAME, aligned
from microtome.prompts.tokens import Tokens


@dataclass(frozen=True)
class Way:
    """How the positions of one axis are found in other texts.

    Attributes:
        align: how texts are aligned.
        tokens: the prompt, where texts are aligned as wholes.
        spots: where an address names roles: these, and positions beside them, in the order in which
            the prompt has them. Empty where a position is the same one in every text.
    """

    align: str = SAME
    tokens: Tokens | None = None
    spots: tuple[str | int, ...] = ()

    def there(self, other: Tokens) -> Column:
        """Where each row of a mean is found in another text; `ABSENT` where nowhere."""
        if self.tokens is not None:
            return aligned(self.align, self.tokens, other).column
        return self._found(other) if self.spots else np.arange(len(other))

    def rows(self, tokens: Tokens, positions: Column) -> Column:
        """The rows of a mean that stand for some positions of a prompt."""
        return np.searchsorted(self._found(tokens), positions) if self.spots else positions

    def _found(self, tokens: Tokens) -> Column:
        places = [tokens.role(spot) if isinstance(spot, str) else spot for spot in self.spots]
        return np.array(places, dtype=np.int64)


def ways_of(address: Address, tokens: Tokens, align: str) -> tuple[Way, ...]:
    """The way of each axis of positions, in the order of the site's axes.

    >>> from microtome.language.addresses import parse
    >>> ways_of(parse("L*.z.h*@*"), Tokens.of_texts("a", " b"), "position")
    (Way(align='position', tokens=None, spots=()),)
    >>> ways_of(parse("L0.z@{0,last}"), Tokens.of_texts("a", " b"), "position")[0].spots
    (0, 'last')
    """
    axes = zip(address.site.axes, address.selectors, strict=True)
    return tuple(_way(chosen, tokens, align) for axis, chosen in axes if axis in POSITIONS)


def _way(selector: Selector, tokens: Tokens, align: str) -> Way:
    if align != SAME:
        return Way(align, tokens)
    members = selector.members if isinstance(selector, Group) else (selector,)
    if not any(isinstance(member, Role) for member in members):
        return Way()
    spots: dict[int, str | int] = {}
    for member in members:
        if isinstance(member, Role):
            spots.setdefault(tokens.role(member.name), member.name)
        elif isinstance(member, Index | Word):
            place = _place(member, tokens)
            spots.setdefault(place, place)
    return Way(spots=tuple(spots[place] for place in sorted(spots)))


def _place(member: Index | Word, tokens: Tokens) -> int:
    return member.value % len(tokens) if isinstance(member, Index) else tokens.find(member.text)


def unlike(address: Address, align: str, others: Iterable[Tokens]) -> Iterator[Tokens]:
    """One text of each kind in which an address' positions are found alike, whatever the prompt.

    What is wrong with one of a kind is wrong with all of them, so that it is enough to look at one.

    >>> from microtome.language.addresses import parse
    >>> one, two = Tokens.of_texts("a", " b"), Tokens.of_texts("c", " d")
    >>> list(unlike(parse("L0.z.h*@*"), "position", [one, two])) == [one]
    True
    """
    if align != SAME:
        yield from dict.fromkeys(others)
        return
    names = {
        member.name
        for place in address.places
        for member in (place.members if isinstance(place, Group) else (place,))
        if isinstance(member, Role)
    }
    seen = set()
    for other in others:
        kind = len(other), tuple(other.role(name) for name in sorted(names))
        if kind not in seen:
            seen.add(kind)
            yield other
