"""What else is known of prompts (`Prompt.meta`), as coordinates of a result."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

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


def _column(given: Sequence[Known | None]) -> np.ndarray[Any, Any]:
    if all(value is None or _is_number(value) for value in given):
        return np.array([np.nan if value is None else float(value) for value in given])
    return np.array(["" if value is None else str(value) for value in given], dtype=object)


def _is_number(value: object) -> bool:
    """Whether float64 holds it as it is: of long numbers, such as ids, it takes several for one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, float) or abs(value) <= 2**53
