"""A small result with everything that a stored one can have, and blocks with known numbers."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr

from microtome.engines.block import Block
from microtome.results.effects import Effects

WORD = 'prob(contrast)@"Sam/Sally"'
"""A metric whose name no file system takes as it is."""


def sample(seed: int = 0) -> Effects:
    """Absent cells, texts, token ids, a parameter, capitals, a metric that is NaN everywhere."""
    dims, shape = ("prompt", "layer", "factor"), (2, 3, 2)
    generator = np.random.default_rng(seed)
    values = {name: generator.random(shape) for name in ("prob", "loss@-2", "loss@2", WORD)}
    for array in values.values():
        array[1, 2] = np.nan
    values["kl"] = np.full(shape, np.nan)
    values["std(L*.resid_post)"] = generator.random((*shape, 3))
    variables = {}
    for name, array in values.items():
        inner = ("at_layer",) if array.ndim > 3 else ()
        variables[name] = ((*dims, *inner), array, {"unit": "probability"})
        variables[f"clean_{name}"] = (("prompt", *inner), array[:, 0, 0])
    variables["top1"] = (dims, np.zeros(shape, dtype=np.int64), {"unit": "token id"})
    variables["clean_top1"] = ("prompt", np.array([3, 4]))
    variables["top1_token"] = (dims, np.full(shape, "ü", dtype=object))
    variables["clean_top1_token"] = ("prompt", np.array(["", "東京"], dtype=object))
    variables["values_changed"] = (dims, np.where(np.isnan(values["prob"]), np.nan, 8.0))
    variables["change_norm"] = (dims, np.where(np.isnan(values["prob"]), np.nan, 1.0))
    coordinates = {
        "prompt": [0, 1],
        "layer": [0, 1, 2],
        "factor": [0.5, 1.0],
        "at_layer": [0, 1, 2],
        "text": ("prompt", np.array(["Berlin", "Đà Nẵng"], dtype=object)),
    }
    record = {"seed": seed, "spec": {"metrics": ["prob"]}}
    provenance = json.dumps(record, ensure_ascii=False)
    return Effects(xr.Dataset(variables, coordinates).assign_attrs(provenance=provenance))


QUESTION = {"model": {"weights": "ab12"}, "edits": ["zero L*.z.h*"], "seed": 0}
UNITS = 3


def block(unit: int, seed: int = 0) -> Block:
    """Four cells of two prompts, with everything that a block can have."""
    generator = np.random.default_rng((seed, unit))
    inside = generator.random((4, 2, 3))
    inside[1, :, 2] = np.nan
    return Block(
        unit=unit,
        cells=np.arange(4) + 4 * unit,
        values={"prob@last": generator.random(4), WORD: generator.random(4)},
        inside={"std(L*.resid_post)": inside},
        prompts=np.array([0, 1]),
        clean={"prob@last": generator.random(2), WORD: generator.random(2)},
        clean_inside={"std(L*.resid_post)": inside[:2]},
        changed=np.full(4, 8.0),
        norm=generator.random(4),
        noise={"prob@last": 1e-9},
        verification={"cells": [1, 2], "within": True, "worst": float("inf")},
        work={"token_blocks": 12},
        notes=["ü"],
    )


def bare(seed: int = 0) -> Effects:
    """As little as a result can be, so that it is soon written again and again."""
    generator = np.random.default_rng(seed)
    variables = {
        "prob": (("prompt", "head"), generator.random((1, 4))),
        "clean_prob": ("prompt", generator.random(1)),
        "values_changed": (("prompt", "head"), np.full((1, 4), 8.0)),
    }
    return Effects(xr.Dataset(variables).assign_attrs(provenance=json.dumps({"seed": seed})))


def bits(block: Block) -> tuple[object, ...]:
    """A block as something that is equal where every bit is."""
    found: list[object] = []
    for name in block.__dataclass_fields__:
        value = getattr(block, name)
        groups = value.items() if isinstance(value, dict) else [("", value)]
        for key, one in groups:
            plain = (one.dtype.str, one.shape, one.tobytes()) if hasattr(one, "dtype") else one
            found.append((name, key, repr(plain)))
    return tuple(found)
