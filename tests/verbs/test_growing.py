"""A map can be seen while it grows: what is computed is as it will be, the rest is absent."""

from __future__ import annotations

import json

import numpy as np
import pytest

import microtome as mt
from microtome.engines.observer import Relay
from microtome.plan import units


class Watching(mt.Observer):
    def __init__(self) -> None:
        self.so_far, self.seen = None, []

    def growing(self, so_far) -> None:
        self.so_far = so_far

    def unit_done(self, number: int, of: int) -> None:
        self.seen.append(self.so_far())


@pytest.fixture
def in_parts(monkeypatch):
    monkeypatch.setattr(units, "WORK", 1.0)
    monkeypatch.setattr(units, "PASSES", 60)


BERLIN = mt.Prompt("Berlin is the capital of", target=" Germany")


@pytest.mark.parametrize("kept", [False, True])
def test_after_each_unit_its_cells_are_there_as_they_stay(nano, in_parts, tmp_path, kept):
    watching = Watching()
    out = tmp_path / "map.zarr" if kept else None
    effects = mt.sweep(
        nano, BERLIN, "zero L*.z.h*", metrics="prob", progress=Relay(watching), out=out
    )
    whole = effects.data["prob"].values
    assert len(watching.seen) > 2
    counts = []
    for part in watching.seen:
        there = part["prob"].notnull().values
        counts.append(int(there.sum()))
        np.testing.assert_array_equal(part["prob"].values[there], whole[there])
        assert part["clean_prob"].equals(effects.data["clean_prob"])
        assert mt.Effects(part).n_cells == counts[-1]
        asked = json.loads(part.attrs["provenance"])["spec"]
        assert asked == effects.provenance["spec"]
    assert counts == sorted(set(counts))
    assert counts[-1] == whole.size == 48
    last = watching.seen[-1].drop_attrs(deep=False)
    assert last.identical(effects.data.drop_attrs(deep=False))


def test_a_part_of_a_map_is_drawn_with_gaps(nano, in_parts):
    watching = Watching()
    mt.sweep(nano, BERLIN, "zero L*.z.h*", metrics="prob", progress=watching)
    figure = mt.Effects(watching.seen[0]).figure("prob")
    assert np.isnan(np.asarray(figure.data[0].z, dtype=float)).any()


@pytest.mark.parametrize(
    "how", [{"screen": "bfloat16", "refine": 4}, {"method": "atp", "audit": 4}]
)
def test_where_effects_are_first_approximate_nobody_is_told(nano, how):
    watching = Watching()
    watching.unit_done = lambda number, of: None
    mt.sweep(nano, BERLIN, "zero L*.z.h*@-1", metrics="prob", progress=watching, **how)
    assert watching.so_far is None
