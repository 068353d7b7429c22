"""One head's keys set to zero: where they are in a model's tensors, and what that changes."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from microtome.language.sites import site
from microtome.model.anatomy import Anatomy
from microtome.passes.trace import module_output
from microtome.prompts.prompt import Prompt
from microtome.verbs.model import Model


def keys_of(layer: int, head: int) -> str:
    """The address of a head's keys."""
    return f"L{layer}.k.h{head}"


def fused_columns(anatomy: Anatomy, layer: int, head: int) -> NDArray[np.int64] | None:
    """The columns of the fused QKV tensor that hold a head's keys, in order.

    None where queries, keys and values come from modules of their own.
    """
    taps = [anatomy.tap(site(name), layer) for name in ("q", "k", "v")]
    if len({(tap.module, tap.side) for tap in taps}) > 1:
        return None
    dims = anatomy.dims
    width = (dims.n_heads + 2 * dims.n_kv_heads) * dims.d_head
    columns = taps[1].view(torch.arange(width, device="cpu").view(1, 1, width), dims)
    return np.asarray(columns[0, 0, head].numpy(), dtype=np.int64)


def fused_difference(model: Model, prompt: Prompt, layer: int, head: int) -> xr.DataArray:
    """The largest difference between a head's keys and their columns of the fused tensor.

    NaN where there is no fused tensor.
    """
    columns = fused_columns(model.anatomy, layer, head)
    if columns is None:
        return xr.DataArray(np.nan)
    [encoded] = model.encode(prompt)
    address = keys_of(layer, head)
    path = model.anatomy.tap(site("k"), layer).module
    fused = module_output(model.hf, encoded.tokens, path)[0].float().cpu().numpy()
    kept = model.run(prompt, keep=[address])[address].isel(prompt=0)
    keys = kept.transpose("pos", "kv_head", "d_head").values[:, 0]
    return xr.DataArray(float(np.abs(fused[:, columns] - keys).max()))


def projections(model: Model, prompt: Prompt, layer: int, head: int) -> xr.DataArray:
    """Root mean square of every head's q, k and v with the keys set to zero, ``[part, head]``.

    A head without keys and values of its own has NaN there.
    """
    addresses = {part: f"L{layer}.{part}" for part in "qkv"}
    run = model.run(prompt, edits=f"zero {keys_of(layer, head)}", keep=addresses.values())
    rows = np.full((3, model.anatomy.dims.n_heads), np.nan)
    for row, address in zip(rows, addresses.values(), strict=True):
        square = run[address].astype(float).isel(prompt=0) ** 2
        [heads] = {"head", "kv_head"} & set(map(str, square.dims))
        row[: square.sizes[heads]] = (square.mean(["pos", "d_head"]) ** 0.5).values
    return xr.DataArray(rows, {"part": list("QKV"), "head": range(rows.shape[1])})


def attention(model: Model, prompt: Prompt, layer: int, head: int) -> xr.Dataset:
    """What the edit of the keys does to the attention weights of its layer, ``[head]``.

    ``moved`` is the largest change of a weight, ``uneven`` how far a weight is at most from those
    of a head that attends equally to every token up to its own.
    """
    address = f"L{layer}.pattern"
    clean, edited = (
        model.run(prompt, edits=edits, keep=[address])[address].isel(prompt=0).astype(float)
        for edits in ([], [f"zero {keys_of(layer, head)}"])
    )
    seen = np.tril(np.ones(edited.shape[-2:]))
    equal = seen / seen.sum(axis=1, keepdims=True)
    places = ("q_pos", "k_pos")
    found = {"moved": abs(edited - clean).max(places), "uneven": abs(edited - equal).max(places)}
    # Without the coordinates, which name the prompt and differ from one to the next.
    return xr.Dataset({name: ("head", values.values) for name, values in found.items()})
