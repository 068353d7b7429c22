"""What else is known of prompts (`Prompt.meta`), as coordinates of a result."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from microtome.prompts.prompt import Known
from microtome.results.roles import beside
from microtome.stats.samples import PROMPT

META = "meta"
"""The attribute of such a coordinate: its name as the prompts have it."""


def known(metas: Sequence[Mapping[str, Known]], taken: Collection[str]) -> dict[str, Any]:
    """A coordinate for each name that some prompts have.

    Numbers where all that are given are numbers, or else each value's text; what is not given is
    NaN, or "".

    Args:
        metas: what is known of each prompt.
        taken: what else the result has; a name of these gets ``prompt_`` in front.
    """
    others = {*taken, *(beside(name) for name in taken if name.endswith("pos"))}
    found: dict[str, Any] = {}
    for name in dict.fromkeys(name for one in metas for name in one):
        own = name
        while own in others or own in found:
            own = f"prompt_{own}"
        found[own] = (PROMPT, _column([one.get(name) for one in metas]), {META: name})
    return found


def brought(data: xr.Dataset, metas: Sequence[Mapping[str, Known]]) -> list[str]:
    """The coordinates of a result that are what else is known of its prompts.

    Those of older releases do not say so: they are found by their names and their values.

    Args:
        data: the result.
        metas: what is known of each of its prompts.
    """
    said = [str(name) for name, one in data.coords.items() if META in one.attrs]
    names = dict.fromkeys(name for one in metas for name in one)
    return said or [own for name in names for own in _unsaid(data, name, metas)]


def _unsaid(data: xr.Dataset, name: str, metas: Sequence[Mapping[str, Known]]) -> Iterator[str]:
    """What an older release called what is known under a name."""
    values = [str(one) for one in _column([one.get(name) for one in metas])]
    own, last = name, None
    while own in data.variables:
        if own != PROMPT and data[own].dims == (PROMPT,):
            last = own if [str(one) for one in data[own].values] == values else last
        own = f"prompt_{own}"
    if last is not None:
        yield last


def _column(given: Sequence[Known | None]) -> np.ndarray[Any, Any]:
    if all(value is None or _is_number(value) for value in given):
        return np.array([np.nan if value is None else float(value) for value in given])
    return np.array(["" if value is None else str(value) for value in given], dtype=object)


def _is_number(value: object) -> bool:
    """Whether float64 holds it as it is: of long numbers, such as ids, it takes several for one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, float) or abs(value) <= 2**53
