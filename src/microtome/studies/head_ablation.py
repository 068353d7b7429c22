"""Head ablation: silence every attention head in turn, and see whether the fact is still told.

Each head of each layer is replaced at the input of the output projection, at all positions, by
zero and by the mean of its own activations (one number for each head). Measured are the
probabilities of the target and of a contrast token, and the most probable token of every cell.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from microtome import figures, stats
from microtome.effects import Effects
from microtome.model.model import Model
from microtome.prompts import Prompt
from microtome.report import Picture, Section, Table
from microtome.studies.study import Claim, Measured, Performance, Study
from microtome.sweep import sweep

PROMPT = Prompt("Berlin is the capital of", target=" Germany", contrast=" France")
METRICS = ("prob", "prob(contrast)", "top1")
ADDRESS = "L*.z.h*"

SCATTERED = Claim(
    "The target's changes are scattered over the heads, with no clear region.",
    "Holds if layers do not differ in the size of their effects (Kruskal–Wallis, p ≥ 0.05).",
)
CONTRAST = Claim(
    "The contrast token's probability hardly moves, whichever head is silenced.",
    "Holds if no cell moves it by 0.01 or more.",
)
TOP1 = Claim(
    "143 of 144 cells still predict “ Germany”, and one predicts “ the”.",
    "Holds if the zero-ablated cells give exactly these counts.",
)
MEANS = Claim(
    "The heads' mean activations are small, centred on 0, without a trend over depth.",
    "Holds if the interval of their mean and that of their slope over layers both cover 0, and "
    "the median |mean| is at most a tenth of the activations' standard deviation.",
)
AGREE = Claim(
    "Zero and mean ablation agree.",
    "Holds if the effects on the target correlate with r ≥ 0.95.",
)


def perform(model: Model, prompt: Prompt) -> Performance:
    """Sweep twice, look at the heads' means, and measure every claim."""
    zeroed = sweep(model, prompt, f"zero {ADDRESS}", metrics=METRICS)
    averaged = sweep(model, prompt, f"mean {ADDRESS}", metrics=METRICS)
    means, spread = head_means(model, prompt)
    return Performance(
        effects={"zero": zeroed, "mean": averaged},
        sections=(
            _maps_section(zeroed, averaged),
            _tops_section(zeroed, averaged),
            _means_section(means),
            _agreement_section(zeroed, averaged),
        ),
        measured=(
            (SCATTERED, measure_scattered(_map(zeroed, "prob"))),
            (CONTRAST, measure_contrast(_map(zeroed, "prob(contrast)"))),
            (TOP1, measure_top1(zeroed)),
            (MEANS, measure_means(means, spread)),
            (AGREE, measure_agreement(_map(zeroed, "prob"), _map(averaged, "prob"))),
        ),
        numbers={
            "cells": zeroed.n_cells,
            "clean_prob_target": float(zeroed.clean("prob")[0]),
            "clean_prob_contrast": float(zeroed.clean("prob(contrast)")[0]),
            "clean_top1": str(zeroed.data["clean_top1_token"].values[0]),
            "top1_counts": {
                "zero": top1_counts(zeroed).to_dict(),
                "mean": top1_counts(averaged).to_dict(),
            },
            "largest_effect": {
                "zero": float(abs(_map(zeroed, "prob")).max()),
                "mean": float(abs(_map(averaged, "prob")).max()),
            },
        },
    )


# --------------------------------------------------------------------------------- measurements


def head_means(model: Model, prompt: Prompt) -> tuple[xr.DataArray, float]:
    """The mean activation of every head, ``[layer, head]``, and the spread of all activations."""
    z = model.run(prompt, keep=["L*.z"])["L*.z"].isel(prompt=0, drop=True)
    means = z.mean(["pos", "d_head"]).rename("mean activation")
    return means, float(z.std())


def measure_scattered(effect: xr.DataArray) -> Measured:
    """Whether the layers of an effect ``[layer, head]`` differ in size."""
    size = np.abs(effect.transpose("layer", "head").values)
    p = stats.groups_differ(size)
    largest = effect.layer.values[size.max(axis=1).argmax()]
    return Measured(
        f"layers' |effects| compared: p = {p:.2g} (n = {size.size}); the largest is in layer "
        f"{largest}",
        p >= 0.05,
    )


def measure_contrast(effect: xr.DataArray) -> Measured:
    """The largest change of the contrast's probability."""
    largest = float(np.abs(effect).max())
    return Measured(f"largest change of probability {largest:.2g}", largest < 0.01)


def top1_counts(effects: Effects) -> pd.Series[int]:
    """How many cells predict each token."""
    return pd.Series(effects.data["top1_token"].values.ravel()).value_counts()


def measure_top1(effects: Effects) -> Measured:
    """The tokens on top of the cells, counted."""
    counts = top1_counts(effects).to_dict()
    shown = ", ".join(f"{count} × “{token}”" for token, count in counts.items())
    return Measured(f"{shown}, of {effects.n_cells}", counts == {" Germany": 143, " the": 1})


def measure_means(means: xr.DataArray, spread: float) -> Measured:
    """The heads' means: their size, their centre and their trend over layers."""
    layers = means.layer.broadcast_like(means).values.ravel()
    slope = stats.trend(layers, means.values.ravel())
    centre = stats.mean(means.values)
    share = float(abs(means).median()) / spread
    return Measured(
        f"mean of means {centre}; slope per layer {slope}; median |mean| {share:.2g} × the "
        "activations' standard deviation",
        slope.covers_zero and centre.covers_zero and share <= 0.1,
    )


def measure_agreement(zero: xr.DataArray, mean: xr.DataArray) -> Measured:
    """Zero against mean: correlation and largest difference."""
    r = stats.correlation(zero.values, mean.values)
    largest = float(np.abs(zero - mean).max())
    return Measured(f"r = {r}; largest difference of probability {largest:.2g}", r.value >= 0.95)


def _map(effects: Effects, metric: str) -> xr.DataArray:
    return effects.delta(metric).isel(prompt=0, drop=True)


# ------------------------------------------------------------------------------------- sections


def _maps_section(zeroed: Effects, averaged: Effects) -> Section:
    pictures = [
        Picture(
            f"{method}-{who}",
            figures.heatmap(effects, metric, title=f"{method}: change of P({who})"),
            f"Each square is one head replaced by {with_what}, at every position. Red raises "
            f"the probability of the {who}, blue lowers it; white is no change.",
        )
        for method, with_what, effects in (
            ("zero", "zero", zeroed),
            ("mean", "its own mean", averaged),
        )
        for who, metric in (("target", "prob"), ("contrast", "prob(contrast)"))
    ]
    return Section(
        "What silencing a head does",
        (
            f"Without edits the target has probability {float(zeroed.clean('prob')[0]):.3f}, the "
            f"contrast {float(zeroed.clean('prob(contrast)')[0]):.3g}, and the most probable "
            f"token is “{zeroed.data['clean_top1_token'].values[0]}”. The maps show the "
            "probability in each cell minus that without edits. Each map has its own scale.",
        ),
        tuple(pictures),
    )


def changed_tops(effects: Effects) -> pd.DataFrame:
    """The cells whose most probable token is another than the clean run's."""
    frame = effects.to_dataframe()
    changed = frame[frame["top1"] != frame["clean_top1"]]
    columns = ["layer", "head", "clean_top1_token", "top1_token", "prob"]
    return changed[columns].rename(
        columns={"clean_top1_token": "clean", "top1_token": "edited", "prob": "P(target)"}
    )


def _tops_section(zeroed: Effects, averaged: Effects) -> Section:
    tables = [
        Table(
            f"{method}: cells with another top token",
            changed,
            f"{len(changed)} of {effects.n_cells} cells predict another token than the clean run.",
        )
        for method, effects in (("Zero", zeroed), ("Mean", averaged))
        for changed in (changed_tops(effects),)
    ]
    return Section(
        "Which cells change the answer",
        ("A fact that hangs on one head would be lost when that head is silenced.",),
        (),
        tuple(tables),
    )


def _means_section(means: xr.DataArray) -> Section:
    layers = means.layer.broadcast_like(means).values.ravel()
    names = [f"layer {la}, head {h}" for la in means.layer.values for h in means["head"].values]
    picture = Picture(
        "head-means",
        figures.points(
            layers,
            means.values.ravel(),
            names,
            title="Mean activation of every head, by layer",
            x_title="layer",
            y_title="mean activation",
            lines={"trend": _trend_line(layers, means.values.ravel())},
        ),
        "Each point is one head: the mean of its output before W_O over all tokens and "
        "coordinates. A sloping line would mean that means drift with depth.",
    )
    return Section(
        "What mean ablation puts in",
        ("Mean ablation replaces a head's output by these numbers, one for each head.",),
        (picture,),
    )


def _trend_line(
    x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The least-squares line through the points, drawn from end to end."""
    slope = stats.trend(x, y).value
    ends = np.array([x.min(), x.max()], dtype=np.float64)
    return ends, y.mean() + slope * (ends - x.mean())


def _agreement_section(zeroed: Effects, averaged: Effects) -> Section:
    zero, mean = _map(zeroed, "prob"), _map(averaged, "prob")
    names = [f"layer {la}, head {h}" for la in zero.layer.values for h in zero["head"].values]
    picture = Picture(
        "zero-against-mean",
        figures.points(
            zero.values.ravel(),
            mean.values.ravel(),
            names,
            title="Effect on P(target): zero against mean",
            x_title="zero: change of probability",
            y_title="mean: change of probability",
            identity=True,
        ),
        "Each point is one head. On the dashed line both methods have the same effect.",
    )
    spread = Picture(
        "by-layer",
        figures.scatter(zeroed, "prob", title="zero: change of P(target), heads in layer order"),
        "The same effects as in the first map, head after head. Points far from the line at 0 "
        "are the heads that matter for this prediction.",
    )
    return Section("Zero against mean", (), (picture, spread))


STUDY = Study(
    name="head-ablation",
    title="Head ablation: does one attention head hold the fact?",
    question="Is there an attention head without which the model no longer knows the capital?",
    method=(
        "Every head of every layer is silenced alone, at all positions, where its output enters "
        "the output projection (site z, before W_O mixes the heads). It is replaced once by "
        "zero, and once by the mean of its own activations on this prompt. Each time the "
        "probabilities of the target and of a contrast token are measured."
    ),
    published_on="gpt2",
    cells="2 × 144",
    prompt=PROMPT,
    perform=perform,
)
