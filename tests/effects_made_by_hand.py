"""Results with known numbers, so that a figure can be held against them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from microtome.results.effects import Effects

CLEAN = 0.5
UNITS = {"prob": "probability", "logit_diff": "logit", "top1": "token id", "rank": "rank"}


def effects_of(
    values: Mapping[str, Any],
    dims: Sequence[str],
    *,
    coords: Mapping[str, Sequence[Any]] | None = None,
    tokens: Sequence[Sequence[str]] | None = None,
    edit: str = "zero L*.z.h*@-1",
) -> Effects:
    """A result in which the clean value of every metric is 0.5.

    Args:
        values: metric → array over prompt and ``dims``; NaN where there is no such cell.
        dims: the dimensions after ``prompt``.
        coords: dimension → coordinates, where they are not 0 … n − 1.
        tokens: per prompt, the text of the token at each position.
        edit: what is said to have been done.
    """
    arrays = {metric: np.asarray(array, dtype=float) for metric, array in values.items()}
    shape = next(iter(arrays.values())).shape
    names = ("prompt", *dims)
    given = {name: list(range(n)) for name, n in zip(names, shape, strict=True)} | dict(
        coords or {}
    )
    data = xr.Dataset(coords=given).assign_coords(
        text=("prompt", [f"prompt number {n}" for n in range(shape[0])])
    )
    if tokens is not None:
        position = next(name for name in dims if name.endswith("pos"))
        data = data.assign_coords(
            token=(("prompt", position), np.array([list(row) for row in tokens], dtype=object))
        )
    for metric, array in arrays.items():
        data[metric] = (names, array, {"unit": UNITS[metric]})
        data[f"clean_{metric}"] = ("prompt", np.full(shape[0], CLEAN), {"unit": UNITS[metric]})
    there = ~np.isnan(next(iter(arrays.values())))
    data["values_changed"] = (names, np.where(there, 8.0, np.nan))
    data["change_norm"] = (names, np.where(there, 1.0, np.nan))
    spec = {
        "edits": [edit],
        "over": {name: list(given[name]) for name in coords or {}},
        "metrics": list(arrays),
        "prompts": [{"text": f"prompt number {n}"} for n in range(shape[0])],
        "reference": [],
    }
    record = {
        "model": {"name": "gpt2", "architecture": "GPT2LMHeadModel", "dtype": "float32"},
        "seed": 0,
        "spec": spec,
    }
    return Effects(data.assign_attrs(provenance=json.dumps(record)))


def heads(n_prompts: int = 1) -> Effects:
    """Layer × head, 3 × 4: the effect on prob is (cell number − 5) / 100, less in later prompts."""
    effect = (np.arange(12).reshape(3, 4) - 5) / 100
    prob = np.stack([CLEAN + effect / (1 + n) for n in range(n_prompts)])
    return effects_of({"prob": prob, "top1": np.zeros_like(prob)}, ("layer", "head"))


def positions() -> Effects:
    """Two prompts of 3 and 2 tokens, layer × head × pos, 2 × 2 × 3; the effect is pos / 10."""
    prob = np.broadcast_to(CLEAN + np.arange(3) / 10, (2, 2, 2, 3)).copy()
    prob[1, ..., 2] = np.nan
    tokens = [["The", " <b>cat", "\n"], ["The", " dog", ""]]
    return effects_of({"prob": prob}, ("layer", "head", "pos"), tokens=tokens)


def factors(values: Sequence[Any] = (0.1, 0.6, 10.0)) -> Effects:
    """One parameter: the effect is the number of its value / 10."""
    prob = CLEAN + np.arange(len(values))[None] / 10
    return effects_of({"prob": prob}, ("factor",), coords={"factor": list(values)})
