"""Indirect object: patch one head at one token from a run with the names swapped.

The recipient is a sentence whose answer is one name, the donor the same sentence with the roles
swapped. Each head's output at the last token is replaced by the donor's, then whole hidden
states, then the k strongest heads together. The score is the difference of the names' logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import comb
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr

from microtome import figures, stats
from microtome.amounts import many
from microtome.errors import PromptError
from microtome.passes.session import session
from microtome.prompts.encoding import Encoded
from microtome.prompts.prompt import Prompt
from microtome.report import Section
from microtome.results.effects import Effects
from microtome.studies.parameters import Parameters
from microtome.studies.premise import prefers
from microtome.studies.study import Claim, Data, Labelled, Measured, Study, Sweep
from microtome.studies.telling import picture, section, table
from microtome.texts import Texts
from microtome.verbs.model import Model
from microtome.verbs.sweep import sweep

SCORE = "logit_diff"


class IoiHeadToken(Parameters):
    """As published."""

    model: str = "gpt2-large"
    prompt: str = "When Sam and Sally went to the park, Sam gave a gift to"
    donor: str | None = "When Sam and Sally went to the park, Sally gave a gift to"
    target: str | None = " Sally"
    contrast: str | None = " Sam"


def sweeps(parameters: IoiHeadToken) -> dict[str, Sweep]:
    """Every head, and every hidden state, at the last token."""
    return {
        "heads": Sweep(("patch L*.z.h*@-1",), (SCORE, "top1")),
        "hidden": Sweep(("patch L*.resid_post@-1",), (SCORE, "top1")),
    }


def observe(
    model: Model, prompt: Prompt, parameters: IoiHeadToken, effects: Mapping[str, Effects]
) -> dict[str, Labelled]:
    """Groups of heads patched together, the block taken apart, and each head's share."""
    return {
        "groups": patch_groups(model, prompt, effects["heads"]),
        "parts": block_parts(model, prompt),
        "shares": head_shares(model, prompt),
    }


def check_donor(encoded: Encoded) -> None:
    """Raise `PromptError` unless recipient and donor match token by token in length."""
    if encoded.donor is None:
        raise PromptError("This study patches from a donor: give one, with the names swapped.")
    if len(encoded.tokens) != len(encoded.donor):
        raise PromptError(
            f"Recipient and donor have {len(encoded.tokens)} and "
            f"{many(len(encoded.donor), 'token')} in "
            f"this model, and must have the same number.\n  {encoded.tokens}\n  {encoded.donor}"
        )


# ------------------------------------------------------------------------------------ the groups


def patch_groups(model: Model, prompt: Prompt, heads: Effects) -> xr.DataArray:
    """Scores with the k strongest heads patched together, ``[order, k]``, k = 1, 2, 4, …, all.

    In the order ``strongest`` come the heads with the largest effects either way; in
    ``lowering``, those that lower the score most.
    """
    effect = heads.delta(SCORE).isel(prompt=0, drop=True).stack(cell=("layer", "head"))
    alone = heads.data[SCORE].isel(prompt=0, drop=True).stack(cell=("layer", "head")).values
    orders = {"strongest": -np.abs(effect.values), "lowering": effect.values}
    places = list(effect["cell"].values)
    sizes = [2**n for n in range(len(places).bit_length()) if 2**n < len(places)] + [len(places)]
    known = {frozenset([place]): score for place, score in zip(places, alone, strict=True)}
    scores = []
    for order in orders.values():
        ranked = [places[n] for n in np.argsort(order, kind="stable")]
        groups = [frozenset(ranked[:k]) for k in sizes]
        known |= {g: score_of_group(model, prompt, g) for g in groups if g not in known}
        scores.append([known[group] for group in groups])
    return xr.DataArray(scores, {"order": list(orders), "k": sizes}, ("order", "k"))


def score_of_group(model: Model, prompt: Prompt, group: frozenset[tuple[int, int]]) -> float:
    """The score with some heads, by layer and number, patched together.

    One cell shares its layers with no other, so the walk has nothing to save here.
    """
    of_layer = {layer: sorted(head for at, head in group if at == layer) for layer, _ in group}
    edits = [
        f"patch L{layer}.z.h{{{','.join(map(str, own))}}}@-1" for layer, own in of_layer.items()
    ]
    cell = sweep(model, prompt, edits, metrics=SCORE, engine="reference", progress=False)
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
        own = torch.from_numpy(z.isel(layer=layer).values).to(model.device, model.dtype)
        alone = torch.diag_embed(own.T).permute(1, 2, 0).flatten(1)  # head, head × d_head
        with torch.no_grad(), session(hf, anatomy):
            project = anatomy.out_proj(hf, layer)
            share = project(alone) - project(torch.zeros_like(alone))
        norms[layer] = share.double().norm(dim=-1).cpu().numpy()
    coordinates = {"layer": z["layer"].values, "head": z["head"].values}
    return xr.DataArray(norms, coordinates, ("layer", "head"), name="norm")


# --------------------------------------------------------------------------------- measurements


def measure_tiny(heads: xr.DataArray, hidden: xr.DataArray) -> Measured:
    """The largest single-head effect as a share of the largest hidden-state one."""
    single, whole = (float(abs(effect).max()) for effect in (heads, hidden))
    ratio = single / whole if whole else np.nan
    words = {"single": single, "whole": whole, "ratio": ratio}
    return Measured(ratio <= 0.25 if whole else None, ratio, words)


def measure_late(effect: xr.DataArray) -> Measured:
    """|Effects| of the last third of the layers against the layers before."""
    size = np.abs(effect.transpose("layer", "head").values)
    start = len(size) - -(-len(size) // 3)
    late, early = size[start:], size[:start]
    if comb(size.size, late.size) * stats.LEVEL <= 1:  # no ranking is as rare as that
        return Measured(None, np.nan, {"layers": len(size), "n": size.size}, "none")
    p = stats.larger(late.ravel(), early.ravel())
    words = {"late": late.mean(), "early": early.mean(), "start": start, "p": p}
    counts = {"n_late": late.size, "n_early": early.size}
    ratio = late.mean() / early.mean() if early.any() else np.nan
    return Measured(p < 0.05, ratio, words | counts)


def measure_both_ways(effect: xr.DataArray) -> Measured:
    """How many heads raise and lower the score by more than 1 % of the largest effect."""
    threshold = 0.01 * float(abs(effect).max())
    raising, lowering = int((effect > threshold).sum()), int((effect < -threshold).sum())
    return Measured(
        (raising > 0 and lowering > 0) if threshold else None,
        raising / max(raising + lowering, 1),
        {"raising": raising, "lowering": lowering, "threshold": threshold},
    )


def measure_equation(parts: xr.Dataset) -> Measured:
    """The largest deviation of the block's addition, in units in the last place."""
    units = float((parts["deviation"] / parts["rounding"]).max())
    return Measured(
        units <= 8, units, {"deviation": float(parts["deviation"].max()), "units": units}
    )


CLAIMS: tuple[Claim[IoiHeadToken], ...] = (
    Claim(
        "tiny", lambda data: measure_tiny(data.effect("heads", SCORE), data.effect("hidden", SCORE))
    ),
    Claim("late", lambda data: measure_late(data.effect("heads", SCORE))),
    Claim("both_ways", lambda data: measure_both_ways(data.effect("heads", SCORE))),
    Claim("equation", lambda data: measure_equation(data.dataset("parts"))),
)


def numbers(data: Data[IoiHeadToken]) -> dict[str, Any]:
    """The clean score, the largest effects, the groups' scores and the block's deviation."""
    groups = data.array("groups")
    return {
        "clean_score": data.clean("heads", SCORE),
        "largest_head_effect": float(abs(data.effect("heads", SCORE)).max()),
        "largest_hidden_effect": float(abs(data.effect("hidden", SCORE)).max()),
        "scores_of_groups": {
            "k": groups["k"].values,
            **{str(order): groups.sel(order=order).values for order in groups["order"].values},
        },
        "largest_deviation": float(data.dataset("parts")["deviation"].max()),
    }


# ------------------------------------------------------------------------------------- sections


def sections(data: Data[IoiHeadToken], texts: Texts) -> tuple[Section, ...]:
    """The heads, the hidden states, groups of heads, and the block taken apart."""
    return (
        _heads(data, texts),
        _hidden(data, texts),
        _groups(data, texts),
        _block(data, texts),
    )


def _heads(data: Data[IoiHeadToken], texts: Texts) -> Section:
    heads = data.effects["heads"]
    effect = data.effect("heads", SCORE)
    frame = effect.to_dataframe("effect").reset_index()
    frame["edited"] = data.edited("heads", SCORE).values.ravel()
    ranked = frame[["layer", "head", "edited", "effect"]].sort_values("effect", kind="stable")
    floor = float(effect.attrs.get("noise_floor") or 0)
    raising, lowering = ranked[ranked["effect"] > floor][::-1], ranked[ranked["effect"] < -floor]
    return section(
        texts,
        "heads",
        (
            picture(
                texts, "heads.heads-map", lambda title: figures.heatmap(heads, SCORE, title=title)
            ),
            picture(
                texts,
                "heads.heads-in-order",
                lambda title: figures.scatter(heads, SCORE, title=title),
            ),
        ),
        (
            table(texts, "heads.raising", raising.head(10)),
            table(texts, "heads.lowering", lowering.head(10)),
        ),
        clean=data.clean("heads", SCORE),
    )


def _hidden(data: Data[IoiHeadToken], texts: Texts) -> Section:
    clean = data.clean("heads", SCORE)
    strongest = data.effect("heads", SCORE)
    strongest = strongest.isel(head=abs(strongest).argmax("head"))
    edited = data.edited("hidden", SCORE)
    layers = edited["layer"].values
    lines = {
        texts("hidden.whole"): (layers, edited.values),
        texts("hidden.strongest"): (layers, (strongest + clean).values),
    }
    drawn = picture(
        texts,
        "hidden.hidden-scores",
        lambda title: figures.series(
            lines,
            x_title=texts("hidden.x"),
            y_title=texts("hidden.y"),
            title=title,
            levels={texts("hidden.clean"): clean, texts("hidden.even"): 0.0},
        ),
    )
    return section(texts, "hidden", (drawn,))


def _groups(data: Data[IoiHeadToken], texts: Texts) -> Section:
    groups = data.array("groups")
    ks = groups["k"].values
    orders = {str(order): groups.sel(order=order).values for order in groups["order"].values}
    levels = {
        texts("hidden.clean"): data.clean("heads", SCORE),
        texts("groups.lowest"): float(data.edited("hidden", SCORE).min()),
    }
    drawn = picture(
        texts,
        "groups.groups",
        lambda title: figures.series(
            {texts(f"groups.{order}"): (ks, scores) for order, scores in orders.items()},
            x_title=texts("groups.x"),
            y_title=texts("hidden.y"),
            title=title,
            levels=levels,
            log_x=True,
        ),
    )
    frame = pd.DataFrame({"k": ks, **orders})
    return section(texts, "groups", (drawn,), (table(texts, "groups.table", frame),))


def _block(data: Data[IoiHeadToken], texts: Texts) -> Section:
    parts = data.dataset("parts")
    layers = parts["layer"].values
    lines = {
        texts(f"block.{part}"): (layers, parts[part].values)
        for part in ("x_in", "attn", "mlp", "x_out")
    }
    norms = picture(
        texts,
        "block.block-norms",
        lambda title: figures.series(
            lines, x_title=texts("block.x"), y_title=texts("block.y"), title=title
        ),
    )
    shares = picture(
        texts,
        "block.head-shares",
        lambda title: figures.matrix(data.array("shares"), title=title, unit=texts("block.y")),
    )
    return section(texts, "block", (norms, shares), deviation=float(parts["deviation"].max()))


STUDY = Study(
    name="ioi-head-token",
    parameters=IoiHeadToken,
    tokens="When| Sam| and| Sally| went| to| the| park|,| Sam| gave| a| gift| to",
    donor_tokens="When| Sam| and| Sally| went| to| the| park|,| Sally| gave| a| gift| to",
    sites=("z",),
    key_figure="heads-map",
    sweeps=sweeps,
    observe=observe,
    check=check_donor,
    premise=lambda data, texts: prefers(data, "heads", texts),
    claims=CLAIMS,
    sections=sections,
    numbers=numbers,
)
