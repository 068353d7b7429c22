"""Cosine ripple: silence one head, and follow how alike the tokens are through the layers.

The cosine similarity of the hidden states of every two tokens is measured in every layer, without
edits and with each head of the model silenced in turn. For one head the change is tested layer by
layer: when does it become significant?
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from microtome import figures, stats
from microtome.errors import PromptError
from microtome.prompts.encoding import Encoded
from microtome.prompts.prompt import Prompt
from microtome.report import Picture, Section
from microtome.results.effects import Effects
from microtome.stats import Estimate
from microtome.studies.final_norm import after_norm, with_norm
from microtome.studies.parameters import Head, Layer, Parameters
from microtome.studies.ripple import downstream, pairs_of, ripple, significant
from microtome.studies.study import Claim, Data, Labelled, Measured, Study, Sweep
from microtome.studies.telling import above, below, mean_of, picture, section, table
from microtome.texts import Texts
from microtome.verbs.model import Model

PAIRS = "cosine(L*.resid_post@*, *)"
FEWEST = 3
"""Tokens of a prompt: two make one pair, which cannot be tested."""


class CosineRipple(Parameters):
    """As published.

    Attributes:
        layer, head: the head that is looked at closely.
    """

    model: str = "gpt2-medium"
    prompt: str = "I have no special talents. I am only passionately curious"
    layer: Layer = 3
    head: Head = 0


def sweeps(parameters: CosineRipple) -> dict[str, Sweep]:
    """Every head in turn; all pairs of tokens in every layer."""
    return {"heads": Sweep(("zero L*.z.h*",), (PAIRS,))}


def check_length(encoded: Encoded) -> None:
    """Raise `PromptError` for a prompt with too few tokens to test their pairs."""
    if len(encoded.tokens) < FEWEST:
        raise PromptError(
            f"This study compares all pairs of tokens, and {encoded.prompt.text!r} has only "
            f"{len(encoded.tokens)} in this model: give a prompt of at least {FEWEST}."
        )


def observe(
    model: Model, prompt: Prompt, parameters: CosineRipple, effects: Mapping[str, Effects]
) -> dict[str, Labelled]:
    """The mean similarity of the pairs behind the final norm, without edits."""
    hidden = after_norm(model, prompt)
    unit = hidden / hidden.norm(dim=-1, keepdim=True)
    cosines = (unit @ unit.T).numpy()
    return {"final": xr.DataArray(cosines[np.triu_indices(len(cosines), 1)].mean())}


# ---------------------------------------------------------------------------------- the changes


def clean_pairs(data: Data[CosineRipple]) -> xr.DataArray:
    """Similarities without edits on the first prompt, ``[at_layer, pair]``."""
    return pairs_of(data.effects["heads"].clean(PAIRS).isel(prompt=0, drop=True))


def changes(data: Data[CosineRipple]) -> xr.DataArray:
    """What each head's silence changes on the first prompt: ``[layer, head, at_layer, pair]``.

    NaN in the layers before the head: nothing can change there.
    """
    delta = data.effects["heads"].delta(PAIRS).isel(prompt=0, drop=True)
    return downstream(pairs_of(delta))


# --------------------------------------------------------------------------------- measurements


def measure_falls(clean: xr.DataArray) -> Measured:
    """How the similarity of pairs ``[at_layer, pair]`` changes over the first third of layers."""
    n = clean.sizes["at_layer"]
    third = min(max(1, round(n / 3)), n - 1)
    change = mean_of(clean.values[third] - clean.values[0])
    words = {"layer": third, "change": change}
    return Measured(below(change) if third else None, change.value, words)


def measure_rises(clean: xr.DataArray, final: float) -> Measured:
    """How it changes from the layer where it is lowest to the last, and where it ends.

    Args:
        clean: similarity of pairs, ``[at_layer, pair]``.
        final: its mean behind the final norm.
    """
    means = clean.mean("pair").values
    lowest = int(means.argmin())
    change = mean_of(clean.values[-1] - clean.values[lowest])
    words = {"lowest": lowest, "change": change, "last": float(means[-1]), "final": final}
    rises = above(change) if len(means) > 1 else None
    wording = "last" if lowest == len(means) - 1 else "measured"
    return Measured(
        None if rises is None else rises and final >= 0.9, final, words, wording=wording
    )


def measure_delayed(found: xr.Dataset, layer: int) -> Measured:
    """Whether a head's ripple is not significant in its own layer, and is in the last ones.

    Args:
        found: of `ripple`.
        layer: the head's.
    """
    n = found.sizes["at_layer"]
    late = range(max(n - -(-n // 3), layer + 1), n)
    passed = int((found["bonferroni"].isel(at_layer=list(late)) < stats.LEVEL).sum())
    at, last = (_estimate(found, index) for index in (layer, n - 1))
    once, end = (float(found["bonferroni"][index]) for index in (layer, n - 1))
    words = {
        "layer": layer,
        "at": at,
        "once": once,
        "last": last,
        "end": end,
        "passed": passed,
        "late": len(late),
        "layers": n,
    }
    if not late:
        return Measured(None, np.nan, words, wording="none")
    share = passed / len(late)
    return Measured(not once < stats.LEVEL and share > 0.5, share, words)


def _estimate(found: xr.Dataset, layer: int) -> Estimate:
    at = found.isel(at_layer=layer)
    value, low, high, p = (float(at[name]) for name in ("value", "low", "high", "p"))
    return Estimate(value, low, high, p, int(at["n"]))


CLAIMS: tuple[Claim[CosineRipple], ...] = (
    Claim("falls", lambda data: measure_falls(clean_pairs(data))),
    Claim("rises", lambda data: measure_rises(clean_pairs(data), float(data.array("final")))),
    Claim("delayed", lambda data: measure_delayed(of_the_head(data), data.parameters.layer)),
)


def of_the_head(data: Data[CosineRipple]) -> xr.Dataset:
    """The tests of the head that is looked at closely, on the first prompt."""
    parameters = data.parameters
    return ripple(changes(data).sel(layer=parameters.layer, head=parameters.head, drop=True))


def reach(data: Data[CosineRipple]) -> xr.DataArray:
    """The share of a layer's heads whose ripple is significant, ``[layer, at_layer]``.

    The mean over the prompts.
    """
    shares = [
        significant(changes(data.of(n))).mean("head", skipna=False)
        for n in range(len(data.encoded))
    ]
    return xr.concat(shares, "prompt").mean("prompt")


def mean_changes(data: Data[CosineRipple]) -> xr.DataArray:
    """The mean change over the pairs, prompt by prompt: ``[prompt, layer, head, at_layer]``."""
    means = [changes(data.of(n)).mean("pair", skipna=False) for n in range(len(data.encoded))]
    return xr.concat(means, "prompt")


def over_the_prompts(means: xr.DataArray) -> xr.Dataset:
    """The tests of one head's mean changes ``[prompt, at_layer]``, with prompts as the pairs."""
    return ripple(means.rename(prompt="pair").transpose("at_layer", "pair"))


def numbers(data: Data[CosineRipple]) -> dict[str, Any]:
    """The clean similarity by layer, the one head's tests, and how far each layer's heads reach."""
    found = of_the_head(data)
    return {
        "clean_similarity_by_layer": clean_pairs(data).mean("pair").values,
        "clean_similarity_after_norm": float(data.array("final")),
        "ripple": {str(name): found[name].values for name in found.data_vars},
        "share_of_significant_heads": reach(data).values,
    }


# ------------------------------------------------------------------------------------- sections


def sections(data: Data[CosineRipple], texts: Texts) -> tuple[Section, ...]:
    """The clean run, one head, every head, and the prompts where there are several."""
    parts = [_clean(data, texts), _ripple(data, texts), _heads(data, texts)]
    return (*parts, _prompts(data, texts)) if data.several else tuple(parts)


def _clean(data: Data[CosineRipple], texts: Texts) -> Section:
    one = data.of(0)
    pairs = clean_pairs(one)
    mean = pairs.mean("pair").values
    low, high = np.quantile(pairs.values, [0.25, 0.75], axis=1)
    n = mean.size
    middle = {texts("clean.middle"): (np.append(low, np.nan), np.append(high, np.nan))}
    name = texts("clean.mean")
    prompt = one.text

    def draw(title: str) -> go.Figure:
        made = figures.series(
            {name: (np.arange(n + 1), np.append(mean, float(one.array("final"))))},
            x_title=texts("x"),
            y_title=texts("clean.y"),
            title=title,
            bands=middle,
        )
        return with_norm(made, n, texts("clean.norm"))

    matrices = {"tokens-first": 0, "tokens-last": n - 1}
    return section(
        texts,
        "clean",
        (
            picture(texts, "clean.similarity", draw, prompt=prompt, n=pairs.sizes["pair"]),
            *(_tokens(one, texts, key, layer) for key, layer in matrices.items()),
        ),
        tokens=len(one.encoded[0].tokens),
        n=pairs.sizes["pair"],
        prompt=prompt,
    )


def _tokens(one: Data[CosineRipple], texts: Texts, key: str, layer: int) -> Picture:
    """The similarity of every two tokens in one layer."""
    cosines = one.effects["heads"].clean(PAIRS).isel(prompt=0, at_layer=layer)
    names = {"at_pos": texts("clean.token"), "at_other": texts("clean.other")}
    cosines = cosines.rename(names | {f"{k}_token": f"{v}_token" for k, v in names.items()})
    return picture(
        texts,
        f"clean.{key}",
        lambda title: figures.matrix(
            cosines,
            title=title,
            unit=texts("clean.y"),
            diverging=bool((cosines < 0).any()),
        ),
        layer=layer,
    )


def _ripple(data: Data[CosineRipple], texts: Texts) -> Section:
    one, parameters = data.of(0), data.parameters
    found = of_the_head(one)
    names: dict[str, Any] = {"layer": parameters.layer, "head": parameters.head}
    n = int(found["n"].max())
    prompt = one.text
    return section(
        texts,
        "ripple",
        (
            _change(found, texts, "ripple.change", **names, n=n),
            _evidence(found, texts, "ripple.evidence", **names, layers=found.sizes["at_layer"]),
        ),
        (table(texts, "ripple.tests", _frame(found), **names),),
        **names,
        n=n,
        prompt=prompt,
        layers=found.sizes["at_layer"],
        tests=int(found["p"].notnull().sum()),
    )


def _change(found: xr.Dataset, texts: Texts, key: str, **values: Any) -> Picture:
    layers, mean = found["at_layer"].values, found["value"].values
    name = texts("ripple.mean")
    errors = np.nan_to_num(np.stack([found["high"].values - mean, mean - found["low"].values]))
    return picture(
        texts,
        key,
        lambda title: figures.series(
            {name: (layers, mean)},
            x_title=texts("x"),
            y_title=texts("ripple.y"),
            title=title,
            y_error={name: errors},
            levels={texts("ripple.none"): 0.0},
        ),
        **values,
    )


def _evidence(found: xr.Dataset, texts: Texts, key: str, **values: Any) -> Picture:
    layers = found["at_layer"].values
    least = np.finfo(float).tiny  # a p that is 0 in this arithmetic is at least not more than this
    lines = {
        texts(f"ripple.{name}"): (layers, -np.log10(np.maximum(found[name].values, least)) + 0.0)
        for name in ("bonferroni", "fdr")
    }
    return picture(
        texts,
        key,
        lambda title: figures.series(
            lines,
            x_title=texts("x"),
            y_title=texts("ripple.strength"),
            title=title,
            levels={texts("ripple.level"): -np.log10(stats.LEVEL)},
        ),
        **values,
    )


def _frame(found: xr.Dataset) -> pd.DataFrame:
    shown = found.dropna("at_layer", subset=["p"]).to_dataframe().reset_index()
    columns = ["at_layer", "value", "low", "high", "n", "p", "bonferroni", "fdr"]
    return shown[columns].rename(columns={"value": "change"})


def _heads(data: Data[CosineRipple], texts: Texts) -> Section:
    axes = {"layer": texts("heads.silenced"), "at_layer": texts("x")}
    shares = picture(
        texts,
        "heads.reach",
        lambda title: figures.matrix(
            reach(data).rename(axes), title=title, unit=texts("heads.share")
        ),
        heads=data.model.anatomy.dims.n_heads,
        layers=data.model.anatomy.dims.n_layers,
    )
    means = mean_changes(data).mean("prompt")
    layer = data.parameters.layer
    own = means.sel(layer=layer, drop=True).rename(at_layer=texts("x"))
    of_layer = picture(
        texts,
        "heads.of-layer",
        lambda title: figures.matrix(own, title=title, unit=texts("ripple.y"), diverging=True),
        layer=layer,
    )
    at_end = means.isel(at_layer=-1, drop=True).to_dataframe("change").reset_index()
    largest = at_end.reindex(at_end["change"].abs().sort_values(ascending=False).index)
    n = data.model.anatomy.dims.n_layers
    return section(
        texts,
        "heads",
        (shares, of_layer),
        (table(texts, "heads.largest", largest.head(10), last=n - 1),),
        n=data.effects["heads"].n_cells // len(data.encoded),
        layer=layer,
    )


def _prompts(data: Data[CosineRipple], texts: Texts) -> Section:
    parameters = data.parameters
    means = mean_changes(data).sel(layer=parameters.layer, head=parameters.head, drop=True)
    found = over_the_prompts(means)
    names: dict[str, Any] = {"layer": parameters.layer, "head": parameters.head}
    return section(
        texts,
        "prompts",
        (_change(found, texts, "prompts.change-over-prompts", **names, n=len(data.encoded)),),
        (table(texts, "prompts.tests", _frame(found), **names),),
        **names,
        n=len(data.encoded),
    )


STUDY = Study(
    name="cosine-ripple",
    parameters=CosineRipple,
    tokens="I| have| no| special| talents|.| I| am| only| passionately| curious",
    sites=("z",),
    key_figure="reach",
    sweeps=sweeps,
    observe=observe,
    check=check_length,
    claims=CLAIMS,
    sections=sections,
    numbers=numbers,
)
