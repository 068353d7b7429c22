"""Metrics by which circuits are measured: on the output, and of one token at a time."""

from __future__ import annotations

from microtome.errors import MetricError, listing
from microtome.prompts.encoding import Encoded
from microtome.readings.output import METRICS, Reading
from microtome.readings.registry import Asked

LESS_IS_BETTER = ("kl", "loss", "next_loss", "rank")
"""Metrics of which a larger value is further from the answer, or from the model."""


def worse(asked: Asked) -> int:
    """The sign of a change of a metric for the worse: 1 where less is better."""
    return 1 if on_the_output(asked).metric.name in LESS_IS_BETTER else -1


def on_the_output(asked: Asked) -> Reading:
    """A metric on the output, as it is.

    Raises:
        MetricError: it is read inside the model.
    """
    if isinstance(asked, Reading):
        return asked
    raise MetricError(
        f"The metric {asked} is read inside the model, and a circuit is measured by what comes "
        f"out: choose one of {listing(METRICS)}."
    )


def refuse_several(reading: Reading, one: Encoded) -> None:
    """Raise where a metric reads several tokens, one after another.

    Raises:
        MetricError: it does, in this prompt.
    """
    for name in reading.fields:
        if isinstance(one.answer(name), tuple):
            raise MetricError(
                f"The {name} of {one.prompt.shown} is several tokens, one after another, and a "
                "circuit is measured on one text: give one token, or a set of which any is meant."
            )
