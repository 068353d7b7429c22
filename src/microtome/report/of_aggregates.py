"""The report of aggregates: what was asked, the maps of mean effects, and their tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from microtome.amounts import many
from microtome.errors import listing
from microtome.readings.registry import about
from microtome.report.document import Document, Section, Table
from microtome.report.maps import pictures
from microtome.report.method import computed
from microtome.report.names import distinct
from microtome.results.aggregates import Aggregates
from microtome.results.over_prompts import largest
from microtome.texts import brief

TOP = 10
TABLED = ["effect", "low", "high", "p", "n", "unchanged", "clean", "edited"]


def document_of_aggregates(found: Aggregates) -> Document:
    """The report of aggregates over prompts."""
    spec = found.provenance["spec"]
    edits = listing(map(brief, spec["edits"]))
    frames = {metric: found.table(metric) for metric in found.metrics}
    return Document(
        title=f"{edits} on {found.provenance['model']['name']}",
        question=f"What does {edits} do to {listing(spec['metrics'])}, over the prompts?",
        method="\n\n".join(_method(found)),
        sections=tuple(_section(found, metric) for metric in found.metrics),
        provenance=found.provenance,
        n_prompts=found.prompts,
        exports=dict(zip(distinct(frames), frames.values(), strict=True)),
    )


def summary_of_aggregates(found: Aggregates) -> dict[str, Any]:
    """The numbers of aggregates, for ``summary.json``."""
    record = found.provenance
    return {
        "model": record["model"],
        "spec": record["spec"],
        "stream": record.get("stream", record.get("parts")),
        "created": record["created"],
        "versions": record["versions"],
        "verification": record["verification"],
        "noise_floor": {name: found.noise_floor(name) for name in found.metrics},
        "dims": {name: found.data.sizes[name] for name in found.dims},
        "prompts": found.prompts,
        "top_cells": {
            metric: found.top(TOP, metric).to_dict(orient="records") for metric in found.metrics
        },
    }


def _method(found: Aggregates) -> Iterator[str]:
    record = found.provenance
    verified = record["verification"]
    window = record.get("stream", {}).get("window")
    at_once = "" if window is None else f", {window:,} of them in memory at a time"
    yield (
        f"Every cell was run on each of {many(found.prompts, 'prompt')}{at_once}; what is kept is "
        "what is known of it over all of them. An effect is the metric with the edits minus the "
        "same metric without, in one prompt."
    )
    yield (
        f"Engine: {record['engine']['name']} ({record['engine']['why']}). "
        f"{computed(verified['cells'])} again on the reference path: {verified['why']}."
    )


def _section(found: Aggregates, metric: str) -> Section:
    known = about(metric)
    first = f"{metric}: {known.about} ({known.unit}); {known.direction}."
    test = f"{found.over_prompts(metric)}."
    drawn = tuple(pictures(found.mean_effects(metric), metric))
    top = largest(found.table(metric), TOP)
    places = [c for c in top if c not in (*TABLED, "above_noise", "significant")]
    table = Table(
        "The largest mean effects",
        top[[*places, *TABLED]],
        "By size. low … high: the 95 % t interval of the effect; p: that it is 0, corrected for "
        "all cells; n: the prompts in which the edits changed something; unchanged: those in which "
        "they changed nothing.",
    )
    return Section(f"Effects on {metric}", (first, test), drawn, (table,))
