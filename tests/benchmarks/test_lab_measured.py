"""The benchmark of the lab: medians over rounds, and what is kept of them."""

from __future__ import annotations

import os

import pytest

pytest.importorskip("playwright", reason="playwright is not installed")

from benchmarks import lab


def test_a_model_is_timed_by_medians_over_rounds_and_its_slowest_click(monkeypatch):
    rounds = iter([(4.0, [0.2, 0.5]), (9.0, [0.3, 0.2]), (5.0, [0.2, 0.1])])
    monkeypatch.setattr(lab, "_round", lambda model: next(rounds))
    timing = lab.measure("nano", 3)
    assert (timing.first_map, timing.click, timing.slowest_click) == (5.0, 0.2, 0.5)
    kept = lab.record_of([timing], 3)
    assert kept["rows"] == [{"model": "nano", "first_map": 5.0, "click": 0.2, "slowest_click": 0.5}]
    assert (kept["rounds"], kept["cores"]) == (3, os.cpu_count())
