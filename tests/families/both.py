"""A map on both engines."""

from __future__ import annotations

import microtome as mt


def on_both_paths(model, hand, edits, prompts):
    """The walk's map, and how far it is from the reference path's in any metric."""
    walked, slow = (
        mt.sweep(model, prompts, edits, metrics=["logit_diff", "kl"], engine=engine, verify=0)
        for engine in ("walk", "reference")
    )
    assert walked.provenance["engine"]["name"] == "walk"
    gaps = {}
    for metric in (*walked.metrics, "values_changed", "change_norm"):
        gaps[metric] = float(abs(walked.data[metric] - slow.data[metric]).max())
        size = max(1.0, float(abs(slow.data[metric]).max()))
        assert gaps[metric] <= hand.rounding * size, f"{edits}: {metric} differs by {gaps[metric]}"
    return walked, max(gaps[metric] for metric in walked.metrics)
