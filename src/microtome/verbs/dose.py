"""A dose sweep: what an edit does for a behaviour, and what it costs on neutral text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from microtome.amounts import whole_of
from microtome.edits import Edit, as_edits
from microtome.engines.observer import Observer
from microtome.errors import EditError, EffectsError, MetricError, PromptError, listing
from microtome.figures import Drawn
from microtome.figures.labels import escaped
from microtome.figures.matrix import matrix
from microtome.figures.trade import trade
from microtome.language.sites import POSITIONS
from microtome.model.loaded import check_loaded
from microtome.notebook import html_line, html_table
from microtome.paths import settled
from microtome.plan.verify import Verify
from microtome.prompts.prompts import Given
from microtome.readings.registry import about
from microtome.results.effects import Effects
from microtome.results.opening import ONE, SEVERAL
from microtome.spoken import spoken
from microtome.texts import brief
from microtome.verbs.model import Model
from microtome.verbs.sweep import sweep

KL, PERPLEXITY = "kl", "perplexity"
COSTS: Mapping[str, str] = {
    KL: "KL on neutral text, nat per token",
    PERPLEXITY: "log10 of perplexity ÷ clean",
}
"""What the damage is measured as, and what a map of it shows."""


@spoken
@dataclass(frozen=True, eq=False)
class Dose:
    """What doses of an edit do, and what they cost.

    Attributes:
        data: over the edit's stars and the parameters in ``over=``: of each metric its mean over
            the prompts, and ``<metric>_effect``, the mean of its change; ``kl``, the mean over all
            tokens of the neutral texts of KL(clean ‖ edited), in nats; ``perplexity``, the
            exponential of the mean −log probability of their next tokens. Without edits:
            ``clean_<metric>`` and ``clean_perplexity``, one number each.
        behaviour: the sweep of the prompts, cell by cell.
        damage: a sweep of each neutral text, with metrics at each of its positions.
    """

    data: xr.Dataset
    behaviour: Effects
    damage: tuple[Effects, ...]

    @property
    def metrics(self) -> tuple[str, ...]:
        """What was measured of the behaviour."""
        return self.behaviour.metrics

    @property
    def provenance(self) -> dict[str, Any]:
        """What is needed to repeat the sweep of the behaviour; those of `damage` have their own."""
        return self.behaviour.provenance

    def table(self) -> pd.DataFrame:
        """A row for each dose: its coordinates, effects and costs."""
        names = [*(f"{metric}_effect" for metric in self.metrics), KL, PERPLEXITY]
        return self.data[names].to_dataframe().reset_index()

    def best(self, metric: str | None = None, *, kl: float, top: int = 5) -> pd.DataFrame:
        """The doses with the largest effects among those that cost little.

        Args:
            metric: the first that was measured unless given.
            kl: the most that they may cost, in nats per token.
            top: how many.

        Raises:
            MetricError: there is no such metric.
        """
        name = self._known(metric)
        rows = self.table()
        affordable = rows[rows[KL] <= kl]
        order = affordable[f"{name}_effect"].abs().sort_values(ascending=False).index
        return affordable.loc[order].head(whole_of(top, 0, "top")).reset_index(drop=True)

    def figure(self, of: str | None = None) -> Drawn:
        """The map of an effect or of a cost over two dimensions, such as layer × factor.

        Args:
            of: a metric of the behaviour (the first unless given), ``"kl"`` or ``"perplexity"``.

        Raises:
            EffectsError: there are not two dimensions.
            MetricError: there is no such metric.
        """
        if of == PERPLEXITY:
            ratio = self.data[PERPLEXITY] / self.data[f"clean_{PERPLEXITY}"]
            array = ratio.copy(data=np.log10(ratio.values))
            unit, diverging = COSTS[PERPLEXITY], True
        elif of == KL:
            array, unit, diverging = self.data[KL], COSTS[KL], False
        else:
            name = self._known(of)
            array, diverging = self.data[f"{name}_effect"], True
            unit = self._gain(name)
        if array.ndim != 2:
            raise EffectsError(
                f"A map has two dimensions, and these doses have {listing(array.dims) or 'none'}: "
                "use trade() for a picture of any number, or star the layer, layers='*'."
            )
        return Drawn(matrix(array, title=escaped(self.title), unit=unit, diverging=diverging))

    def trade(self, metric: str | None = None) -> Drawn:
        """What is gained against what it costs, each dose a point.

        Args:
            metric: the first that was measured unless given.

        Raises:
            MetricError: there is no such metric.
        """
        name = self._known(metric)
        made = trade(
            self.data[f"{name}_effect"],
            self.data[KL],
            title=escaped(self.title),
            gain_title=self._gain(name),
            cost_title=COSTS[KL],
        )
        return Drawn(made)

    def _gain(self, name: str) -> str:
        return f"change of {name}, {about(name).unit}"

    def __repr__(self) -> str:
        sizes = " × ".join(f"{dim} {n}" for dim, n in self.data.sizes.items())
        return f"<Dose of {self.title}: {sizes}; {listing(self.metrics)}; kl, perplexity>"

    def _repr_html_(self) -> str:
        """In a notebook: the doses that do most for less than a quarter of a nat."""
        found = self.best(kl=0.25)
        return html_line(repr(self)) + html_table(tuple(found.columns), found.values.tolist())

    def _known(self, metric: str | None) -> str:
        if metric is None:
            return self.metrics[0]
        if metric not in self.metrics:
            raise MetricError(
                f"{metric!r} was not measured; there are {listing([*self.metrics, *COSTS])}."
            )
        return metric

    @property
    def is_map(self) -> bool:
        """Whether the doses have two dimensions, such as layer × factor."""
        return self.data[KL].ndim == 2

    @property
    def title(self) -> str:
        """Its edits, in brief."""
        return "; ".join(brief(str(one)) for one in self.provenance["spec"]["edits"])


@spoken
def dose(
    model: Model,
    edit: Edit | str | Iterable[Edit | str],
    prompts: Given | Iterable[Given],
    neutral: Given | Iterable[Given],
    *,
    over: Mapping[str, Sequence[Any]],
    metrics: str | Iterable[str] = "logit_diff",
    verify: Verify | int | str = 4,
    memory: int | str | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: bool | Observer = True,
) -> Dose:
    """Measure what doses of an edit do for a behaviour, and what they cost, exactly.

    Every dose is a cell of a sweep, on the walk: of the prompts, which measure the behaviour, and
    of each neutral text, which measures the damage at every token: how far predictions move (KL),
    and what is left of them (perplexity).

    Args:
        model: from `load`.
        edit: with stars, such as `SteeringVector.add` with ``layers="*"``. It is made where its
            address says, in the neutral texts too: ``@last`` is one token of each, and costs as
            little.
        prompts: with what the metrics need, such as target and contrast.
        neutral: texts that are to go on as they are; two tokens or more each.
        over: doses, ``{"factor": [0, 1, 2]}``: values for parameters of the edit.
        metrics: of the behaviour.
        verify, memory, seed, progress: as of `sweep`; each sweep is verified.
        out: a folder in which each sweep is kept as it is done: ``effects.zarr``, and of each
            neutral text ``effects/neutral-0.zarr``…; the same call goes on with what is there.
        overwrite: replace what ``out`` holds of other questions.

    Raises:
        EditError: an address has a star over positions.
        PromptError: a neutral text is a single token.
        SweepError, AddressError, EditError, MetricError: as of `sweep`.

    >>> import microtome as mt
    >>> model = mt.load("nano")
    >>> prompt = mt.Prompt("Berlin is the capital of", target=" Germany", contrast=" France")
    >>> vector = mt.steering.of_token(model, " France", without=" Germany", normalise=True)
    >>> found = dose(model, vector.add(layers="*"), prompt, "Sam went to the park.",
    ...              over={"factor": [0.0, 8.0]}, progress=False)
    >>> dict(found.data.sizes), float(found.data["kl"].sel(factor=0).max())
    ({'layer': 6, 'factor': 2}, 0.0)
    """
    check_loaded(model)
    edits = as_edits(edit)
    _check(edits)
    place = None if out is None else settled(out)
    asked = {"over": over, "verify": verify, "memory": memory, "seed": seed, "progress": progress}
    asked["overwrite"] = overwrite
    texts = model.encode(neutral)
    for one in texts:
        if len(one.tokens) < 2:
            raise PromptError(
                f"The neutral text {one.prompt.shown} is a single token, behind which it does not "
                "go on: give texts of several words."
            )
    behaviour = sweep(  # type: ignore[call-overload]
        model, prompts, edits, metrics=metrics, out=None if place is None else place / ONE, **asked
    )
    damage = tuple(
        sweep(  # type: ignore[call-overload]
            model,
            one.prompt,
            edits,
            metrics=_at_each(len(one.tokens)),
            out=None if place is None else place / SEVERAL / f"{neutral_of(number)}.zarr",
            **asked,
        )
        for number, one in enumerate(texts)
    )
    return Dose(_together(behaviour, damage), behaviour, damage)


def neutral_of(number: int) -> str:
    """The name of the sweep of a neutral text."""
    return f"neutral-{number}"


def _check(edits: Sequence[Edit]) -> None:
    """Raise `EditError` unless a dose is one dose in all texts."""
    for edit in edits:
        if any(star.endswith(POSITIONS) for star in edit.address.stars):
            raise EditError(
                f"{edit} has a star over positions, which are others in each text, so that no mean "
                "over texts is of one dose: address one place, such as @last, or all together."
            )


def _at_each(length: int) -> list[str]:
    following = (f"next_loss@{place}" for place in range(length - 1))
    return [*(f"kl@{place}" for place in range(length)), *following]


def _together(behaviour: Effects, damage: Sequence[Effects]) -> xr.Dataset:
    """Means over prompts and over all tokens, on the axes of the doses."""
    found: dict[str, xr.DataArray] = {}
    for metric in behaviour.metrics:
        found[metric] = behaviour.data[metric].mean("prompt")
        found[f"{metric}_effect"] = behaviour.delta(metric).mean("prompt")
        found[f"clean_{metric}"] = behaviour.clean(metric).mean("prompt")
    found[KL] = _over_tokens([_all(one, "kl@") for one in damage])
    for before in ("", "clean_"):
        loss = _over_tokens([_all(one, "next_loss@", before) for one in damage])
        found[before + PERPLEXITY] = loss.copy(data=np.exp(loss.values))
    kept = {name: one.drop_vars(_strange(one)) for name, one in found.items()}
    return xr.Dataset(kept)


def _all(effects: Effects, begins: str, before: str = "") -> xr.DataArray:
    """A metric at each position of one text."""
    names = [name for name in effects.metrics if name.startswith(begins)]
    each = [effects.data[before + name].isel(prompt=0, drop=True) for name in names]
    return xr.concat(each, dim="at")


def _over_tokens(each: Sequence[xr.DataArray]) -> xr.DataArray:
    return xr.concat(each, dim="at").mean("at")


def _strange(array: xr.DataArray) -> list[str]:
    """Coordinates that are of no axis: the prompts' texts."""
    return [str(name) for name in array.coords if name not in array.dims]
