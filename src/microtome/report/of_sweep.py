"""The report of a plain sweep: what was asked, what was done, the maps, how to repeat it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from microtome.errors import EditError, listing
from microtome.figures import effect_map
from microtome.figures.labels import Axis, brief, shown, visible
from microtome.figures.view import view, visible_line
from microtome.prompts.tokens import Tokens
from microtome.readings.registry import about
from microtome.report import code
from microtome.report.document import Document, Picture, Section, Snippet, Table, TokenRow
from microtome.report.names import distinct, slug
from microtome.results.effects import Effects
from microtome.verbs.run import Run

MOST_PROMPTS = 3
"""How many prompts are shown token by token, with what the model predicts after them."""
TOP = 10


def document_of_sweep(effects: Effects, run: Run) -> Document:
    """The report of a sweep.

    Args:
        effects: the result.
        run: the clean run of its prompts (of the first few, where they are many), from
            ``model.run(prompts)``: what the model predicts without edits, and the tokens.
    """
    spec = effects.provenance["spec"]
    edits = listing(map(brief, spec["edits"]))
    return Document(
        title=f"{edits} on {effects.provenance['model']['name']}",
        question=f"What does {edits} do to {listing(spec['metrics'])}, cell by cell?",
        method="\n\n".join(_method(effects)),
        sections=_named_apart(
            (
                _clean_section(effects, run),
                *(_map_section(effects, metric) for metric in with_delta(effects)),
                *_token_sections(effects),
            )
        ),
        snippets=tuple(_snippets(effects)),
        provenance=effects.provenance,
        tokens=tuple(_token_rows(effects, run)),
    )


def summary_of_sweep(effects: Effects) -> dict[str, Any]:
    """The numbers of a sweep, for ``summary.json``: model, cells, clean values, top cells."""
    record = effects.provenance
    return {
        "model": record["model"],
        "spec": record["spec"],
        "created": record.get("created"),
        "versions": record.get("versions"),
        "verification": record.get("verification"),
        "noise_floor": {name: effects.noise_floor(name) for name in with_delta(effects)},
        "dims": {name: effects.data.sizes[name] for name in effects.dims},
        "cells": effects.n_cells,
        "cells_without_change": effects.n_unchanged,
        "clean": {metric: effects.clean(metric).values for metric in effects.metrics},
        "top_cells": {
            metric: effects.top(TOP, metric).to_dict(orient="records")
            for metric in with_delta(effects)
        },
    }


def with_delta(effects: Effects) -> tuple[str, ...]:
    """The metrics that have an effect: all but token ids."""
    return tuple(m for m in effects.metrics if about(m).unit != "token id")


# ---------------------------------------------------------------------------------------- method


def _method(effects: Effects) -> Iterator[str]:
    record = effects.provenance
    prompts = effects.data.sizes["prompt"]
    axes = " × ".join(f"{name} ({effects.data.sizes[name]})" for name in effects.dims[1:])
    yield (
        f"Each of {effects.n_cells:,} cells stands for one run of the model with the edits in one "
        f"place, on {prompts} prompt{'s' if prompts > 1 else ''}" + (f": {axes}." if axes else ".")
        + " An effect is the metric in a cell minus the same metric without edits."
    )  # fmt: skip
    if not effects.n_unchanged:
        yield "Every cell's edits changed at least one value."
    else:
        yield (
            f"In {effects.n_unchanged:,} cells the edits left every value as it was: there an "
            "effect of 0 says nothing."
        )
    engine = record.get("engine")
    if engine:
        yield f"Engine: {engine['name']} ({engine['why']}). {_verified(record)}"
    yield from _noise(effects)
    yield from _absent(effects)
    yield from _screened(effects)


def _noise(effects: Effects) -> Iterator[str]:
    """What cells that change nothing did, and how far the two paths were apart in others."""
    floors = {name: effects.noise_floor(name) for name in with_delta(effects)}
    known = {name: floor for name, floor in floors.items() if floor is not None}
    if not known:
        return
    if not any(known.values()):
        yield (
            "Noise floor: cells that change nothing, walked beside the others, have no effect, and "
            "no effect that was computed again is another."
        )
        return
    each = listing(f"{floor:.2g} on {name}" for name, floor in known.items())
    yield (
        "Noise floor: cells that change nothing, computed beside the others, have effects, or "
        f"effects that were computed again differ, by up to {each}. An effect no larger than that "
        "may be rounding; on the maps it has a grey dot."
    )


def _absent(effects: Effects) -> Iterator[str]:
    predicted = effects.provenance.get("predicted") or {}
    if predicted.get("absent"):
        yield (
            f"{predicted['absent']:,} more places on the maps are blank, since their cells do not "
            f"exist: {predicted['why_absent']}."
        )


def _screened(effects: Effects) -> Iterator[str]:
    screen = effects.provenance.get("screen")
    if screen:
        own = effects.provenance["model"]["dtype"]
        off = [f"{name} {gap:.2g}" for name, gap in screen["largest_difference"].items()]
        yield (
            f"Screened: all cells in {screen['dtype']} first, then the {screen['refined']:,} with "
            f"the largest effects again in the model's own type, {own}; between the two their "
            f"values differ by at most {listing(off)}. Every effect is against a clean run of its "
            "own type."
        )


def _verified(record: Mapping[str, Any]) -> str:
    found = record.get("verification") or {}
    if found.get("cells"):
        return (
            f"{found['cells']} cells were computed again on the reference path; the largest "
            f"difference is {found['largest_difference']:.2g}, and {found['tolerance']:.2g} is "
            "allowed."
        )
    return f"Verification: {found['why']}." if found.get("why") else ""


def _token_rows(effects: Effects, run: Run) -> Iterator[TokenRow]:
    patched = any(text.startswith("patch") for text in effects.provenance["spec"]["edits"])
    for one in run.encoded[:MOST_PROMPTS]:
        yield TokenRow("recipient", one.tokens.pieces)
        if patched and one.donor is not None:
            yield TokenRow("donor", one.donor.pieces)


def _clean_section(effects: Effects, run: Run) -> Section:
    tables = tuple(
        Table(_after(one.tokens, place), _readable(run.top(TOP, prompt=number, position=place)))
        for number, one in enumerate(run.encoded[:MOST_PROMPTS])
        for place in one.tokens.predicted
    )
    total, some = effects.data.sizes["prompt"], len(run.encoded[:MOST_PROMPTS])
    more = f" The first {some} of {total} prompts are shown." if total > some else ""
    clean = "; ".join(f"{m} {_mean(effects, m)}" for m in with_delta(effects))
    averaged = " (mean over the prompts)" if total > 1 else ""
    text = f"The metrics without edits{averaged}: {clean}." if clean else ""
    return Section("Without edits", tuple(filter(None, (text + more,))), (), tables)


def _mean(effects: Effects, metric: str) -> str:
    unit = about(metric).unit
    return f"{float(effects.clean(metric).mean()):.4g} ({unit})".replace("-", "−")


def _after(tokens: Tokens, place: int) -> str:
    which = f" at position {place}" if len(tokens.masks) > 1 else ""
    where = f"for {tokens.mask}{which} in" if tokens.masks else "after"
    return f"The most probable tokens {where} “{visible_line(tokens.text)}”"


def _readable(top: pd.DataFrame) -> pd.DataFrame:
    shown_columns = top[["rank", "token", "id", "logit", "prob"]]
    return shown_columns.assign(token=[visible(token) for token in top["token"]])


# ------------------------------------------------------------------------------------------ maps


def _map_section(effects: Effects, metric: str) -> Section:
    known = about(metric)
    top = effects.top(TOP, metric).map(lambda v: brief(v) if isinstance(v, str) else v)
    several = effects.data.sizes["prompt"] > 1
    dims = map(str, effects.delta(metric).dims)
    columns = [*(c for c in dims if several or c != "prompt"), "clean", "edited", "effect"]
    if "token" in top and not several:
        columns.insert(columns.index("clean"), "token")
        top["token"] = [visible(token) for token in top["token"]]
    return Section(
        f"Effects on {metric}",
        (f"{metric}: {known.about} ({known.unit}); {known.direction}.",),
        tuple(_pictures(effects, metric)),
        (Table("The strongest cells", top[columns], "By the size of the effect, of all cells."),),
    )


def _pictures(effects: Effects, metric: str) -> Iterator[Picture]:
    """Every view of a map in two dimensions or one, through its strongest cell."""
    whole = view(effects, metric, {})
    long = tuple(name for name in whole.dims if whole.data.sizes[name] > 1) or whole.dims[:1]
    if not long or not bool(whole.data["effect"].notnull().any()):
        return
    strongest = _strongest(effects, metric)
    for dims in _views(long, tuple(effects.provenance["spec"]["over"])):
        at = {name: strongest[name] for name in whole.dims if name not in dims}
        through = {name: value for name, value in at.items() if name in long}
        yield Picture(
            slug(f"{metric} {' '.join(dims)}"),
            effect_map(effects, metric, **at),
            _caption(metric, dims, through, whole.n_prompts),
        )


def _named_apart(sections: tuple[Section, ...]) -> tuple[Section, ...]:
    """The same with no two pictures of one name: ``loss@2`` and ``loss@-2`` are slugs alike."""
    names = iter(distinct(picture.name for one in sections for picture in one.pictures))
    return tuple(
        replace(one, pictures=tuple(replace(each, name=next(names)) for each in one.pictures))
        for one in sections
    )


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


def _strongest(effects: Effects, metric: str) -> dict[str, Any]:
    """The coordinates of the largest effect on a map, prompts averaged."""
    whole = view(effects, metric, {})
    effect = whole.mean["effect"]
    where = np.unravel_index(int(np.nanargmax(np.abs(effect.values))), effect.shape)
    axes = (Axis.of(whole.data, str(name)) for name in effect.dims)
    return {axis.name: axis.values[n] for axis, n in zip(axes, where, strict=True)}


def _caption(metric: str, dims: tuple[str, ...], through: Mapping[str, Any], n_prompts: int) -> str:
    mark = "square" if len(dims) == 2 else "point"
    colors = " Red raises it, blue lowers it." if len(dims) == 2 else ""
    averaged = f" Averaged over {n_prompts} prompts." if n_prompts > 1 else ""
    picked = listing(f"{name} {shown(value)}" for name, value in through.items())
    cut = f" The map has more dimensions: this is the cut through its strongest cell, at {picked}."
    return (
        f"Each {mark} is one {' and '.join(dims)}: {metric} with the edits minus {metric} without."
        f"{colors}{averaged}{cut if through else ''}"
    )


def _token_sections(effects: Effects) -> Iterator[Section]:
    """For metrics that are token ids: which cells have another one."""
    for metric in effects.metrics:
        if metric in with_delta(effects):
            continue
        frame = effects.to_dataframe()
        changed = frame[frame[metric] != frame[f"clean_{metric}"]]
        columns = [*effects.dims, f"clean_{metric}_token", f"{metric}_token"]
        table = changed[columns].set_axis([*effects.dims, "clean", "edited"], axis=1).head(50)
        table = table.assign(**{c: [visible(t) for t in table[c]] for c in ("clean", "edited")})
        more = " The first 50 are listed." if len(changed) > len(table) else ""
        count = f"{len(changed):,} of {effects.n_cells:,} cells have another one.{more}"
        yield Section(
            f"Changes of {metric}",
            (f"{metric}: {about(metric).about}.",),
            (),
            (Table("Cells with another token", table, count),),
        )


# -------------------------------------------------------------------------------------- snippets


def _snippets(effects: Effects) -> Iterator[Snippet]:
    try:
        for metric in with_delta(effects)[:1]:
            for cell in effects.top(1, metric).to_dict(orient="records"):
                where = {str(name): cell[name] for name in effects.dims}
                size = f"{cell['effect']:+.3g}".replace("-", "−")
                yield Snippet(
                    f"The strongest cell by itself ({metric} {size})", code.rerun(effects, where)
                )
        yield Snippet("The sweep in Python", code.again_in_python(effects))
        command = code.again_in_shell(effects)
        if command is not None:
            yield Snippet("The sweep on the command line", command)
        sheet = code.again_in_yaml(effects)
        if sheet is not None:
            yield Snippet("The sweep as a file, experiment.yaml", sheet)
    except EditError:
        return  # an edit with a function made on the spot, which no text can bring back
