"""Indirect object: patch one head at one token from a run with the names swapped.

The recipient is a sentence whose answer is one name, the donor the same sentence with the roles
swapped. Each head's output at the last token is replaced by the donor's, then whole hidden
states, then the k strongest heads together. The score is the difference of the names' logits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
import xarray as xr

from microtome import figures, stats
from microtome.effects import Effects
from microtome.errors import PromptError
from microtome.model.model import Model
from microtome.prompts import Prompt
from microtome.report import Picture, Section, Table
from microtome.studies.study import Claim, Measured, Performance, Study
from microtome.sweep import sweep

PROMPT = Prompt(
    "When Sam and Sally went to the park, Sam gave a gift to",
    donor="When Sam and Sally went to the park, Sally gave a gift to",
    target=" Sally",
    contrast=" Sam",
)
SCORE = "logit_diff"

TINY = Claim(
    "Single-head effects are tiny beside the patch of a whole hidden state.",
    "Holds if the largest single-head effect is at most a quarter of the largest hidden-state one.",
)
LATE = Claim(
    "Single-head effects are larger in the last third of the layers.",
    "Holds if |effects| there are larger than before (Mann–Whitney, one-sided p < 0.05).",
)
BOTH_WAYS = Claim(
    "Some heads raise the score and others lower it.",
    "Holds if at least one head does each by more than 1 % of the largest single-head effect.",
)
EQUATION = Claim(
    "A block's output is its input plus what attention and MLP add: x_out = x_in + ΔAttn + ΔMLP.",
    "Holds if the largest deviation is rounding: at most 8 units in the last place of the largest "
    "value.",
    anywhere=True,
)


def perform(model: Model, prompt: Prompt) -> Performance:
    """Sweep heads and hidden states, patch groups, take the block apart, measure every claim."""
    check_lengths(model, prompt)
    heads = sweep(model, prompt, "patch L*.z.h*@-1", metrics=(SCORE, "top1"))
    hidden = sweep(model, prompt, "patch L*.resid_post@-1", metrics=(SCORE, "top1"))
    groups = patch_groups(model, prompt, heads)
    parts = block_parts(model, prompt)
    shares = head_shares(model, prompt)
    return Performance(
        effects={"heads": heads, "hidden": hidden},
        sections=(
            _heads_section(heads),
            _hidden_section(heads, hidden),
            _groups_section(groups, heads, hidden),
            _block_section(parts, shares),
        ),
        measured=(
            (TINY, measure_tiny(heads, hidden)),
            (LATE, measure_late(_map(heads))),
            (BOTH_WAYS, measure_both_ways(_map(heads))),
            (EQUATION, measure_equation(parts)),
        ),
        numbers={
            "cells": heads.n_cells,
            "clean_score": float(heads.clean(SCORE)[0]),
            "largest_head_effect": float(abs(_map(heads)).max()),
            "largest_hidden_effect": float(abs(_map(hidden)).max()),
            "scores_of_groups": groups.to_dict(orient="list"),
            "largest_deviation": float(parts["deviation"].max()),
        },
    )


def check_lengths(model: Model, prompt: Prompt) -> None:
    """Raise `PromptError` unless recipient and donor match token by token in length."""
    [encoded] = model.encode(prompt)
    if encoded.donor is None:
        raise PromptError("ioi-head-token patches from a donor: give one, with the names swapped.")
    if len(encoded.tokens) != len(encoded.donor):
        raise PromptError(
            f"Recipient and donor have {len(encoded.tokens)} and {len(encoded.donor)} tokens in "
            f"this model, and must have the same number.\n  {encoded.tokens}\n  {encoded.donor}"
        )


# ------------------------------------------------------------------------------------ the groups


def patch_groups(model: Model, prompt: Prompt, heads: Effects) -> pd.DataFrame:
    """Scores with the k strongest heads patched together, for k = 1, 2, 4, …, all.

    ``k``; ``strongest``: the heads with the largest effects either way; ``lowering``: those that
    lower the score most, first.
    """
    effect = _map(heads).stack(cell=("layer", "head"))
    orders = {"strongest": -np.abs(effect.values), "lowering": effect.values}
    places = list(effect["cell"].values)
    sizes = [2**n for n in range(len(places).bit_length()) if 2**n < len(places)] + [len(places)]
    table: dict[str, list[float]] = {"k": [float(k) for k in sizes]}
    for name, order in orders.items():
        ranked = [places[n] for n in np.argsort(order, kind="stable")]
        table[name] = [_score_of_group(model, prompt, ranked[:k]) for k in sizes]
    return pd.DataFrame(table).astype({"k": int})


def _score_of_group(model: Model, prompt: Prompt, group: Sequence[tuple[int, int]]) -> float:
    layers = sorted({layer for layer, _ in group})
    edits = [
        f"patch L{layer}.z.h{{{','.join(str(h) for at, h in sorted(group) if at == layer)}}}@-1"
        for layer in layers
    ]
    cell = sweep(model, prompt, edits, metrics=SCORE, progress=False)
    return float(cell.data[SCORE].values[0])


# --------------------------------------------------------------------------- the block's addition


def block_parts(model: Model, prompt: Prompt) -> xr.Dataset:
    """The clean run's block at the last token, by layer.

    Norms of ``x_in``, ``attn``, ``mlp`` and ``x_out``; ``deviation``, the largest absolute
    difference of x_in + ΔAttn + ΔMLP from x_out; ``rounding``, one unit in the last place of the
    largest value.
    """
    sites = {"x_in": "resid_pre", "attn": "attn_out", "mlp": "mlp_out", "x_out": "resid_post"}
    addresses = {part: f"L*.{site}@-1" for part, site in sites.items()}
    run = model.run(prompt, keep=addresses.values())
    x = {part: run[address].isel(prompt=0, pos=0, drop=True) for part, address in addresses.items()}
    norms = {part: np.sqrt((value.astype(float) ** 2).sum("d_model")) for part, value in x.items()}
    deviation = abs(x["x_in"].astype(float) + x["attn"] + x["mlp"] - x["x_out"]).max("d_model")
    unit = torch.finfo(model.dtype).eps
    largest = xr.concat([abs(x["x_in"]), abs(x["x_out"])], "part").max(["part", "d_model"])
    rounding = unit * largest.astype(float)
    return xr.Dataset({**norms, "deviation": deviation, "rounding": rounding})


def head_shares(model: Model, prompt: Prompt) -> xr.DataArray:
    """The norm of what each head adds to the residual stream at the last token, ``[layer, head]``.

    A head's share is its z times its rows of W_O; shares and the bias add up to ``attn_out``.
    """
    anatomy, hf = model.anatomy, model.hf
    z = model.run(prompt, keep=["L*.z@-1"])["L*.z@-1"].isel(prompt=0, pos=0)
    norms = np.zeros((anatomy.dims.n_layers, anatomy.dims.n_heads))
    for layer in range(anatomy.dims.n_layers):
        own = torch.from_numpy(z.isel(layer=layer).values).to(hf.device, model.dtype)
        alone = torch.diag_embed(own.T).permute(1, 2, 0).flatten(1)  # head, head × d_head
        with torch.no_grad():
            project = anatomy.out_proj(hf, layer)
            share = project(alone) - project(torch.zeros_like(alone))
        norms[layer] = share.double().norm(dim=-1).cpu().numpy()
    coordinates = {"layer": z["layer"].values, "head": z["head"].values}
    return xr.DataArray(norms, coordinates, ("layer", "head"), name="norm")


# --------------------------------------------------------------------------------- measurements


def measure_tiny(heads: Effects, hidden: Effects) -> Measured:
    """The largest single-head effect as a share of the largest hidden-state one."""
    single, whole = (float(abs(_map(effects)).max()) for effects in (heads, hidden))
    ratio = single / whole
    return Measured(
        f"largest single-head effect {single:.3g}, largest hidden-state effect {whole:.3g}: "
        f"ratio {ratio:.2g}",
        ratio <= 0.25,
    )


def measure_late(effect: xr.DataArray) -> Measured:
    """|Effects| of the last third of the layers against the layers before."""
    size = np.abs(effect.transpose("layer", "head").values)
    start = len(size) - -(-len(size) // 3)
    late, early = size[start:], size[:start]
    p = stats.larger(late, early)
    return Measured(
        f"mean |effect| {late.mean():.3g} from layer {start} on, {early.mean():.3g} before; "
        f"p = {p:.2g} (n = {late.size} and {early.size})",
        p < 0.05,
    )


def measure_both_ways(effect: xr.DataArray) -> Measured:
    """How many heads raise and lower the score by more than 1 % of the largest effect."""
    threshold = 0.01 * float(abs(effect).max())
    raising, lowering = int((effect > threshold).sum()), int((effect < -threshold).sum())
    return Measured(
        f"{raising} heads raise it and {lowering} lower it by more than {threshold:.2g}",
        raising > 0 and lowering > 0,
    )


def measure_equation(parts: xr.Dataset) -> Measured:
    """The largest deviation of the block's addition, in units in the last place."""
    units = float((parts["deviation"] / parts["rounding"]).max())
    return Measured(
        f"largest deviation {float(parts['deviation'].max()):.2g}: {units:.2g} units in the last "
        "place",
        units <= 8,
    )


def _map(effects: Effects) -> xr.DataArray:
    return effects.delta(SCORE).isel(prompt=0, drop=True)


# ------------------------------------------------------------------------------------- sections


def _heads_section(heads: Effects) -> Section:
    table = heads.top(heads.n_cells, SCORE)[["layer", "head", "clean", "edited", "effect"]]
    ranked = table.sort_values("effect", kind="stable")
    return Section(
        "One head, one token",
        (
            f"Without edits the score is {float(heads.clean(SCORE)[0]):.3g} logits. In each cell "
            "one head's output at the last token comes from the donor's run; everything else is "
            "the recipient's own.",
        ),
        (
            Picture(
                "heads-map",
                figures.heatmap(heads, SCORE, title="Effect of one head on the score"),
                "Each square is one head patched at the last token. Red moves the score towards "
                "the recipient's answer, blue towards the donor's.",
            ),
            Picture(
                "heads-in-order",
                figures.scatter(heads, SCORE, title="Effect of one head, in layer order"),
                "The same effects, head after head, from the first layer to the last.",
            ),
        ),
        (
            Table("Heads that raise the score most", ranked[ranked["effect"] > 0][::-1].head(10)),
            Table("Heads that lower the score most", ranked[ranked["effect"] < 0].head(10)),
        ),
    )


def _hidden_section(heads: Effects, hidden: Effects) -> Section:
    edited = hidden.data[SCORE].isel(prompt=0)
    strongest = _map(heads)
    strongest = strongest.isel(head=abs(strongest).argmax("head"))
    layers = hidden.data["layer"].values
    return Section(
        "A whole hidden state, for scale",
        (
            "The same patch on the whole hidden state after a layer replaces everything that the "
            "model knows at the last token at that depth.",
        ),
        (
            Picture(
                "hidden-scores",
                figures.series(
                    {
                        "hidden state patched": (layers, edited.values),
                        "strongest head of the layer patched": (
                            layers,
                            (strongest + float(heads.clean(SCORE)[0])).values,
                        ),
                    },
                    x_title="layer",
                    y_title="score (logits)",
                    title="Score after patching the last token",
                    levels={"clean": float(hidden.clean(SCORE)[0]), "no preference": 0.0},
                ),
                "Where the curve of the hidden state crosses 0, the answer flips to the donor's.",
            ),
        ),
    )


def _groups_section(groups: pd.DataFrame, heads: Effects, hidden: Effects) -> Section:
    lowest = float(hidden.data[SCORE].min())
    ks = groups["k"].to_numpy()
    return Section(
        "How many heads does it take?",
        (
            "The heads are ranked by their effect alone, and the first k are patched together, "
            "at the last token.",
        ),
        (
            Picture(
                "groups",
                figures.series(
                    {
                        "largest effects first, either way": (ks, groups["strongest"].to_numpy()),
                        "lowering the score first": (ks, groups["lowering"].to_numpy()),
                    },
                    x_title="heads patched together",
                    y_title="score (logits)",
                    title="Score with the k strongest heads patched",
                    levels={
                        "clean": float(heads.clean(SCORE)[0]),
                        "hidden state, lowest": lowest,
                    },
                    log_x=True,
                ),
                "The dashed lines are the clean score and the lowest that a hidden-state patch "
                "reached. The last point has every head of the model patched at the last token.",
            ),
        ),
        (Table("Scores by the number of heads", groups),),
    )


def _block_section(parts: xr.Dataset, shares: xr.DataArray) -> Section:
    layers = parts["layer"].values
    names = {"x_in": "input", "attn": "attention adds", "mlp": "MLP adds", "x_out": "output"}
    lines = {label: (layers, parts[part].values) for part, label in names.items()}
    return Section(
        "What a block adds at the last token",
        (
            "x_out = x_in + ΔAttn + ΔMLP, in the clean run. The largest deviation over all layers "
            f"is {float(parts['deviation'].max()):.2g}.",
        ),
        (
            Picture(
                "block-norms",
                figures.series(
                    lines, x_title="layer", y_title="L2 norm", title="The parts of each block"
                ),
                "The length of each part at the last token. Lengths do not add up, since the "
                "parts point in different directions; the vectors do.",
            ),
            Picture(
                "head-shares",
                figures.matrix(
                    shares, title="Norm of each head's share", unit="L2 norm", diverging=False
                ),
                "How long a vector each head writes into the residual stream at the last token. "
                "A long vector need not matter for the score: compare the first map.",
            ),
        ),
    )


STUDY = Study(
    name="ioi-head-token",
    title="Indirect object: one head, one token",
    question="Which attention heads, at the last token alone, carry who gets the gift?",
    method=(
        "The model reads a sentence in which one of two people gives something to the other, and "
        "a donor sentence with the roles swapped. One head's output (site z, before W_O) at the "
        "last token is taken from the donor's run, for every head of every layer. The score is "
        "the logit of the right name minus that of the other, beside the same patch on the whole "
        "hidden state."
    ),
    published_on="gpt2-large",
    cells="720",
    prompt=PROMPT,
    perform=perform,
)
