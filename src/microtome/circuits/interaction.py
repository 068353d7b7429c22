"""Interactions: what two parts do together beyond what each does alone.

A backup head does nothing while the head that it stands in for is there: alone, both look
unimportant, and together they are not. A part that is simply unimportant does not interact.
"""

from __future__ import annotations

import math
import re

import numpy as np
import xarray as xr

from microtome.errors import CircuitError, listing
from microtome.language.sites import counted
from microtome.results.effects import Effects
from microtome.spoken import spoken
from microtome.stats.samples import PROMPT

TWICE_AS_ONCE = ("zero", "mean", "patch", "replace")
"""Edits that made a second time change nothing more, so that the diagonal is their own effect."""

_LABEL = re.compile(r'"(?:[^"\\]|\\.)*"|(?P<label> as \w+)')
"""What the stars of an address are called; or a text in quotes, where it means nothing."""


@spoken
def interaction(
    effects: Effects, metric: str | None = None, *, singles: Effects | None = None
) -> xr.DataArray:
    """The effect of each pair less the sum of the effects of the two.

    Args:
        effects: of a sweep with one edit twice, the second time with a name for its stars, such as
            ``["zero L*.z.h*", "zero L*.z.h* as other"]``: half of the square is computed.
        metric: the first unless given.
        singles: of the sweep with the one edit. Not needed for `zero`, `mean`, `patch` and
            `replace`, where the diagonal has them; but on an edge, where two edits add up.

    Returns:
        Of the dimensions of the sweep. 0: what the two do adds up; for ``logit_diff``, below 0 they
        are redundant (together they are missed by more than one by one), above 0 one makes the
        other needless. 0 on the diagonal, where there is no pair.

    Raises:
        CircuitError: the sweep is not of one edit made twice, or singles are needed; or these are
            of another edit.

    >>> import microtome as mt
    >>> model, [prompt] = mt.load(), mt.tasks.ioi(1)
    >>> pairs = ["zero L{4,5}.z.h*@-1", "zero L{4,5}.z.h*@-1 as other"]
    >>> effects = mt.sweep(model, prompt, pairs, metrics="logit_diff")
    >>> interaction(effects).dims
    ('prompt', 'head', 'other_head')
    """
    name = effects.metrics[0] if metric is None else metric
    joint = effects.delta(name)
    pairs = pairs_of(joint)
    given = _twice(effects)
    own, other = [*pairs], [*pairs.values()]
    rest = [str(dim) for dim in joint.dims if dim not in (*own, *other)]
    square = joint.transpose(*rest, *own, *other)
    size = math.prod(square.sizes[dim] for dim in own)
    flat = square.values.reshape(*square.shape[: len(rest)], size, size)
    if singles is None:
        _check_twice_as_once(given)
        alone = np.diagonal(flat, axis1=-2, axis2=-1)
    else:
        _check_once(singles, given)
        alone = _singles(singles, name, rest, square, own).reshape(flat.shape[:-1])
    beyond = flat - (alone[..., :, None] + alone[..., None, :])
    np.einsum("...ii->...i", beyond)[:] = np.where(np.isnan(alone), np.nan, 0.0)
    found = square.copy(data=beyond.reshape(square.shape)).transpose(*joint.dims)
    found.name = "interaction"
    return found.assign_attrs(about=f"{name}: joint effect − sum of single effects")


def _twice(effects: Effects) -> str:
    """The one edit that a sweep makes twice, as a text.

    Raises:
        CircuitError: it makes others.
    """
    edits = _edits_of(effects)
    if len(edits) != 2 or len({*map(_plain, edits)}) != 1:
        raise CircuitError(
            "Interactions are of one edit that is made twice, as 'zero L*.z.h*' and 'zero L*.z.h* "
            f"as other': this sweep makes {listing(edits)}, whose single effects are not in the "
            "map."
        )
    return edits[0]


def _check_once(singles: Effects, given: str) -> None:
    edits = _edits_of(singles)
    if [*map(_plain, edits)] != [_plain(given)]:
        raise CircuitError(
            f"The single effects are of {listing(edits)}, and the pairs of {given}: sweep the same "
            "edit, once."
        )


def _edits_of(effects: Effects) -> list[str]:
    return [str(text) for text in effects.provenance["spec"]["edits"]]


def _plain(text: str) -> str:
    """An edit without what its stars are called."""
    return _LABEL.sub(lambda found: "" if found["label"] else found[0], text)


def _check_twice_as_once(given: str) -> None:
    kind = given.partition(" ")[0].partition("(")[0]
    is_edge = ">" in _LABEL.sub("", given)  # an arrow, in no quotes
    if kind not in TWICE_AS_ONCE or is_edge:
        raise CircuitError(
            f"{given!r} made twice is not the same as made once, so this map does not have the "
            "effects of single ones: give singles=, the sweep of that edit alone."
        )


def _singles(
    singles: Effects, name: str, rest: list[str], square: xr.DataArray, own: list[str]
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Single effects in the order of a map of pairs."""
    alone = singles.delta(name)
    if set(alone.dims) != {*rest, *own} or any(alone.sizes[d] != square.sizes[d] for d in own):
        raise CircuitError(
            f"The single effects have {dict(alone.sizes)}, and the pairs {dict(square.sizes)}: "
            "sweep the same edit, once."
        )
    found: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = alone.transpose(*rest, *own).values
    return found


def pairs_of(joint: xr.DataArray) -> dict[str, str]:
    """The dimensions of a map of pairs: of one → of the other.

    Raises:
        CircuitError: it is not one.
    """
    names = [str(dim) for dim in joint.dims if dim != PROMPT]
    found: dict[str, str] = {}
    for dim in names:
        kind = counted(dim)
        others = [o for o in names if o != dim and counted(o) == kind and kind is not None]
        if len(others) == 1 and dim not in found.values():
            found[dim] = others[0]
    if not found or any(
        not np.array_equal(joint[own].values, joint[other].values) for own, other in found.items()
    ):
        raise CircuitError(
            "Interactions are of pairs: sweep one edit twice with a name for the second's stars, "
            f"['zero L*.z.h*', 'zero L*.z.h* as other']; this map has {listing(names)}."
        )
    return found
