"""A metric in one cell, or in a map: what answers are measured by."""

from __future__ import annotations

from dataclasses import dataclass

from microtome import Effects
from microtome.errors import MetricError
from microtome.readings.inside import Inside
from microtome.readings.registry import about, readings


@dataclass(frozen=True)
class Value:
    """A metric without edits and with them.

    Attributes:
        metric: its canonical text.
        unit: its unit.
        clean, edited: its values.
        noise: the largest effect of cells that change nothing; an effect no larger may be rounding.
    """

    metric: str
    unit: str
    clean: float
    edited: float
    noise: float

    @property
    def effect(self) -> float:
        """With − without."""
        return self.edited - self.clean


def canonical(metric: str) -> str:
    """A metric with one number a cell, in its canonical text.

    Raises:
        MetricError: there is no such metric, or it is one inside the model, or a token id.

    >>> canonical(" prob@last ")
    'prob@last'
    """
    name = str(readings(metric)[0])
    kind = about(name)
    if isinstance(kind, Inside) or kind.unit == "token id":
        what = "several numbers in a cell" if isinstance(kind, Inside) else "no difference"
        raise MetricError(
            f"{name} has {what}, and one effect is shown here: choose a metric such as "
            "logit_diff, prob or kl."
        )
    return name


def value_of(effects: Effects) -> Value:
    """The first metric of a sweep of one cell on one prompt."""
    metric = effects.metrics[0]
    return Value(
        metric,
        about(metric).unit,
        float(effects.baseline(metric).values.item()),
        float(effects.data[metric].values.item()),
        effects.noise_floor(metric) or 0.0,
    )
