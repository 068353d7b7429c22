"""The registry of metrics: what a text such as ``prob(contrast)@3`` asks for."""

from __future__ import annotations

import re
from collections.abc import Iterable

from microtome.errors import MetricError, glimpse, listing
from microtome.language.addresses import parse
from microtome.readings.inside import INSIDE, Gauge, Inside, gauge
from microtome.readings.names import name_of
from microtome.readings.output import METRICS, NEXT, TOKENS, Metric, Onward, Reading

Asked = Reading | Gauge
"""A metric as asked for: on the output, or inside the model."""


def readings(metrics: str | Iterable[str]) -> tuple[Asked, ...]:
    """What texts such as ``"prob(contrast)@3"`` or ``"std(L*.resid_post)"`` ask for.

    Raises:
        MetricError: a metric does not exist, none is given, or one is given twice.

    >>> [str(r) for r in readings(["prob", "prob(contrast)", "loss@-1"])]
    ['prob', 'prob(contrast)', 'loss@last']
    """
    given: object = metrics
    several = given if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    found = tuple(map(_reading, several))
    if not found:
        raise MetricError(f"No metric is given. Metrics: {listing(METRICS)}.")
    names = [str(reading) for reading in found]
    if len(set(names)) < len(names):
        raise MetricError(f"A metric is given twice: {listing(names)}.")
    for name in names:
        if name.startswith("top1") and f"{name}_token" in names:
            raise MetricError(
                f"The texts of {name} are kept under the name {name}_token, which is a metric of "
                "its own here, of another role: rename the role, or measure one of the two."
            )
    return found


def about(name: str) -> Metric | Inside:
    """The metric of a variable of a result, such as ``"prob(contrast)@3"``."""
    kind = re.split(r"[(@]", name)[0]
    return METRICS[kind] if kind in METRICS else INSIDE[kind]


def _reading(text: object) -> Asked:
    if not isinstance(text, str):
        raise MetricError(f"A metric goes by its name, such as 'prob', not by {glimpse(text)}.")
    inside = gauge(text)
    if inside is not None:
        return inside
    name = name_of(text)
    found = re.fullmatch(r"\s*\w+(?:\((\w+)\))?(?:@(.+))?\s*", text)
    if found is None:
        raise MetricError(f"Cannot read the metric {text!r}. Form: name[(contrast)][@position].")
    of, place = found.groups()
    metric = METRICS[name]
    if of is not None and (of not in TOKENS or metric.reads != ("token",)):
        raise MetricError(
            f"{text!r}: in parentheses stands 'target' or 'contrast', for the metrics of one "
            "token (logit, prob, logprob, loss, rank)."
        )
    at = None if place is None else parse(f"logits@{place.strip()}")
    return (Onward if name == NEXT else Reading)(metric, of or "target", at)
