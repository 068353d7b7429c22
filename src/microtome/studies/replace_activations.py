"""Replace activations: four exercises in writing over what a model computes.

The keys of one head are set to zero inside the fused QKV projection, every other neuron of an MLP
is replaced by noise that it never sees, and a hidden state is made ten times weaker and ten times
louder. Each time the spread of the hidden states and their distance from the clean run are
followed through the layers, down to the output.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from microtome import figures
from microtome.errors import PromptError
from microtome.prompts.encoding import Encoded
from microtome.prompts.prompt import Prompt
from microtome.report import Picture, Section
from microtome.results.effects import Effects
from microtome.studies import keys
from microtome.studies.final_norm import after_norm, with_norm
from microtome.studies.parameters import KvHead, Layer, Parameters
from microtome.studies.premise import answers
from microtome.studies.study import Claim, Data, Labelled, Measured, Study, Sweep
from microtome.studies.telling import above, lines, picture, section, table, trend_of
from microtome.texts import Texts
from microtome.verbs.model import Model

SPREAD = "std(L*.resid_post)"
REST = "std(L*.resid_post@1:)"
DISTANCE = "distance(L*.resid_post)"
METRICS = ("prob", "rank", "kl", "top1", SPREAD, REST, DISTANCE)
EXERCISES = ("keys", "neurons", "weaker", "louder")


class ReplaceActivations(Parameters):
    """As published.

    Attributes:
        keys_layer, head: whose keys are set to zero.
        mlp_layer, noise_mean, noise_std, seed: whose even neurons become which noise.
        layer, weaker, louder: which hidden state is scaled, by what.
    """

    model: str = "gpt2"
    prompt: str = "Berlin is the capital of"
    target: str | None = " Germany"
    keys_layer: Layer = 3
    head: KvHead = 2
    mlp_layer: Layer = 4
    noise_mean: float = 10.0
    noise_std: float = 1.0
    seed: int = 0
    layer: Layer = 9
    weaker: float = 0.1
    louder: float = 10.0

    @property
    def keys(self) -> str:
        """The address of the keys."""
        return keys.keys_of(self.keys_layer, self.head)

    @property
    def edits(self) -> dict[str, str]:
        """Exercise → its edit."""
        noise = f"noise(mean={self.noise_mean}, std={self.noise_std}, seed={self.seed})"
        return {
            "keys": f"zero {self.keys}",
            "neurons": f"{noise} L{self.mlp_layer}.mlp_post.n::2",
            "weaker": f"scale({self.weaker}) L{self.layer}.resid_post",
            "louder": f"scale({self.louder}) L{self.layer}.resid_post",
        }

    @property
    def layers(self) -> dict[str, int]:
        """Exercise → the layer that it edits."""
        return {
            "keys": self.keys_layer,
            "neurons": self.mlp_layer,
            "weaker": self.layer,
            "louder": self.layer,
        }


def sweeps(parameters: ReplaceActivations) -> dict[str, Sweep]:
    """One cell for each exercise."""
    return {name: Sweep((edit,), METRICS) for name, edit in parameters.edits.items()}


def check_length(encoded: Encoded) -> None:
    """Raise `PromptError` for a prompt of one token, which has none besides the first."""
    if len(encoded.tokens) < 2:
        raise PromptError(
            f"This study looks at the tokens after the first one too, and {encoded.prompt.text!r} "
            "is one token in this model: give a longer prompt."
        )


def observe(
    model: Model, prompt: Prompt, parameters: ReplaceActivations, effects: Mapping[str, Effects]
) -> dict[str, Labelled]:
    """What the edits write over, and the spread behind the final norm."""
    return {
        **keys.looked_at(model, prompt, parameters.keys_layer, parameters.head),
        "neurons": neurons(model, prompt, parameters),
        "final": spread_after_norm(model, prompt, parameters),
    }


def neurons(model: Model, prompt: Prompt, parameters: ReplaceActivations) -> xr.Dataset:
    """The even neurons at the last token, ``[neuron]``: ``real``, and the ``noise`` instead."""
    address = f"L{parameters.mlp_layer}.mlp_post.n::2@-1"
    found = {
        name: model.run(prompt, edits=edits, keep=[address])[address].isel(prompt=0, pos=0).values
        for name, edits in (("real", []), ("noise", [parameters.edits["neurons"]]))
    }
    return xr.Dataset({name: ("neuron", values) for name, values in found.items()})


def spread_after_norm(model: Model, prompt: Prompt, parameters: ReplaceActivations) -> xr.DataArray:
    """Standard deviation behind the final norm, ``[run]``: ``clean`` and the exercises."""
    runs = {"clean": [], **{name: [edit] for name, edit in parameters.edits.items()}}
    found = [float(after_norm(model, prompt, edits).std(correction=0)) for edits in runs.values()]
    return xr.DataArray(found, {"run": list(runs)}, "run")


# --------------------------------------------------------------------------------- measurements


def measure_growth(spread: ArrayLike, rest: ArrayLike) -> Measured:
    """The trend of the clean spread over depth ``[layer]``; and without the first token."""
    every, later = (np.asarray(x, dtype=float) for x in (spread, rest))
    slope, without = (trend_of(np.arange(x.size), x) for x in (every, later))
    return Measured(above(slope), slope.value, {"slope": slope, "without": without})


def measure_collapse(ratio: ArrayLike, layer: int, final: float) -> Measured:
    """Whether the spread falls at a layer and comes back behind it.

    Args:
        ratio: spread with the edit over the clean one, ``[layer]``.
        layer: the layer that is edited.
        final: the same ratio behind the final norm.
    """
    at, last = _ends(ratio, layer)
    words = {"layer": layer, "at": at, "last": last, "final": final}
    if layer == np.size(ratio) - 1:
        return Measured(None, np.nan, words, wording="last")
    return Measured(at <= 0.2 and last >= 2 * at, last / at if at else np.nan, words)


def measure_compress(ratio: ArrayLike, layer: int, final: float) -> Measured:
    """Whether the spread explodes at a layer and is taken back at the end.

    Args:
        ratio: spread with the edit over the clean one, ``[layer]``.
        layer: the layer that is edited.
        final: the same ratio behind the final norm.
    """
    at, last = _ends(ratio, layer)
    words = {"layer": layer, "at": at, "last": last, "final": final}
    return Measured(at >= 5 and final <= 2, final, words)


def _ends(ratio: ArrayLike, layer: int) -> tuple[float, float]:
    ratios = np.asarray(ratio, dtype=float)
    return float(ratios[layer]), float(ratios[-1])


CLAIMS: tuple[Claim[ReplaceActivations], ...] = (
    Claim("growth", lambda data: measure_growth(clean_by_layer(data), clean_by_layer(data, REST))),
    Claim("collapse", lambda data: measure_collapse(*_ratios(data, "weaker"))),
    Claim("compress", lambda data: measure_compress(*_ratios(data, "louder"))),
)


def clean_by_layer(data: Data[ReplaceActivations], metric: str = SPREAD) -> NDArray[np.float64]:
    """A metric of the hidden states in the clean run, ``[layer]``, averaged over the prompts."""
    values = data.effects["keys"].clean(metric).mean("prompt").values
    return np.asarray(values, dtype=np.float64)


def _ratios(
    data: Data[ReplaceActivations], exercise: str
) -> tuple[NDArray[np.float64], int, float]:
    """The spread over the clean one: by layer, the edited layer, and behind the final norm."""
    ratio = data.edited(exercise, SPREAD).values / clean_by_layer(data)
    final = data.array("final")
    whole = float(final.sel(run=exercise) / final.sel(run="clean"))
    return ratio, data.parameters.layers[exercise], whole


def numbers(data: Data[ReplaceActivations]) -> dict[str, Any]:
    """Spread and distance by layer, and the output, for every exercise."""
    final = data.array("final")
    return {
        "edits": data.parameters.edits,
        "clean_spread_by_layer": clean_by_layer(data),
        "clean_spread_after_norm": float(final.sel(run="clean")),
        "clean_prob": data.clean("keys", "prob"),
        "largest_difference_of_fused_columns": float(data.array("fused")),
        **{
            exercise: {
                "spread_by_layer": data.edited(exercise, SPREAD).values,
                "spread_after_norm": float(final.sel(run=exercise)),
                "distance_by_layer": data.edited(exercise, DISTANCE).values,
                "prob": float(data.edited(exercise, "prob")),
                "kl": float(data.edited(exercise, "kl")),
            }
            for exercise in EXERCISES
        },
    }


# ------------------------------------------------------------------------------------- sections


def sections(data: Data[ReplaceActivations], texts: Texts) -> tuple[Section, ...]:
    """The exercises, and what each does downstream."""
    parameters = data.parameters
    return (
        keys.section_on(data, parameters.keys_layer, parameters.head, texts),
        _neurons(data, texts),
        _scaled(data, texts),
        _downstream(data, texts),
        _output(data, texts),
    )


def _neurons(data: Data[ReplaceActivations], texts: Texts) -> Section:
    found = data.of(0).dataset("neurons")
    real, noise = found["real"].values, found["noise"].values
    values = {texts("neurons.real"): real, texts("neurons.noise"): noise}
    within = (noise >= real.min()) & (noise <= real.max())
    drawn = picture(
        texts,
        "neurons.neurons",
        lambda title: figures.histogram(
            values, unit=texts("neurons.x"), title=title, counted=texts("neurons.counted")
        ),
        layer=data.parameters.mlp_layer,
        prompt=data.text,
    )
    return section(
        texts,
        "neurons",
        (drawn,),
        said=("text", "apart" if not within.any() else "overlap"),
        within=float(within.mean()),
        layer=data.parameters.mlp_layer,
        n=real.size,
        mean=data.parameters.noise_mean,
        std=data.parameters.noise_std,
        below=float((real < 0).mean()),
        small=float((np.abs(real) < 0.2).mean()),
        largest=float(real.max()),
        least=float(noise.min()),
    )


def _scaled(data: Data[ReplaceActivations], texts: Texts) -> Section:
    parameters, final = data.parameters, data.array("final")
    shown = {
        texts("scaled.clean"): (clean_by_layer(data), "clean"),
        f"× {parameters.weaker:g}": (data.edited("weaker", SPREAD).values, "weaker"),
        f"× {parameters.louder:g}": (data.edited("louder", SPREAD).values, "louder"),
    }
    n = data.model.anatomy.dims.n_layers
    curves = {
        name: (np.arange(n + 1), np.append(values, float(final.sel(run=run))))
        for name, (values, run) in shown.items()
    }

    def draw(title: str) -> go.Figure:
        made = figures.series(
            curves,
            x_title=texts("scaled.x"),
            y_title=texts("spread"),
            title=title,
            log_y=True,
        )
        return with_norm(made, n, texts("scaled.norm"))

    rows = []
    at = parameters.layer
    for key, row in (("before", at - 1), ("at", at), ("last", n - 1)):
        if row >= 0 and (key == "at" or row != at):
            label = texts(f"scaled.{key}", layer=row)
            rows.append({"where": label, **{name: y[row] for name, (_, y) in curves.items()}})
    rows.append({"where": texts("scaled.final"), **{name: y[n] for name, (_, y) in curves.items()}})
    return section(
        texts,
        "scaled",
        (picture(texts, "scaled.scaled-spread", draw, layer=at),),
        (table(texts, "scaled.spreads", pd.DataFrame(rows)),),
        layer=at,
        weaker=parameters.weaker,
        louder=parameters.louder,
    )


def _downstream(data: Data[ReplaceActivations], texts: Texts) -> Section:
    layers = np.arange(data.model.anatomy.dims.n_layers)

    def drawn(name: str, shown: dict[str, xr.DataArray], y_title: str) -> Picture:
        return picture(
            texts,
            f"downstream.{name}",
            lambda title: lines(
                texts,
                shown,
                x_title=texts("downstream.x"),
                y_title=texts(y_title),
                title=title,
                within=(0.0, np.inf),
                log_y=True,
            ),
        )

    clean = {metric: data.effects["keys"].clean(metric) for metric in (SPREAD, REST)}
    names = _names(data, texts)
    spreads = {label: data.each(name, SPREAD) for name, label in names.items()}
    spreads[texts("scaled.clean")] = clean[SPREAD]  # last, so that an exercise keeps its colour
    distances = {
        label: data.each(name, DISTANCE).where(layers >= data.parameters.layers[name])
        for name, label in names.items()
    }
    first = {texts("downstream.all"): clean[SPREAD], texts("downstream.rest"): clean[REST]}
    return section(
        texts,
        "downstream",
        (
            drawn("spread-by-layer", spreads, "spread"),
            drawn("distance-by-layer", distances, "downstream.distance"),
            drawn("first-token", first, "spread"),
        ),
    )


def _names(data: Data[ReplaceActivations], texts: Texts) -> dict[str, str]:
    parameters = data.parameters
    return {
        "keys": texts("exercises.keys", layer=parameters.keys_layer, head=parameters.head),
        "neurons": texts("exercises.neurons", layer=parameters.mlp_layer),
        "weaker": texts("exercises.scaled", layer=parameters.layer, factor=parameters.weaker),
        "louder": texts("exercises.scaled", layer=parameters.layer, factor=parameters.louder),
    }


def _output(data: Data[ReplaceActivations], texts: Texts) -> Section:
    one = data.of(0)
    rows = [
        {
            "exercise": label,
            "edited_token": str(one.effects[name].data["top1_token"].values[0]),
            "prob": float(data.edited(name, "prob")),
            "rank": float(data.edited(name, "rank")),
            "kl": float(data.edited(name, "kl")),
        }
        for name, label in _names(data, texts).items()
    ]
    clean = {
        "exercise": texts("scaled.clean"),
        "edited_token": str(one.effects["keys"].data["clean_top1_token"].values[0]),
        "prob": data.clean("keys", "prob"),
        "rank": data.clean("keys", "rank"),
        "kl": 0.0,
    }
    frame = pd.DataFrame([clean, *rows])
    target = one.target
    return section(
        texts, "output", (), (table(texts, "output.table", frame, target=target),), target=target
    )


STUDY = Study(
    name="replace-activations",
    parameters=ReplaceActivations,
    tokens="Ber|lin| is| the| capital| of",
    sites=("k", "mlp_post", "resid_post"),
    key_figure="scaled-spread",
    sweeps=sweeps,
    observe=observe,
    check=check_length,
    premise=lambda data, texts: answers(data, "keys", texts),
    claims=CLAIMS,
    sections=sections,
    numbers=numbers,
)
