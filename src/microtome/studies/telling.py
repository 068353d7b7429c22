"""Sections, figures and tables of a study's report, with their texts out of its catalogue.

Under a section's key stand ``heading`` and ``text`` (which may be left out), and a key per figure
and table: ``title`` and ``caption``, the sentence that says how to read it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr
from scipy import stats as scipy_stats

from microtome import stats
from microtome.figures.labels import visible
from microtome.figures.translate import translated
from microtome.report import Picture, Section, Table
from microtome.stats import Estimate
from microtome.texts import Texts


def section(
    texts: Texts,
    key: str,
    pictures: tuple[Picture, ...] = (),
    tables: tuple[Table, ...] = (),
    **values: Any,
) -> Section:
    """A section: ``<key>.heading`` over it, ``<key>.text`` before its pictures, if there is one."""
    paragraphs = (texts(f"{key}.text", **values),) if f"{key}.text" in texts else ()
    return Section(texts(f"{key}.heading", **values), paragraphs, pictures, tables)


def picture(texts: Texts, key: str, draw: Callable[[str], go.Figure], **values: Any) -> Picture:
    """A figure: ``draw`` is given ``<key>.title``; ``<key>.caption`` stands under it.

    Its file is named after the last part of the key.
    """
    figure = draw(texts(f"{key}.title", **values))
    if texts.lang != "en":
        figure = translated(figure, words(texts))
    return Picture(key.rpartition(".")[2], figure, texts(f"{key}.caption", **values))


def table(texts: Texts, key: str, frame: pd.DataFrame, **values: Any) -> Table:
    """A table: ``<key>.title`` over it, ``<key>.caption`` under it, if there is one.

    Columns that have a text under ``columns`` are headed by it. In columns called ``token`` or
    ``…_token`` white space is shown.
    """
    caption = texts(f"{key}.caption", **values) if f"{key}.caption" in texts else ""
    shown = frame.copy()
    for name in shown.columns:
        if name == "token" or str(name).endswith("_token"):
            shown[name] = [visible(token) for token in shown[name]]
    heads = {n: texts(f"columns.{n}") for n in shown.columns if f"columns.{n}" in texts}
    return Table(texts(f"{key}.title", **values), shown.rename(columns=heads), caption)


def words(texts: Texts) -> dict[str, str]:
    """English → the language of the texts: what figures write by themselves."""
    entries = {key: leaf for key, leaf in texts.entries.items() if key.startswith("words.")}
    return {leaf["en"]: leaf[texts.lang] for leaf in entries.values()}


def head_names(texts: Texts, array: xr.DataArray) -> list[str]:
    """The name of every head of ``[layer, head]``, in order."""
    return [
        texts("a_head", layer=int(layer), head=int(head))
        for layer in array["layer"].values
        for head in array["head"].values
    ]


def over_prompts(
    values: xr.DataArray, along: str = "prompt"
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None]:
    """Means over prompts of ``[prompt, x]``, and half of each 95 % t interval if there are several.

    Or over another dimension, such as seeds.

    What `figures.series` takes as y and as its error.
    """
    ordered = values.transpose(along, ...)
    n = ordered.sizes[along]
    mean = ordered.mean(along).values
    if n < 2:
        return mean, None
    error = ordered.std(along, ddof=1).values / np.sqrt(n)
    return mean, error * float(scipy_stats.t.ppf(0.975, n - 1))


# ------------------------------------------------- estimates where there may be too few for one


def mean_of(values: Any) -> Estimate:
    """The mean with its interval; without one where there are fewer than two, or all are alike."""
    sample = np.asarray(values, dtype=float).ravel()
    sample = sample[np.isfinite(sample)]
    if sample.size == 0:
        return Estimate(np.nan, np.nan, np.nan, np.nan, 0)
    if sample.size < 2 or _alike(sample):
        return Estimate(float(sample.mean()), np.nan, np.nan, np.nan, sample.size)
    return stats.mean(sample)


def trend_of(x: Any, y: Any) -> Estimate:
    """The slope with its interval; without one where there are fewer than three points."""
    xs, ys = (np.asarray(a, dtype=float).ravel() for a in (x, y))
    if xs.size < 3 or _alike(xs) or _alike(ys):
        return Estimate(np.nan, np.nan, np.nan, np.nan, xs.size)
    return stats.trend(xs, ys)


def correlation_of(x: Any, y: Any) -> Estimate:
    """Pearson's r; NaN where one side is constant or there are too few."""
    xs, ys = (np.asarray(a, dtype=float).ravel() for a in (x, y))
    if xs.size < 4 or _alike(xs) or _alike(ys):
        return Estimate(np.nan, np.nan, np.nan, np.nan, xs.size)
    return stats.correlation(xs, ys)


def _alike(values: np.ndarray[Any, Any]) -> bool:
    """Whether values differ by rounding at most, so that nothing can be said of their spread."""
    return bool(np.ptp(values) <= 1e-10 * np.abs(values).max())


def share_of(k: int, n: int) -> Estimate:
    """k of n as a share, with Wilson's interval."""
    result = scipy_stats.binomtest(k, n)
    interval = result.proportion_ci(stats.CONFIDENCE, method="wilson")
    return Estimate(k / n, float(interval.low), float(interval.high), float("nan"), n)
