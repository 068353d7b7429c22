"""Whether activations are Gaussian: how peaked they are, and how far the largest lie out."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy import stats as scipy_stats

from microtome import figures, stats
from microtome.report import Picture, Section
from microtome.stats import Estimate
from microtome.studies.study import Measured
from microtome.studies.telling import picture, section
from microtome.texts import Texts

RESAMPLES = 2000
SHOWN = 6
"""Standard deviations up to which activations are drawn; a few lie far beyond."""


def kurtosis(states: ArrayLike) -> NDArray[np.float64]:
    """The excess kurtosis of each row ``[layer, d]``: 0 for a Gaussian, 3 for a Laplacian.

    >>> kurtosis([[-1.0, 1.0, -1.0, 1.0]]).tolist()
    [-2.0]
    """
    return np.asarray(scipy_stats.kurtosis(np.asarray(states, dtype=float), axis=1))


def measure_peaked(states: xr.DataArray) -> Measured:
    """Whether activations ``[layer, d_model]`` are more peaked than a Gaussian.

    The interval resamples coordinates, the same ones in all layers: a coordinate that stands out
    does so in many.
    """
    mean = mean_kurtosis(states.transpose("layer", "d_model").values)
    each = kurtosis(states.transpose("layer", "d_model").values)
    words = {"kurtosis": mean, "least": float(each.min()), "largest": float(each.max())}
    return Measured(bool(mean.low > 3), mean.value, words)


def mean_kurtosis(states: NDArray[np.float64]) -> Estimate:
    """The mean over layers of the excess kurtosis, with its bootstrap interval."""

    def statistic(chosen: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
        picked = chosen.astype(int)  # many draws at a time, which `axis` tells scipy
        each = [scipy_stats.kurtosis(layer[picked], axis=axis) for layer in states]
        return np.asarray(np.mean(each, axis=0))

    numbers = np.arange(states.shape[1])
    found = stats.bootstrap(numbers, statistic, method="percentile", resamples=RESAMPLES)
    return Estimate(found.value, found.low, found.high, float("nan"), found.n)


def activations(states: xr.DataArray, texts: Texts) -> Section:
    """A section on activations ``[layer, d_model]``: beside a Gaussian, and by layer."""
    values = states.transpose("layer", "d_model").values
    spread = values.std(axis=1, keepdims=True)
    real = ((values - values.mean(axis=1, keepdims=True)) / spread).ravel()
    gaussian = scipy_stats.norm.ppf((np.arange(real.size) + 0.5) / real.size)
    return section(
        texts,
        "activations",
        (_beside(real, gaussian, texts), _by_layer(values, texts)),
        kurtosis=mean_kurtosis(values),
        within=float((np.abs(real) < 0.5).mean()),
        within_gaussian=float((np.abs(gaussian) < 0.5).mean()),
        outside=float((np.abs(real) > 3).mean()),
        outside_gaussian=float((np.abs(gaussian) > 3).mean()),
    )


def _beside(real: NDArray[np.float64], gaussian: NDArray[np.float64], texts: Texts) -> Picture:
    """Activations in their standard deviations, and as many draws of a Gaussian."""
    shown = {
        texts("activations.gaussian"): gaussian[np.abs(gaussian) <= SHOWN],
        texts("activations.real"): real[np.abs(real) <= SHOWN],
    }
    return picture(
        texts,
        "activations.activations",
        lambda title: figures.histogram(
            shown,
            unit=texts("activations.unit"),
            title=title,
            bins=60,
            counted=texts("activations.counted"),
        ),
        n=real.size,
        shown=SHOWN,
        beyond=int((np.abs(real) > SHOWN).sum()),
        largest=float(np.abs(real).max()),
    )


def _by_layer(states: NDArray[np.float64], texts: Texts) -> Picture:
    return picture(
        texts,
        "activations.kurtosis-by-layer",
        lambda title: figures.series(
            {texts("activations.real"): (np.arange(len(states)), kurtosis(states))},
            x_title=texts("activations.x"),
            y_title=texts("activations.kurtosis"),
            title=title,
            levels={texts("activations.gaussian"): 0.0},
        ),
    )
