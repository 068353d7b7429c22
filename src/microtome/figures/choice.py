"""Some of a map's coordinates, and in which order, as `Effects.figure` is told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from microtome.amounts import single
from microtome.errors import EffectsError, did_you_mean, listing
from microtome.language.sites import POSITIONS, counted

Only = Mapping[str, Any]
Order = str | Iterable[str] | Mapping[str, Any]


def chosen(effect: xr.DataArray, only: Only | None, order: Order | None) -> dict[str, list[int]]:
    """The indices, in their order, of the coordinates that are to be drawn.

    Args:
        effect: the effects of a metric.
        only: dimension → its coordinates that are drawn: one, several, or a slice of their values,
            as Python's, the end left out. Below 0 it counts from the end, but for positions.
        order: dimensions whose coordinates are sorted by the size of their effects, the largest
            first; or dimension → all its coordinates that are drawn, in order.

    Raises:
        EffectsError: there is no such dimension or coordinate.

    >>> values = xr.DataArray([[1.0, -3.0]], dims=("layer", "head"))
    >>> chosen(values, None, "head"), chosen(values, {"head": [1]}, None)
    ({'head': [1, 0]}, {'head': [1]})
    """
    found: dict[str, list[int]] = {}
    for name, given in (only or {}).items():
        found[name] = _indices(effect, name, given)
    by_effect, by_hand = _order(order)
    for name, given in by_hand.items():
        found[name] = _indices(effect, name, given)
    for name in by_effect:
        _check_known(name, effect)
        at = found.get(name, list(range(effect.sizes[name])))
        part = effect.isel(found)
        sizes = abs(part).mean([d for d in part.dims if d != name]).values
        ranked = np.argsort(-np.nan_to_num(sizes), kind="stable")
        found[name] = [at[n] for n in ranked.tolist()]
    return found


def _order(given: Order | None) -> tuple[list[str], Mapping[str, Any]]:
    if given is None:
        return [], {}
    if isinstance(given, Mapping):
        return [], given
    return [given] if isinstance(given, str) else list(given), {}


def _check_known(name: str, effect: xr.DataArray) -> None:
    dims = [str(d) for d in effect.dims]
    if name not in dims:
        raise EffectsError(
            f"There is no dimension {name!r} to choose from; there are: {listing(dims)}."
            f"{did_you_mean(name, dims)}"
        )


def _indices(effect: xr.DataArray, name: str, given: Any) -> list[int]:
    _check_known(name, effect)
    has = effect[name].values.tolist() if name in effect.coords else list(range(effect.sizes[name]))
    if isinstance(given, slice):
        if given.step == 0:
            raise EffectsError(f"{name}: a slice's step is not 0.")
        bounds = [_counted(name, bound, has) for bound in (given.start, given.stop)]
        numbers = [n for n, value in enumerate(has) if _within(value, *bounds)][:: given.step]
    else:
        several = isinstance(given, Sequence | range | np.ndarray) and not isinstance(given, str)
        own = np.asarray(given).tolist() if several else [given]
        wanted = [_counted(name, value, has) for value in own]
        missing = [value for value in wanted if value not in has]
        if missing:
            raise EffectsError(f"{name}={missing[0]!r} is not there; {name} has {_range(has)}.")
        numbers = [has.index(value) for value in wanted]
    if not numbers:
        raise EffectsError(f"Of {name} nothing is left to draw; it has {_range(has)}.")
    if len(set(numbers)) < len(numbers):
        raise EffectsError(f"A coordinate of {name} is given twice.")
    return numbers


def _counted(name: str, given: Any, has: Sequence[Any]) -> Any:
    """A coordinate as it stands, or one counted from the end of what there is.

    Raises:
        EffectsError: it is a position so counted, which is another one in each prompt.
    """
    given = single(given)
    if counted(name) is None or not isinstance(given, int) or given >= 0:
        return given
    if counted(name) in POSITIONS:
        raise EffectsError(
            f"{name}={given} counts from the end, which prompts have in different places: give "
            f"positions from 0 to {has[-1]}."
        )
    return has[given] if -given <= len(has) else given


def _within(value: Any, start: Any, stop: Any) -> bool:
    return (start is None or value >= start) and (stop is None or value < stop)


def _range(has: list[Any]) -> str:
    return f"{has[0]} … {has[-1]}" if len(has) > 8 else listing(has)
