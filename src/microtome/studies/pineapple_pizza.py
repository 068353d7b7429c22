"""Pineapple pizza: can one head, at one word, change how near two words are to each other?

The cosine similarity of two pairs of words is followed through the layers: pineapple with pizza,
butter with pizza. Then every head is silenced in turn, at the last token of the word pineapple
alone, and every change is held against those of all other heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from pydantic import Field
from scipy import stats as scipy_stats

from microtome import figures, stats
from microtome.errors import PromptError, listing
from microtome.figures.view import visible_line
from microtome.prompts.encoding import Encoded
from microtome.report import Picture, Section
from microtome.stats import MapTest
from microtome.studies.parameters import Parameters
from microtome.studies.study import Claim, Data, Measured, Study, Sweep
from microtome.studies.telling import above, lines, mean_of, picture, section, table
from microtome.texts import Texts

ROLES = ("topping", "other", "dish")
"""The word at which heads are silenced, the word to compare it with, and the word that both are
compared to."""
PAIRS: Mapping[str, str] = {
    "topping": "cosine(L*.resid_post@topping, dish)",
    "other": "cosine(L*.resid_post@other, dish)",
}
"""The first word of each pair, and the metric."""

SHOWN_WORDS = 3
"""How many words are named where prompts have different ones."""


class PineapplePizza(Parameters):
    """As published."""

    model: str = "gpt2-large"
    prompt: str = "Peanut butter and pineapple taste great on pizza"
    roles: dict[str, Any] = Field(
        default_factory=lambda: {"topping": "pineapple", "other": "butter", "dish": "pizza"}
    )


def sweeps(parameters: PineapplePizza) -> dict[str, Sweep]:
    """Every head at the one word, and both pairs in every layer."""
    return {"heads": Sweep(("zero L*.z.h*@topping",), tuple(PAIRS.values()))}


def check_roles(encoded: Encoded) -> None:
    """Raise `PromptError` unless the three words are there, apart, and in an order that works."""
    tokens, text = encoded.tokens, encoded.prompt.text
    missing = [role for role in ROLES if role not in tokens.places]
    if missing:
        raise PromptError(
            f"This study compares three words, and {text!r} does not say which: it lacks the roles "
            f'{listing(missing)}. Give roles={{"topping": …, "other": …, "dish": …}}, each a word '
            "of the prompt."
        )
    places = {role: tokens.role(role) for role in ROLES}
    if len(set(places.values())) < len(ROLES):
        raise PromptError(f"The roles of {text!r} are at {places}: name three different tokens.")
    if places["topping"] > places["dish"]:
        raise PromptError(
            f"In {text!r}, topping (position {places['topping']}) stands behind dish (position "
            f"{places['dish']}), which it then cannot reach: name a word before it."
        )


# ---------------------------------------------------------------------------------- what changes


def possible(change: xr.DataArray) -> xr.DataArray:
    """The changes ``[pair, layer, head, at_layer]`` that there can be; the others become NaN.

    A head changes nothing in layers before its own. In its own it changes only the silenced
    token, so that a pair without it can change from the next layer on.
    """
    first = change["layer"] + (change["pair"] != "topping")
    return change.where(change["at_layer"] >= first)


def changes(data: Data[PineapplePizza]) -> xr.DataArray:
    """The changes of similarity that there can be: ``[prompt, pair, layer, head, at_layer]``."""
    effects = data.effects["heads"]
    both = [effects.delta(metric) for metric in PAIRS.values()]
    along = xr.DataArray(list(PAIRS), dims="pair", name="pair")
    whole: xr.DataArray = xr.concat(both, along, coords="minimal", compat="override")
    return possible(whole.transpose("prompt", "pair", "layer", "head", "at_layer"))


def stands_out(change: xr.DataArray) -> xr.Dataset:
    """Which changes ``[pair, layer, head, at_layer]`` stand out among those of all heads.

    Each is held against the changes of all heads in the same pair and layer read: z is its
    distance from their mean in their standard deviations, p two-sided from the normal distribution.

    Returns:
        ``change``, ``z``, ``p``, and p adjusted for all tests of both pairs: ``bonferroni`` and
        ``fdr`` (Benjamini and Hochberg). NaN where there is no change to test.
    """
    cells = ("layer", "head")
    several = change.count(cells) > 1  # of others numpy warns, by its version
    spread = change.where(several, 0.0).std(cells, ddof=1)
    z = (change - change.mean(cells)) / spread.where(spread > 0)
    p = z.copy(data=2 * scipy_stats.norm.sf(np.abs(z.values)))
    adjusted = {
        "bonferroni": z.copy(data=stats.bonferroni(p.values)),
        "fdr": z.copy(data=stats.benjamini_hochberg(p.values)),
    }
    return xr.Dataset({"change": change, "z": z, "p": p, **adjusted})


# --------------------------------------------------------------------------------- measurements


def measure_nearer(topping: xr.DataArray, other: xr.DataArray) -> Measured:
    """How much nearer the one word is than the other: similarities ``[at_layer]``."""
    difference = topping.values - other.values
    mean = mean_of(difference)
    words = {"difference": mean, "above": int((difference > 0).sum()), "layers": difference.size}
    return Measured(above(mean), mean.value, words)


def measure_nowhere(found: xr.Dataset) -> Measured:
    """How many changes stand out after Bonferroni's correction, of those tested."""
    tests = int(found["p"].notnull().sum())
    passed = int((found["bonferroni"] < stats.LEVEL).sum())
    if tests == 0:
        return Measured(None, np.nan, wording="none")
    share = stats.share(passed, tests)
    fdr = int((found["fdr"] < stats.LEVEL).sum())
    largest = float(abs(found["change"]).max())
    words = {"passed": passed, "share": share, "fdr": fdr, "largest": largest}
    return Measured(share.value <= 0.01, share.value, words)


CLAIMS: tuple[Claim[PineapplePizza], ...] = (
    Claim("nearer", lambda data: measure_nearer(*(clean(data, pair)[0] for pair in PAIRS))),
    Claim("nowhere", lambda data: measure_nowhere(stands_out(changes(data)[0]))),
)


def clean(data: Data[PineapplePizza], pair: str) -> xr.DataArray:
    """A pair's similarity without edits, ``[prompt, at_layer]``."""
    return data.effects["heads"].clean(PAIRS[pair])


def over_the_prompts(change: xr.DataArray) -> MapTest:
    """Which changes ``[prompt, pair, layer, head, at_layer]`` differ from 0 over the prompts."""
    return stats.max_statistic(change)


def numbers(data: Data[PineapplePizza]) -> dict[str, Any]:
    """Both similarities by layer, and how large changes are."""
    found = changes(data).mean("prompt")
    return {
        "similarity_by_layer": {pair: clean(data, pair).mean("prompt").values for pair in PAIRS},
        "largest_change": {pair: float(abs(found.sel(pair=pair)).max()) for pair in PAIRS},
        "changes_tested": int(found.notnull().sum()),
    }


# ------------------------------------------------------------------------------------- sections


def sections(data: Data[PineapplePizza], texts: Texts) -> tuple[Section, ...]:
    """The clean run, every head, what stands out, and the prompts where there are several."""
    names = _pair_names(data, texts)
    parts = [_clean(data, texts, names), _cells(data, texts, names), _tests(data, texts, names)]
    return (*parts, _prompts(data, texts)) if data.several else tuple(parts)


def _pair_names(data: Data[PineapplePizza], texts: Texts) -> dict[str, str]:
    """The words of each pair; where the prompts have different ones, what they are."""
    said = {
        pair: {f"{_word(one, pair)} – {_word(one, 'dish')}" for one in data.encoded}
        for pair in PAIRS
    }
    if any(len(names) > 1 for names in said.values()):
        return {pair: texts(f"pairs.{pair}") for pair in PAIRS}
    return {pair: names.pop() for pair, names in said.items()}


def _word(one: Encoded, role: str) -> str:
    place = one.tokens.places[role]
    return place if isinstance(place, str) else one.tokens.pieces[place].strip()


def _clean(data: Data[PineapplePizza], texts: Texts, names: Mapping[str, str]) -> Section:
    drawn = picture(
        texts,
        "clean.similarity",
        lambda title: lines(
            texts,
            {names[pair]: clean(data, pair) for pair in PAIRS},
            x_title=texts("x"),
            y_title=texts("y"),
            title=title,
            within=(-1, 1),
        ),
    )
    one = data.encoded[0]
    at = {role: one.tokens.role(role) for role in ROLES}
    return section(
        texts,
        "clean",
        (drawn,),
        prompt=visible_line(one.prompt.text),
        topping=_word(one, "topping"),
        other=_word(one, "other"),
        dish=_word(one, "dish"),
        gap_topping=abs(at["dish"] - at["topping"]),
        gap_other=abs(at["dish"] - at["other"]),
    )


def _cells(data: Data[PineapplePizza], texts: Texts, names: Mapping[str, str]) -> Section:
    change = changes(data).mean("prompt")
    n = data.effects["heads"].n_cells // len(data.encoded)

    def range_of(pair: str) -> Picture:
        """The similarity in the clean run, and how far single heads move it."""
        own = clean(data, pair).mean("prompt").values
        of_pair = change.sel(pair=pair)
        up = np.maximum(of_pair.max(("layer", "head")).fillna(0).values, 0)
        down = np.maximum(-of_pair.min(("layer", "head")).fillna(0).values, 0)
        name = texts("cells.clean")
        return picture(
            texts,
            f"cells.{pair}-range",
            lambda title: figures.series(
                {name: (change["at_layer"].values, own)},
                x_title=texts("x"),
                y_title=texts("y"),
                title=title,
                y_error={name: [up, down]},
            ),
            pair=names[pair],
            n=n,
        )

    def map_of(pair: str) -> Picture:
        last = change.sel(pair=pair).isel(at_layer=-1, drop=True)
        shown = last.rename(layer=texts("cells.silenced")).drop_vars("pair")
        return picture(
            texts,
            f"cells.{pair}-map",
            lambda title: figures.matrix(
                shown, title=title, unit=texts("cells.change"), diverging=True
            ),
            pair=names[pair],
            last=int(change["at_layer"][-1]),
        )

    drawn = tuple(draw(pair) for draw in (range_of, map_of) for pair in PAIRS)
    words = list(dict.fromkeys(f"“{_word(one, 'topping')}”" for one in data.encoded))
    shown = [*words[:SHOWN_WORDS], *(["…"] if len(words) > SHOWN_WORDS else [])]
    return section(texts, "cells", drawn, n=n, words=", ".join(shown))


def _tests(data: Data[PineapplePizza], texts: Texts, names: Mapping[str, str]) -> Section:
    one = data.of(0)
    found = stands_out(changes(one)[0])
    n = int(found["p"].notnull().sum())
    if n == 0:
        return section(texts, "tests", said=("untested",))
    threshold = float(scipy_stats.norm.isf(stats.LEVEL / (2 * max(n, 1))))
    values = {names[pair]: found["z"].sel(pair=pair) for pair in PAIRS}
    drawn = picture(
        texts,
        "tests.z",
        lambda title: figures.histogram(
            values, unit=texts("tests.x"), title=title, counted=texts("tests.counted")
        ),
        threshold=threshold,
    )
    cells = found.stack(cell=found["z"].dims).dropna("cell", subset=["p"])
    order = np.argsort(-np.abs(cells["z"].values), kind="stable")[:10]
    columns = ("pair", "layer", "head", "at_layer", "change", "z", "bonferroni", "fdr")
    frame = pd.DataFrame({name: cells[name].values[order] for name in columns})
    frame["pair"] = frame["pair"].map(names)
    return section(
        texts,
        "tests",
        (drawn,),
        (table(texts, "tests.largest", frame),),
        n=n,
        left_out=int(found["p"].isnull().sum()),
        cells=data.effects["heads"].n_cells // len(data.encoded),
        layers=found.sizes["at_layer"],
        threshold=threshold,
        noise=max(
            one.effects["heads"].delta(metric).attrs["noise_floor"] for metric in PAIRS.values()
        ),
        prompt=one.text,
    )


def _prompts(data: Data[PineapplePizza], texts: Texts) -> Section:
    found = over_the_prompts(changes(data))
    tested = found.p.notnull()
    return section(
        texts,
        "prompts",
        n=found.prompts,
        tests=int(tested.sum()),
        passed=int(found.significant().sum()),
        flips=found.flips,
        least=found.least_p,
    )


STUDY = Study(
    name="pineapple-pizza",
    parameters=PineapplePizza,
    tokens="Pe|anut| butter| and| pineapple| taste| great| on| pizza",
    sites=("z",),
    key_figure="topping-range",
    sweeps=sweeps,
    check=check_roles,
    claims=CLAIMS,
    sections=sections,
    numbers=numbers,
)
