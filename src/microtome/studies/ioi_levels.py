"""Indirect object, by level: all heads of a layer together, against the layer's hidden state.

Both are patched at the last token from a run with the names swapped. A hidden state holds all that
has been worked out so far; the heads of one layer only what that layer adds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from microtome.errors import PromptError
from microtome.prompts.encoding import Encoded
from microtome.report import Picture, Section
from microtome.studies.parameters import Parameters
from microtome.studies.premise import prefers
from microtome.studies.study import Claim, Data, Measured, Study, Sweep
from microtome.studies.telling import lines, picture, section, table
from microtome.texts import Texts

SCORE = "logit_diff"
METRICS = (SCORE, "prob", "prob(contrast)")
LEVELS = {"hidden": "patch L*.resid_post@-1", "heads": "patch L*.z@-1"}
NAMES = {"target": "prob", "contrast": "prob(contrast)"}


class IoiLevels(Parameters):
    """As published."""

    model: str = "gpt2"
    prompt: str = "When Sam and Sally went to the park, Sam gave a gift to"
    donor: str | None = "When Sam and Sally went to the park, Sally gave a gift to"
    target: str | None = " Sally"
    contrast: str | None = " Sam"


def sweeps(parameters: IoiLevels) -> dict[str, Sweep]:
    """Both levels, layer by layer."""
    return {level: Sweep((edit,), METRICS) for level, edit in LEVELS.items()}


def check_donor(encoded: Encoded) -> None:
    """Raise `PromptError` unless there is a donor."""
    if encoded.donor is None:
        raise PromptError("This study patches from a donor: give one, with the names swapped.")


# --------------------------------------------------------------------------------- measurements


def flipped_from(score: xr.DataArray) -> int | None:
    """The layer from which on the score ``[layer]`` stays below 0; None if it ends above."""
    above = np.flatnonzero(~(score.values < 0))
    if len(above) == 0:
        return int(score["layer"].values[0])
    after = int(above[-1]) + 1
    return int(score["layer"].values[after]) if after < score.size else None


def measure_flips(score: xr.DataArray, clean: float) -> Measured:
    """From which layer on the patch of the hidden state turns the answer round."""
    start = flipped_from(score)
    words = {"clean": clean, "last": float(score.values[-1]), "start": start, "n": score.size}
    if not clean > 0:
        return Measured(None, np.nan, words, wording="unanswered")
    if start is None:
        return Measured(False, np.nan, words, wording="none")
    return Measured(True, float(start), words)


def measure_never(score: xr.DataArray, clean: float) -> Measured:
    """The lowest score when all heads of one layer are patched."""
    at = int(np.argmin(score.values))
    lowest = float(score.values[at])
    words = {"lowest": lowest, "layer": int(score["layer"].values[at]), "clean": clean}
    words |= {"n": score.size}
    if not clean > 0:
        return Measured(None, lowest, words, wording="unanswered")
    return Measured(lowest > 0, lowest, words)


CLAIMS: tuple[Claim[IoiLevels], ...] = (
    Claim(
        "flips",
        lambda data: measure_flips(data.edited("hidden", SCORE), data.clean("hidden", SCORE)),
    ),
    Claim(
        "never",
        lambda data: measure_never(data.edited("heads", SCORE), data.clean("heads", SCORE)),
    ),
)


def numbers(data: Data[IoiLevels]) -> dict[str, Any]:
    """The clean run, and the scores by layer."""
    return {
        "clean_score": data.clean("hidden", SCORE),
        "clean_prob": {who: data.clean("hidden", metric) for who, metric in NAMES.items()},
        "scores": {level: data.edited(level, SCORE).values for level in LEVELS},
        "flipped_from": flipped_from(data.edited("hidden", SCORE)),
    }


# ------------------------------------------------------------------------------------- sections


def sections(data: Data[IoiLevels], texts: Texts) -> tuple[Section, ...]:
    """The scores of both levels, and the probabilities of both names."""
    return (_scores(data, texts), _probabilities(data, texts))


def _scores(data: Data[IoiLevels], texts: Texts) -> Section:
    each = {texts(f"levels.{level}"): data.each(level, SCORE) for level in LEVELS}
    layers = data.edited("hidden", SCORE)["layer"].values
    drawn = picture(
        texts,
        "scores.scores",
        lambda title: lines(
            texts,
            each,
            x_title=texts("layer"),
            y_title=texts("scores.y"),
            title=title,
            levels={
                texts("scores.clean"): data.clean("hidden", SCORE),
                texts("scores.even"): 0.0,
            },
        ),
    )
    frame = xr.Dataset(
        {level: data.edited(level, SCORE) for level in LEVELS}, {"layer": layers}
    ).to_dataframe()
    return section(
        texts,
        "scores",
        (drawn,),
        (table(texts, "scores.table", frame.reset_index()),),
        clean=data.clean("hidden", SCORE),
    )


def _probabilities(data: Data[IoiLevels], texts: Texts) -> Section:
    def drawn(level: str) -> Picture:
        each = {texts(f"names.{who}"): data.each(level, metric) for who, metric in NAMES.items()}
        return picture(
            texts,
            f"probabilities.{level}-probabilities",
            lambda title: lines(
                texts,
                each,
                x_title=texts("layer"),
                y_title=texts("probabilities.y"),
                title=title,
                within=(0, 1),
            ),
        )

    return section(
        texts,
        "probabilities",
        tuple(map(drawn, LEVELS)),
        target=data.clean("hidden", "prob"),
        contrast=data.clean("hidden", "prob(contrast)"),
    )


STUDY = Study(
    name="ioi-levels",
    parameters=IoiLevels,
    tokens="When| Sam| and| Sally| went| to| the| park|,| Sam| gave| a| gift| to",
    donor_tokens="When| Sam| and| Sally| went| to| the| park|,| Sally| gave| a| gift| to",
    sites=("z", "resid_post"),
    key_figure="scores",
    also_on=("gpt2-medium",),
    sweeps=sweeps,
    check=check_donor,
    premise=lambda data, texts: prefers(data, "hidden", texts),
    claims=CLAIMS,
    sections=sections,
    numbers=numbers,
)
