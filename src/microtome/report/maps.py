"""The maps of a sweep, drawn through their strongest cell, each with how to read it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from microtome.amounts import many
from microtome.errors import listing
from microtome.figures import effect_map
from microtome.figures.curve import MOST_LINES
from microtome.figures.labels import Axis, shown
from microtome.figures.view import View, view
from microtome.report.document import Picture
from microtome.report.names import slug
from microtome.results.effects import Effects
from microtome.results.roles import LAST
from microtome.stats.samples import PROMPT


def pictures(effects: Effects, metric: str) -> Iterator[Picture]:
    """Every view of a map in two dimensions or one, through its strongest cell."""
    whole = view(effects, metric, {})
    long = tuple(name for name in whole.dims if whole.data.sizes[name] > 1) or whole.dims[:1]
    if not long or not bool(whole.data["effect"].notnull().any()):
        return
    strongest = _strongest(whole)
    for dims in _views(long, tuple(effects.provenance["spec"]["over"])):
        at = {name: strongest[name] for name in whole.dims if name not in dims}
        through = {name: value for name, value in at.items() if name in long}
        drawn = view(effects, metric, at)
        yield Picture(
            slug(f"{metric} {' '.join(dims)}"),
            effect_map(effects, metric, **at),
            _caption(metric, dims, through, drawn),
        )


def of_each_prompt(effects: Effects, aligned: Effects, metric: str, most: int) -> Iterator[Picture]:
    """The maps of the first prompts by themselves, where only the ends of them can be aligned."""
    if aligned is effects or any(
        set(aligned.data[name].values.tolist()) != {LAST}
        for name in aligned.dims
        if name.endswith("role")
    ):
        return
    for number in range(min(most, effects.data.sizes[PROMPT])):
        one = Effects(effects.data.isel({PROMPT: [number]}))
        for picture in pictures(one, metric):
            name = slug(f"{picture.name} prompt {number}")
            caption = f"Prompt {number} by itself. {picture.caption}"
            yield Picture(name, picture.figure, caption)


def _views(dims: tuple[str, ...], over: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Which dimensions to draw together: pairs of places, and each parameter by itself."""
    if len(dims) <= 2:
        yield dims
        return
    places = tuple(name for name in dims if name not in over)
    parameters = tuple(name for name in dims if name in over)
    if len(places) >= 2:
        yield from itertools.combinations(places, 2)
        yield from ((name,) for name in parameters)
    else:
        yield from itertools.combinations(dims, 2)


def _strongest(whole: View) -> dict[str, Any]:
    """The coordinates of the largest effect on a map, prompts averaged."""
    effect = whole.mean["effect"]
    where = np.unravel_index(int(np.nanargmax(np.abs(effect.values))), effect.shape)
    axes = (Axis.of(whole.data, str(name)) for name in effect.dims)
    return {axis.name: axis.values[n] for axis, n in zip(axes, where, strict=True)}


def _caption(metric: str, dims: tuple[str, ...], through: Mapping[str, Any], drawn: View) -> str:
    """How to read a map: what is on it, and no more."""
    flat = len(dims) == 2
    effect = drawn.mean["effect"].values
    said = [
        f"Each {'square' if flat else 'point'} is one {' and '.join(dims)}: {metric} with the "
        f"edits minus {metric} without."
    ]
    if flat and np.nanmax(np.abs(effect), initial=0):
        said.append("Red is an effect above 0, blue one below.")
    elif not np.nanmax(np.abs(effect), initial=0):
        said.append("Every effect on it is 0.")
    if flat and np.isnan(effect).any():
        said.append("Where it is grey there is no such cell.")
    if drawn.n_prompts > 1:
        said.append(_averaged(drawn))
    if drawn.n_prompts > 1 and not flat:
        one = "a thin line is one prompt" if drawn.n_prompts <= MOST_LINES else (
            "the band holds the middle half of the prompts")  # fmt: skip
        said.append(f"The thick line is the mean; {one}.")
    if through:
        picked = listing(f"{name} {shown(value)}" for name, value in through.items())
        said.append(
            f"The map has more dimensions: this is the cut through its strongest cell, at {picked}."
        )
    return " ".join(said)


def _averaged(drawn: View) -> str:
    low, high = drawn.counts
    none = " Where n is 0 they changed nothing in any prompt, and the effect is exactly 0."
    unchanged = none if bool((drawn.mean["n"] == 0).any()) else ""
    if low == high == drawn.n_prompts:
        unchanged = unchanged.replace("they", "the edits")
        return f"Averaged over {many(drawn.n_prompts, 'prompt')}.{unchanged}"
    return (
        "Averaged over the prompts that have the cell and in which the edits changed something: "
        f"{low if low == high else f'{low} to {high}'} of {drawn.n_prompts}.{unchanged}"
    )
