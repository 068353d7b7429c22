"""An approximate map carries exact cells, which are the exact sweep's, and what they say."""

from __future__ import annotations

import json

import numpy as np
import pytest

import microtome as mt
from microtome.errors import EffectsError, SweepError
from microtome.report.method import approximated

BERLIN = mt.Prompt(
    "Berlin is the capital of", donor="Paris is the capital of", target=" Germany", contrast=" is"
)
EDIT = "patch L*.z.h*@*"


@pytest.fixture(scope="module")
def exact(tiny64):
    return mt.sweep(tiny64, BERLIN, EDIT, metrics=["logit_diff", "prob"])


@pytest.fixture(scope="module")
def rough(tiny64):
    return mt.sweep(tiny64, BERLIN, EDIT, metrics=["logit_diff", "prob"], method="atp", audit=16)


def test_exact_cells_are_exact_and_the_others_approximate(exact, rough):
    why = rough.data["why_exact"].values
    assert [(why == n).sum() for n in (1, 2)] == [8, 8]
    for metric in ("logit_diff", "prob"):
        gap = np.abs(rough.delta(metric) - exact.delta(metric)).values
        assert gap[why > 0].max() < 1e-9
        same = rough.delta(metric).values == rough.approximate(metric).values
        assert same[why == 0].all()
        assert gap[why == 0].max() > 1e-4


def test_the_strongest_by_the_approximation_are_among_them(rough):
    size = np.abs(rough.approximate("logit_diff").values).ravel()
    strongest = np.argsort(-size)[:8]
    assert (rough.data["why_exact"].values.ravel()[strongest] == 1).all()


def test_what_the_audit_says_is_of_these_cells(exact, rough):
    found = rough.audit("prob")
    why = rough.data["why_exact"].values
    off = np.abs(exact.delta("prob") - rough.approximate("prob")).values
    assert found["miss"] == pytest.approx(off[why > 0].max(), abs=1e-12)
    worst = found["worst"]
    assert abs(worst["exact"] - worst["approximate"]) == pytest.approx(found["miss"], abs=1e-12)
    at = {name: worst["cell"][name] for name in ("layer", "head", "pos")}
    assert float(exact.delta("prob").sel(prompt=0, **at)) == pytest.approx(worst["exact"])
    bound = found["bound"]
    assert bound["effect"] == pytest.approx(np.abs(exact.delta("prob").values[why == 2]).max())
    assert bound["cells"] == (rough.data["values_changed"].values > 0).sum() - 16
    assert found["recall"]["k"] == 8
    assert "are among those that it holds strongest on logit_diff." in " ".join(approximated(rough))


def test_provenance_says_what_was_approximated(exact, rough, tmp_path):
    assert (exact.method, rough.method) == ("exact", "atp")
    again = mt.open_effects(rough.save(tmp_path / "rough.zarr"))
    assert again.provenance == rough.provenance
    assert again.audit() == json.loads(json.dumps(rough.audit()))
    assert again.metrics == ("logit_diff", "prob")
    assert rough.provenance["verification"]["cells"] > 0


def test_an_exact_map_has_no_audit(exact):
    with pytest.raises(EffectsError, match="This map is exact"):
        exact.audit()
    with pytest.raises(EffectsError, match="This map is exact"):
        exact.approximate("prob")


def test_the_figure_has_a_point_for_each_exact_cell(rough):
    figure = rough.audit_figure("prob")
    dots = [one for one in figure.data if one.mode and "markers" in one.mode]
    assert sum(len(one.x) for one in dots) == 16
    why = rough.data["why_exact"].values > 0
    wanted = np.sort(rough.delta("prob").values[why])
    assert np.allclose(np.sort(np.concatenate([one.y for one in dots])), wanted)


def test_a_small_map_is_exact_all_over(tiny64):
    found = mt.sweep(tiny64, BERLIN, "zero L*.z.h*", metrics="prob", method="atp")
    assert (found.data["why_exact"] == 1).all()
    assert found.audit()["bound"] is None


def test_another_seed_draws_others(tiny64):
    asked = {"metrics": "prob", "method": "atp", "audit": 16}
    one, other = (
        mt.sweep(tiny64, BERLIN, EDIT, seed=seed, **asked).data["why_exact"].values
        for seed in (0, 1)
    )
    assert np.array_equal(one == 1, other == 1)
    assert not np.array_equal(one == 2, other == 2)


def test_a_seed_is_a_whole_number_numpys_too(tiny64):
    asked = {"metrics": "prob", "method": "atp"}
    one, other = (
        mt.sweep(tiny64, BERLIN, EDIT, seed=kind(3), audit=kind(16), **asked)
        for kind in (int, np.int64)
    )
    assert one.data.drop_attrs().identical(other.data.drop_attrs())
    assert one.provenance["audit"] == other.provenance["audit"]
    with pytest.raises(SweepError, match="seed=None: expected a whole number"):
        mt.sweep(tiny64, BERLIN, EDIT, seed=None, **asked)


def test_cells_that_change_nothing_are_not_drawn(tiny64):
    found = mt.sweep(tiny64, BERLIN, "patch L*.resid_pre@*", metrics="prob", method="atp")
    still = found.data["values_changed"].values == 0
    assert (found.data["why_exact"].values > 0).sum() == (~still).sum()
    stays = mt.Prompt("The cat sat", donor="The cat sat", target=" on")
    same = mt.sweep(tiny64, stays, "patch L*.z.h*", metrics="prob", method="atp")
    assert (same.delta("prob") == 0).all()


def test_it_goes_on_from_the_disk_and_another_method_is_another_question(tiny64, tmp_path):
    out, asked = tmp_path / "map.zarr", {"metrics": "prob", "audit": 8}
    first = mt.sweep(tiny64, BERLIN, EDIT, method="atp", out=out, **asked)
    again = mt.sweep(tiny64, BERLIN, EDIT, method=mt.AtP(), out=out, **asked)
    assert again.data["prob"].equals(first.data["prob"])
    for other in ({"method": mt.AtP(at="donor")}, {"method": "exact"}, {"audit": 9}):
        with pytest.raises(EffectsError):
            mt.sweep(tiny64, BERLIN, EDIT, out=out, **{"method": "atp", **asked, **other})


def test_an_interrupted_one_resumes_bit_for_bit(tiny64, tmp_path):
    prompts = [BERLIN, mt.Prompt("The cat sat", donor="The dog sat", target=" on", contrast=" is")]
    asked = {"metrics": "prob", "audit": 8, "method": "atp"}
    whole = mt.sweep(tiny64, prompts, EDIT, **asked)

    class Stops(mt.Observer):
        done = 0

        def unit_done(self, number, of):
            self.done += 1

        @property
        def cancelled(self):
            return self.done >= stop

    for stop in (1, 2, 3):
        out = tmp_path / f"{stop}.zarr"
        with pytest.raises(mt.Cancelled):
            mt.sweep(tiny64, prompts, EDIT, out=out, progress=Stops(), **asked)
        found = mt.sweep(tiny64, prompts, EDIT, out=out, **asked)
        for name in ("prob", "approximate_prob", "why_exact", "change_norm"):
            assert found.data[name].equals(whole.data[name]), name


def test_an_approximation_does_not_stand_alone(tiny64):
    with pytest.raises(SweepError, match="is not given without exact cells"):
        mt.sweep(tiny64, BERLIN, EDIT, metrics="prob", method="atp", audit=0)
    with pytest.raises(SweepError, match="take one of the two"):
        mt.sweep(tiny64, BERLIN, EDIT, metrics="prob", method="atp", screen="bfloat16")


def test_prompts_together_are_each_as_by_themselves(tiny64):
    """With gradients at donors' runs: each prompt has its own donor's."""
    rome = mt.Prompt("Rome is the capital of", donor=BERLIN.text, target=" Italy", contrast=" is")
    asked = {"metrics": "prob", "method": mt.AtP(at="donor"), "audit": 1, "verify": 0}
    both = mt.sweep(tiny64, [BERLIN, rome], EDIT, **asked).approximate("prob")
    for number, prompt in enumerate((BERLIN, rome)):
        alone = mt.sweep(tiny64, prompt, EDIT, **asked).approximate("prob")
        assert np.abs(both[number] - alone[0]).max() < 1e-9
