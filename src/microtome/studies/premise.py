"""What studies take for granted of a model, and what to say where it is not so."""

from __future__ import annotations

from typing import Any

import numpy as np

from microtome.figures.view import visible_line
from microtome.studies.study import Data
from microtome.texts import Texts, visible


def answers(data: Data[Any], sweep: str, texts: Texts) -> tuple[str, ...]:
    """A sentence unless the target is the model's first choice on every prompt.

    Args:
        data: of the study; ``sweep`` measured ``rank``, ``prob`` and ``top1``.
        sweep: one of its sweeps.
        texts: what the sentence is made with.
    """
    ranks = data.effects[sweep].clean("rank").values
    failing = np.flatnonzero(ranks > 1)
    if not failing.size:
        return ()
    if data.several:
        return (texts("premise.answers_some", failing=failing.size, n=ranks.size),)
    [one] = data.encoded
    return (
        texts(
            "premise.answers",
            prompt=visible_line(one.prompt.text),
            first=first_choice(data, sweep),
            target=visible(str(one.prompt.target)),
            rank=float(ranks[0]),
            prob=data.clean(sweep, "prob"),
        ),
    )


def first_choice(data: Data[Any], sweep: str) -> str:
    """The most probable token without edits, on the first prompt, with its white space shown."""
    return visible(str(data.effects[sweep].data["clean_top1_token"].values[0]))


def prefers(data: Data[Any], sweep: str, texts: Texts) -> tuple[str, ...]:
    """A sentence unless the model prefers the target to the contrast on every prompt.

    Args:
        data: of the study; ``sweep`` measured ``logit_diff``.
        sweep: one of its sweeps.
        texts: what the sentence is made with.
    """
    scores = data.effects[sweep].clean("logit_diff").values
    failing = np.flatnonzero(~(scores > 0))
    if not failing.size:
        return ()
    if data.several:
        return (texts("premise.prefers_some", failing=failing.size, n=scores.size),)
    [one] = data.encoded
    return (
        texts(
            "premise.prefers",
            prompt=visible_line(one.prompt.text),
            target=visible(str(one.prompt.target)),
            contrast=visible(str(one.prompt.contrast)),
            score=float(scores[0]),
        ),
    )
