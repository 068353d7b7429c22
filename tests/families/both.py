"""A map on both engines."""

from __future__ import annotations

import numpy as np

from microtome.engines.assembled import assemble
from microtome.plan.plan import make_plan
from microtome.verbs.answer import executor_of
from microtome.verbs.options import Options
from microtome.verbs.sweep import asking

METRICS = ("logit_diff", "kl")


def on_both_paths(model, hand, edits, prompts):
    """The sizes of a map's axes, and how far the walk is from the reference path in any metric.

    The engines are asked, and no `sweep`: what one does besides (it looks whether the model is
    still the same, and labels the result) takes as long as maps that are as small as these.
    """
    question = asking(model, prompts, edits, metrics=METRICS)
    (axes, walked), (_, slow) = (mapped(model, question, name) for name in ("walk", "reference"))
    gaps = {}
    for name, values in walked.items():
        wanted = slow[name]
        assert np.array_equal(np.isnan(values), np.isnan(wanted)), f"{edits}: {name} has others"
        gaps[name] = float(np.nanmax(abs(values - wanted)))
        size = max(1.0, float(np.nanmax(abs(wanted))))
        assert gaps[name] <= hand.rounding * size, f"{edits}: {name} differs by {gaps[name]}"
    return axes, max(gaps[metric] for metric in METRICS)


def mapped(model, question, engine):
    """The sizes of the axes; and per metric, and of the receipts, the values of all cells."""
    options = Options.of(engine, 0, None, None, None, 0)
    plan = make_plan(question, engine, options.budget(model), model.whole)
    assert plan.choice.engine == engine
    executor = executor_of(model, plan, options, lambda cells: None)
    found = assemble(plan, (executor.run(unit) for unit in plan.units))
    axes = {axis.name: len(axis.values) for axis in plan.axes}
    maps = {**found.values, "values_changed": found.changed, "change_norm": found.norm}
    assert set(METRICS) < set(maps)
    return axes, maps
