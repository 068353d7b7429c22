"""Effects: what a sweep measured, with named dimensions, real coordinates and provenance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from microtome.amounts import many
from microtome.errors import EffectsError, did_you_mean, listing, there_are
from microtome.figures import Drawn, Look, effect_map, png_of, style
from microtome.figures.choice import Only, Order, chosen
from microtome.figures.mapped import NOISE_FLOOR, WHY_EXACT
from microtome.figures.pictures import refuse_file
from microtome.figures.view import cut
from microtome.notebook import html_line, html_picture, html_table
from microtome.readings.inside import PREFIX
from microtome.readings.registry import about
from microtome.results import audits, over_prompts, places, roles
from microtome.results.audits import APPROXIMATE
from microtome.results.told import told_by
from microtome.spoken import spoken
from microtome.stats import MapTest, max_statistic
from microtome.stats.aligned import why_apart
from microtome.stats.samples import PROMPT

RECEIPTS = ("values_changed", "change_norm", "refined", WHY_EXACT)
CLEAN = "clean_"
SCREEN = "screen_clean_"


@spoken
@dataclass(frozen=True, eq=False)
class Effects:
    """The labelled result of a sweep.

    Attributes:
        data: for each metric a variable over ``prompt``, the stars and the ``over=`` parameters,
            and ``clean_<metric>`` over ``prompt``: the same without edits. Metrics inside the
            model have dimensions of their own after these, ``at_layer`` and so on. With ``top1``
            comes ``top1_token``, its text. ``values_changed`` and ``change_norm`` are the
            receipts of every cell: how many values its edits changed, and the L2 norm of that.
            Where that is none, the cell's metrics are the clean run's own. A cell that does not
            exist is NaN (-1 and "" for ``top1``). Where a map was screened,
            ``refined`` says which cells are in the model's own type; the effects of the others
            are against ``screen_clean_<metric>``, the clean run in their type. Where it was
            approximated, ``why_exact`` says which cells are exact all the same (1, they are the
            strongest; 2, they were drawn; 0, they are approximate), and ``approximate_<metric>``
            has the approximate values of all.
    """

    data: xr.Dataset

    def __post_init__(self) -> None:
        for metric in self.metrics:
            if CLEAN + metric not in self.data:
                raise EffectsError(f"The data has {metric!r} but not its clean value.")

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics measured, in the order in which they were asked for."""
        stored = self.data.attrs.get("metrics")
        if stored is not None:
            return tuple(name for name in stored if name in self.data)
        # A result of before the list was stored. Metrics are numbers; texts stand beside some.
        return tuple(
            name
            for name, values in ((str(n), v) for n, v in self.data.data_vars.items())
            if not name.startswith((CLEAN, SCREEN, APPROXIMATE))
            and values.dtype.kind not in "OSTU"
            and name not in RECEIPTS
        )

    @property
    def provenance(self) -> dict[str, Any]:
        """What is needed to repeat this: model, versions, seed, and the question itself."""
        return told_by(self.data)

    @property
    def dims(self) -> tuple[str, ...]:
        """The dimensions of the map, ``prompt`` first."""
        return tuple(map(str, self.data["values_changed"].dims))

    @property
    def n_cells(self) -> int:
        """How many cells there are; those that do not exist are not counted."""
        return int(self.data["values_changed"].notnull().sum())

    @property
    def n_unchanged(self) -> int:
        """How many cells there are whose edits left every value as it was."""
        return int((self.data["values_changed"] == 0).sum())

    def clean(self, metric: str) -> xr.DataArray:
        """The metric without edits, per prompt."""
        return self.data[CLEAN + self._known(metric)]

    def baseline(self, metric: str) -> xr.DataArray:
        """What an effect is measured against: the metric without edits.

        Per prompt; where a map was screened per cell, in the cell's own type.
        """
        clean = self.clean(metric)
        if "refined" not in self.data:
            return clean
        return clean.where(self.data["refined"], self.data[SCREEN + metric])

    def delta(self, metric: str) -> xr.DataArray:
        """The effect: the metric in each cell − the clean metric.

        Raises:
            EffectsError: the metric was not measured, or is a token id and has no difference.
        """
        if about(self._known(metric)).unit == "token id":
            raise EffectsError(
                f"{metric!r} is a token id, which cannot be subtracted: compare "
                f"effects.data[{metric!r}] with effects.clean({metric!r}) instead."
            )
        delta = self.data[metric] - self.baseline(metric)
        delta = delta.transpose(*self.data[metric].dims)
        return delta.rename(metric).assign_attrs(self.data[metric].attrs)

    @property
    def method(self) -> str:
        """How effects came about: ``"exact"``, or the approximation, as its text."""
        return str(self.provenance.get("method", "exact"))

    def approximate(self, metric: str) -> xr.DataArray:
        """The approximate effects of all cells, of those that are exact as well.

        Raises:
            EffectsError: the map was not approximated, or the metric was not measured.
        """
        return audits.approximate(self, metric)

    def audit(self, metric: str | None = None) -> Mapping[str, Any]:
        """What the exact cells say of an approximate map; docs/approximations.md names each number.

        Raises:
            EffectsError: as `approximate`.
        """
        return audits.audit(self, metric or self.metrics[0])

    def audit_figure(self, metric: str | None = None) -> Drawn:
        """Approximate effects against exact ones, with the diagonal.

        Raises:
            EffectsError: as `approximate`.
        """
        return Drawn(audits.figure(self, metric or self.metrics[0]))

    def evidence(self, metric: str) -> xr.DataArray:
        """The effect where the edits changed something; elsewhere absent (NaN).

        What changed nothing has an effect of exactly 0 in `delta`, which says nothing of what the
        edits do: statistics are made of this.

        Raises:
            EffectsError: as `delta`.
        """
        return over_prompts.evidence(self, metric)

    def over_prompts(self, metric: str | None = None) -> MapTest:
        """Each cell's mean over the prompts, with its interval and a p value for all together.

        A prompt in which a cell's edits changed nothing is no evidence, and not among its n. See
        `microtome.stats.max_statistic`; a table of the same is `top`.

        Raises:
            EffectsError: as `delta`.
            StatisticsError: fewer than two prompts, or they are of different lengths and the map is
                over positions: see `by_role`.
        """
        return max_statistic(self.evidence(metric or self.metrics[0]))

    def by_role(self) -> Effects:
        """The same result over the prompts' roles in the place of positions.

        Prompts of different lengths have roles in common, and not positions. ``pos`` becomes
        ``role`` (``q_pos`` ``q_role``, and so on), with the names of the roles in the order in
        which they stand, ``last`` among them; ``role_position`` and ``role_token`` say what that
        is in each prompt. Where a prompt has no such role, its cells are absent.

        Raises:
            EffectsError: the map is not over positions.

        >>> import microtome as mt
        >>> prompts = [mt.Prompt("Sam ran", roles={"who": "Sam"}),
        ...            mt.Prompt("Then Sally ran", roles={"who": "Sally"})]
        >>> mt.sweep(mt.load(), prompts, "zero L*.resid_post@*", metrics="kl").by_role().dims
        ('prompt', 'layer', 'role')
        """
        return Effects(roles.by_role(self.data))

    def groups(self, name: str) -> dict[Any, Effects]:
        """The result of each group of prompts that have the same value of a coordinate.

        Those that have none are a group too, of "" or NaN.

        Args:
            name: a coordinate of prompts, such as a column of the file that they were read from.

        Raises:
            EffectsError: there is no such coordinate.
        """
        known = [str(key) for key, one in self.data.coords.items() if one.dims == (PROMPT,)]
        if name not in known:
            raise EffectsError(
                f"Prompts have no coordinate {name!r} to be grouped by; there are: "
                f"{listing(known)}.{did_you_mean(name, known)}"
            )
        # No NaN equals another: prompts without a number are one group all the same.
        codes, kinds = pd.factorize(self.data[name].values, use_na_sentinel=False)
        return {
            value: Effects(self.data.isel({PROMPT: codes == n}))
            for n, value in enumerate(kinds.tolist())
        }

    def noise_floor(self, metric: str) -> float | None:
        """The largest effect of cells that change nothing, measured beside the others.

        An effect that is no larger may be rounding. None where it was not measured: in a result of
        an older microtome, and for token ids.
        """
        found = self.data[self._known(metric)].attrs.get(NOISE_FLOOR)
        return None if found is None else float(found)

    def top(
        self, n: int | None = 10, metric: str | None = None, *, over: str | None = PROMPT
    ) -> pd.DataFrame:
        """The n cells with the largest effects, by absolute value, the largest first.

        Args:
            n: how many; None: all.
            metric: the first one measured, unless given.
            over: ``"prompt"``, where there are several: means over them. None: a row for each cell
                of each prompt.

        Returns:
            A row per cell: its coordinates, ``clean``, ``edited`` and ``effect``; ``above_noise``
            says whether the effect is larger than the noise floor. Over several prompts these are
            means, with ``low`` and ``high``, the effect's 95 % t interval; ``p``, corrected for all
            cells of the map; ``significant``; ``n``, the prompts in which the edits changed
            something, and ``unchanged``, those in which they did not.

        Raises:
            EffectsError: as `delta`; or the map is over positions, and over prompts of different
                lengths: see `by_role`.
        """
        metric = metric or self.metrics[0]
        if over not in (PROMPT, None):
            raise EffectsError(f"over= is 'prompt', or None for each prompt, not {over!r}.")
        if over == PROMPT and self.data.sizes[PROMPT] > 1:
            return over_prompts.largest(self.table(metric), n)
        delta = self.delta(metric)
        table = xr.Dataset(
            {"clean": self.baseline(metric), "edited": self.data[metric], "effect": delta}
        )
        frame = _frame(table).dropna(subset=["effect"])
        frame["above_noise"] = frame["effect"].abs() > (self.noise_floor(metric) or 0.0)
        return over_prompts.largest(frame, n)

    def table(self, metric: str | None = None) -> pd.DataFrame:
        """A row per cell of the map, over the prompts: what `top` has, in the order of the map.

        Raises:
            EffectsError: as `top`.
        """
        metric = metric or self.metrics[0]
        if why := why_apart(self.delta(metric)):
            raise EffectsError(f"{why} A row for each prompt: effects.top(n, metric, over=None).")
        return over_prompts.table(self, metric)

    def to_dataframe(self) -> pd.DataFrame:
        """A row per cell that exists: coordinates, every metric with its clean value, receipts.

        Without the metrics inside the model, which have many values in a cell: for these take
        ``effects.data[metric].to_dataframe()``.
        """
        inner = [name for name in map(str, self.data.dims) if name.startswith(PREFIX)]
        data = self.data.drop_dims(inner)
        return _frame(data).dropna(subset=["values_changed"]).reset_index(drop=True)

    def figure(
        self,
        metric: str | None = None,
        *,
        title: str | None = None,
        labels: Mapping[str, str] | None = None,
        size: tuple[float, float] | None = None,
        colors: str | Sequence[str] | None = None,
        limit: float | None = None,
        only: Only | None = None,
        order: Order | None = None,
        **at: Any,
    ) -> Drawn:
        """The map of the effects on a metric: a heatmap over two dimensions, a curve over one.

        It is a plotly figure, and its ``save`` writes SVG and PDF for papers, PNG and HTML.

        Args:
            metric: the first one measured, unless given.
            title, labels, size, colors, limit: how it looks; see `microtome.figures.Look`.
            only: some coordinates alone: ``{"layer": range(19, 24)}``, or ``slice(19, None)``.
            order: a dimension, or several, sorted by the size of the effects; or, for each, its
                coordinates in order: ``"head"``, ``{"head": [3, 0, 1]}``.
            **at: coordinates of the dimensions that are not to be drawn, such as ``pos=3``.
                Several prompts are averaged unless ``prompt=`` picks one.

        Raises:
            EffectsError: more than two dimensions are left; or something names what is not there.

        >>> import microtome as mt
        >>> prompt = mt.Prompt("Berlin is the capital of", target=" Germany")
        >>> effects = mt.sweep(mt.load(), prompt, mt.zero("L*.z.h*"), metrics="prob")
        >>> figure = effects.figure(title="Heads", only={"layer": range(3, 6)}, order="head")
        >>> figure.layout.title.text, figure.data[0].z.shape
        ('Heads', (3, 8))
        """
        metric = metric or self.metrics[0]
        look = Look(title, dict(labels or {}), size, colors, limit)
        part = self
        if only is not None or order is not None:
            part = Effects(self.data.isel(chosen(self.delta(metric), only, order)))
        return Drawn(look.on(effect_map(part, metric, **at)))

    def save(self, path: str | Path) -> str | Path:
        """Write to a zarr directory (the usual name ends in ``.zarr``), in the place of any there.

        Or to an address of fsspec's, such as ``s3://bucket/map.zarr``, with what such a store can
        promise (`microtome.results.remote`).

        An older result stays until the new one is complete, whatever happens meanwhile.

        Raises:
            EffectsError: something that is not a saved result is in the way, somebody else is
                writing there, or the system refuses; or the name is that of a picture or a table.
        """
        refuse_file(path)
        places.write(path, self.data)
        return places.named(path)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name}: {size}" for name, size in self.data.sizes.items())
        return f"<Effects of {many(self.n_cells, 'cell')} ({sizes}) on {listing(self.metrics)}>"

    def _repr_html_(self) -> str:
        """In a notebook: the map of the first metric, and its strongest cells."""
        drawn = [name for name in self.metrics if about(name).unit != "token id"][:1]
        parts = [html_line(repr(self))]
        for metric in drawn:
            parts += [*_map_of(self, metric), _strongest_of(self, metric)]
        return "".join(parts)

    def _known(self, metric: str) -> str:
        return measured(metric, self.metrics)


def measured(metric: str, metrics: Sequence[str]) -> str:
    """A metric, if it is one of those of a result.

    Raises:
        EffectsError: it is not.
    """
    if metric not in metrics:
        raise EffectsError(f"{metric!r} was not measured; {there_are(metric, metrics)}")
    return metric


def _map_of(effects: Effects, metric: str) -> Iterator[str]:
    """Its map as a picture; of one with more than two dimensions the cut through its strongest."""
    delta = effects.delta(metric).notnull()
    if not bool(delta.any()) or all(n == 1 for name, n in delta.sizes.items() if name != "prompt"):
        return
    part = effects.by_role() if why_apart(effects.delta(metric)) else effects
    figure = part.figure(metric, **cut(part, metric))
    yield html_picture(png_of(figure), int(figure.layout.width or style.WIDTH))


def _strongest_of(effects: Effects, metric: str) -> str:
    part = effects.by_role() if why_apart(effects.delta(metric)) else effects
    top = part.top(5, metric).drop(columns="text", errors="ignore")
    rows = top.astype(object).values.tolist()
    return html_table(tuple(map(str, top.columns)), rows, f"Strongest effects on {metric}")


def _frame(data: xr.Dataset) -> pd.DataFrame:
    dims = max((x.dims for x in data.values()), key=len)
    frame = data.to_dataframe(dim_order=list(dims)).reset_index()
    first = [name for name in map(str, dims) if name in frame]
    return frame[[*first, *(c for c in frame.columns if c not in first)]]
