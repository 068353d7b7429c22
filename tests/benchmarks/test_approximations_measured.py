"""What the table of approximations is made of; and bounds on whole maps of a trained model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

import microtome as mt
from benchmarks import approximations as bench

MOST = stats.binom.ppf(1 - 1e-4, bench.AUDITS, 0.05) / bench.AUDITS
"""The share of audits whose bound fails, which one of 95 % exceeds once in 10,000 times."""


@pytest.fixture(scope="module")
def maps(nano):
    """Whole exact maps of a trained model, and each by two methods."""
    found = []
    for task, site in (("ioi", "heads"), ("capitals", "MLPs"), ("greater_than", "keys")):
        prompts = bench.prompts_of(nano, task, 4)
        exact, plain, donor = (
            bench._sweep(nano, prompts, bench.SITES[site], method)
            for method in ("exact", mt.AtP(), mt.AtP(at="donor"))
        )
        found += [bench.flat(exact, plain), bench.flat(exact, donor)]
    return found


def test_bounds_hold_on_real_maps_as_often_as_they_say(maps):
    """Of good maps and of bad ones: nothing is assumed of the approximation."""
    each = [bench.holds(*one) for one in maps]
    assert len(each) == 6
    assert min(each) >= 1 - MOST
    assert np.mean(each) >= 0.95


def test_a_bound_that_is_too_low_is_seen(maps, monkeypatch):
    own = bench.bound
    monkeypatch.setattr(bench, "bound", lambda *given: replace(own(*given), share=0.0))
    assert bench.holds(*maps[0]) < 0.5


def test_a_small_map_is_exact_and_has_no_bound():
    values = np.arange(10.0)
    assert bench.holds(values, values, np.zeros(10, dtype=int)) is None


def test_a_row_says_what_was_measured(nano):
    [row] = [row for row in bench.rows(nano, 1, ["capitals"], ["edges"]) if "`eap`" in row]
    cells = [one.strip() for one in row.strip("|").split("|")]
    assert cells[:3] == ["capitals", "edges", "`eap`"]
    assert float(cells[4]) > 0.5
    assert len(cells) == bench.MAPS.count("|") - 1


def test_edges_out_of_the_input_add_up_beside_what_they_should(nano):
    """By gradients that are complete they make the prompt's run its donor's."""
    [prompt] = prompts = bench.prompts_of(nano, "capitals", 1)
    row = bench._audited(nano, prompts, "capitals", mt.EAPIG(20), 8)
    cells = [one.strip() for one in row.strip("|").split("|")]
    assert len(cells) == bench.DRAWN.count("|") - 1
    [own] = nano.encode(prompt)
    clean, donor = (
        nano.hf(torch.tensor([ids])).logits[0, -1].detach()
        for ids in (own.tokens.ids, own.donor.ids)
    )
    moved = float((donor - clean) @ _contrast(own, len(clean)))
    assert float(cells[-1]) == pytest.approx(moved, abs=0.006)
    assert float(cells[-2]) == pytest.approx(moved, rel=0.05)


def _contrast(own, size):
    found = torch.zeros(size)
    found[own.target], found[own.contrast] = 1.0, -1.0
    return found


def test_lines_that_are_kept_are_not_measured_again(tmp_path):
    kept, made = bench.Kept(tmp_path / "kept", "nano 4"), []

    def make(line):
        return lambda: (made.append(line), line)[1]

    lines = [kept.line(key, make(key)) for key in ("a", "b", "a")]
    assert lines == ["a", "b", "a"]
    again = bench.Kept(tmp_path / "kept", "nano 4")
    assert again.line("b", make("another")) == "b"
    assert bench.Kept(tmp_path / "kept", "nano 8").line("b", make("of 8")) == "of 8"
    assert made == ["a", "b", "of 8"]
    outer = kept.line("outer", lambda: kept.line("inner", make("inner")) + " within")
    assert outer == "inner within"
    assert kept.line("inner", make("again")) == "inner", "the outer one leaves it there"
    assert bench.NOWHERE.line("b", make("nowhere")) == "nowhere"
    assert bench.NOWHERE.map("b") is None
