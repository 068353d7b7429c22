"""What was measured, with the names of its dimensions and their coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from transformers import PreTrainedTokenizerBase

from microtome.engines.approximate.audit import Audited
from microtome.engines.assembled import Assembled
from microtome.engines.block import Array
from microtome.engines.screen import Screening
from microtome.figures.mapped import NOISE_FLOOR, WHY_EXACT
from microtome.language.sites import POSITIONS, counted
from microtome.plan.plan import Plan
from microtome.plan.question import coordinate
from microtome.prompts.encoding import Encoded, piece
from microtome.readings.inside import Gauge, dimension_of
from microtome.readings.output import Reading
from microtome.readings.registry import Asked
from microtome.results.audits import APPROXIMATE
from microtome.results.effects import CLEAN, SCREEN
from microtome.results.known import known
from microtome.results.roles import BETWEEN
from microtome.results.roles import beside as beside_of


def label(
    plan: Plan,
    tokenizer: PreTrainedTokenizerBase,
    measured: Assembled,
    beside: Screening | Audited | None = None,
) -> xr.Dataset:
    """All cells of a plan as variables over its axes, each metric with its clean value."""
    variables: dict[str, Any] = {}
    dims = tuple(axis.name for axis in plan.axes)
    for asked in plan.question.asked:
        if isinstance(asked, Gauge):
            variables |= _inside(asked, measured, dims)
        else:
            variables |= _output(asked, measured, dims, tokenizer)
    variables["values_changed"] = (dims, measured.changed, {"unit": "values"})
    if isinstance(beside, Screening):
        variables |= _screened(plan.question.asked, beside, dims)
    if isinstance(beside, Audited):
        variables |= _audited(plan.question.readings, beside, dims)
    norm_of = {"unit": "L2 norm of the activations' change"}
    variables["change_norm"] = (dims, measured.norm, norm_of)
    names = [str(asked) for asked in plan.question.asked]
    coordinates = _coordinates(plan, measured)
    metas = [one.prompt.meta for one in plan.question.encoded]
    coordinates |= known(metas, {*variables, *coordinates})
    return xr.Dataset(variables, coordinates, {"metrics": names})


def _output(
    reading: Reading,
    measured: Assembled,
    dims: tuple[str, ...],
    tokenizer: PreTrainedTokenizerBase,
) -> dict[str, Any]:
    name, attributes = str(reading), _attributes(reading)
    values, clean = measured.values[name], measured.clean[name]
    found: dict[str, Any] = {}
    if reading.metric.name == "top1":
        found[f"{name}_token"] = _told(dims, _token_texts(values, tokenizer))
        found[f"{CLEAN}{name}_token"] = _told("prompt", _token_texts(clean, tokenizer))
    found[name] = (dims, _numbers(values, reading), attributes | _noise(name, measured))
    found[CLEAN + name] = ("prompt", _numbers(clean, reading), attributes)
    return found


def _inside(gauge: Gauge, measured: Assembled, dims: tuple[str, ...]) -> dict[str, Any]:
    name, attributes = str(gauge), _attributes(gauge)
    return {
        name: ((*dims, *gauge.dims), measured.inside[name], attributes | _noise(name, measured)),
        CLEAN + name: (("prompt", *gauge.dims), measured.clean_inside[name], attributes),
    }


def _screened(asked: Sequence[Asked], screened: Screening, dims: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {"refined": (dims, screened.refined)}
    for one in asked:
        name, attributes = str(one), _attributes(one)
        if isinstance(one, Gauge):
            found[SCREEN + name] = (("prompt", *one.dims), screened.clean_inside[name], attributes)
        else:
            found[SCREEN + name] = ("prompt", screened.clean[name], attributes)
    return found


def _audited(readings: Sequence[Reading], found: Audited, dims: tuple[str, ...]) -> dict[str, Any]:
    about = {"about": "1 strongest, 2 drawn, 3 in doubt: computed exactly; 0: approximate"}
    variables: dict[str, Any] = {WHY_EXACT: (dims, found.why, about)}
    for one in readings:
        values = found.approximate[str(one)]
        variables[APPROXIMATE + str(one)] = (dims, values, _attributes(one))
    return variables


def _coordinates(plan: Plan, measured: Assembled) -> dict[str, Any]:
    encoded = plan.question.encoded
    found: dict[str, Any] = {
        axis.name: [coordinate(value) for value in axis.values] for axis in plan.axes
    }
    found["text"] = _told("prompt", _texts([one.tokens.text for one in encoded]))
    for axis in plan.axes:
        if counted(axis.name) in POSITIONS:
            pieces = _told(("prompt", axis.name), _pieces(encoded, len(axis.values)))
            found["token" if axis.name == "pos" else f"{axis.name}_token"] = pieces
            found |= _roles(encoded, axis.name, len(axis.values))
    for gauge in (one for one in plan.question.asked if isinstance(one, Gauge)):
        shape = measured.clean_inside[str(gauge)].shape[1:]
        for name, size in zip(gauge.dims, shape, strict=True):
            found[name] = list(range(size))
            if dimension_of(name) in POSITIONS:
                found[f"{name}_token"] = _told(("prompt", name), _pieces(encoded, size))
                found |= _roles(encoded, name, size)
    return found


def _attributes(reading: Asked) -> dict[str, Any]:
    metric = reading.metric
    return {"about": metric.about, "unit": metric.unit, "direction": metric.direction}


def _noise(name: str, measured: Assembled) -> dict[str, float]:
    """The noise floor of a metric, where it has one."""
    return {NOISE_FLOOR: measured.noise[name]} if name in measured.noise else {}


def _numbers(values: Array, reading: Reading) -> np.ndarray[Any, Any]:
    """Token ids as integers, -1 where there is none; anything else as it is."""
    if reading.metric.unit != "token id":
        return values
    return np.nan_to_num(values, nan=-1).astype(np.int64)


def _told(dims: str | tuple[str, ...], texts: np.ndarray[Any, Any]) -> xr.Variable:
    """Texts over some dimensions, as they are: pandas would look for dates among them."""
    return xr.Variable(dims, texts, fastpath=True)


def _texts(texts: Sequence[str]) -> np.ndarray[Any, Any]:
    return np.array(texts, dtype=object)


def _pieces(encoded: Sequence[Encoded], longest: int) -> np.ndarray[Any, Any]:
    pieces = np.full((len(encoded), longest), "", dtype=object)
    for row, one in enumerate(encoded):
        pieces[row, : len(one.tokens)] = one.tokens.pieces
    return pieces


def _roles(encoded: Sequence[Encoded], dimension: str, longest: int) -> dict[str, Any]:
    """Which role each token has, beside a dimension of positions; nothing where there is none."""
    if not any(one.tokens.places for one in encoded):
        return {}
    names = np.full((len(encoded), longest), "", dtype=object)
    for row, one in enumerate(encoded):
        for role in one.tokens.places:
            at = row, one.tokens.role(role)
            names[at] = BETWEEN.join(filter(None, (names[at], role)))
    return {beside_of(dimension): _told(("prompt", dimension), names)}


def _token_texts(
    ids: np.ndarray[Any, Any], tokenizer: PreTrainedTokenizerBase
) -> np.ndarray[Any, Any]:
    kinds, which = np.unique(ids, return_inverse=True)
    known = ["" if i != i else piece(int(i), tokenizer) for i in kinds.tolist()]
    return _texts(known)[which].reshape(ids.shape)
