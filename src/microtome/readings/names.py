"""The names of metrics, and what other tools call them; nothing is computed."""

from __future__ import annotations

import re

from microtome.errors import MetricError, did_you_mean, listing
from microtome.language.habits import METRICS as ELSEWHERE

ON_OUTPUT = (
    "logit", "logit_diff", "prob", "logprob", "loss", "rank", "top1", "kl", "next_loss",
    "logit_corr",
)  # fmt: skip
"""On the output."""

INSIDE = ("norm", "std", "distance", "cosine")
"""Inside the model: of an address."""


def name_of(text: str) -> str:
    """The metric that a text such as ``"prob(contrast)@3"`` begins with.

    Raises:
        MetricError: there is none of this name.

    >>> name_of("prob(contrast)@3")
    'prob'
    """
    name = re.split(r"[(@]", text)[0].strip()
    if name in (*ON_OUTPUT, *INSIDE):
        return name
    known = listing([*ON_OUTPUT, *(f"{inner}(…)" for inner in INSIDE)])
    nearest = ELSEWHERE.get(re.sub(r"[\s-]+", "_", name.lower()))
    hint = f" Nearest: {nearest!r}." if nearest else did_you_mean(name, [*ON_OUTPUT, *INSIDE])
    raise MetricError(f"No metric is called {name!r}. Metrics: {known}.{hint}")
