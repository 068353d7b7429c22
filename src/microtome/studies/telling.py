"""Sections, figures and tables of a study's report, with their texts out of its catalogue.

Under a section's key stand ``heading`` and ``text`` (which may be left out), and a key per figure
and table: ``title`` and ``caption``, the sentence that says how to read it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr
from scipy import stats as scipy_stats

from microtome import figures, stats
from microtome.figures.translate import translated
from microtome.readings.registry import about
from microtome.report import Picture, Section, Table
from microtome.stats import Estimate
from microtome.stats.samples import alike
from microtome.texts import Texts, visible


def section(
    texts: Texts,
    key: str,
    pictures: tuple[Picture, ...] = (),
    tables: tuple[Table, ...] = (),
    said: Sequence[str] = ("text",),
    **values: Any,
) -> Section:
    """A section: ``<key>.heading`` over it, and paragraphs before its pictures.

    Args:
        texts: of the study.
        key: where its texts stand.
        pictures, tables: in order.
        said: which texts under the key are its paragraphs: what was measured decides which are
            true. ``text`` need not be there.
        **values: what the texts are filled with.
    """
    keys = [f"{key}.{name}" for name in said]
    paragraphs = tuple(texts(one, **values) for one in keys if one in texts or one != f"{key}.text")
    return Section(texts(f"{key}.heading", **values), paragraphs, pictures, tables)


def picture(
    texts: Texts,
    key: str,
    draw: Callable[[str], go.Figure],
    said: Sequence[str] = ("caption",),
    **values: Any,
) -> Picture:
    """A figure: ``draw`` is given ``<key>.title``; ``<key>.caption`` stands under it.

    ``said`` names other texts under the key, one after the other. The file is named after the last
    part of the key.
    """
    figure = draw(texts(f"{key}.title", **values))
    if texts.lang != "en":
        figure = translated(figure, words(texts))
    caption = " ".join(texts(f"{key}.{name}", **values) for name in said)
    return Picture(key.rpartition(".")[2], figure, caption)


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


def lines(
    texts: Texts,
    named: Mapping[str, xr.DataArray],
    *,
    along: str = "prompt",
    within: tuple[float, float] = (-np.inf, np.inf),
    **options: Any,
) -> go.Figure:
    """Means over the prompts as lines; if there are several, with error bars that a note explains.

    Args:
        texts: of the study.
        named: label → ``[prompt, x]``.
        along: what is averaged over in the place of prompts.
        within: the values that there can be, which error bars do not leave.
        **options: of `figures.series`.
    """
    means = {label: over_prompts(values, along) for label, values in named.items()}
    errors = {
        label: np.stack([np.minimum(e, within[1] - mean), np.minimum(e, mean - within[0])])
        for label, (mean, e) in means.items()
        if e is not None
    }
    first = next(iter(named.values()))
    [axis] = [name for name in first.dims if name != along]
    if errors and along == "prompt":
        options.setdefault("note", texts("bars", n=first.sizes[along]))
    return figures.series(
        {label: (first[axis].values, mean) for label, (mean, _) in means.items()},
        y_error={label: np.maximum(e, 0) for label, e in errors.items()} or None,
        **options,
    )


def lines_of(
    metric: str, texts: Texts, named: Mapping[str, xr.DataArray], **options: Any
) -> go.Figure:
    """The same of a metric: error bars stay in its range, and ranks are whole and logarithmic."""
    of = about(metric)
    is_rank = of.unit == "rank"
    return lines(texts, named, within=of.range, log_y=is_rank, whole=is_rank, **options)


# ------------------------------------------------- estimates where there may be too few for one


def mean_of(values: Any) -> Estimate:
    """The mean with its interval; without one where there are fewer than two, or all are alike."""
    sample = np.asarray(values, dtype=float).ravel()
    sample = sample[np.isfinite(sample)]
    return stats.mean(sample)


def trend_of(x: Any, y: Any) -> Estimate:
    """The slope with its interval; without one where there are fewer than three points."""
    xs, ys = (np.asarray(a, dtype=float).ravel() for a in (x, y))
    if xs.size < 3 or alike(xs):
        return Estimate(np.nan, np.nan, np.nan, np.nan, xs.size)
    if alike(ys):
        return Estimate(0.0, np.nan, np.nan, np.nan, xs.size)
    return stats.trend(xs, ys)


def correlation_of(x: Any, y: Any) -> Estimate:
    """Pearson's r; NaN where one side is constant or there are too few."""
    xs, ys = (np.asarray(a, dtype=float).ravel() for a in (x, y))
    if xs.size < 4 or alike(xs) or alike(ys):
        return Estimate(np.nan, np.nan, np.nan, np.nan, xs.size)
    return stats.correlation(xs, ys)


def above(one: Estimate, limit: float = 0.0) -> bool | None:
    """Whether an estimate is above a limit, with its whole interval.

    One without an interval because all its values are alike is held against the limit by itself.
    None where there are too few values to say.
    """
    if np.isnan(one.value) or (one.n < 2 and np.isnan(one.low)):
        return None
    return bool((one.value if np.isnan(one.low) else one.low) > limit)


def below(one: Estimate, limit: float = 0.0) -> bool | None:
    """The same below it."""
    return above(Estimate(-one.value, -one.high, -one.low, one.p, one.n), -limit)
