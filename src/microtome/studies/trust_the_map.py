"""Trust the map: of which approximation may one believe which map, on a model and its prompts?

Maps of heads, queries, keys, MLPs, neurons and edges are computed exactly, and by each method of
gradients that takes them; the two are held against each other, cell by cell. So are what the papers
say of these methods:

- attribution patching misses queries where attention is saturated, and computing the softmax again
  mends it (Kramár et al. 2024, arXiv:2403.00745, section 3.1);
- gradients along the way from the donor's input are better for edges than those of one run (Hanna
  et al. 2024, arXiv:2403.17806);
- on what MLPs add, relevance patching is near where attribution patching is not (Jafari et al.
  2025, arXiv:2508.21258, table 1).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from microtome import figures
from microtome.errors import MicrotomeError, PromptError
from microtome.prompts.encoding import Encoded
from microtome.prompts.prompt import Prompt
from microtome.report import Picture, Section
from microtome.results.effects import Effects
from microtome.stats.auditing import agreement
from microtome.studies.parameters import Layer, Parameters
from microtome.studies.study import Claim, Data, Labelled, Measured, Study, Sweep
from microtome.studies.telling import head_names, picture, section, table
from microtome.texts import Texts
from microtome.verbs.model import Model
from microtome.verbs.sweep import sweep

SCORE = "logit_diff"
ATP, DONOR, STAR, FIXED = "atp", 'atp(at="donor")', "atp_star", "atp_star(grad_drop=False)"
RELP, IG, EAP, EAP_IG = "relp", "ig", "eap", "eap_ig"
METHODS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "heads": (ATP, DONOR, STAR, RELP),
        "queries": (ATP, DONOR, FIXED, STAR),
        "keys": (ATP, DONOR, FIXED, STAR),
        "mlps": (ATP, DONOR, STAR, RELP),
        "neurons": (ATP, DONOR, STAR, RELP, IG),
        "edges": (EAP, EAP_IG),
    }
)
"""Map → the methods that take it."""
EVERY = (ATP, DONOR, FIXED, STAR, RELP, IG, EAP, EAP_IG)
SCORES = ("pearson", "spearman", "signs", "recall", "error")
STRONGEST = 20
"""How many of the strongest cells are looked for, of a small map a fifth."""
NEAR, FOUND = 0.9, 0.8
"""From which correlation, and from how many of the strongest found, a map is worth trusting."""
ON_PYTHIA = ("Pythia 12B",)


class TrustTheMap(Parameters):
    """A sentence of the papers' kind.

    Attributes:
        layer: whose neurons are mapped, at the last token.
    """

    model: str = "gpt2"
    prompt: str = "When Sam and Sally went to the park, Sam gave a gift to"
    donor: str | None = "When Sam and Sally went to the park, Sally gave a gift to"
    target: str | None = " Sally"
    contrast: str | None = " Sam"
    layer: Layer = 9


def sweeps(parameters: TrustTheMap) -> dict[str, Sweep]:
    """Every map, exactly."""
    edits = {
        "heads": "patch L*.z.h*",
        "queries": "patch L*.q.h*@-1",
        "keys": "patch L*.k.h*",
        "mlps": "patch L*.mlp_out@*",
        "neurons": f"patch L{parameters.layer}.mlp_post.n*@-1",
        "edges": "patch L*.z.h* -> L*.mlp_in",
    }
    return {name: Sweep((edit,), (SCORE,)) for name, edit in edits.items()}


def check(encoded: Encoded) -> None:
    """Raise `PromptError` unless there is a donor of the same length."""
    if encoded.donor is None or len(encoded.donor.read) != len(encoded.tokens.read):
        raise PromptError(
            "This study patches from a donor of the same length: give one, in which what decides "
            "the answer is another."
        )


def observe(
    model: Model, prompt: Prompt, parameters: TrustTheMap, effects: Mapping[str, Effects]
) -> dict[str, Labelled]:
    """How near each approximation of each map is, and how saturated attention is.

    ``scores`` ``[map, by, score]``, NaN where a method does not take a map; ``queries``
    ``[by, layer, head]``; ``saturation`` ``[layer, head]``, the largest attention weight of the
    last token.
    """
    shape = (len(METHODS), len(EVERY), len(SCORES))
    names = {"map": [*METHODS], "by": [*EVERY], "score": [*SCORES]}
    scores = xr.DataArray(np.full(shape, np.nan), names, ("map", "by", "score"))
    queries: dict[str, xr.DataArray] = {}
    for name, asked in sweeps(parameters).items():
        exact = effects[name].delta(SCORE).isel(prompt=0, drop=True)
        for method in METHODS[name]:
            found = approximated(model, prompt, asked, method)
            if found is not None:
                own = scores_of(found.values, exact.values)
                scores.loc[{"map": name, "by": method}] = [own[one] for one in SCORES]
            if name == "queries":
                queries[method] = xr.full_like(exact, np.nan) if found is None else found
    weights = model.run(prompt, keep=["L*.pattern@-1,:"])["L*.pattern@-1,:"]
    saturation = weights.isel(prompt=0, q_pos=0, drop=True).max("k_pos")
    bare = [one.reset_coords(drop=True) for one in queries.values()]
    return {
        "scores": scores,
        "queries": xr.concat(bare, xr.DataArray([*queries], dims="by", name="by")),
        "saturation": saturation.transpose("layer", "head").reset_coords(drop=True).astype(float),
    }


def approximated(model: Model, prompt: Prompt, asked: Sweep, method: str) -> xr.DataArray | None:
    """A map by a method; None where it is none for this model."""
    try:
        found = sweep(
            model, prompt, asked.edits, metrics=SCORE, method=method, audit=1, verify=0,
            progress=False,
        )  # fmt: skip
    except MicrotomeError:
        # A model of one layer, or one that computes what there is no rule for; the map itself was
        # taken before, so that nothing else is wrong with it.
        return None
    return found.approximate(SCORE).isel(prompt=0, drop=True)


# ------------------------------------------------------------------------------ how near two are


def scores_of(approximate: np.ndarray, exact: np.ndarray) -> dict[str, float]:
    """What `SCORES` name of a map, where both are numbers; NaN where that says nothing."""
    there = np.isfinite(approximate) & np.isfinite(exact)
    rough, true = approximate[there], exact[there]
    agreed = agreement(rough, true, np.ones(len(true)))
    found = {
        "pearson": agreed.pearson,
        "spearman": agreed.spearman,
        "signs": agreed.signs,
        "recall": recall_of(rough, true),
        "error": error_of(rough, true),
    }
    return {name: np.nan if value is None else float(value) for name, value in found.items()}


def recall_of(approximate: np.ndarray, exact: np.ndarray) -> float:
    """Of the strongest cells, how many are among the approximation's strongest; ``[cell]``."""
    k = min(STRONGEST, len(exact) // 5)
    if k < 1 or not exact.any():
        return np.nan
    one, two = (np.argsort(-np.abs(values), kind="stable")[:k] for values in (approximate, exact))
    return len(np.intersect1d(one, two)) / k


def error_of(approximate: np.ndarray, exact: np.ndarray) -> float:
    """Σ |approximate − exact| / Σ |exact|: 0 is exact, and 1 what saying nothing gives."""
    size = np.abs(exact).sum()
    return float(np.abs(approximate - exact).sum() / size) if size else np.nan


def best_of(scores: xr.DataArray) -> dict[str, str]:
    """Map → the method with the largest correlation; maps that none is known of are left out."""
    pearson = scores.sel(score="pearson").dropna("map", how="all")
    return {
        str(name): str(pearson.sel(map=name).idxmax("by").item()) for name in pearson["map"].values
    }


def trusted(scores: xr.DataArray) -> list[str]:
    """The maps whose best method is near, and finds the strongest cells."""
    return [
        name
        for name, method in best_of(scores).items()
        if float(scores.sel(map=name, by=method, score="pearson")) >= NEAR
        and float(scores.sel(map=name, by=method, score="recall")) >= FOUND
    ]


# --------------------------------------------------------------------------------- measurements


def halves(saturation: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    """Which heads are in the half whose attention is more saturated, and in the other."""
    flat = saturation.values.ravel()
    high = np.zeros(flat.size, dtype=bool)
    high[np.argsort(-flat, kind="stable")[: flat.size // 2]] = True
    return high, ~high


def measure_saturated(
    exact: xr.DataArray, queries: xr.DataArray, saturation: xr.DataArray
) -> Measured:
    """Whether attribution patching errs by more where attention is more saturated."""
    high, low = halves(saturation)
    true, rough = exact.values.ravel(), queries.sel(by=ATP).values.ravel()
    errors = {"high": error_of(rough[high], true[high]), "low": error_of(rough[low], true[low])}
    if not np.isfinite([*errors.values()]).all():
        return Measured(None, np.nan, wording="still")
    weights = saturation.values.ravel()
    told = {"above": float(np.median(weights[high])), "below": float(np.median(weights[low]))}
    return Measured(
        errors["high"] > errors["low"], errors["high"] - errors["low"], {**errors, **told}
    )


def measure_better(scores: xr.DataArray, name: str, one: str, other: str) -> Measured:
    """Whether one method's map correlates more strongly with the exact one than another's.

    A few strong cells decide that; how their ranks correlate is told beside it.
    """
    own = scores.sel(map=name, by=[one, other])
    better, worse = own.sel(score="pearson").values.tolist()
    ranks = own.sel(score="spearman").values.tolist()
    if np.isnan([better, worse]).any():
        return Measured(None, np.nan, wording="still")
    told = {"one": better, "other": worse, "one_ranks": ranks[0], "other_ranks": ranks[1]}
    return Measured(better > worse, better - worse, told)


def _better(
    name: str, of: str, one: str, other: str, on: tuple[str, ...] = ()
) -> Claim[TrustTheMap]:
    return Claim(name, lambda data: measure_better(data.array("scores"), of, one, other), on=on)


CLAIMS: tuple[Claim[TrustTheMap], ...] = (
    Claim(
        "saturated",
        lambda data: measure_saturated(
            data.effect("queries", SCORE), data.array("queries"), data.array("saturation")
        ),
        on=ON_PYTHIA,
    ),
    _better("queries", "queries", FIXED, ATP, on=ON_PYTHIA),
    _better("keys", "keys", FIXED, ATP, on=ON_PYTHIA),
    _better("edges", "edges", EAP_IG, EAP),
    _better("mlps", "mlps", RELP, ATP),
)


def numbers(data: Data[TrustTheMap]) -> dict[str, Any]:
    """All scores by map and method, the best method of each map, and those to be trusted."""
    scores = data.array("scores")
    return {
        "scores": {
            name: {
                method: dict(
                    zip(SCORES, scores.sel(map=name, by=method).values.tolist(), strict=True)
                )
                for method in METHODS[name]
            }
            for name in METHODS
        },
        "best": best_of(scores),
        "trusted": trusted(scores),
    }


# ------------------------------------------------------------------------------------- sections


def sections(data: Data[TrustTheMap], texts: Texts) -> tuple[Section, ...]:
    """How near each approximation is, and where attention is saturated."""
    return (_trust(data, texts), _queries(data, texts))


def _trust(data: Data[TrustTheMap], texts: Texts) -> Section:
    scores = data.array("scores")
    titles = [texts(f"maps.{name}") for name in METHODS]
    pearson = scores.sel(score="pearson").assign_coords(map=titles)
    drawn = picture(
        texts,
        "trust.trust",
        lambda title: figures.matrix(pearson, title=title, unit="r", diverging=True),
    )
    best, judged = best_of(scores), judged_of(scores)
    return section(
        texts,
        "trust",
        (drawn,),
        (
            table(texts, "trust.best", _rows(scores, texts, best.items()), k=STRONGEST),
            table(texts, "trust.every", _rows(scores, texts, _pairs(scores)), k=STRONGEST),
        ),
        ("text", *said_of(judged)),
        near=NEAR,
        found=100 * FOUND,
        **{key: "; ".join(texts(f"maps.{name}") for name in judged[key]) for key in judged},
        layer=data.parameters.layer,
        k=STRONGEST,
    )


def judged_of(scores: xr.DataArray) -> dict[str, list[str]]:
    """Maps by what can be said of them: ``good``, ``poor``, or ``unknown``, without any r."""
    best, good = best_of(scores), trusted(scores)
    return {
        "good": good,
        "poor": [name for name in best if name not in good],
        "unknown": [name for name in METHODS if name not in best],
    }


def said_of(judged: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Which sentences are true of maps that were judged so."""
    if len(judged["good"]) == len(METHODS):
        return ("all",)
    if not judged["good"] and judged["poor"]:
        return ("none", *(["unknown"] if judged["unknown"] else []))
    return tuple(key for key, names in judged.items() if names)


def _pairs(scores: xr.DataArray) -> list[tuple[str, str]]:
    """Each map with each method that gave it."""
    known = scores.notnull().any("score")
    return [
        (name, method)
        for name, methods in METHODS.items()
        for method in methods
        if bool(known.sel(map=name, by=method))
    ]


def _rows(scores: xr.DataArray, texts: Texts, pairs: Iterable[tuple[str, str]]) -> pd.DataFrame:
    rows = [
        {
            "map": texts(f"maps.{name}"),
            "method": method,
            **{one: float(scores.sel(map=name, by=method, score=one)) for one in SCORES},
        }
        for name, method in pairs
    ]
    return pd.DataFrame(rows, columns=["map", "method", *SCORES])


def _queries(data: Data[TrustTheMap], texts: Texts) -> Section:
    exact = data.effect("queries", SCORE).transpose("layer", "head")
    saturation = data.array("saturation")

    def drawn(key: str, method: str) -> Picture:
        return picture(
            texts,
            f"queries.{key}",
            lambda title: figures.points(
                data.array("queries").sel(by=method).values,
                exact.values,
                head_names(texts, exact),
                x_title=texts("queries.x"),
                y_title=texts("queries.y"),
                title=title,
                identity=True,
                color=saturation.values,
                color_title=texts("queries.color"),
            ),
        )

    return section(
        texts,
        "queries",
        (drawn("plain", ATP), drawn("again", FIXED)),
        saturation=float(saturation.median()),
    )


STUDY = Study(
    name="trust-the-map",
    parameters=TrustTheMap,
    tokens="When| Sam| and| Sally| went| to| the| park|,| Sam| gave| a| gift| to",
    donor_tokens="When| Sam| and| Sally| went| to| the| park|,| Sally| gave| a| gift| to",
    sites=("q", "k", "z", "mlp_post", "mlp_out"),
    key_figure="trust",
    sweeps=sweeps,
    observe=observe,
    check=check,
    claims=CLAIMS,
    sections=sections,
    numbers=numbers,
)
