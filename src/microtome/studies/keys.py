"""One head's keys set to zero: where they are in a model's tensors, and what that changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from numpy.typing import NDArray

from microtome import figures
from microtome.language.sites import site
from microtome.model.anatomy import Anatomy
from microtome.passes.trace import module_output
from microtome.prompts.prompt import Prompt
from microtome.report import Section, Table
from microtome.studies.study import Data, Labelled
from microtome.studies.telling import picture, section, table
from microtome.texts import Texts
from microtome.verbs.model import Model

EQUAL = 1e-3
"""Attention weights nearer to each other than this are the same."""


def keys_of(layer: int, head: int) -> str:
    """The address of a head's keys."""
    return f"L{layer}.k.h{head}"


def looked_at(model: Model, prompt: Prompt, layer: int, head: int) -> dict[str, Labelled]:
    """What is to be seen of it on one prompt, by the names that `section_on` knows."""
    return {
        "projections": projections(model, prompt, layer, head),
        "fused": fused_difference(model, prompt, layer, head),
        "attention": attention(model, prompt, layer, head),
    }


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


def section_on(data: Data[Any], layer: int, head: int, texts: Texts) -> Section:
    """A section on what `looked_at` saw."""
    dims = data.model.anatomy.dims
    found = data.dataset("attention")
    group = dims.n_heads // dims.n_kv_heads
    own = range(head * group, (head + 1) * group)
    moved = np.flatnonzero(found["moved"].values > EQUAL)
    uneven = float(found["uneven"].isel(head=list(own)).max())
    names = {
        "layer": layer,
        "head": head,
        "width": dims.d_head,
        "group": group,
        "kv_heads": dims.n_kv_heads,
        "heads": dims.n_heads,
        "readers": _span(own),
        "moved": _span(moved.tolist()),
        "most": float(found["moved"].max()),
        "uneven": uneven,
    }
    shared = ("shared",) if group > 1 else ()
    drawn = picture(
        texts,
        "keys.projections",
        lambda title: figures.matrix(
            data.array("projections").rename(part=texts("keys.part")),
            title=title,
            unit=texts("keys.rms"),
        ),
        said=("caption", *shared),
        **names,
    )
    said = (
        "text",
        *shared,
        "even" if uneven <= EQUAL else "uneven",
        "moved" if moved.size else "unmoved",
    )
    return section(texts, "keys", (drawn,), (_columns(data, layer, head, texts),), said, **names)


def _span(numbers: Sequence[int]) -> str:
    """Numbers in words, those in a row as their ends: ``"6 … 8"``."""
    whole = len(numbers) > 2 and list(numbers) == [*range(numbers[0], numbers[-1] + 1)]
    return f"{numbers[0]} … {numbers[-1]}" if whole else ", ".join(map(str, numbers))


def _columns(data: Data[Any], layer: int, head: int, texts: Texts) -> Table:
    """Where the keys are, in K alone and in the fused tensor, from the model's own sizes."""
    dims = data.model.anatomy.dims
    width = dims.d_head
    alone = np.arange(head * width, (head + 1) * width)
    columns = fused_columns(data.model.anatomy, layer, head)
    rows = [(texts("keys.alone"), f"{head} × {width}", alone)]
    if columns is None:
        return table(texts, "keys.not-fused", _column_frame(rows))
    offset = dims.n_heads * width
    same = bool((columns == offset + alone).all())
    sum_of = f"{offset} + {head} × {width}" if same else texts("keys.interleaved")
    rows.append((texts("keys.fused"), sum_of, columns))
    difference = float(data.array("fused"))
    return table(texts, "keys.columns", _column_frame(rows), difference=difference)


def _column_frame(rows: list[tuple[str, str, NDArray[np.int64]]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"tensor": where, "start": sum_of, "first": int(found[0]), "last": int(found[-1])}
            for where, sum_of, found in rows
        ]
    )
