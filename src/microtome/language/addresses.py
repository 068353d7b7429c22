"""Addresses: text that names a site and the part of it that is meant.

::

    L<layers>.<site>[.<h|n|d><units>][@<positions>]      embed[@…]      logits[@…]

Text is parsed once, at the edge, into an `Address`: a site and one selector per axis. An address
with stars spans many. `fix` puts numbers in the place of stars; `microtome.prompts.resolve` turns
an address into plain indices, given a model's dimensions and a prompt's tokens.

>>> address = parse("L*.z.h*@-1")
>>> address.stars
('layer', 'head')
>>> str(address.fix(layer=9, head=6))
'L9.z.h6@-1'
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from microtome.errors import AddressError, glimpse, listing
from microtome.language.habits import address_of, spelled
from microtome.language.selectors import Everything, Group, Index, Role, Selector, Span, Star, Word
from microtome.language.sites import LETTERS, POSITIONS, Site, dimension
from microtome.language.sites import site as find_site
from microtome.language.slips import mended

FORM = "L<layers>.<site>[.<h|n|d><units>][@<positions>], for example L9.z.h6@-1"

TAKEN = ("at", "clean", "screen")
"""What names in a result begin with that are no stars."""


@dataclass(frozen=True)
class Address:
    """A site and one selector per axis; ``layers`` is None where the site is in no layer.

    ``str(address)`` is its canonical text, which parses to an equal address. A ``label`` makes its
    stars axes of their own, beside another address's of the same names (``L*.z.h* as other`` spans
    ``other_layer`` and ``other_head``).
    """

    site: Site
    layers: Selector | None
    selectors: tuple[Selector, ...]
    label: str = ""

    def __str__(self) -> str:
        units, positions = "", []
        for axis, selector in zip(self.site.axes, self.selectors, strict=True):
            if axis in POSITIONS:
                positions.append(str(selector))
            elif selector != Everything():
                units += f".{LETTERS[axis]}{selector}"
        place = "" if set(positions) <= {":"} else "@" + ",".join(positions)
        layers = "" if self.layers is None else f"L{self.layers}."
        label = f" as {self.label}" if self.label else ""
        return f"{layers}{self.site.name}{units}{place}{label}"

    @property
    def labelled(self) -> Iterator[tuple[str, Selector]]:
        """Axes with their selectors, in the order of the text: layers, units, positions."""
        if self.layers is not None:
            yield "layer", self.layers
        inner = list(zip(self.site.axes, self.selectors, strict=True))
        yield from (pair for pair in inner if pair[0] not in POSITIONS)
        yield from (pair for pair in inner if pair[0] in POSITIONS)

    @property
    def stars(self) -> tuple[str, ...]:
        """The dimensions that this address spans: layers, units, positions."""
        return tuple(self.star(axis) for axis, s in self.labelled if s == Star())

    def star(self, axis: str) -> str:
        """The name of a star on an axis."""
        return f"{self.label}_{dimension(axis)}" if self.label else dimension(axis)

    @property
    def places(self) -> tuple[Selector, ...]:
        """The selectors of its positions."""
        return tuple(s for axis, s in self.labelled if axis in POSITIONS)

    def fix(self, **at: int) -> Address:
        """This address with an index in the place of each star that is named.

        >>> str(parse("L*.k.h*@*").fix(layer=0, pos=3))
        'L0.k.h*@3'
        """

        return self._starless({name: Index(index) for name, index in at.items()})

    def relabelled(self, label: str) -> Address:
        """This address with another label in front of its stars' names."""
        return replace(self, label=label)

    def together(self) -> Address:
        """This address with ':' in the place of every star.

        >>> str(parse("L*.z.h*@-1").together())
        'L:.z@-1'
        """
        return self._starless(dict.fromkeys(self.stars, Everything()))

    def _starless(self, instead: Mapping[str, Selector]) -> Address:
        def chosen(axis: str, selector: Selector) -> Selector:
            return instead.get(self.star(axis), selector) if selector == Star() else selector

        selectors = tuple(
            chosen(axis, s) for axis, s in zip(self.site.axes, self.selectors, strict=True)
        )
        layers = None if self.layers is None else chosen("layer", self.layers)
        starred = Star() in (layers, *selectors)
        label = self.label if starred else ""
        return replace(self, layers=layers, selectors=selectors, label=label)


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

    What other tools call it is refused with what it is called here.

    Raises:
        AddressError: it is no text, or not of the form, or its site does not exist or lacks the
            axis.

    >>> parse("L2.z.h:@\\"pineapple\\"").selectors[0]
    Word(text='pineapple')
    >>> str(parse("L5.hidden@{0,-1}"))
    'L5.resid_post@{0,-1}'
    """
    if not isinstance(text, str):
        raise AddressError(
            f"An address is a text, such as 'L5.z.h3', not {glimpse(text)}.{spelled(text)}"
        )
    try:
        return _parsed(text)
    except AddressError as error:
        elsewhere = address_of(text)
        if elsewhere:
            raise AddressError(f"{elsewhere} Form: {FORM}") from None
        raise AddressError(_with_meant(text, str(error))) from None


def _with_meant(text: str, said: str) -> str:
    """What is said of a text, with the whole address that it is nearly, where it is one."""
    meant = mended(text)
    try:
        _parsed(meant)
    except AddressError:
        return said
    if meant == text:
        return said
    said = said.partition(" Did you mean ")[0]  # of its site alone
    return f"{said.removesuffix('.')}. Did you mean {meant!r}?"


def _parsed(text: str) -> Address:
    reader = _Reader(text.strip())
    layers, site = _place(reader, text)
    chosen = _units(reader, site) | _positions(reader, site)
    label = _label(reader, [layers, *chosen.values()])
    if reader.rest:
        raise reader.wrong("unexpected text")
    selectors = tuple(chosen.get(axis, Everything()) for axis in site.axes)
    return Address(site, layers, selectors, label)


def _place(reader: _Reader, text: str) -> tuple[Selector | None, Site]:
    """The layers, and the site in them."""
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
    return layers, site


def _units(reader: _Reader, site: Site) -> dict[str, Selector]:
    """Axis → what is selected along it, of heads, neurons and coordinates."""
    chosen: dict[str, Selector] = {}
    while reader.take(r"\.") is not None:
        axis = _axis_of_letter(reader, site)
        if axis in chosen:
            raise reader.wrong(f"{axis} is selected twice")
        chosen[axis] = reader.selector("units")
    return chosen


def _positions(reader: _Reader, site: Site) -> dict[str, Selector]:
    """The same of positions."""
    chosen: dict[str, Selector] = {}
    if reader.take("@") is None:
        return chosen
    for number, axis in enumerate(axis for axis in site.axes if axis in POSITIONS):
        if number and reader.take(",") is None:
            break  # of attention weights, a query alone means all its keys
        chosen[axis] = reader.selector("positions")
    return chosen


def _label(reader: _Reader, selectors: Sequence[Selector | None]) -> str:
    """The name that the stars have."""
    if reader.take(r"\s+as\s+") is None:
        return ""
    label = reader.take(r"[A-Za-z][A-Za-z0-9]*") or ""
    if not label or Star() not in selectors:
        raise reader.wrong("'as' gives the stars of an address a name of their own")
    if label in TAKEN:
        raise reader.wrong(f"{label!r} begins names of results' own; take another")
    return label


def _axis_of_letter(reader: _Reader, site: Site) -> str:
    axes = {LETTERS[axis]: axis for axis in site.axes if axis in LETTERS}
    letter = reader.take("[A-Za-z]")
    if letter is None or letter not in axes:
        has = listing(f"{known} ({axis})" for known, axis in axes.items()) or "none"
        raise reader.wrong(f"{site.name} has no units {letter or ''!r}; it has {has};")
    return axes[letter]
