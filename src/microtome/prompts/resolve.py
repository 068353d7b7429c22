"""Where an address lands in a prompt: plain indices, given a model's dimensions and its tokens.

Stars stay open (`layout`) or are absent (`regions`). No tensor is touched here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

import numpy as np

from microtome.amounts import many
from microtome.errors import AddressError, PromptError, listing
from microtome.language.addresses import Address
from microtome.language.edges import Where
from microtome.language.regions import Column, Layout, Region
from microtome.language.selectors import Everything, Group, Index, Role, Selector, Span, Star, Word
from microtome.language.sites import BEHIND, POSITIONS, Dimensions
from microtome.prompts.alignment import SAME, aligned
from microtome.prompts.tokens import Tokens


def spans(address: Address, dims: Dimensions, tokens: Tokens) -> dict[str, range]:
    """What each star of an address ranges over, by dimension, in order.

    >>> from microtome.language.addresses import parse
    >>> dims = Dimensions(2, 3, 3, 12, 4, 48, 99)
    >>> spans(parse("L*.z.h*"), dims, Tokens.of_texts("a", " b"))
    {'layer': range(0, 2), 'head': range(0, 3)}
    """
    return {
        address.star(axis): range(_size(axis, dims, tokens))
        for axis, selector in address.labelled
        if selector == Star()
    }


def layout(address: Address, dims: Dimensions, tokens: Tokens) -> Layout:
    """Where an address lands in a prompt; its stars stay open.

    Raises:
        AddressError: a part of the address names nothing in the model or in the prompt.
        PromptError: a word or a role is not in the prompt.

    >>> from microtome.language.addresses import parse
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
            return address.star(axis)
        return _indices(axis, selector, address, dims, tokens)

    indices = tuple(map(chosen, address.site.axes, address.selectors))
    layers = None if address.layers is None else chosen("layer", address.layers)
    block = dims.n_layers - 1 if address.site.name in BEHIND else 0
    found = Layout(address.site, layers, indices, dims.reaches, block)
    if dims.causal and found.is_ahead:
        raise AddressError(
            f"{address}: no token attends to a later one in this model, so these weights do not "
            f"exist. Positions are the query's, then the key's: {tokens}"
        )
    if found.is_beyond:
        sizes = sorted({1 + reach for reach in dims.reaches if reach is not None})
        seen = many(sizes[0], "token") if len(sizes) == 1 else f"{listing(sizes)} tokens"
        raise AddressError(
            f"{address}: the attention there has a window of {seen}, the token itself among them, "
            f"so that these weights do not exist. Address keys inside of it: {tokens}"
        )
    return found


def regions(address: Address, dims: Dimensions, tokens: Tokens) -> tuple[Region, ...]:
    """Where an address without stars lands: one region per layer that it selects.

    Raises:
        AddressError: as `layout`; or it has stars.
        PromptError: as `layout`.

    >>> from microtome.language.addresses import parse
    >>> dims = Dimensions(2, 3, 3, 12, 4, 48, 99)
    >>> [region] = regions(parse("L-1.z.h2@-1"), dims, Tokens.of_texts("a", " b"))
    >>> region.layer, region.indices
    (1, ((1,), (2,), (0, 1, 2, 3)))
    """
    check_single(address)
    return layout(address, dims, tokens).regions()


def check_single(where: Where) -> None:
    """Raise `AddressError` if an address or an edge has stars."""
    if where.stars:
        raise AddressError(
            f"{where} has stars, which only a sweep can walk; here, write ':' for all together "
            "or a number for one."
        )


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

    >>> from microtome.language.addresses import parse
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

    >>> from microtome.language.addresses import parse
    >>> one, two = Tokens.of_texts("Sam", " saw"), Tokens.of_texts("Then", " Sam", " ran")
    >>> aligned_stars(parse("L0.z.h*@*"), one, two, "words")
    {'pos': array([ 1, -1])}
    """
    starred = [axis for axis, selector in address.labelled if selector == Star()]
    stars = [address.star(axis) for axis in starred if axis in POSITIONS]
    if align == SAME or not stars:
        return {}
    return dict.fromkeys(stars, aligned(align, tokens, other).column)


def _check_alike(address: Address, tokens: Tokens, other: Tokens) -> None:
    """Prompts that are not aligned are of one length, or addressed by roles alone."""
    atoms = [a for p in address.places for a in (p.members if isinstance(p, Group) else (p,))]
    if len(tokens) != len(other) and not all(isinstance(atom, Role) for atom in atoms):
        raise PromptError(
            f"{address}: the prompts differ in length, {len(tokens)} and "
            f"{many(len(other), 'token')}, so "
            "their positions do not match. Address positions by a role that both have (@last, "
            '@subject); let the edit align the prompts, patch(align="roles") or '
            'patch(align="words"), as a mean over prompts can, too; or make them equally long.\n'
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


def check_axis(axis: str, selector: Selector, address: Address, size: int) -> None:
    """Raise `AddressError` if a selector names nothing along an axis that is no position.

    Args:
        axis: such as ``layer``.
        selector: what the address says there.
        address: for the complaint.
        size: how many indices there are.
    """
    if selector != Star():
        _chosen(axis, selector, address, size, Tokens.of_texts(""))


def _size(axis: str, dims: Dimensions, tokens: Tokens) -> int:
    return len(tokens.ids) if axis in POSITIONS else dims.size(axis)


def _indices(
    axis: str, selector: Selector, address: Address, dims: Dimensions, tokens: Tokens
) -> tuple[int, ...]:
    return _chosen(axis, selector, address, _size(axis, dims, tokens), tokens)


def _chosen(
    axis: str, selector: Selector, address: Address, size: int, tokens: Tokens
) -> tuple[int, ...]:
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
    where = (
        f"the prompt has {many(size, 'token')}: {tokens}"
        if axis in POSITIONS
        else f"there are {size}"
    )
    return AddressError(
        f"{address}: {axis} {value} does not exist; {where}, counted 0 … {size - 1} "
        f"(or -{size} … -1). The nearest is {nearest}."
    )
