"""Aggregates: what a sweep says of each cell over all prompts, without what it says of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from microtome.amounts import many
from microtome.errors import EffectsError, listing
from microtome.figures import Drawn
from microtome.figures.mapped import NOISE_FLOOR, cells_of
from microtome.figures.pictures import refuse_file
from microtome.readings.inside import PREFIX
from microtome.readings.registry import about
from microtome.results import over_prompts, places
from microtome.results.alike import asked, circumstances
from microtome.results.effects import CLEAN, Effects, measured
from microtome.results.identity import difference
from microtome.results.together import together
from microtome.results.told import as_text, told_by
from microtome.spoken import spoken
from microtome.stats import LEVEL, MapTest
from microtome.stats.aligned import why_apart
from microtome.stats.averaged import CHANGED
from microtome.stats.running import COLUMNS, Running
from microtome.stats.samples import PROMPT, Array

FLIP, FLIPPED = "flip", "flipped"
KIND = "aggregates"


@spoken
@dataclass(frozen=True, eq=False)
class Aggregates:
    """Means, intervals and the null of the largest statistic, of every cell of a map.

    A prompt is counted and forgotten, so this is as large after 10⁵ prompts as after one. It is
    what the same prompts give when they are kept (`Aggregates.of`), bit for bit.

    Attributes:
        data: per metric what `microtome.stats.running.Running` knows of each cell, such as
            ``n_prob``, ``mean_prob`` and ``flipped_prob``; use `table` and `over_prompts`.
    """

    data: xr.Dataset

    @classmethod
    def of(
        cls, effects: Effects, *, first: int = 0, seed: int = 0, flips: int | None = None
    ) -> Aggregates:
        """The aggregates of a result whose prompts were kept.

        Args:
            effects: the result.
            first: the number of its first prompt, where others come before it.
            seed: of the flips' signs.
            flips: how many; 1,000 unless given, or fewer on maps of many cells.

        Raises:
            EffectsError: a metric is a token id, which has no mean.
            EffectsError: the map is over positions, and prompts are of different lengths.
        """
        found: dict[str, Any] = {}
        for metric in effects.metrics:
            cells = _cells(effects, metric)
            shape = cells["effect"].isel({PROMPT: 0}, drop=True)
            empty = Running.empty(shape.size, first=first, seed=seed, flips=flips)
            found |= _variables(metric, _added(empty, cells), shape)
        attributes = {
            "kind": KIND,
            "metrics": list(effects.metrics),
            "first": first,
            "prompts": effects.data.sizes[PROMPT],
            "seed": seed,
            "provenance": effects.data.attrs["provenance"],
        }
        return cls(_with_noise(xr.Dataset(found, attrs=attributes), effects.data))

    def extended(self, effects: Effects) -> Aggregates:
        """With the prompts of another result, which come right after these.

        Raises:
            EffectsError: it is another map, or of another question.
        """
        self._check_asked(effects.metrics, effects.provenance)
        found: dict[str, Any] = {}
        for metric in self.metrics:
            cells = _cells(effects, metric)
            shape = cells["effect"].isel({PROMPT: 0}, drop=True)
            self._check_same(metric, shape)
            found |= _variables(metric, _added(self._running(metric), cells), shape)
        prompts = self.prompts + effects.data.sizes[PROMPT]
        data = xr.Dataset(found, attrs={**self.data.attrs, "prompts": prompts})
        return Aggregates(_with_noise(_with_noise(data, self.data), effects.data))

    def merged(self, other: Aggregates) -> Aggregates:
        """With other aggregates, of the prompts that come right after these (``first=``).

        Equal to those of all prompts one after another, but for rounding.

        Raises:
            EffectsError: they are of another map, or of another question.
            StatisticsError: their prompts are not the next ones, or they have another seed.
        """
        self._check_asked(other.metrics, other.provenance)
        found: dict[str, Any] = {}
        for metric in self.metrics:
            shape = other._shape(metric)
            self._check_same(metric, shape)
            both = self._running(metric).merged(other._running(metric))
            found |= _variables(metric, both, shape)
        one, two = self.provenance, other.provenance
        told = {**together(one, two), "parts": [*self._parts, *other._parts]}
        told.pop("stream", None)
        attributes = {
            **self.data.attrs,
            "prompts": self.prompts + other.prompts,
            "provenance": as_text(told),
        }
        data = xr.Dataset(found, attrs=attributes)
        return Aggregates(_with_noise(_with_noise(data, self.data), other.data))

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics measured."""
        return tuple(self.data.attrs["metrics"])

    @property
    def prompts(self) -> int:
        """How many prompts there were."""
        return int(self.data.attrs["prompts"])

    @property
    def dims(self) -> tuple[str, ...]:
        """The dimensions of the map."""
        return tuple(map(str, self._shape(self.metrics[0]).dims))

    @property
    def provenance(self) -> dict[str, Any]:
        """What is needed to repeat this, as in `Effects`; the prompts by their digest."""
        return told_by(self.data)

    def noise_floor(self, metric: str) -> float | None:
        """The largest effect of cells that change nothing, in any prompt."""
        found = self.data[f"mean_{self._known(metric)}"].attrs.get(NOISE_FLOOR)
        return None if found is None else float(found)

    def over_prompts(self, metric: str | None = None) -> MapTest:
        """Each cell's mean with its interval and a p value for all together.

        As `Effects.over_prompts`, but for the flips, which are always drawn.

        Raises:
            StatisticsError: fewer than two prompts.
        """
        metric = self._known(metric or self.metrics[0])
        return self._running(metric).tested(self._shape(metric))

    def table(self, metric: str | None = None) -> pd.DataFrame:
        """A row per cell of the map, in its order, with the columns of `Effects.table`.

        But for what is beside positions, of which each prompt has its own: tokens and roles.

        Raises:
            StatisticsError: fewer than two prompts.
        """
        metric = self._known(metric or self.metrics[0])
        running, test = self._running(metric), self.over_prompts(metric)
        told = running.told
        n = np.where(told > 0, told, running.unchanged)
        clean = np.where(told > 0, running.clean, running.clean_unchanged)
        edited = np.where(told > 0, running.edited, running.clean_unchanged)
        shape = test.value
        found = xr.Dataset(
            {
                "effect": shape,
                "clean": shape.copy(data=_ratio(clean, n).reshape(shape.shape)),
                "edited": shape.copy(data=_ratio(edited, n).reshape(shape.shape)),
                **{name: getattr(test, name) for name in ("low", "high", "p")},
                "n": shape.copy(data=told.reshape(shape.shape)).astype(int),
                "unchanged": shape.copy(data=running.unchanged.reshape(shape.shape)).astype(int),
            }
        )
        found["above_noise"] = np.abs(found["effect"]) > (self.noise_floor(metric) or 0.0)
        found["significant"] = (found["p"] < LEVEL) & found["above_noise"]
        if not found.dims:
            return pd.DataFrame([{str(k): one.item() for k, one in found.data_vars.items()}])
        frame = found.to_dataframe(dim_order=[*map(str, shape.dims)]).reset_index()
        return frame.dropna(subset=["effect"]).reset_index(drop=True)

    def top(self, n: int | None = 10, metric: str | None = None) -> pd.DataFrame:
        """The n cells with the largest mean effects, by absolute value, the largest first.

        Raises:
            StatisticsError: fewer than two prompts.
        """
        return over_prompts.largest(self.table(metric), n)

    def mean_effects(self, metric: str | None = None) -> Effects:
        """The mean effects on a metric as those of one prompt, to be drawn; its clean value is 0.

        Receipts are the prompts that are evidence.
        """
        metric = self._known(metric or self.metrics[0])
        shape, running = self._shape(metric), self._running(metric)
        mean = shape.copy(data=running.value.reshape(shape.shape)).expand_dims({PROMPT: [0]})
        told = shape.copy(data=running.told.reshape(shape.shape)).expand_dims({PROMPT: [0]})
        told = told.where(mean.notnull())
        inner = [name for name in map(str, shape.dims) if name.startswith(PREFIX)]
        receipts = told.isel(dict.fromkeys(inner, 0), drop=True)
        data = xr.Dataset(
            {
                metric: mean.assign_attrs(shape.attrs),
                CLEAN + metric: xr.zeros_like(mean).isel(_outer(shape, inner), drop=True),
                "values_changed": receipts,
                "change_norm": receipts,
            },
            attrs={"metrics": [metric], "provenance": self.data.attrs["provenance"]},
        )
        return Effects(data.assign_coords(text=(PROMPT, [many(self.prompts, "prompt")])))

    def figure(self, metric: str | None = None, **how: Any) -> Drawn:
        """The map of the mean effects; arguments as `Effects.figure` takes them."""
        return self.mean_effects(metric).figure(metric or self.metrics[0], **how)

    def save(self, path: str | Path) -> str | Path:
        """Write to a zarr directory or store, as `Effects.save`; `open_aggregates` opens it.

        Raises:
            EffectsError: as `Effects.save`.
        """
        refuse_file(path)
        places.write(path, self.data)
        return places.named(path)

    def __repr__(self) -> str:
        shape = self._shape(self.metrics[0])
        sizes = ", ".join(f"{name}: {size}" for name, size in shape.sizes.items())
        return (
            f"<Aggregates over {many(self.prompts, 'prompt')} ({sizes}) on {listing(self.metrics)}>"
        )

    def _shape(self, metric: str) -> xr.DataArray:
        return self.data[f"mean_{metric}"]

    def _running(self, metric: str) -> Running:
        columns = {name: self.data[f"{name}_{metric}"].values.ravel() for name in COLUMNS}
        flipped = self.data[f"{FLIPPED}_{metric}"].values
        told = self.data.attrs
        return Running(
            told["first"],
            told["prompts"],
            told["seed"],
            **columns,
            flipped=flipped.reshape(len(flipped), -1),
        )

    @property
    def _parts(self) -> list[Any]:
        """Which prompts there were: of each part that was put together, in order."""
        told = self.provenance
        own = {**told.get("stream", {}), "n": self.prompts, **circumstances(told)}
        return list(told.get("parts", [own]))

    def _check_asked(self, metrics: Sequence[str], told: Mapping[str, Any]) -> None:
        """Raise where what is to be added answers another question, or for another model."""
        if tuple(metrics) != self.metrics:
            raise EffectsError(
                f"These aggregates are of {listing(self.metrics)}, and what is added is of "
                f"{listing(metrics)}: only the same metrics are counted together."
            )
        mine, theirs = asked(self.provenance), asked(told)
        if mine != theirs:
            raise EffectsError(
                "These aggregates and what is added answer different questions, or are of "
                f"different models ({difference(theirs, mine)}): only prompts of one question to "
                "one model are counted together."
            )

    def _check_same(self, metric: str, other: xr.DataArray) -> None:
        mine = self._shape(metric)
        if mine.dims != other.dims or not mine.coords.to_dataset().equals(
            other.coords.to_dataset()
        ):
            raise EffectsError(
                f"These aggregates are of the map {_spelled(mine)}, and what is added is "
                f"{_spelled(other)}: only cells of one map are counted together. Over positions, "
                "prompts are of one length; keep='cells' keeps them apart."
            )

    def _known(self, metric: str) -> str:
        return measured(metric, self.metrics)


@spoken
def open_aggregates(path: str | Path) -> Aggregates:
    """Aggregates that a sweep with ``keep="aggregates"`` or `Aggregates.save` wrote.

    Raises:
        EffectsError: there are none, or what is there is a result with its prompts.
    """
    data = places.read(path)
    if data.attrs.get("kind") != KIND:
        raise EffectsError(
            f"{path} is a result with its prompts: open_effects({str(path)!r}). "
            "Aggregates.of(effects) makes aggregates of it."
        )
    return Aggregates(data)


def refuse_ids(metrics: Iterable[str]) -> None:
    """Raise for metrics that cannot be aggregated.

    Raises:
        EffectsError: one is a token id.
    """
    for metric in metrics:
        if about(metric).unit == "token id":
            raise EffectsError(
                f"{metric!r} is a token id, of which there is no mean over prompts: leave it out, "
                "or keep='cells'."
            )


def _cells(effects: Effects, metric: str) -> xr.Dataset:
    refuse_ids([metric])
    if why := why_apart(effects.delta(metric)):
        raise EffectsError(f"{why} Aggregates.of(effects.by_role()) counts them by role.")
    cells = cells_of(effects, metric)
    of_prompts = [name for name, one in cells.coords.items() if PROMPT in one.dims]
    dims = effects.delta(metric).dims
    return cells.drop_vars(of_prompts).transpose(*dims)


def _added(running: Running, cells: xr.Dataset) -> Running:
    rows = (cells[name].values.astype(np.float64) for name in ("edited", "clean", CHANGED))
    edited, clean, changed = (one.reshape(len(one), -1) for one in rows)
    return running.added(edited, clean, changed)


def _variables(metric: str, running: Running, shape: xr.DataArray) -> dict[str, xr.DataArray]:
    found = {}
    for name in COLUMNS:
        own = getattr(running, name).reshape(shape.shape)
        found[f"{name}_{metric}"] = xr.DataArray(own, shape.coords, shape.dims)
    flipped = running.flipped.reshape(-1, *shape.shape)
    found[f"{FLIPPED}_{metric}"] = xr.DataArray(flipped, shape.coords, (FLIP, *shape.dims))
    return found


def _with_noise(data: xr.Dataset, other: xr.Dataset) -> xr.Dataset:
    """The same with the attributes of other's metrics, and the larger noise floor of both."""
    for metric in data.attrs["metrics"]:
        own = data[f"mean_{metric}"].attrs
        name = f"mean_{metric}" if f"mean_{metric}" in other else metric
        more = dict(other[name].attrs)
        floors = [one[NOISE_FLOOR] for one in (own, more) if NOISE_FLOOR in one]
        own.update(more)
        if floors:
            own[NOISE_FLOOR] = max(floors)
    return data


def _outer(shape: xr.DataArray, inner: list[str]) -> dict[str, int]:
    """The dimensions of the map itself, without those of a metric inside the model."""
    return {name: 0 for name in map(str, shape.dims) if name not in inner}


def _ratio(sums: Array, n: Array) -> Array:
    found = np.full(sums.shape, np.nan)
    np.divide(sums, n, out=found, where=n > 0)
    return found


def _spelled(shape: xr.DataArray) -> str:
    return " × ".join(f"{name} {size}" for name, size in shape.sizes.items()) or "of one cell"
