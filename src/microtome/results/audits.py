"""What an approximate map says of itself: approximate effects, and the exact ones beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from microtome.errors import EffectsError
from microtome.figures.mapped import WHY_EXACT, Mapped
from microtome.figures.points import points
from microtome.texts import number

APPROXIMATE = "approximate_"


def approximate(effects: Mapped, metric: str) -> xr.DataArray:
    """The approximate effects of all cells."""
    _refuse_exact(effects)
    exact = effects.delta(metric)
    found = effects.data[APPROXIMATE + metric] - effects.data["clean_" + metric]
    return found.transpose(*exact.dims).rename(metric).assign_attrs(exact.attrs)


def audit(effects: Mapped, metric: str) -> Mapping[str, Any]:
    """What the exact cells say of the approximate ones."""
    _refuse_exact(effects)
    effects.delta(metric)
    found: Mapping[str, Any] = effects.provenance["audit"]["metrics"][metric]
    return found


def figure(effects: Mapped, metric: str) -> go.Figure:
    """Approximate effects against exact ones, with the diagonal."""
    found = audit(effects, metric)
    exact, rough = effects.delta(metric), approximate(effects, metric)
    chosen = np.nonzero(effects.data[WHY_EXACT].transpose(*exact.dims).values > 0)
    unit = exact.attrs.get("unit", "")
    layers = None
    if "layer" in exact.dims:
        layers = exact["layer"].values[chosen[exact.dims.index("layer")]]
    return points(
        rough.values[chosen],
        exact.values[chosen],
        labels_of(exact, chosen),
        x_title=f"approximate effect on {metric}, {unit}",
        y_title=f"exact effect, {unit}",
        title=f"{effects.provenance['method']} against exact cells",
        identity=True,
        color=layers,
        color_title="layer",
        note="" if found["pearson"] is None else f"r = {number(found['pearson'])}",
    )


def labels_of(effect: xr.DataArray, chosen: tuple[np.ndarray, ...]) -> list[str]:
    """What each of some cells is: ``prompt 0 layer 3 head 1``."""
    rows = zip(*(where.tolist() for where in chosen), strict=True)
    names = [str(name) for name in effect.dims]
    return [
        " ".join(f"{name} {effect[name].values[at]}" for name, at in zip(names, row, strict=True))
        for row in rows
    ]


def _refuse_exact(effects: Mapped) -> None:
    if WHY_EXACT not in effects.data:
        raise EffectsError(
            "This map is exact: nothing of it was approximated. Ask for one with "
            "sweep(…, method='atp')."
        )
