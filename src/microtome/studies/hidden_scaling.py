"""Hidden scaling: multiply whole hidden states by a factor, and see what becomes of the output.

One layer (or several at once) is scaled, then every layer in turn, then every layer by many
factors. The logits are compared token by token, and with a softmax temperature: is scaling a
hidden state the same as sharpening or flattening the prediction?
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike
from pydantic import Field
from scipy import special

from microtome import edits, figures, stats
from microtome.prompts.encoding import piece
from microtome.prompts.prompt import Prompt
from microtome.report import Picture, Section, Table
from microtome.results.effects import Effects
from microtome.studies.parameters import Layer, Parameters
from microtome.studies.study import Claim, Data, Labelled, Measured, Study, Sweep
from microtome.studies.telling import (
    above,
    correlation_of,
    lines,
    lines_of,
    mean_of,
    picture,
    section,
    table,
    trend_of,
)
from microtome.studies.temperature import Fit, fit_temperature
from microtome.texts import Texts, visible
from microtome.verbs.model import Model

METRICS = ("loss", "rank", "logit_corr")
TOP = 10
ROUNDING = 1e-4
"""A change of loss no larger than this, in nats, is none."""


class HiddenScaling(Parameters):
    """As published.

    Attributes:
        layer, factor: the hidden state that is scaled, and by how much.
        also: layer → factor of others that are scaled in the same run.
        factors: of the map.
    """

    model: str = "gpt2-medium"
    prompt: str = "I have no special talents. I am only passionately"
    target: str | None = " curious"
    layer: Layer = 2
    factor: float = 0.6
    also: dict[Layer, float] = Field(default_factory=dict)
    factors: tuple[float, ...] = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)

    @property
    def together(self) -> tuple[edits.Scale, ...]:
        """The edits of the one run that is looked at closely."""
        return edits.scale({**self.also, self.layer: self.factor})


def sweeps(parameters: HiddenScaling) -> dict[str, Sweep]:
    """The one cell, every layer, and every layer by every factor."""
    every = f"scale({parameters.factor}) L*.resid_post"
    return {
        "cell": Sweep(parameters.together, METRICS),
        "layers": Sweep((every,), METRICS),
        "factors": Sweep((every,), METRICS, {"factor": parameters.factors}),
    }


def observe(
    model: Model, prompt: Prompt, parameters: HiddenScaling, effects: Mapping[str, Effects]
) -> dict[str, Labelled]:
    """All logits of the one cell, and the best temperature of every layer."""
    run = model.run(prompt, edits=parameters.together)
    clean, edited = (x[0, -1].double().cpu().numpy() for x in (run.clean_logits, run.logits))
    fits = []
    for layer in range(model.anatomy.dims.n_layers):
        scaled = model.run(prompt, edits=edits.scale({layer: parameters.factor}))
        fits.append(fit_temperature(clean, scaled.logits[0, -1].double().cpu().numpy()))
    columns = {name: ("layer", [getattr(fit, name) for fit in fits]) for name in Fit._fields}
    return {
        "clean": xr.DataArray(clean, dims="vocab"),
        "edited": xr.DataArray(edited, dims="vocab"),
        "fits": xr.Dataset(columns, {"layer": range(len(fits))}),
    }


# --------------------------------------------------------------------------------- measurements


def measure_shift(clean: ArrayLike, edited: ArrayLike) -> Measured:
    """How all logits ``[vocab]`` move: on average, how many down, and how alike they stay."""
    before, after = np.asarray(clean, dtype=float), np.asarray(edited, dtype=float)
    change = after - before
    falling = float((change < 0).mean())
    r = correlation_of(before, after).value
    words = {"shift": float(change.mean()), "falling": falling, "r": r, "n": change.size}
    return Measured(None if np.isnan(r) else falling >= 0.95 and r >= 0.99, r, words)


def measure_early(loss: xr.DataArray, rank: xr.DataArray, clean: float) -> Measured:
    """What scaling a layer of the first third does to the target.

    Args:
        loss, rank: changes, ``[layer]``.
        clean: its rank without edits; from 1 it cannot improve.
    """
    third = -(-loss.size // 3)
    losses, ranks = mean_of(loss.values[:third]), mean_of(rank.values[:third])
    words = {"last": third - 1, "loss": losses, "rank": ranks}
    if clean <= 1:
        return Measured(None, losses.value, words, wording="first")
    return Measured(losses.value < 0 and ranks.value < 0, losses.value, words)


def measure_most(loss: xr.DataArray) -> Measured:
    """In how many layers scaling lowers the loss: changes ``[layer]``.

    The final norm undoes the scaling of the last layer, up to rounding, which is not counted.
    """
    lower = int((loss < -ROUNDING).sum())
    share = stats.share(lower, loss.size)
    return Measured(share.value > 0.5, share.value, {"lower": lower, "share": share})


def measure_growth(loss: xr.DataArray) -> Measured:
    """The trend of the loss over the layer that is scaled, ``[layer]``."""
    slope = trend_of(loss["layer"].values, loss.values)
    return Measured(above(slope), slope.value, {"slope": slope})


def measure_temperature(fit: Fit) -> Measured:
    """Whether an edit is like a lower temperature."""
    explained = 1 - fit.left / fit.kl if fit.kl > 0 else 0.0
    sharper = fit.temperature < 1 and fit.after < fit.before
    words = fit._asdict() | {"explained": explained}
    return Measured(sharper and explained >= 0.5, fit.temperature, words)


CLAIMS: tuple[Claim[HiddenScaling], ...] = (
    Claim("shift", lambda data: measure_shift(data.array("clean"), data.array("edited"))),
    Claim(
        "early",
        lambda data: measure_early(
            data.effect("layers", "loss"),
            data.effect("layers", "rank"),
            data.clean("layers", "rank"),
        ),
    ),
    Claim("most", lambda data: measure_most(data.effect("layers", "loss"))),
    Claim("growth", lambda data: measure_growth(data.edited("layers", "loss"))),
    Claim("temperature", lambda data: measure_temperature(fit_of(data))),
)


def fit_of(data: Data[HiddenScaling]) -> Fit:
    """The best temperature for the one cell, on the first prompt."""
    one = data.of(0)
    return fit_temperature(one.array("clean"), one.array("edited"))


def numbers(data: Data[HiddenScaling]) -> dict[str, Any]:
    """The target before and after, by metric, and the temperatures."""
    return {
        "edits": [str(edit) for edit in data.parameters.together],
        "clean": {metric: data.clean("cell", metric) for metric in METRICS},
        "edited": {metric: float(data.edited("cell", metric)) for metric in METRICS},
        "temperature": fit_of(data)._asdict(),
        "temperatures_by_layer": data.dataset("fits")["temperature"].values,
    }


# ------------------------------------------------------------------------------------- sections


def sections(data: Data[HiddenScaling], texts: Texts) -> tuple[Section, ...]:
    """One cell closely, every layer, every factor, and the temperature."""
    return (
        _logits(data, texts),
        _layers(data, texts),
        _factors(data, texts),
        _temperature(data, texts),
    )


def _logits(data: Data[HiddenScaling], texts: Texts) -> Section:
    one = data.of(0)
    clean, edited = one.array("clean").values, one.array("edited").values
    names = [visible(piece(n, data.model.tokenizer)) for n in range(len(clean))]
    where = {"prompt": one.text, "edits": _edits(data)}
    drawn = picture(
        texts,
        "logits.logits",
        lambda title: figures.points(
            clean,
            edited,
            names,
            title=title,
            x_title=texts("logits.x"),
            y_title=texts("logits.y"),
            identity=True,
        ),
        **where,
    )
    return section(
        texts,
        "logits",
        (drawn,),
        _tops(data, texts),
        **where,
        shift=float((edited - clean).mean()),
        falling=float((edited < clean).mean()),
        r=correlation_of(clean, edited).value,
        loss_clean=one.clean("cell", "loss"),
        loss_edited=float(one.edited("cell", "loss")),
        rank_clean=one.clean("cell", "rank"),
        rank_edited=float(one.edited("cell", "rank")),
        target=one.target,
    )


def _edits(data: Data[HiddenScaling]) -> str:
    return ", ".join(f"L{e.lands.layers} × {e.factor:g}" for e in data.parameters.together)


def _tops(data: Data[HiddenScaling], texts: Texts) -> tuple[Table, ...]:
    """The most probable tokens before the edit and after it, each with both ranks."""
    one = data.of(0)
    rows = {"before": one.array("clean").values, "after": one.array("edited").values}
    ranks = {name: (-row).argsort(kind="stable").argsort() + 1 for name, row in rows.items()}
    probs = {name: special.softmax(row) for name, row in rows.items()}

    def top(by: str) -> pd.DataFrame:
        ids = (-rows[by]).argsort(kind="stable")[:TOP]
        return pd.DataFrame(
            {
                "token": [piece(int(i), data.model.tokenizer) for i in ids],
                "rank_before": ranks["before"][ids],
                "rank_after": ranks["after"][ids],
                "prob_before": probs["before"][ids],
                "prob_after": probs["after"][ids],
            }
        )

    return tuple(table(texts, f"logits.{by}", top(by)) for by in rows)


def _layers(data: Data[HiddenScaling], texts: Texts) -> Section:
    def drawn(metric: str) -> Picture:
        levels = {texts("layers.clean"): data.clean("layers", metric)}
        return picture(
            texts,
            f"layers.{metric}-by-layer",
            lambda title: lines_of(
                metric,
                texts,
                {texts("layers.edited"): data.each("layers", metric)},
                x_title=texts("layers.x"),
                y_title=texts(f"layers.{metric}"),
                title=title,
                levels={} if metric == "logit_corr" else levels,
            ),
            factor=data.parameters.factor,
        )

    undone = float(abs(data.effects["layers"].delta("loss").isel(layer=-1)).max())
    return section(
        texts,
        "layers",
        tuple(map(drawn, ("loss", "rank", "logit_corr"))),
        said=("text", "undone") if undone <= ROUNDING else ("text",),
        factor=data.parameters.factor,
        undone=undone,
    )


def _factors(data: Data[HiddenScaling], texts: Texts) -> Section:
    effects = data.effects["factors"]
    loss = picture(
        texts, "factors.loss-map", lambda title: figures.heatmap(effects, "loss", title=title)
    )
    corr = picture(
        texts,
        "factors.correlation-map",
        lambda title: figures.matrix(
            1 - data.edited("factors", "logit_corr"), title=title, unit="1 − r"
        ),
    )
    return section(texts, "factors", (loss, corr), n=len(data.parameters.factors))


def _temperature(data: Data[HiddenScaling], texts: Texts) -> Section:
    fits = data.observed["fits"]

    def drawn(name: str, variables: tuple[str, ...], levels: dict[str, float]) -> Picture:
        return picture(
            texts,
            f"temperature.{name}",
            lambda title: lines(
                texts,
                {texts(f"temperature.{v}"): fits[v] for v in variables},
                x_title=texts("layers.x"),
                y_title=texts(f"temperature.{name}-y"),
                title=title,
                levels=levels,
                within=(0.0, np.inf),
            ),
            factor=data.parameters.factor,
        )

    fit = fit_of(data)
    return section(
        texts,
        "temperature",
        (
            drawn("best-temperature", ("temperature",), {texts("temperature.one"): 1.0}),
            drawn("divergence", ("kl", "left"), {}),
            drawn(
                "entropy",
                ("after",),
                {texts("temperature.before"): float(data.dataset("fits")["before"].mean())},
            ),
        ),
        edits=_edits(data),
        prompt=data.text,
        **fit._asdict(),
    )


STUDY = Study(
    name="hidden-scaling",
    parameters=HiddenScaling,
    tokens="I| have| no| special| talents|.| I| am| only| passionately",
    sites=("resid_post",),
    key_figure="loss-map",
    sweeps=sweeps,
    observe=observe,
    claims=CLAIMS,
    sections=sections,
    numbers=numbers,
)
