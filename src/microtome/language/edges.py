"""Edges and paths as addresses: what one reader reads of one writer.

::

    WRITER -> READER        L9.z.h6 -> L10.q_in.h0      embed -> L*.v_in.h*@-1
    WRITER => READER        the path, by every route through MLPs

The residual stream is a sum. The **edge** from a writer to a reader is the share of that writer in
what that reader reads. A **path** is every route between them through some parts, while all others
stay as they were. Each side is an address; the writer's stars are axes of their own, named
``from_layer``, ``from_head``, ``from_pos``.

>>> edge = parse_edge("L*.z.h* -> L*.q_in.h*@-1")
>>> edge.stars
('from_layer', 'from_head', 'layer', 'head')
>>> str(edge.fix(from_layer=9, from_head=6, layer=10, head=0))
'L9.z.h6 -> L10.q_in.h0@-1'
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from microtome.amounts import many
from microtome.errors import AddressError, did_you_mean, listing
from microtome.language.addresses import Address, parse
from microtome.language.regions import Column
from microtome.language.selectors import Everything, Index, Selector, Star
from microtome.language.sites import POSITIONS, Site
from microtome.language.sites import site as find_site
from microtome.spoken import spoken

FROM = "from"
"""The label of a writer's stars, unless it is given one with 'as'."""

WRITERS: Mapping[str, str] = MappingProxyType(
    {
        "embed": "embed",
        "z": "head_out",
        "head_out": "head_out",
        "attn_out": "attn_out",
        "mlp_out": "mlp_out",
    }
)
"""A site that may stand left of an arrow → what it adds to the residual stream."""

READERS = ("q_in", "k_in", "k_in_group", "v_in", "v_in_group", "mlp_in", "final_in")
"""Sites that may stand right of an arrow."""

ENDS = (*READERS, "z")
"""Sites that a path may end at: ``z`` is a head by all that it reads."""

WITHIN = ("mlp_in", "z")
"""Of these those within a block, behind its input."""

PARTS = ("head", "mlp")
"""What a path may go through."""

FORM = "WRITER -> READER, for example L9.z.h6 -> L10.q_in.h0 (=> for a path through MLPs)"

NORMED = (
    "this model norms the residual stream itself, after every addition, so that what a reader "
    "reads is no sum of what was written and has no edges"
)

_ARROW = re.compile(r'"(?:[^"\\]|\\.)*"|(?P<arrow>->|=(?:(?P<via>[a-z]+(?:,[a-z]+)*)=)?>)')


@dataclass(frozen=True)
class Edge:
    """What one reader reads of one writer.

    Attributes:
        writer: the address of what writes: ``embed``, ``L*.z.h*`` (or ``head_out``),
            ``L*.attn_out``, ``L*.mlp_out``.
        reader: the address of what reads: ``L*.q_in.h*`` … ``L*.mlp_in``, ``final_in``.
        via: None for the edge itself; for a path, the parts that it may go through: ``"mlp"``,
            ``"head"``, or both, which ``"all"`` is short for. A path through nothing is the edge.

    Raises:
        AddressError: a side is no writer or no reader, or the positions of the two do not go
            together.

    >>> Edge(parse("L5.z.h5"), parse("L9.q_in.h9"), via=()) == parse_edge("L5.z.h5 -> L9.q_in.h9")
    True
    """

    writer: Address
    reader: Address
    via: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "via", _parts(self.via))
        _check_sides(self)
        if self.writer.stars and not self.writer.label:
            object.__setattr__(self, "writer", replace(self.writer, label=FROM))
        if self.writer.label and self.writer.label == self.reader.label:
            raise AddressError(
                f"{self}: both sides call their stars {self.writer.label!r}; name one otherwise."
            )
        if self.is_path:
            _check_layer(self)
        else:
            _check_places(self)

    def __str__(self) -> str:
        own = replace(self.writer, label="") if self.writer.label == FROM else self.writer
        return f"{own} {self._arrow} {self.reader}"

    @property
    def _arrow(self) -> str:
        if self.via is None:
            return "->"
        if self.via == ("mlp",):
            return "=>"
        return "=all=>" if self.via == PARTS else f"={','.join(self.via)}=>"

    @property
    def is_path(self) -> bool:
        """Whether it may go through other parts."""
        return self.via is not None

    @property
    def share(self) -> Address:
        """What is edited: what the writer adds, where the reader reads it."""
        site = find_site(WRITERS[self.writer.site.name])
        place = _place(self.writer) if self.is_path else self._joint
        units = self.writer.selectors[1:-1] if "head" in site.axes else ()
        label = self.writer.label or FROM
        return Address(site, self.writer.layers, (place, *units, Everything()), label)

    @property
    def heard(self) -> Address:
        """Where that is put: the reader's site, at the positions of the edge."""
        return self.reader if self.is_path else _placed(self.reader, self._joint)

    @property
    def position_star(self) -> str | None:
        """The dimension of the positions of both sides, where an edge stars them."""
        if self.is_path or self._joint != Star():
            return None
        own = self.writer if _place(self.writer) == Star() else self.reader
        return own.star("pos")

    def of_share(self, stars: Mapping[str, Column]) -> Mapping[str, Column]:
        """Stars of cells by the names that `share` has for them."""
        own = self.position_star
        return stars if own is None else {**stars, self.share.star("pos"): stars[own]}

    @property
    def _joint(self) -> Selector:
        """A reader at a position reads what was written at it: one selector is of both."""
        place = _place(self.writer)
        return _place(self.reader) if place == Everything() else place

    # ------------------------------------------------------------ what an address has, too

    @property
    def site(self) -> Site:
        """The site that an edit of it is made at: the reader's."""
        return self.reader.site

    @property
    def labelled(self) -> Iterator[tuple[str, Selector]]:
        """Axes of both sides with their selectors, the writer's first."""
        yield from self.writer.labelled
        yield from self.reader.labelled

    @property
    def stars(self) -> tuple[str, ...]:
        """The dimensions that it spans: the writer's, then the reader's."""
        return (*self.writer.stars, *self.reader.stars)

    def fix(self, **at: int) -> Edge:
        """This edge with an index in the place of each star that is named."""
        return replace(self, writer=self.writer.fix(**at), reader=self.reader.fix(**at))


Where = Address | Edge
"""Where an edit is made."""


def where(text: str) -> Where:
    """The address, or the edge, that a text names.

    Raises:
        AddressError: it cannot be read.

    >>> str(where("L9.z.h6")), str(where("L9.z.h6->L10.q_in.h0"))
    ('L9.z.h6', 'L9.z.h6 -> L10.q_in.h0')
    """
    return parse_edge(text) if _arrows(text) else parse(text)


def parse_edge(text: str) -> Edge:
    """The edge or path that a text names.

    Raises:
        AddressError: it is not of the form, or a side is no address.

    >>> parse_edge("L5.z.h5 => L9.z.h9").via, parse_edge("embed =all=> final_in").via
    (('mlp',), ('head', 'mlp'))
    """
    arrows = _arrows(text)
    if len(arrows) != 1:
        found = many(len(arrows), "arrow") if arrows else "no arrow"
        raise AddressError(f"Cannot read the edge {text!r}: it has {found}. Form: {FORM}")
    [arrow] = arrows
    writer, reader = text[: arrow.start()].strip(), text[arrow.end() :].strip()
    if not writer or not reader:
        raise AddressError(f"Cannot read the edge {text!r}: a side is empty. Form: {FORM}")
    via = None if arrow["arrow"] == "->" else tuple((arrow["via"] or "mlp").split(","))
    return Edge(parse(writer), parse(reader), via)


@spoken
def edge(
    writer: Address | str, reader: Address | str, *, via: Iterable[str] | str | None = None
) -> Edge:
    """An edge, or a path, from its two sides.

    Args:
        writer: what writes, such as ``"L9.z.h6"``.
        reader: what reads, such as ``"L10.q_in.h0"``.
        via: what a path may go through: ``("mlp",)``, ``("head",)``, ``"all"``; nothing: the edge.

    Raises:
        AddressError: a side is no writer or no reader.

    Source: path patching, Goldowsky-Dill et al. 2023 (arXiv:2304.05969); Wang et al. 2022
    (arXiv:2211.00593), section 3.1.

    >>> str(edge("L9.z.h6", "L10.q_in.h0")), str(edge("L5.z.h5", "L9.z.h9", via="all"))
    ('L9.z.h6 -> L10.q_in.h0', 'L5.z.h5 =all=> L9.z.h9')
    """
    written, read = (parse(one) if isinstance(one, str) else one for one in (writer, reader))
    parts = (via,) if isinstance(via, str) else via
    return Edge(written, read, None if parts is None else tuple(parts))


def _arrows(text: str) -> list[re.Match[str]]:
    """The arrows of a text that stand in no quotes."""
    return [found for found in _ARROW.finditer(text) if found["arrow"]]


def _parts(via: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """What a path may go through, in order; None where that is nothing."""
    asked = PARTS if via == ("all",) else via or ()
    for one in asked:
        if one not in PARTS:
            raise AddressError(
                f"via={one!r} is nothing that a path goes through; there are: {listing(PARTS)}, "
                f"or 'all'.{did_you_mean(one, (*PARTS, 'all'))}"
            )
    return tuple(part for part in PARTS if part in asked) or None


def _place(address: Address) -> Selector:
    return next(s for axis, s in address.labelled if axis in POSITIONS)


def _placed(address: Address, place: Selector) -> Address:
    return replace(address, selectors=(place, *address.selectors[1:]))


def _check_sides(own: Edge) -> None:
    """Raise unless something is written on the left and read on the right."""
    if own.writer.site.name not in WRITERS:
        raise AddressError(
            f"{own.writer} is no writer: what adds to the residual stream is {listing(WRITERS)} "
            "(a head as L5.z.h3 or L5.head_out.h3, an MLP as L5.mlp_out)."
        )
    ends = ENDS if own.is_path else READERS
    if own.reader.site.name not in ends:
        path = (
            ""
            if own.is_path or own.reader.site.name != "z"
            else (
                " A head reads by L5.q_in.h3, L5.k_in.h3 and L5.v_in.h3; a path (=>) may end at "
                "its z."
            )
        )
        raise AddressError(
            f"{own.reader} is no reader: what reads the residual stream is {listing(ends)}.{path}"
        )
    if own.writer.selectors[-1] != Everything():
        raise AddressError(
            f"{own.writer} -> {own.reader}: single coordinates are chosen where they are read: "
            f"write .d at the reader."
        )


def _check_layer(own: Edge) -> None:
    """Raise where a path begins in several layers at once: one is in the other's way."""
    if not isinstance(own.writer.layers, Index | Star | None):
        raise AddressError(
            f"{own}: a path begins in one layer. Write L5 for one, or L* for each separately."
        )


def _check_places(own: Edge) -> None:
    """Raise where an edge is to be at other positions on its one side than on the other."""
    written, read = _place(own.writer), _place(own.reader)
    if Everything() in (written, read) or (written == read and written != Star()):
        return
    raise AddressError(
        f"{own}: a reader at a position reads what was written at it, so an edge has its positions "
        "once: give them on one side. What moves between positions is attention, which reads by "
        "k_in and v_in; a path (=>) goes through it where via has 'head'."
    )
