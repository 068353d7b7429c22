"""Ablation methods: what silences a head, what is measured, and where, all change the picture.

Every head is silenced by zero and by its mean, at all positions and at the last token only. The
changes of the target are compared as distributions over heads, and with those of the same word
without its leading space, which is another token.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from scipy import stats as scipy_stats

from microtome import figures
from microtome.report import Picture, Section
from microtome.studies.parameters import Parameters
from microtome.studies.premise import answers
from microtome.studies.study import Claim, Data, Measured, Study, Sweep
from microtome.studies.telling import correlation_of, picture, section, table
from microtome.texts import Texts, visible

METRICS = ("prob", "prob(contrast)", "rank", "top1")
FEWEST = {"coincide": 4, "tighter": 5}
"""Heads with which each test can tell anything: with fewer, no p below 0.05 is possible."""
METHODS = ("zero", "mean")
PLACES = {"all": "", "last": "@-1"}


class AblationMethods(Parameters):
    """As published. The contrast is the target's word without its space."""

    model: str = "gpt2"
    prompt: str = "Berlin is the capital of"
    target: str | None = " Germany"
    contrast: str | None = "Germany"


def sweeps(parameters: AblationMethods) -> dict[str, Sweep]:
    """Every head by both methods, at all positions and at the last."""
    return {
        f"{method}-{name}": Sweep((f"{method} L*.z.h*{place}",), METRICS)
        for method in METHODS
        for name, place in PLACES.items()
    }


# --------------------------------------------------------------------------------- measurements


def measure_coincide(zero: xr.DataArray, mean: xr.DataArray) -> Measured:
    """Whether the effects of two methods ``[layer, head]`` have one distribution."""
    a, b = zero.values.ravel(), mean.values.ravel()
    test = scipy_stats.ks_2samp(a, b)
    words: dict[str, Any] = {"d": float(test.statistic), "p": float(test.pvalue), "n": a.size}
    if a.size < FEWEST["coincide"]:
        return Measured(None, float(test.statistic), words, wording="none")
    words["r"] = correlation_of(a, b)
    return Measured(bool(test.pvalue >= 0.05), float(test.statistic), words)


def measure_unspaced(
    target: xr.DataArray, unspaced: xr.DataArray, is_unspaced: bool = True
) -> Measured:
    """How far the unspaced token moves beside the target.

    Args:
        target, unspaced: effects on their probabilities.
        is_unspaced: whether the second token is the first without its space, as the claim has it.
    """
    moved, still = float(abs(target).max()), float(abs(unspaced).max())
    ratio = still / moved if moved else np.nan
    words = {"still": still, "moved": moved, "ratio": ratio}
    if not is_unspaced or not moved:
        return Measured(None, ratio, words, "none" if moved else "still")
    return Measured(ratio <= 0.01, ratio, words)


def measure_tighter(everywhere: xr.DataArray, last: xr.DataArray) -> Measured:
    """Whether effects at the last token spread less than at all positions, head by head.

    Wilcoxon's signed-rank test on each head's distance from the median of its distribution.
    """
    wide, narrow = (np.abs(x.values - np.median(x.values)).ravel() for x in (everywhere, last))
    p = _smaller(narrow, wide)
    ratio = float(last.std()) / float(everywhere.std()) if float(everywhere.std()) else np.nan
    words = {
        "wide": float(everywhere.std()),
        "narrow": float(last.std()),
        "ratio": ratio,
        "p": p,
        "n": wide.size,
    }
    if wide.size < FEWEST["tighter"] or np.isnan(ratio):
        return Measured(None, ratio, words, wording="none")
    return Measured(ratio < 1 and p < 0.05, ratio, words)


def _smaller(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    if not np.any(a - b):
        return 1.0
    return float(scipy_stats.wilcoxon(a, b, alternative="less").pvalue)


CLAIMS: tuple[Claim[AblationMethods], ...] = (
    Claim(
        "coincide",
        lambda data: measure_coincide(
            data.effect("zero-all", "prob"), data.effect("mean-all", "prob")
        ),
    ),
    Claim(
        "unspaced",
        lambda data: measure_unspaced(
            data.effect("zero-all", "prob"),
            data.effect("zero-all", "prob(contrast)"),
            _unspaced(data),
        ),
    ),
    Claim(
        "tighter",
        lambda data: measure_tighter(
            data.effect("zero-all", "prob"), data.effect("zero-last", "prob")
        ),
    ),
)


def _unspaced(data: Data[AblationMethods]) -> bool:
    """Whether every contrast is its target without the leading space."""
    return all(
        one.target != one.contrast and one.prompt.contrast == str(one.prompt.target).lstrip()
        for one in data.encoded
    )


def numbers(data: Data[AblationMethods]) -> dict[str, Any]:
    """Clean probabilities, and the spread and largest effect of every sweep."""
    effects = {name: data.effect(name, "prob") for name in data.effects}
    return {
        "clean_prob_target": data.clean("zero-all", "prob"),
        "clean_prob_contrast": data.clean("zero-all", "prob(contrast)"),
        "standard_deviation": {name: float(effect.std()) for name, effect in effects.items()},
        "largest_effect": {name: float(abs(effect).max()) for name, effect in effects.items()},
    }


# ------------------------------------------------------------------------------------- sections


def sections(data: Data[AblationMethods], texts: Texts) -> tuple[Section, ...]:
    """Zero against mean, with and without the space, all positions against the last."""
    return (_methods(data, texts), _tokens(data, texts), _positions(data, texts))


def _histogram(
    data: Data[AblationMethods], texts: Texts, key: str, shown: dict[str, tuple[str, str]]
) -> Picture:
    """The effects of several sweeps: label → sweep and metric."""
    named = {texts(label): data.effect(sweep, metric) for label, (sweep, metric) in shown.items()}
    return picture(
        texts,
        key,
        lambda title: figures.histogram(named, unit=texts("unit"), title=title),
    )


def _methods(data: Data[AblationMethods], texts: Texts) -> Section:
    shown = {f"methods.{method}": (f"{method}-all", "prob") for method in METHODS}
    map_of_difference = picture(
        texts,
        "methods.difference",
        lambda title: figures.matrix(
            data.effect("zero-all", "prob") - data.effect("mean-all", "prob"),
            title=title,
            unit=texts("unit"),
            diverging=True,
        ),
    )
    return section(
        texts,
        "methods",
        (_histogram(data, texts, "methods.zero-and-mean", shown), map_of_difference),
        n=data.effects["zero-all"].n_cells // len(data.encoded),
        target=data.clean("zero-all", "prob"),
    )


def _tokens(data: Data[AblationMethods], texts: Texts) -> Section:
    shown = {
        "tokens.target": ("zero-all", "prob"),
        "tokens.contrast": ("zero-all", "prob(contrast)"),
    }
    target, contrast = (data.clean("zero-all", metric) for metric in METRICS[:2])
    return section(
        texts,
        "tokens",
        (_histogram(data, texts, "tokens.spaced-and-unspaced", shown),),
        said=("unspaced" if _unspaced(data) and target > contrast else "text",),
        target=target,
        contrast=contrast,
        names=", ".join(
            dict.fromkeys(
                f"“{visible(str(one.prompt.target))}” / “{visible(str(one.prompt.contrast))}”"
                for one in data.encoded
            )
        ),
    )


def _positions(data: Data[AblationMethods], texts: Texts) -> Section:
    def drawn(method: str) -> Picture:
        shown = {f"positions.{place}": (f"{method}-{place}", "prob") for place in PLACES}
        return _histogram(data, texts, f"positions.{method}-positions", shown)

    frame = xr.Dataset(
        {place: data.effect(f"zero-{place}", "prob") for place in PLACES}
    ).to_dataframe()
    largest = frame.loc[frame["all"].abs().sort_values(ascending=False).index].reset_index()
    return section(
        texts,
        "positions",
        tuple(map(drawn, METHODS)),
        (table(texts, "positions.largest", largest[["layer", "head", *PLACES]].head(10)),),
    )


STUDY = Study(
    name="ablation-methods",
    parameters=AblationMethods,
    tokens="Ber|lin| is| the| capital| of",
    sites=("z",),
    key_figure="zero-positions",
    sweeps=sweeps,
    premise=lambda data, texts: answers(data, "zero-all", texts),
    claims=CLAIMS,
    sections=sections,
    numbers=numbers,
)
