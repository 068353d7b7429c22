"""A softmax temperature: how well it alone turns one prediction into another."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special

TEMPERATURES = (1e-3, 1e3)
"""Between which the best temperature is looked for."""


class Fit(NamedTuple):
    """How well a softmax temperature alone turns one prediction into another.

    Attributes:
        temperature: the best; below 1 it sharpens.
        kl: KL(edited ‖ clean) in nats, with temperature 1.
        left: KL(edited ‖ clean at the best temperature), in nats.
        before, after: entropy of the clean and of the edited prediction, in nats.
    """

    temperature: float
    kl: float
    left: float
    before: float
    after: float


def fit_temperature(clean: ArrayLike, edited: ArrayLike) -> Fit:
    """The temperature T for which softmax(clean / T) is nearest to the edited prediction.

    Nearest in KL(edited ‖ softmax(clean / T)), which has one minimum: it is convex in 1 / T.

    Args:
        clean, edited: logits ``[vocab]``.

    >>> round(fit_temperature([1.0, 2.0, 4.0], [2.0, 4.0, 8.0]).temperature, 4)
    0.5
    """
    before, after = (np.asarray(x, dtype=np.float64) for x in (clean, edited))
    wanted = special.log_softmax(after)
    p = np.exp(wanted)

    def divergence(log_temperature: float) -> float:
        scaled = special.log_softmax(before / np.exp(log_temperature))
        return float((p * (wanted - scaled)).sum())

    found = optimize.minimize_scalar(
        divergence, bounds=tuple(np.log(TEMPERATURES)), method="bounded", options={"xatol": 1e-9}
    )
    return Fit(
        temperature=float(np.exp(found.x)),
        kl=max(divergence(0.0), 0.0),
        left=max(float(found.fun), 0.0),
        before=_entropy(before),
        after=_entropy(after),
    )


def _entropy(logits: NDArray[np.float64]) -> float:
    logs = special.log_softmax(logits)
    return float(-(np.exp(logs) * logs).sum())
