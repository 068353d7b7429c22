"""An edit put together by clicking: another site, other heads, another token, as a new text.

What a click does not touch stays as it was written. Pure: texts go in and come out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

from microtome.errors import MicrotomeError
from microtome.language.addresses import Address, parse
from microtome.language.calls import Call, called
from microtome.language.edges import Edge, where
from microtome.language.selectors import Everything, Group, Index, Role, Selector, Span, Star
from microtome.language.sites import HEADS, POSITIONS, SITES, Dimensions, Site
from microtome.readings.names import ON_OUTPUT

OPERATIONS = {
    "zero": "zero",
    "patch": "patch",
    "mean": "mean",
    "scale": "scale(0.5)",
    "noise": "noise",
    "shuffle": "shuffle",
    "knockout": "knockout",
}
"""What can be done without a value of one's own → how it is written; others are typed."""

IN_DRAWING = (
    "resid_pre", "q", "k", "v", "pattern", "z", "attn_out", "resid_mid", "mlp_post", "mlp_out",
    "resid_post",
)  # fmt: skip
"""Sites that have a place of their own in the drawing of a block."""

MOST_UNITS = 64
"""Heads or layers that are offered one by one."""


@dataclass(frozen=True)
class Choice:
    """Something that can be chosen, or cannot.

    Attributes:
        value: as it goes into the edit.
        lacks: why it cannot be chosen here; "" where it can.
        about: what it is.
    """

    value: str
    lacks: str = ""
    about: str = ""


@dataclass(frozen=True)
class AxisChoice:
    """An axis of an address.

    Attributes:
        axis: its name, such as ``head``.
        now: what is selected, as it is written.
        values: what can be: ``*`` (each by itself), ``:`` (all together), numbers.
    """

    axis: str
    now: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Composed:
    """An edit's text in its two halves.

    Attributes:
        operation: what is done, with its parameters.
        address: where; None of an edge, which is typed.
    """

    operation: str
    address: Address | None

    @classmethod
    def of(cls, text: str) -> Composed:
        """The halves of an edit's text.

        Raises:
            AddressError, EditError: it cannot be read.

        >>> Composed.of("scale(0.6) L2.resid_post").operation
        'scale(0.6)'
        """
        call, place = _read(text)
        operation = text.strip().removesuffix(call.address).strip()
        return cls(operation, None if isinstance(place, Edge) else place)

    @property
    def name(self) -> str:
        """The operation without its parameters."""
        return self.operation.partition("(")[0].strip()

    def __str__(self) -> str:
        return f"{self.operation} {self.address}"


@cache
def _read(text: str) -> tuple[Call, Address | Edge]:
    call = called(text)
    return call, where(call.address)


def is_readable(text: str) -> bool:
    """Whether a text is an edit at all."""
    try:
        Composed.of(text)
    except MicrotomeError:
        return False
    return True


def with_operation(text: str, name: str) -> str:
    """The same place, and something else done there.

    >>> with_operation("zero L*.z.h*@-1", "patch")
    'patch L*.z.h*@-1'
    """
    call, _ = _read(text)
    return f"{OPERATIONS.get(name, name)} {call.address}"


def with_site(text: str, name: str) -> str:
    """The same done at another site: the layers and tokens stay, heads are each by itself.

    >>> with_site("zero L*.z.h*@-1", "resid_post"), with_site("zero L*.z.h*@-1", "pattern")
    ('zero L*.resid_post@-1', 'zero L*.pattern.h*@-1,:')
    >>> with_site("zero logits@-1", "k")
    'zero L*.k.h*@-1'
    """
    was, site = Composed.of(text), SITES[name]
    old = was.address
    layers = Star() if old is None or old.layers is None else old.layers
    places = old.places[:1] if old is not None else (Role("last"),)
    made = Address(site, layers if site.layered else None, (Everything(),) * len(site.axes))
    for axis in site.axes:
        if axis in HEADS:
            made = _put(made, axis, Star())
        elif axis in ("pos", "q_pos") and places:
            made = _put(made, axis, places[0])
    operation = was.operation if was.name != "knockout" or name == "pattern" else "zero"
    return f"{operation} {made}"


def with_axis(text: str, axis: str, value: str) -> str:
    """The same with another selection along an axis; along one that it does not have, as it was.

    >>> with_axis("zero L*.z.h*@-1", "layer", "3"), with_axis("zero L*.z.h*@-1", "pos", "*")
    ('zero L3.z.h*@-1', 'zero L*.z.h*@*')
    """
    was = Composed.of(text)
    if was.address is None or axis not in dict(was.address.labelled):
        return text
    return str(replace(was, address=_put(was.address, axis, _selector(value))))


def with_position(text: str, value: str) -> str:
    """The same at another token: of an attention weight, the query's.

    >>> with_position("zero L*.pattern.h*@-1,:", "2")
    'zero L*.pattern.h*@2,:'
    """
    was = Composed.of(text)
    if was.address is None:
        return text
    axis = next(one for one in was.address.site.axes if one in POSITIONS)
    return with_axis(text, axis, value)


def position_of(text: str) -> str:
    """Which token an edit is made at, as it is written; "" of an edge.

    >>> position_of("zero L*.z.h*@-1"), position_of("zero L0.z")
    ('-1', ':')
    """
    address = Composed.of(text).address
    return "" if address is None or not address.places else str(address.places[0])


def is_at(position: str, token: int, of: int) -> bool:
    """Whether a selection of positions, as it is written, takes in a token of so many.

    Words and roles are not looked for.

    >>> is_at("-1", 4, 5), is_at("last", 3, 5), is_at("1:3", 2, 5), is_at("*", 0, 5)
    (True, False, True, True)
    >>> any(is_at("9", token, 5) for token in range(5))
    False
    """
    if not position:
        return False
    match _selector(position):
        case Everything() | Star():
            return True
        case Index(value):
            return value in (token, token - of)
        case Role(name):
            return name == "last" and token == of - 1
        case Span(start, stop, step):
            return token in range(of)[start:stop:step]
        case Group(members):
            return any(is_at(str(one), token, of) for one in members)
    return False


def axes_of(text: str, dims: Dimensions, positions: int) -> tuple[AxisChoice, ...]:
    """The axes of an edit's address, and what can be selected along each.

    Args:
        text: the edit.
        dims: of the model.
        positions: tokens of the prompt.
    """
    address = Composed.of(text).address
    if address is None:
        return ()
    return tuple(_axes(address, dims, positions))


def _axes(address: Address, dims: Dimensions, positions: int) -> Iterator[AxisChoice]:
    for axis, selector in address.labelled:
        if axis in ("d_model", "d_head", "vocab") and selector == Everything():
            continue  # hardly anybody wants single coordinates: they are typed
        size = positions if axis in POSITIONS else dims.size(axis)
        numbers = range(size) if size <= MOST_UNITS else range(0)
        first = ("*", ":", "-1") if axis in POSITIONS else ("*", ":")
        values = dict.fromkeys([*first, *map(str, numbers), str(selector)])
        yield AxisChoice(axis, str(selector), tuple(values))


def sites(dims: Dimensions) -> tuple[Choice, ...]:
    """Every site, those that the model lacks with the reason."""
    lacks = dict(dims.lacks)
    return tuple(Choice(one.name, lacks.get(one.name, ""), one.about) for one in SITES.values())


def operations(site: Site | None, has_donor: bool) -> tuple[Choice, ...]:
    """What can be done at a site; what cannot, with the reason as a key of the texts."""

    def lacks(name: str) -> str:
        if name == "patch" and not has_donor:
            return "donor"
        if name == "knockout" and (site is None or site.name != "pattern"):
            return "pattern"
        return ""

    return tuple(Choice(name, lacks(name)) for name in OPERATIONS)


def metrics(has_target: bool, has_contrast: bool) -> tuple[Choice, ...]:
    """What can be measured and drawn; what cannot, with the reason as a key of the texts."""

    def lacks(name: str) -> str:
        if name == "logit_diff" and not (has_target and has_contrast):
            return "both"
        if name in ("logit", "prob", "logprob", "loss", "rank") and not has_target:
            return "target"
        return ""

    return tuple(Choice(name, lacks(name)) for name in ON_OUTPUT if name != "top1")


def _put(address: Address, axis: str, selector: Selector) -> Address:
    if axis == "layer":
        return replace(address, layers=selector)
    at = address.site.axes.index(axis)
    selectors = (*address.selectors[:at], selector, *address.selectors[at + 1 :])
    return replace(address, selectors=selectors)


def _selector(value: str) -> Selector:
    """A selector as it is written along positions, where all kinds can be."""
    return parse(f"embed@{value}").selectors[0]
