"""Addresses: text that names a site and the part of it that is meant.

::

    L<layers>.<site>[.<h|n|d><units>][@<positions>]      embed[@…]      logits[@…]

Text is parsed once, at the edge, into an `Address`: a site and one selector per axis. An address
with stars spans many. `fix` puts numbers in the place of stars; `layout` turns an address into
plain indices, given a model's dimensions and a prompt's tokens. No tensor is touched here.

>>> address = parse("L*.z.h*@-1")
>>> address.stars
('layer', 'head')
>>> str(address.fix(layer=9, head=6))
'L9.z.h6@-1'
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from microtome.alignment import SAME, aligned
from microtome.errors import AddressError, PromptError, listing
from microtome.prompts import Tokens
from microtome.regions import Column, Layout, Region
from microtome.selectors import Everything, Group, Index, Role, Selector, Span, Star, Word
from microtome.sites import LETTERS, POSITIONS, Dimensions, Site, dimension
from microtome.sites import site as find_site

FORM = "L<layers>.<site>[.<h|n|d><units>][@<positions>], for example L9.z.h6@-1"


@dataclass(frozen=True)
class Address:
    """A site and one selector per axis; ``layers`` is None where the site is in no layer.

    ``str(address)`` is its canonical text, which parses to an equal address.
    """

    site: Site
    layers: Selector | None
    selectors: tuple[Selector, ...]

    def __str__(self) -> str:
        units, positions = "", []
        for axis, selector in zip(self.site.axes, self.selectors, strict=True):
            if axis in POSITIONS:
                positions.append(str(selector))
            elif selector != Everything():
                units += f".{LETTERS[axis]}{selector}"
        place = "" if set(positions) <= {":"} else "@" + ",".join(positions)
        layers = "" if self.layers is None else f"L{self.layers}."
        return f"{layers}{self.site.name}{units}{place}"

    @property
    def _labelled(self) -> Iterator[tuple[str, Selector]]:
        """Axes with their selectors, in the order of the text: layers, units, positions."""
        if self.layers is not None:
            yield "layer", self.layers
        inner = list(zip(self.site.axes, self.selectors, strict=True))
        yield from (pair for pair in inner if pair[0] not in POSITIONS)
        yield from (pair for pair in inner if pair[0] in POSITIONS)

    @property
    def stars(self) -> tuple[str, ...]:
        """The dimensions that this address spans: layers, units, positions."""
        return tuple(dimension(axis) for axis, s in self._labelled if s == Star())

    @property
    def places(self) -> tuple[Selector, ...]:
        """The selectors of its positions."""
        return tuple(s for axis, s in self._labelled if axis in POSITIONS)

    def fix(self, **at: int) -> Address:
        """This address with an index in the place of each star that is named.

        >>> str(parse("L*.k.h*@*").fix(layer=0, pos=3))
        'L0.k.h*@3'
        """

        return self._starless({name: Index(index) for name, index in at.items()})

    def together(self) -> Address:
        """This address with ':' in the place of every star.

        >>> str(parse("L*.z.h*@-1").together())
        'L:.z@-1'
        """
        return self._starless(dict.fromkeys(self.stars, Everything()))

    def _starless(self, instead: Mapping[str, Selector]) -> Address:
        def chosen(axis: str, selector: Selector) -> Selector:
            return instead.get(dimension(axis), selector) if selector == Star() else selector

        selectors = tuple(
            chosen(axis, s) for axis, s in zip(self.site.axes, self.selectors, strict=True)
        )
        layers = None if self.layers is None else chosen("layer", self.layers)
        return replace(self, layers=layers, selectors=selectors)


# ---------------------------------------------------------------------------------------- parse

_INT = "-?[0-9]{1,9}"
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_SELECTOR = re.compile(
    rf"""(?P<star>\*)
    | (?P<span>(?:{_INT})?:(?:{_INT})?(?::(?:{_INT})?)?)
    | (?P<index>{_INT})
    | (?P<group>\{{(?:[^{{}}"]|{_QUOTED})*\}})
    | (?P<word>{_QUOTED})
    | (?P<role>[A-Za-z_]\w*)""",
    re.VERBOSE,
)
_MEMBER = re.compile(
    rf"\s*(?:(?P<index>{_INT})|(?P<word>{_QUOTED})|(?P<role>[A-Za-z_]\w*))\s*(,|$)"
)


class _Reader:
    """A cursor over an address, with one way to complain."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    @property
    def rest(self) -> str:
        return self.text[self.at :]

    def take(self, pattern: str) -> str | None:
        found = re.compile(pattern).match(self.text, self.at)
        if found is None:
            return None
        self.at = found.end()
        return found.group()

    def wrong(self, why: str) -> AddressError:
        here = f"{self.rest!r}" if self.rest else "its end"
        return AddressError(f"Cannot read the address {self.text!r}: {why} at {here}. Form: {FORM}")

    def selector(self, what: str) -> Selector:
        found = _SELECTOR.match(self.text, self.at)
        if found is None:
            raise self.wrong(f'expected {what} (an integer, a:b:c, {{1,4}}, ":" or "*")')
        kind, text = found.lastgroup, found.group()
        if kind in ("word", "role") and what != "positions":
            raise self.wrong(f"{what} are numbers, a:b:c, {{1,4}}, : or *; found {text}")
        selector: Selector
        match kind:
            case "star":
                selector = Star()
            case "index":
                selector = Index(int(text))
            case "span":
                selector = self._span(text)
            case "group":
                selector = self._group(text[1:-1], what)
            case "word":
                selector = self._word(text)
            case _:
                selector = Role(text)
        self.at = found.end()
        return selector

    def _span(self, text: str) -> Selector:
        ends = [int(end) if end else None for end in text.split(":")]
        start, stop, step = ends if len(ends) == 3 else (*ends, None)
        if step is not None and step < 1:
            raise self.wrong("a slice's step must be 1 or more")
        step = None if step == 1 else step
        return (
            Everything() if (start, stop, step) == (None, None, None) else Span(start, stop, step)
        )

    def _word(self, text: str) -> Word:
        try:
            word: str = json.loads(text)
        except json.JSONDecodeError:
            raise self.wrong("a word in quotes takes JSON's escapes") from None
        if not word.strip():
            raise self.wrong("an empty word names no position")
        return Word(word)

    def _group(self, inner: str, what: str) -> Group:
        members: list[Index | Word | Role] = []
        at = 0
        while at < len(inner):
            found = _MEMBER.match(inner, at)
            if found is None:
                raise self.wrong(f"a set lists integers (for positions also words), not {inner!r}")
            member: Index | Word | Role
            if found["index"] is not None:
                member = Index(int(found["index"]))
            elif what != "positions":
                raise self.wrong(f"{what} are numbers")
            elif found["word"] is not None:
                member = self._word(found["word"])
            else:
                member = Role(found["role"])
            if member not in members:
                members.append(member)
            at = found.end()
        if not members:
            raise self.wrong("an empty set selects nothing")
        return Group(tuple(members))


def parse(text: str) -> Address:
    """The address that a text names.

    Raises:
        AddressError: the text is not of the form, or its site does not exist or lacks the axis.

    >>> parse("L2.z.h:@\\"pineapple\\"").selectors[0]
    Word(text='pineapple')
    >>> str(parse("L5.hidden@{0,-1}"))
    'L5.resid_post@{0,-1}'
    """
    reader = _Reader(text.strip())
    layers = None
    if reader.take("L(?=[^A-Za-z_])") is not None:
        layers = reader.selector("layers")
        if reader.take(r"\.") is None:
            raise reader.wrong('expected "." and a site')
    name = reader.take(r"[A-Za-z_]+")
    if name is None:
        raise reader.wrong("expected a site")
    site = find_site(name)
    if site.layered and layers is None:
        raise AddressError(
            f"{text!r} lacks its layers: write L*.{reader.text} for each layer separately, "
            f"L:.{reader.text} for all together, or L0.{reader.text} for one."
        )
    if layers is not None and not site.layered:
        raise AddressError(f"{name!r} is in no layer: write {name!r} in the place of {text!r}.")

    chosen: dict[str, Selector] = {}
    while reader.take(r"\.") is not None:
        axis = _axis_of_letter(reader, site)
        if axis in chosen:
            raise reader.wrong(f"{axis} is selected twice")
        chosen[axis] = reader.selector("units")
    if reader.take("@") is not None:
        places = [axis for axis in site.axes if axis in POSITIONS]
        for number, axis in enumerate(places):
            if number and reader.take(",") is None:
                break  # of attention weights, a query alone means all its keys
            chosen[axis] = reader.selector("positions")
    if reader.rest:
        raise reader.wrong("unexpected text")
    return Address(site, layers, tuple(chosen.get(axis, Everything()) for axis in site.axes))


def _axis_of_letter(reader: _Reader, site: Site) -> str:
    axes = {LETTERS[axis]: axis for axis in site.axes if axis in LETTERS}
    letter = reader.take("[A-Za-z]")
    if letter is None or letter not in axes:
        has = listing(f"{known} ({axis})" for known, axis in axes.items()) or "none"
        raise reader.wrong(f"{site.name} has no units {letter or ''!r}; it has {has};")
    return axes[letter]


# -------------------------------------------------------------------------------------- resolve


def spans(address: Address, dims: Dimensions, tokens: Tokens) -> dict[str, range]:
    """What each star of an address ranges over, by dimension, in order.

    >>> dims = Dimensions(2, 3, 3, 12, 4, 48, 99)
    >>> spans(parse("L*.z.h*"), dims, Tokens.of_texts("a", " b"))
    {'layer': range(0, 2), 'head': range(0, 3)}
    """
    return {
        dimension(axis): range(_size(axis, dims, tokens))
        for axis, selector in address._labelled
        if selector == Star()
    }


def layout(address: Address, dims: Dimensions, tokens: Tokens) -> Layout:
    """Where an address lands in a prompt; its stars stay open.

    Raises:
        AddressError: a part of the address names nothing in the model or in the prompt.
        PromptError: a word or a role is not in the prompt.

    >>> dims = Dimensions(2, 3, 3, 12, 4, 48, 99)
    >>> found = layout(parse("L*.z.h2@-1"), dims, Tokens.of_texts("a", " b"))
    >>> found.layers, found.indices
    ('layer', ((1,), (2,), (0, 1, 2, 3)))
    """
    for lacking, why in dims.lacks:
        if address.site.name == lacking:
            raise AddressError(f"{address}: this model has no site {lacking!r}: {why}.")

    def chosen(axis: str, selector: Selector) -> tuple[int, ...] | str:
        if selector == Star():
            return dimension(axis)
        return _indices(axis, selector, address, dims, tokens)

    indices = tuple(map(chosen, address.site.axes, address.selectors))
    layers = None if address.layers is None else chosen("layer", address.layers)
    found = Layout(address.site, layers, indices)
    if dims.causal and found.is_ahead:
        raise AddressError(
            f"{address}: no token attends to a later one in this model, so these weights do not "
            f"exist. Positions are the query's, then the key's: {tokens}"
        )
    return found


def regions(address: Address, dims: Dimensions, tokens: Tokens) -> tuple[Region, ...]:
    """Where an address without stars lands: one region per layer that it selects.

    Raises:
        AddressError: as `layout`; or it has stars.
        PromptError: as `layout`.

    >>> dims = Dimensions(2, 3, 3, 12, 4, 48, 99)
    >>> [region] = regions(parse("L-1.z.h2@-1"), dims, Tokens.of_texts("a", " b"))
    >>> region.layer, region.indices
    (1, ((1,), (2,), (0, 1, 2, 3)))
    """
    if address.stars:
        raise AddressError(
            f"{address} has stars, which only a sweep can walk; here, write ':' for all together "
            "or a number for one."
        )
    return layout(address, dims, tokens).regions()


def counterpart(
    address: Address, dims: Dimensions, tokens: Tokens, other: Tokens, align: str = SAME
) -> Layout:
    """The same places in another prompt: a layout whose indices match `layout`'s one by one.

    In a prompt of the same length a place is the same position; only a role goes where the other
    prompt has it. In one of another length nothing but roles can be aligned, unless the prompts are
    aligned as a whole (`ALIGNMENTS`). Stars stay open.

    Raises:
        PromptError: the prompts differ in length and a position is not a role, or two roles share
            a place in the one prompt and not in the other; or they are aligned, and a position has
            no counterpart.

    >>> dims = Dimensions(1, 1, 1, 8, 8, 8, 9)
    >>> one = Tokens.of_texts("Sam", " saw", " Sally")
    >>> counterpart(parse("L0.resid_pre@{0,-1}"), dims, one, one).indices[0]
    (0, 2)
    >>> two = Tokens.of_texts("Then", " Sam", " saw", " Sally")
    >>> counterpart(parse("L0.resid_pre@{0,-1}"), dims, one, two, align="words").indices[0]
    (1, 3)
    """
    if align == SAME:
        _check_alike(address, tokens, other)
    here = layout(address, dims, tokens)

    def there(axis: str, selector: Selector, found: tuple[int, ...] | str) -> tuple[int, ...] | str:
        if isinstance(found, str) or axis not in POSITIONS:
            return found
        if align != SAME:
            return aligned(align, tokens, other).of(found, address)
        return _counterpart(axis, selector, found, address, tokens, other)

    parts = zip(address.site.axes, address.selectors, here.indices, strict=True)
    moved = replace(here, indices=tuple(there(*part) for part in parts))
    if dims.causal and "k_pos" in address.site.axes and moved != here:
        _check_order(address, here, moved)
    return moved


def _check_order(address: Address, here: Layout, there: Layout) -> None:
    """A weight of a later token stays one: else it would come to be where none can be, or go."""
    number = {axis: n for n, axis in enumerate(address.site.axes)}
    sides = [[side.indices[number[axis]] for axis in ("q_pos", "k_pos")] for side in (here, there)]
    if any(isinstance(found, str) for side in sides for found in side):
        return  # single weights, of which those for later tokens are no cells
    ahead = [np.less.outer(queries, keys) for queries, keys in sides]
    for query, key in np.argwhere(ahead[0] != ahead[1])[:1].tolist():
        (queries, keys), (others, their) = sides
        raise PromptError(
            f"{address}: the weight of token {queries[query]} for token {keys[key]} is in the "
            f"donor that of token {others[query]} for token {their[key]}, and no token attends to "
            "a later one. Address positions that stand in the same order in both."
        )


def aligned_stars(
    address: Address, tokens: Tokens, other: Tokens, align: str
) -> Mapping[str, Column]:
    """Per star on a position, the counterparts of each (`ABSENT` where there is none).

    Nothing where positions are the same in both prompts.

    Raises:
        PromptError: the prompts cannot be aligned.

    >>> one, two = Tokens.of_texts("Sam", " saw"), Tokens.of_texts("Then", " Sam", " ran")
    >>> aligned_stars(parse("L0.z.h*@*"), one, two, "words")
    {'pos': array([ 1, -1])}
    """
    stars = [star for star in address.stars if star in POSITIONS]
    if align == SAME or not stars:
        return {}
    return dict.fromkeys(stars, aligned(align, tokens, other).column)


def _check_alike(address: Address, tokens: Tokens, other: Tokens) -> None:
    """Prompts that are not aligned are of one length, or addressed by roles alone."""
    atoms = [a for p in address.places for a in (p.members if isinstance(p, Group) else (p,))]
    if len(tokens) != len(other) and not all(isinstance(atom, Role) for atom in atoms):
        raise PromptError(
            f"{address}: the prompts differ in length, {len(tokens)} and {len(other)} tokens, so "
            "their positions do not match. Address positions by a role that both have (@last, "
            '@subject); let the edit align the prompts, patch(align="roles") or '
            'patch(align="words"); or make them equally long.\n'
            f"  {tokens}\n  {other}"
        )


def _counterpart(
    axis: str,
    selector: Selector,
    indices: tuple[int, ...],
    address: Address,
    tokens: Tokens,
    other: Tokens,
) -> tuple[int, ...]:
    """Where each of a region's indices stands in the other prompt, in the same order."""
    if not isinstance(selector, Role | Group):
        return indices
    there: dict[int, int] = {}
    for member in selector.members if isinstance(selector, Group) else (selector,):
        here = _one(axis, member, len(tokens), address, tokens)
        place = other.role(member.name) if isinstance(member, Role) else here
        if there.setdefault(here, place) != place:
            raise PromptError(
                f"{address}: position {here} has two counterparts, {there[here]} and {place}, in "
                f"the other prompt.\n  {tokens}\n  {other}"
            )
    return tuple(there[index] for index in indices)


def check(address: Address, dims: Dimensions, tokens: Tokens) -> None:
    """Raise `AddressError` if an address, stars or not, names nothing here."""
    first = {name: span[0] for name, span in spans(address, dims, tokens).items()}
    regions(address.fix(**first), dims, tokens)


def _size(axis: str, dims: Dimensions, tokens: Tokens) -> int:
    return len(tokens.ids) if axis in POSITIONS else dims.size(axis)


def _indices(
    axis: str, selector: Selector, address: Address, dims: Dimensions, tokens: Tokens
) -> tuple[int, ...]:
    size = _size(axis, dims, tokens)
    members: list[int]
    match selector:
        case Everything():
            return _all(size)
        case Span(start, stop, step):
            for end in (start, stop):
                if end is not None and not -size <= end <= size:
                    raise _outside(axis, end, size, address, tokens)
            members = list(range(size)[start:stop:step])
        case Group(chosen):
            members = [_one(axis, member, size, address, tokens) for member in chosen]
        case Index() | Word() | Role():
            members = [_one(axis, selector, size, address, tokens)]
        case Star():
            raise AssertionError("stars are fixed before an address is resolved")
    if not members:
        raise AddressError(f"{address}: {selector} selects no {axis} out of {size}.")
    return tuple(sorted(set(members)))


@lru_cache
def _all(size: int) -> tuple[int, ...]:
    return tuple(range(size))


def _one(
    axis: str, selector: Index | Word | Role, size: int, address: Address, tokens: Tokens
) -> int:
    match selector:
        case Index(value):
            if not -size <= value < size:
                raise _outside(axis, value, size, address, tokens)
            return value % size
        case Word(text):
            return tokens.find(text)
        case Role(name):
            return tokens.role(name)


def _outside(axis: str, value: int, size: int, address: Address, tokens: Tokens) -> AddressError:
    nearest = size - 1 if value >= 0 else -size
    where = f"the prompt has {size} tokens: {tokens}" if axis in POSITIONS else f"there are {size}"
    return AddressError(
        f"{address}: {axis} {value} does not exist; {where}, counted 0 … {size - 1} "
        f"(or -{size} … -1). The nearest is {nearest}."
    )
