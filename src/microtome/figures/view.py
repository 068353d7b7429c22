"""The part of a result that one figure shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import xarray as xr

from microtome.amounts import many, single
from microtome.errors import EffectsError, did_you_mean, listing
from microtome.figures.labels import Axis, escaped, shown
from microtome.figures.mapped import Mapped, cells_of
from microtome.language.sites import POSITIONS
from microtome.stats.aligned import why_apart
from microtome.stats.averaged import CHANGED, averaged
from microtome.stats.samples import PROMPT
from microtome.texts import brief, visible


@dataclass(frozen=True, eq=False)
class View:
    """The part of a result that one figure shows.

    Attributes:
        data: ``clean``, ``edited`` and ``effect`` over the dimensions that are left; ``prompt``
            is one of them only where there are several. A cell that does not exist is NaN in
            all three. ``changed`` says where the edits changed something.
        metric: its name.
        unit: its unit.
        title: the edits and the metric, in words.
        fixed: what was picked, in words: ``("pos 3 ·of",)``.
    """

    data: xr.Dataset
    metric: str
    unit: str
    title: str
    fixed: tuple[str, ...]

    @property
    def dims(self) -> tuple[str, ...]:
        """What is left to draw; prompts are not counted."""
        return tuple(str(name) for name in self.data["effect"].dims if name != PROMPT)

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The same as axes of a figure; with n at each coordinate, where that differs."""
        return tuple(self._axis(name) for name in self.dims)

    def _axis(self, name: str) -> Axis:
        axis = Axis.of(self.data, name)
        if self.n_prompts < 2:
            return axis
        n = self.mean["n"].where(self.mean["effect"].notnull())
        each = n.max([other for other in self.dims if other != name]).fillna(0).astype(int)
        same = bool((each == each[:1].values).all())
        return axis if same else replace(axis, counts=tuple(each.values.tolist()))

    @property
    def n_prompts(self) -> int:
        """How many prompts are shown together."""
        return int(self.data.sizes.get(PROMPT, 1))

    @cached_property
    def mean(self) -> xr.Dataset:
        """``clean``, ``edited`` and ``effect``, averaged over the prompts that have the cell.

        And ``n``, how many prompts that is: those in which the edits changed something.

        Raises:
            EffectsError: there are positions, and they are not each other's.
        """
        if why := why_apart(self.data["effect"]):
            raise EffectsError(why)
        if PROMPT in self.data.dims:
            return averaged(self.data)
        return self.data.assign(n=self.data[CHANGED].astype(int))

    def told(self, name: str) -> xr.DataArray:
        """A variable where it is among the values that the mean is over."""
        return self.data[name].where(self.data[CHANGED] | (self.mean["n"] == 0))

    @property
    def counts(self) -> tuple[int, int]:
        """The fewest and the most prompts that a cell's mean is over, where it is over any."""
        n = self.mean["n"].values[self.mean["effect"].notnull().values]
        n = n[n > 0]
        return (int(n.min()), int(n.max())) if n.size else (0, 0)

    @property
    def note(self) -> str:
        """What was picked and averaged."""
        several = ""
        if self.n_prompts > 1:
            low, high = self.counts if any(self.counts) else (self.n_prompts,) * 2
            prompts = many(high, "prompt")
            several = f"mean over {prompts if low == high else f'{low}–{prompts}'}"
        return " · ".join(filter(None, (*self.fixed, several)))

    def expect(self, n: int, kind: str) -> None:
        """Raise `EffectsError` unless n dimensions are left."""
        if len(self.dims) == n:
            return
        sizes = listing(f"{name} ({self.data.sizes[name]})" for name in self.dims) or "none"
        what = "dimension" if n == 1 else "dimensions"
        if len(self.dims) > n:
            picks = listing(f"{name}={self._example(name)}" for name in self.dims[n:])
            advice = f"Pick a coordinate of the others, for example {kind}(…, {picks})."
        elif self.fixed:
            advice = "Pick fewer coordinates."
        else:
            advice = "Star more of the address, or read effects.data for the numbers."
        raise EffectsError(f"A {kind} draws {n} {what}, and those left are: {sizes}. {advice}")

    def _example(self, name: str) -> str:
        axis = Axis.of(self.data, name)
        return repr(axis.values[-1]) if name not in POSITIONS else "-1"


def view(effects: Mapped, metric: str, at: Mapping[str, Any]) -> View:
    """The part of a result at some coordinates.

    Args:
        effects: the result.
        metric: the one that is shown.
        at: a coordinate for each dimension that is not to be drawn. A negative number counts
            from the end where coordinates are 0 … n − 1; of positions, from the prompt's end.

    Raises:
        EffectsError: there is no such metric, dimension or coordinate.
    """
    data = cells_of(effects, metric)
    effect = data["effect"]
    known = tuple(map(str, effect.dims))
    for name in at:
        if name not in known:
            raise EffectsError(
                f"There is no dimension {name!r} to pick from; there are: {listing(known)}."
                f"{did_you_mean(name, known)}"
            )
    fixed = []
    for name in sorted(at, key=lambda name: name != PROMPT):  # it decides which positions exist
        axis = Axis.of(data, name)
        index = _index(data, axis, at[name])
        fixed.append(_in_words(data, axis, index))
        data = _without_padding(data.isel({name: index}))
    if PROMPT in data.dims and data.sizes[PROMPT] == 1:
        data = data.isel({PROMPT: 0})
    unit = str(effect.attrs.get("unit", ""))
    return View(data, metric, unit, _title(effects, metric), tuple(fixed))


def squeezed(shown_part: View, n: int) -> View:
    """The same without its dimensions of length 1, where there are more than n."""
    data, fixed = shown_part.data, list(shown_part.fixed)
    for axis in (Axis.of(data, name) for name in shown_part.dims):
        if data["effect"].ndim - (PROMPT in data.dims) > n and len(axis.values) == 1:
            fixed.append(_in_words(data, axis, 0))
            data = data.isel({axis.name: 0})
    return View(data, shown_part.metric, shown_part.unit, shown_part.title, tuple(fixed))


def cut(effects: Mapped, metric: str) -> dict[str, Any]:
    """Where a map of more than two dimensions is cut so that one figure shows it.

    Returns:
        The coordinates of its strongest cell, prompts averaged, along every dimension but the first
        two that are longer than 1; empty where no cell exists.
    """
    whole = view(effects, metric, {})
    size = abs(whole.mean["effect"])
    if not bool(size.notnull().any()):
        return {}
    strongest = {str(name): int(n) for name, n in size.argmax(...).items()}
    long = [axis.name for axis in whole.axes if len(axis.values) > 1][:2]
    return {
        axis.name: axis.values[strongest[axis.name]]
        for axis in whole.axes
        if axis.name not in (long or [axis.name])
    }


def _index(data: xr.Dataset, axis: Axis, given: object) -> int:
    n, given = len(axis.values), single(given)
    if axis.counted and isinstance(given, int) and not isinstance(given, bool):
        if axis.name in POSITIONS and given < 0 and _lengths_differ(data, axis.name):
            raise EffectsError(
                f"{axis.name}={given} counts from the end, and the prompts are of different "
                f"lengths: pick a prompt too, or a position from 0 to {n - 1}."
            )
        if -n <= given < n:
            return given % n
    for index, value in enumerate(axis.values):
        if value == given and isinstance(value, bool) == isinstance(given, bool):
            return index
    have = f"0 … {n - 1}" if axis.counted else listing(axis.values)
    raise EffectsError(f"{axis.name}={given!r} is not there; {axis.name} has {have}.")


def _lengths_differ(data: xr.Dataset, name: str) -> bool:
    if PROMPT not in data.dims:
        return False
    there = data["effect"].notnull()
    per_prompt = there.any([d for d in there.dims if d not in (PROMPT, name)]).sum(name)
    return bool((per_prompt != per_prompt[0]).any())


def _without_padding(data: xr.Dataset) -> xr.Dataset:
    """The same without the positions at the end that no prompt left here has."""
    for name in POSITIONS:
        if name in data.dims:
            there = data["effect"].notnull()
            some = there.any([d for d in there.dims if d != name]).values.nonzero()[0]
            data = data.isel({name: slice(0, int(some[-1]) + 1 if len(some) else 0)})
    return data


def _in_words(data: xr.Dataset, axis: Axis, index: int) -> str:
    if axis.name == PROMPT and "text" in data.coords:
        text = str(data["text"].values[index])
        return escaped(f"prompt {axis.values[index]}: {visible_line(text)}")
    own = axis.tokens[index] if axis.tokens else None
    token = "" if own is None else f" {visible(own)}"
    return escaped(f"{axis.name} {shown(axis.values[index])}{token}")


def visible_line(text: str, longest: int = 60) -> str:
    """A text on one line, cut where it is long.

    >>> visible_line("a\\nb" + "c" * 80)[:6]
    'a↵bccc'
    """
    line = text.replace("\n", "↵")
    return line if len(line) <= longest else line[: longest - 1] + "…"


def _title(effects: Mapped, metric: str) -> str:
    edits = map(brief, effects.provenance["spec"]["edits"])
    return escaped(f"Effect of {listing(edits)} on {metric}")
