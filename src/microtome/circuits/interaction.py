"""Interactions: what two parts do together beyond what each does alone.

A backup head does nothing while the head that it stands in for is there: alone, both look
unimportant, and together they are not. A part that is simply unimportant does not interact.
"""

from __future__ import annotations

import math

import numpy as np
import xarray as xr

from microtome.errors import CircuitError, listing
from microtome.language.sites import counted
from microtome.results.effects import Effects
from microtome.stats.samples import PROMPT

TWICE_AS_ONCE = ("zero", "mean", "patch", "replace")
"""Edits that made a second time change nothing more, so that the diagonal is their own effect."""


def interaction(
    effects: Effects, metric: str | None = None, *, singles: Effects | None = None
) -> xr.DataArray:
    """The effect of each pair less the sum of the effects of the two.

    Args:
        effects: of a sweep with one edit twice, the second time with a name for its stars, such as
            ``["zero L*.z.h*", "zero L*.z.h* as other"]``: half of the square is computed.
        metric: the first unless given.
        singles: of the sweep with the one edit. Not needed for `zero`, `mean`, `patch` and
            `replace`, where the diagonal has them.

    Returns:
        Of the dimensions of the sweep. 0: what the two do adds up; for ``logit_diff``, below 0 they
        are redundant (together they are missed by more than one by one), above 0 one makes the
        other needless. 0 on the diagonal, where there is no pair.

    Raises:
        CircuitError: the sweep is not of pairs, or singles are needed.

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
    own, other = [*pairs], [*pairs.values()]
    rest = [str(dim) for dim in joint.dims if dim not in (*own, *other)]
    square = joint.transpose(*rest, *own, *other)
    size = math.prod(square.sizes[dim] for dim in own)
    flat = square.values.reshape(*square.shape[: len(rest)], size, size)
    if singles is None:
        _check_twice_as_once(effects)
        alone = np.diagonal(flat, axis1=-2, axis2=-1)
    else:
        alone = _singles(singles, name, rest, square, own).reshape(flat.shape[:-1])
    beyond = flat - (alone[..., :, None] + alone[..., None, :])
    np.einsum("...ii->...i", beyond)[:] = np.where(np.isnan(alone), np.nan, 0.0)
    found = square.copy(data=beyond.reshape(square.shape)).transpose(*joint.dims)
    found.name = "interaction"
    return found.assign_attrs(about=f"{name}: joint effect − sum of single effects")


def _check_twice_as_once(effects: Effects) -> None:
    given = str(effects.provenance["spec"]["edits"][0])
    if given.partition(" ")[0].partition("(")[0] not in TWICE_AS_ONCE:
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
