"""Means over prompts, of what the edits of a cell changed anything in."""

from __future__ import annotations

import numpy as np
import xarray as xr

from microtome.stats.samples import PROMPT

CHANGED = "changed"
N = "n"


def averaged(data: xr.Dataset) -> xr.Dataset:
    """Means over prompts, and ``n``, how many prompts each of them is over.

    A prompt in which a cell's edits changed no value is no evidence of what they do, and is left
    out. Where that is every prompt, n is 0 and the mean is that of all: an effect of exactly 0.

    Args:
        data: variables over ``prompt`` and others, absent (NaN) in the same cells; ``changed`` is
            among them, which says where the edits changed something.

    >>> cells = {"effect": ("prompt", [1.0, 0.0, 3.0]), "changed": ("prompt", [True, False, True])}
    >>> found = averaged(xr.Dataset(cells))
    >>> float(found["effect"]), int(found["n"])
    (2.0, 2)
    """
    values = data.drop_vars(CHANGED)
    told = data[CHANGED] & values["effect"].notnull()
    n = told.sum(PROMPT)
    with np.errstate(invalid="ignore"):  # infinite effects of both signs have no mean
        means = values.where(told).mean(PROMPT, keep_attrs=True)
    if not bool((n > 0).all()):
        means = means.where(n > 0, values.mean(PROMPT, keep_attrs=True))
    return means.assign({N: n})
