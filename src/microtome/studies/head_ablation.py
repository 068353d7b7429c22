"""Head ablation: silence every attention head in turn, and see whether the fact is still told.

Each head of each layer is replaced at the input of the output projection, at all positions, by
zero and by the mean of its own activations (one number for each head). Measured are the
probabilities of the target and of a contrast token, and the most probable token of every cell.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from microtome import figures, stats
from microtome.prompts.prompt import Prompt
from microtome.report import Picture, Section
from microtome.results.effects import Effects
from microtome.studies.parameters import Parameters
from microtome.studies.premise import answers, first_choice
from microtome.studies.study import Claim, Data, Labelled, Measured, Study, Sweep
from microtome.studies.telling import (
    correlation_of,
    head_names,
    mean_of,
    picture,
    section,
    table,
    trend_of,
)
from microtome.texts import Texts, visible
from microtome.verbs.model import Model

METRICS = ("prob", "prob(contrast)", "rank", "top1")
ADDRESS = "L*.z.h*"
METHODS = ("zero", "mean")
WHO = {"target": "prob", "contrast": "prob(contrast)"}


class HeadAblation(Parameters):
    """As published."""

    model: str = "gpt2"
    prompt: str = "Berlin is the capital of"
    target: str | None = " Germany"
    contrast: str | None = " France"


def sweeps(parameters: HeadAblation) -> dict[str, Sweep]:
    """Every head, by zero and by its mean."""
    return {method: Sweep((f"{method} {ADDRESS}",), METRICS) for method in METHODS}


def observe(
    model: Model, prompt: Prompt, parameters: HeadAblation, effects: Mapping[str, Effects]
) -> dict[str, Labelled]:
    """What mean ablation puts in, and how widely activations spread."""
    means, spread = head_means(model, prompt)
    return {"means": means, "spread": xr.DataArray(spread)}


def head_means(model: Model, prompt: Prompt) -> tuple[xr.DataArray, float]:
    """The mean activation of every head, ``[layer, head]``, and the spread of all activations."""
    z = model.run(prompt, keep=["L*.z"])["L*.z"].isel(prompt=0, drop=True)
    means = z.mean(["pos", "d_head"]).rename("mean activation")
    return means, float(z.std())


# --------------------------------------------------------------------------------- measurements


def measure_scattered(effect: xr.DataArray) -> Measured:
    """Whether the layers of an effect ``[layer, head]`` differ in size."""
    size = np.abs(effect.transpose("layer", "head").values)
    largest = int(effect.layer.values[size.max(axis=1).argmax()])
    if min(size.shape) < 2 or not np.ptp(size):
        return Measured(None, np.nan, {"layers": len(size), "heads": size.shape[1]}, "none")
    p = stats.groups_differ(size)
    return Measured(p >= 0.05, p, {"p": p, "n": size.size, "layer": largest})


def measure_contrast(effect: xr.DataArray, clean: float) -> Measured:
    """The largest change of the contrast's probability, which is ``clean`` without edits."""
    largest = float(np.abs(effect).max())
    return Measured(largest < 0.01, largest, {"largest": largest, "clean": clean})


def top1_counts(effects: Effects) -> pd.Series[int]:
    """How many cells predict each token."""
    return pd.Series(effects.data["top1_token"].values.ravel()).value_counts()


def measure_top1(effects: Effects) -> Measured:
    """The tokens on top of the cells, counted."""
    counts = top1_counts(effects).to_dict()
    shown = ", ".join(f"{count} × “{visible(str(token))}”" for token, count in counts.items())
    return Measured(
        counts == {" Germany": 143, " the": 1},
        max(counts.values()) / effects.n_cells,
        {"counts": shown, "n": effects.n_cells},
    )


def measure_means(means: xr.DataArray, spread: float) -> Measured:
    """The heads' means: their size, their centre and their trend over layers."""
    layers = means.layer.broadcast_like(means).values.ravel()
    slope = trend_of(layers, means.values)
    centre = mean_of(means.values)
    share = float(abs(means).median()) / spread
    words = {"centre": centre, "slope": slope, "share": share}
    if np.isnan(slope.low) or np.isnan(centre.low):
        return Measured(None, share, words)
    return Measured(slope.covers_zero and centre.covers_zero and share <= 0.1, share, words)


def measure_agreement(zero: xr.DataArray, mean: xr.DataArray) -> Measured:
    """Zero against mean: correlation and largest difference."""
    r = correlation_of(zero.values, mean.values)
    largest = float(np.abs(zero - mean).max())
    holds = None if np.isnan(r.value) else r.value >= 0.95
    return Measured(holds, r.value, {"r": r, "largest": largest})


CLAIMS: tuple[Claim[HeadAblation], ...] = (
    Claim("scattered", lambda data: measure_scattered(data.effect("zero", "prob"))),
    Claim(
        "contrast",
        lambda data: measure_contrast(
            data.effect("zero", "prob(contrast)"), data.clean("zero", "prob(contrast)")
        ),
    ),
    Claim("top1", lambda data: measure_top1(data.effects["zero"]), of_checkpoint=True),
    Claim("means", lambda data: measure_means(data.array("means"), float(data.array("spread")))),
    Claim(
        "agree",
        lambda data: measure_agreement(data.effect("zero", "prob"), data.effect("mean", "prob")),
    ),
)


def numbers(data: Data[HeadAblation]) -> dict[str, Any]:
    """Clean probabilities, top tokens and the largest effects."""
    zeroed = data.effects["zero"]
    return {
        "clean_prob_target": data.clean("zero", "prob"),
        "clean_prob_contrast": data.clean("zero", "prob(contrast)"),
        "clean_top1": str(zeroed.data["clean_top1_token"].values[0]),
        "top1_counts": {method: top1_counts(data.effects[method]).to_dict() for method in METHODS},
        "largest_effect": {
            method: float(abs(data.effect(method, "prob")).max()) for method in METHODS
        },
    }


# ------------------------------------------------------------------------------------- sections


def sections(data: Data[HeadAblation], texts: Texts) -> tuple[Section, ...]:
    """Maps, changed answers, the means, and zero against mean."""
    return (
        _maps(data, texts),
        _tops(data, texts),
        _means(data, texts),
        _agreement(data, texts),
    )


def _maps(data: Data[HeadAblation], texts: Texts) -> Section:
    def drawn(method: str, who: str) -> Picture:
        return picture(
            texts,
            f"maps.{method}-{who}",
            lambda title: figures.heatmap(data.effects[method], WHO[who], title=title),
        )

    tops = data.effects["zero"].data["clean_top1_token"].values
    return section(
        texts,
        "maps",
        tuple(drawn(method, who) for method in METHODS for who in WHO),
        target=data.clean("zero", "prob"),
        contrast=data.clean("zero", "prob(contrast)"),
        top=", ".join(f"“{visible(token)}”" for token in dict.fromkeys(tops)),
    )


def changed_tops(effects: Effects) -> pd.DataFrame:
    """The cells whose most probable token is another than the clean run's."""
    frame = effects.to_dataframe()
    changed = frame[frame["top1"] != frame["clean_top1"]]
    names = {"clean_top1_token": "clean_token", "top1_token": "edited_token"}
    several = ["prompt"] if effects.data.sizes["prompt"] > 1 else []
    columns = [*several, "layer", "head", "clean_top1_token", "top1_token", "prob"]
    return changed[columns].rename(columns=names)


def _tops(data: Data[HeadAblation], texts: Texts) -> Section:
    def listed(method: str) -> Any:
        effects = data.effects[method]
        changed = changed_tops(effects)
        n = effects.n_cells
        return table(texts, f"tops.{method}", changed, changed=len(changed), n=n)

    ranks = data.effects["zero"].clean("rank").values
    which = "answer" if (ranks == 1).all() else "several" if data.several else "other"
    return section(
        texts,
        "tops",
        tables=tuple(map(listed, METHODS)),
        said=(which,),
        top=first_choice(data, "zero"),
        failing=int((ranks > 1).sum()),
        n=ranks.size,
    )


def _means(data: Data[HeadAblation], texts: Texts) -> Section:
    means = data.array("means")
    layers = means.layer.broadcast_like(means).values.ravel()
    sloping = means.sizes["layer"] > 2
    trend = {texts("means.line"): _trend_line(layers, means.values.ravel())} if sloping else {}
    drawn = picture(
        texts,
        "means.head-means",
        lambda title: figures.points(
            layers,
            means.values.ravel(),
            head_names(texts, means),
            title=title,
            x_title=texts("means.x"),
            y_title=texts("means.y"),
            lines=trend,
        ),
    )
    return section(texts, "means", (drawn,))


def _trend_line(
    x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The least-squares line through the points, drawn from end to end."""
    slope = trend_of(x, y).value
    ends = np.array([x.min(), x.max()], dtype=np.float64)
    return ends, y.mean() + slope * (ends - x.mean())


def _agreement(data: Data[HeadAblation], texts: Texts) -> Section:
    zero, mean = data.effect("zero", "prob"), data.effect("mean", "prob")
    against = picture(
        texts,
        "agreement.zero-against-mean",
        lambda title: figures.points(
            zero.values.ravel(),
            mean.values.ravel(),
            head_names(texts, zero),
            title=title,
            x_title=texts("agreement.x"),
            y_title=texts("agreement.y"),
            identity=True,
        ),
    )
    spread = picture(
        texts,
        "agreement.by-layer",
        lambda title: figures.scatter(data.effects["zero"], "prob", title=title),
    )
    return section(texts, "agreement", (against, spread))


STUDY = Study(
    name="head-ablation",
    parameters=HeadAblation,
    tokens="Ber|lin| is| the| capital| of",
    sites=("z",),
    key_figure="zero-target",
    sweeps=sweeps,
    observe=observe,
    premise=lambda data, texts: answers(data, "zero", texts),
    claims=CLAIMS,
    sections=sections,
    numbers=numbers,
)
