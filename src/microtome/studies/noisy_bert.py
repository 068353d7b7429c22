"""Noisy BERT: the hidden state behind a mask, shuffled and made noisy in every layer.

An encoder fills in a word. In one layer after the other the coordinates of the mask's hidden state
change places, which keeps every number and loses what each stands for; or Gaussian noise is added
that is as large as the state's own spread, or larger. Several seeds say what is chance. Last, the
numbers themselves: are they Gaussian?
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr
from numpy.typing import NDArray
from pydantic import Field
from transformers import PreTrainedTokenizerBase

from microtome import figures, stats
from microtome.prompts.encoding import Encoded, piece
from microtome.prompts.prompt import Prompt
from microtome.report import Picture, Section, Table
from microtome.results.effects import Effects
from microtome.studies.parameters import Parameters
from microtome.studies.peaked import activations, kurtosis, measure_peaked
from microtome.studies.premise import answers
from microtome.studies.study import PROMPT, Claim, Data, Labelled, Measured, Study, Sweep
from microtome.studies.telling import (
    below,
    lines_of,
    mean_of,
    over_prompts,
    picture,
    section,
    table,
)
from microtome.texts import Texts, visible
from microtome.verbs.model import Model

METRICS = ("logprob", "loss", "prob", "rank", "top1")
EXERCISES = ("shuffle", "noise")
FITTING = 0.01
"""A token fits the sentence if it is among this share of the vocabulary, the most probable ones,
without edits."""
TOP = 5
STATES = "L*.resid_post@mask"

Seeds = Annotated[tuple[int, ...], Field(min_length=2)]


class NoisyBert(Parameters):
    """As published.

    Attributes:
        strength: the noise's standard deviation, in those of the hidden state.
        seeds: of the shuffles and of the noise.
    """

    model: str = "bert-large-uncased"
    prompt: str = "Pay no attention to that man [MASK] the curtain"
    target: str | None = "behind"
    strength: float = 2.0
    seeds: Seeds = tuple(range(10))

    def edit(self, exercise: str, layers: str = "*", seed: int = 0) -> str:
        """The edit of an exercise."""
        place = f"L{layers}.resid_post@mask"
        if exercise == "shuffle":
            return f"shuffle(seed={seed}) {place}"
        noise = f'mean=0, std={self.strength}, how="add", relative=True, seed={seed}'
        return f"noise({noise}) {place}"


def sweeps(parameters: NoisyBert) -> dict[str, Sweep]:
    """Every layer, with every seed: shuffled, and with noise."""
    over = {"seed": parameters.seeds}
    return {name: Sweep((parameters.edit(name),), METRICS, over) for name in EXERCISES}


def check_mask(encoded: Encoded) -> None:
    """Raise `PromptError` for a prompt without a mask, or with several."""
    encoded.tokens.role("mask")


def observe(
    model: Model, prompt: Prompt, parameters: NoisyBert, effects: Mapping[str, Effects]
) -> dict[str, Labelled]:
    """The mask's hidden states, every token's clean rank, and the tokens on top with one seed."""
    run = model.run(prompt, keep=[STATES])
    place = run.encoded[0].tokens.role("mask")
    clean = run.logits[0, place].double().cpu().numpy()
    layers = range(model.anatomy.dims.n_layers)
    tops = [[top_tokens(model, prompt, parameters, name, n) for n in layers] for name in EXERCISES]
    return {
        "states": run[STATES].isel(prompt=0, pos=0, drop=True).astype(float),
        "ranks": xr.DataArray((-clean).argsort(kind="stable").argsort() + 1, dims="vocab"),
        "words": xr.DataArray(whole_words(model.tokenizer, len(clean)), dims="vocab"),
        "clean_top": xr.DataArray((-clean).argsort(kind="stable")[:TOP], dims="place"),
        "tops": xr.DataArray(tops, {"exercise": list(EXERCISES)}, ("exercise", "layer", "place")),
    }


def top_tokens(
    model: Model, prompt: Prompt, parameters: NoisyBert, exercise: str, layer: int
) -> list[int]:
    """The ids of the most probable tokens at the mask, with the first seed."""
    edit = parameters.edit(exercise, str(layer), parameters.seeds[0])
    return [int(token) for token in model.run(prompt, edits=[edit]).top(TOP)["id"]]


def whole_words(tokenizer: PreTrainedTokenizerBase, n: int) -> NDArray[np.bool_]:
    """Which tokens are words by themselves: they begin one, and are letters, two or more.

    A tokenizer marks what begins a word (``Ġ``, ``▁``), or what goes on with one (``##``).
    """
    raw = [token or "" for token in tokenizer.convert_ids_to_tokens(range(min(n, len(tokenizer))))]
    begins = "Ġ▁" if any(token.startswith(("Ġ", "▁")) for token in raw) else ""
    found = np.zeros(n, dtype=bool)
    for number, token in enumerate(raw):
        if not begins or token.startswith(tuple(begins)):
            letters = piece(number, tokenizer).strip()
            found[number] = len(letters) > 1 and letters.isalpha()
    return found


# --------------------------------------------------------------------------------- measurements


def measure_meaningless(fits: xr.DataArray) -> Measured:
    """Whether shuffling leaves tokens on top that do not fit, in every layer.

    Args:
        fits: whether the token on top fits the sentence, ``[layer, seed]``.
    """
    share = fits.mean("seed")
    worst = int(share.values.argmax())
    most = float(share[worst])
    words = {"most": most, "layer": worst, "mean": mean_of(fits.mean("layer"))}
    return Measured(most <= 0.2, most, words)


def measure_words(noise: xr.DataArray, shuffle: xr.DataArray, vocabulary: float) -> Measured:
    """Whether noise leaves words on top.

    Args:
        noise, shuffle: whether the token on top is a whole word, ``[layer, seed]``.
        vocabulary: the share of whole words in the vocabulary, which chance would give.
    """
    own, other = (mean_of(found.mean("layer")) for found in (noise, shuffle))
    words = {"noise": own, "shuffle": other, "vocabulary": vocabulary}
    return Measured(own.value >= 0.9 and own.value > other.value, own.value, words)


def measure_accuracy(change: xr.DataArray) -> Measured:
    """Whether noise makes the target less likely, and the more so the deeper the layer.

    Args:
        change: of the target's log-probability, ``[layer, seed]``.
    """
    loss = mean_of(change.mean("layer"))
    slope = mean_of(slopes(change))
    falls, steeper = below(loss), below(slope)
    holds = None if change.sizes["layer"] < 2 or None in (falls, steeper) else falls and steeper
    return Measured(holds, slope.value, {"change": loss, "slope": slope})


def slopes(values: xr.DataArray) -> NDArray[np.float64]:
    """The slope over layers of ``[layer, seed]``, for each seed."""
    ordered = values.transpose("layer", "seed").values
    if len(ordered) < 2:
        return np.full(ordered.shape[1], np.nan)
    found: NDArray[np.float64] = np.polyfit(np.arange(len(ordered)), ordered, 1)[0]
    return found


CLAIMS: tuple[Claim[NoisyBert], ...] = (
    Claim("meaningless", lambda data: measure_meaningless(fits(data, "shuffle"))),
    Claim(
        "words",
        lambda data: measure_words(
            words(data, "noise"), words(data, "shuffle"), float(data.array("words").mean())
        ),
    ),
    Claim("accuracy", lambda data: measure_accuracy(data.effect("noise", "logprob"))),
    Claim("peaked", lambda data: measure_peaked(data.array("states"))),
)


def fits(data: Data[NoisyBert], exercise: str) -> xr.DataArray:
    """Whether the token on top fits the sentence, ``[layer, seed]``; a share of several prompts."""
    return _of_tops(
        data, exercise, lambda one: one.array("ranks").values <= FITTING * one.array("ranks").size
    )


def words(data: Data[NoisyBert], exercise: str) -> xr.DataArray:
    """Whether the token on top is a whole word, likewise."""
    return _of_tops(data, exercise, lambda one: one.array("words").values)


def _of_tops(data: Data[NoisyBert], exercise: str, true_of: Any) -> xr.DataArray:
    each: list[xr.DataArray] = []
    for number in range(len(data.encoded)):
        one = data.of(number)
        tops = one.edited(exercise, "top1").transpose("layer", "seed")
        each.append(tops.copy(data=true_of(one)[tops.values.astype(int)].astype(float)))
    return xr.concat(each, PROMPT).mean(PROMPT)


def numbers(data: Data[NoisyBert]) -> dict[str, Any]:
    """By layer, means over the seeds: the target, the tokens on top, and the kurtosis."""
    return {
        "clean": {metric: data.clean("noise", metric) for metric in METRICS[:-1]},
        **{
            name: {
                **{m: data.edited(name, m).mean("seed").values for m in METRICS[:-1]},
                "share_fitting": fits(data, name).mean("seed").values,
                "share_of_words": words(data, name).mean("seed").values,
            }
            for name in EXERCISES
        },
        "kurtosis_by_layer": kurtosis(data.of(0).array("states").values),
    }


# ------------------------------------------------------------------------------------- sections


def sections(data: Data[NoisyBert], texts: Texts) -> tuple[Section, ...]:
    """The target by layer, the tokens on top, and the activations themselves."""
    return _target(data, texts), _tops(data, texts), activations(data.of(0).array("states"), texts)


def _target(data: Data[NoisyBert], texts: Texts) -> Section:
    return section(
        texts,
        "target",
        tuple(_by_layer(data, texts, metric) for metric in ("logprob", "loss", "rank")),
        (table(texts, "target.layers", _layer_frame(data)),),
        target=data.target,
        prompt=data.text,
        logprob=data.clean("noise", "logprob"),
        rank=data.clean("noise", "rank"),
        n=len(data.parameters.seeds),
    )


def _by_layer(data: Data[NoisyBert], texts: Texts, metric: str) -> Picture:
    values = {texts(f"exercises.{name}"): data.edited(name, metric) for name in EXERCISES}
    return picture(
        texts,
        f"target.{metric}-by-layer",
        lambda title: lines_of(
            metric,
            texts,
            values,
            along="seed",
            title=title,
            x_title=texts("x"),
            y_title=texts(f"target.{metric}"),
            levels={texts("clean"): data.clean("noise", metric)},
        ),
        n=len(data.parameters.seeds),
    )


Means = tuple[NDArray[Any], NDArray[Any] | None]
"""Values by layer, and their error bars."""


def over_seeds(values: xr.DataArray) -> Means:
    """Means over the seeds of ``[layer, seed]``, and the error bars of 95 % t intervals."""
    return over_prompts(values, "seed")


def shares_over_seeds(values: xr.DataArray) -> Means:
    """The same of shares: Wilson's intervals, which do not leave 0 … 1, where each is yes or no."""
    rows = values.transpose("layer", "seed").values
    if not np.isin(rows, (0, 1)).all():  # averaged over several prompts
        mean, error = over_seeds(values)
        inside = None if error is None else np.minimum(error, [1 - mean, mean])
        return mean, inside
    shares = [stats.share(int(row.sum()), row.size) for row in rows]
    up = [share.high - share.value for share in shares]
    down = [share.value - share.low for share in shares]
    return rows.mean(axis=1), np.maximum([up, down], 0)  # rounding goes below


def _lines(values: Mapping[str, xr.DataArray], texts: Texts, **options: Any) -> go.Figure:
    """Shares: a line per exercise over the layers, with the intervals over the seeds."""
    means = {texts(f"exercises.{n}"): shares_over_seeds(x) for n, x in values.items()}
    layers = next(iter(values.values()))["layer"].values
    return figures.series(
        {name: (layers, mean) for name, (mean, _) in means.items()},
        x_title=texts("x"),
        y_error={name: error for name, (_, error) in means.items() if error is not None},
        **options,
    )


def _layer_frame(data: Data[NoisyBert]) -> pd.DataFrame:
    """Log-probability and loss of the target by layer, means over the seeds."""
    columns = {
        f"{name}_{metric}": data.edited(name, metric).mean("seed").values
        for name in EXERCISES
        for metric in ("logprob", "loss")
    }
    layers = data.edited("noise", "loss")["layer"].values
    return pd.DataFrame({"layer": layers, **columns})


def _tops(data: Data[NoisyBert], texts: Texts) -> Section:
    def drawn(name: str, of: Any, levels: dict[str, float]) -> Picture:
        values = {exercise: of(data, exercise) for exercise in EXERCISES}
        return picture(
            texts,
            f"tops.{name}",
            lambda title: _lines(
                values,
                texts,
                title=title,
                y_title=texts("tops.share"),
                levels=levels,
            ),
            n=len(data.parameters.seeds),
            percent=FITTING,
        )

    share = float(data.array("words").mean())
    return section(
        texts,
        "tops",
        (
            drawn("fits-by-layer", fits, {texts("tops.chance"): FITTING}),
            drawn("words-by-layer", words, {texts("tops.chance"): share}),
        ),
        (_top_table(data, texts),),
        clean=_said(data, data.of(0).array("clean_top").values),
        percent=FITTING,
        share=share,
    )


def _top_table(data: Data[NoisyBert], texts: Texts) -> Table:
    """A row per layer: what is on top with the first seed, and most often over the seeds."""
    one = data.of(0)
    rows = []
    for layer in range(data.model.anatomy.dims.n_layers):
        row: dict[str, object] = {"layer": layer}
        for name in EXERCISES:
            ids = one.array("tops").sel(exercise=name).isel(layer=layer).values
            row[f"{name}_tops"] = _said(data, ids)
            seeds = one.edited(name, "top1").isel(layer=layer).values.astype(int).tolist()
            most, count = Counter(seeds).most_common(1)[0]
            row[f"{name}_most"] = f"{_said(data, [most])} ({count}/{len(seeds)})"
        rows.append(row)
    return table(texts, "tops.tops", pd.DataFrame(rows), seed=data.parameters.seeds[0], n=TOP)


def _said(data: Data[NoisyBert], ids: Any) -> str:
    return " · ".join(visible(piece(int(i), data.model.tokenizer)) for i in ids)


STUDY = Study(
    name="noisy-bert",
    parameters=NoisyBert,
    tokens="[CLS]|pay|no|attention|to|that|man|[MASK]|the|curtain|[SEP]",
    sites=("resid_post",),
    key_figure="logprob-by-layer",
    sweeps=sweeps,
    observe=observe,
    check=check_mask,
    premise=lambda data, texts: answers(data, "noise", texts),
    claims=CLAIMS,
    sections=sections,
    numbers=numbers,
    masked=True,
)
