"""A map on both engines."""

from __future__ import annotations

import numpy as np

from microtome.engines.assembled import assemble
from microtome.plan.plan import make_plan
from microtome.verbs.answer import executor_of
from microtome.verbs.options import Options
from microtome.verbs.sweep import asking

METRICS = ("logit_diff", "kl")
RECEIPTS = ("values_changed", "change_norm")


def on_both_paths(model, hand, edits, prompts):
    """The sizes of a map's axes, and how far the walk is from the reference path in any metric."""
    axes, gaps = compared(model, edits, prompts, METRICS, lambda size: hand.rounding * size)
    return axes, max(gaps[metric] for metric in METRICS)


def compared(model, edits, prompts, metrics, allowed, over=None):
    """The sizes of a map's axes, and how far apart the engines are in each metric and in receipts.

    The engines are asked, and no `sweep`: what one does besides (it looks whether the model is
    still the same, and labels the result) takes as long as maps that are as small as these.

    Args:
        model, edits, prompts, metrics, over: as of `sweep`.
        allowed: how far, of the largest value of a map.
    """
    question = asking(model, prompts, edits, metrics=metrics, over=over)
    (axes, walked), (_, slow) = (mapped(model, question, name) for name in ("walk", "reference"))
    assert len(walked) == len(slow) == 2 * len(metrics) + len(RECEIPTS)
    gaps = {}
    for name, values in walked.items():
        wanted = slow[name]
        assert np.array_equal(np.isnan(values), np.isnan(wanted)), f"{edits}: {name} has others"
        gaps[name] = float(np.nanmax(abs(values - wanted)))
        size = max(1.0, float(np.nanmax(abs(wanted))))
        assert gaps[name] <= allowed(size), f"{edits}: {name} differs by {gaps[name]}"
    return axes, gaps


def mapped(model, question, engine, memory=None):
    """The sizes of the axes; and of all cells the values per metric, also without edits, and the
    receipts."""
    options = Options.of(engine, 0, memory, None, None, 0)
    plan = make_plan(question, engine, options.budget(model), model.whole)
    assert plan.choice.engine == engine
    executor = executor_of(model, plan, options, lambda cells: None)
    found = assemble(plan, (executor.run(unit) for unit in plan.units))
    axes = {axis.name: len(axis.values) for axis in plan.axes}
    clean = {f"clean {name}": own for name, own in {**found.clean, **found.clean_inside}.items()}
    receipts = dict(zip(RECEIPTS, (found.changed, found.norm), strict=True))
    return axes, {**found.values, **found.inside, **clean, **receipts}
