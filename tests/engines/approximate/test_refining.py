"""A refined map: which cells are exact besides, until when, and that its bound still holds."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import microtome as mt
from microtome.engines.approximate.doubt import other_of
from microtome.errors import SweepError
from microtome.plan import audit as plans
from microtome.plan.audit import ROUNDS
from microtome.report.method import approximated
from microtome.stats import auditing
from microtome.verbs.asking import asking

BERLIN = mt.Prompt(
    "Berlin is the capital of", donor="Paris is the capital of", target=" Germany", contrast=" is"
)
CAT = mt.Prompt("The cat sat", donor="The dog sat", target=" on", contrast=" is")
EDIT = "patch L*.z.h*@*"
MANY = "patch L*.mlp_post.n*@*"


def refined(model, prompts=BERLIN, edit=EDIT, method="atp", **more):
    return mt.sweep(model, prompts, edit, metrics=["prob"], method=method, verify=0, **more)


def counts(found):
    why = found.data["why_exact"].values
    return [int((why == n).sum()) for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("method", "other", "edit"),
    [
        ("atp", "ig(steps=1)", EDIT),
        ("atp", "atp_star(grad_drop=False)", "patch L*.q.h*@*"),
        ("relp", "atp", EDIT),
        ("eap", "eap_ig", "patch L*.z.h* -> L*.mlp_in"),
        ("eap_ig", "eap", "patch L*.z.h* -> L*.mlp_in"),
    ],
)
def test_the_cells_of_which_two_methods_say_the_most_different_are_exact(
    tiny64, method, other, edit
):
    found = refined(tiny64, edit=edit, method=method, audit=4, refine=5)
    assert counts(found) == [2, 2, 5]
    assert found.provenance["audit"]["against"] == other
    beside = refined(tiny64, edit=edit, method=other, audit=1)
    gap = np.abs(found.approximate("prob") - beside.approximate("prob")).values
    why = found.data["why_exact"].values
    least = gap[why == 3].min()
    assert (gap[(why == 0) & np.isfinite(gap)] <= least).all()
    exact = mt.sweep(tiny64, BERLIN, edit, metrics="prob").delta("prob")
    assert np.abs(found.delta("prob") - exact).values[why > 0].max() < 1e-9
    # What is recalled is of these and of the strongest together, and is said to be.
    recall, strong = found.audit()["recall"], np.abs(exact.values[(why == 1) | (why == 3)])
    assert (recall["k"], recall["effect"]) == (7, pytest.approx(strong.min(), abs=1e-9))
    said = " ".join(approximated(found))
    assert f"5 of which {method} and {other} say the most different of prob." in said
    assert "are among those that it holds strongest, or that were refined." in said


def test_what_a_saturated_softmax_hides_is_found_first(make_gpt2, tokenizer):
    """The queries of which attribution patching says nothing, and the truth is large."""
    hf = make_gpt2(dtype=torch.float64)
    with torch.no_grad():
        for block in hf.transformer.h:
            block.attn.c_attn.weight[:, :64] *= 12
            block.attn.c_attn.bias[:64] *= 12
    model, edit = mt.load(hf, tokenizer=tokenizer), "scale(-1) L*.q.h*@{1,2,3,-1}"
    found = mt.sweep(
        model, BERLIN, edit, metrics="logit_diff", method="atp", audit=2, refine=3, verify=0
    )
    exact = mt.sweep(model, BERLIN, edit, metrics="logit_diff").delta("logit_diff").values
    miss = np.abs(exact - found.approximate("logit_diff").values)
    doubted = found.data["why_exact"].values == 3
    assert miss[doubted].mean() > 3 * miss[~doubted].mean()


def test_until_the_bound_is_low_enough(tiny64):
    exact = np.abs(mt.sweep(tiny64, BERLIN, EDIT, metrics="prob").delta("prob").values)
    below = float(np.quantile(exact, 0.7))
    found = refined(tiny64, audit=4, refine=f"below {below}")
    audit = found.provenance["audit"]
    assert audit["enough"] is True
    assert audit["rounds"] > 1
    bound = found.audit()["bound"]
    assert bound is None or bound["effect"] <= below
    before = refined(tiny64, audit=4)
    assert before.audit()["bound"]["effect"] > below
    # All that was exact stays so, and what was drawn is told apart.
    assert (found.data["why_exact"].values[before.data["why_exact"].values > 0] > 0).all()
    said = " ".join(approximated(found))
    assert "which is reached" in said
    assert "on prob by atp, each with how far ig(steps=1) is from it added." in said
    told = " ".join(approximated(before))
    assert "are among those that it holds strongest. With 95% confidence" in told
    assert "Refined" not in told


def test_each_round_takes_twice_as_many(tiny64):
    found = refined(tiny64, edit="patch L*.mlp_post.n*@-1", audit=2, refine="below 1e-12")
    audit = found.provenance["audit"]
    assert (audit["rounds"], audit["enough"]) == (ROUNDS, False)
    # 1 strongest and 1 drawn; then 2, 4, … in doubt and 1 drawn each time.
    assert counts(found) == [1, ROUNDS, 2 * (2 ** (ROUNDS - 1) - 1)]
    said = " ".join(approximated(found))
    assert "is not reached" in said
    assert "that it holds strongest, that were refined, or drawn before the last time." in said
    assert "With 95% confidence, of the " in said, "all looks together"


def test_a_round_takes_those_that_may_be_the_largest(tiny64, monkeypatch):
    """By what is said of their effects, and by how far two methods are apart, together."""
    monkeypatch.setattr(plans, "ROUNDS", 2)
    found = refined(tiny64, edit=MANY, audit=40, refine="below 1e-12")
    assert found.provenance["audit"]["rounds"] == 2
    other = found.provenance["audit"]["against"]
    beside = refined(tiny64, edit=MANY, method=other, audit=1).approximate("prob").values
    size, why = np.abs(found.approximate("prob").values), found.data["why_exact"].values
    most = size + np.abs(found.approximate("prob").values - beside)
    assert (why == 3).sum() == 40
    assert np.nanmax(most[why == 0]) <= most[why == 3].min()
    assert np.nanmax(size[why == 0]) > size[why == 3].min(), "sizes alone are another order"


def test_what_is_recalled_is_as_sure_as_the_bound():
    values = np.arange(400.0)
    drawn = auditing.draw(values, np.zeros(400, dtype=int), 64, np.random.default_rng(0))
    sure, less = (
        auditing.recall(drawn, values[drawn.cells], 20, confidence) for confidence in (0.999, 0.5)
    )
    assert sure != less


def test_a_map_that_is_all_exact_is_low_enough(tiny64):
    found = refined(tiny64, CAT, "patch L*.z.h*", audit=4, refine="below 1e-12")
    assert (found.data["why_exact"].values > 0).all()
    assert found.provenance["audit"]["enough"] is True
    assert found.audit()["bound"] is None


def test_its_share_is_of_the_confidence_that_is_left(tiny64):
    """The first look of many has half of the 5 %."""
    found = refined(tiny64, edit=MANY, audit=64, refine="below 10")
    assert found.provenance["audit"]["rounds"] == 1
    said = " ".join(approximated(found))
    assert "Refined" not in said, "no cell was"
    assert "Cells were chosen once, until" in said
    bound = found.audit()["bound"]
    cells = int((found.data["values_changed"].values > 0).sum()) - 32
    edges = np.linspace(0, cells, 33).round().astype(int)
    wanted = auditing.most_above(np.diff(edges), 0.975) / bound["cells"]
    assert bound["share"] == pytest.approx(wanted)
    assert sum(1 - auditing.spent(turn) for turn in range(60)) == pytest.approx(0.05)


def test_a_bound_that_was_looked_for_holds_as_often_as_it_says():
    """200 maps refined until their bound is low: more than 20 that do not hold would be no 95 %."""
    chance, cells, wrong = np.random.default_rng(0), 600, 0
    groups = np.zeros(cells, dtype=int)
    for _ in range(200):
        exact = chance.standard_normal(cells) ** 3
        rough = exact + chance.standard_normal(cells)
        drawn = auditing.draw(rough, groups, 32, chance)
        for turn in range(ROUNDS):
            own = drawn.cells
            bound = auditing.bound(drawn, rough[own], exact[own], auditing.spent(turn))
            if bound is None or bound.effect <= 2.0:
                break
            more = auditing.strongest_first(rough, own)[: 32 * 2**turn]
            known = np.concatenate([own, more])
            drawn = auditing.draw(rough, groups, 16, chance, known, 0)
        if bound is not None:
            others = np.setdiff1d(np.arange(cells), own)
            above = (np.abs(exact[others]) > bound.effect).sum()
            wrong += above > bound.share * bound.cells + 1e-9
    assert wrong <= 20


def test_known_cells_are_not_drawn_again():
    values, groups = np.arange(40.0), np.zeros(40, dtype=int)
    known = np.array([3, 39])
    drawn = auditing.draw(values, groups, 8, np.random.default_rng(0), known)
    assert drawn.strongest.tolist() == [38, 37, 36, 35, 3, 39]
    assert not np.isin(drawn.sample, drawn.strongest).any()
    assert drawn.strata.sum() == 34
    assert drawn.weights.sum() == 40


class Counts(mt.Observer):
    """Of units those that were there, and those that are done; Ctrl-C after some of these."""

    def __init__(self, interrupt: int = 99) -> None:
        self.interrupt, self.done, self.there = interrupt, 0, 0

    def unit_there(self, number: int, of: int) -> None:
        self.there += 1

    def unit_done(self, number: int, of: int) -> None:
        self.done += 1
        if self.done == self.interrupt:
            raise KeyboardInterrupt


def test_an_interrupt_in_a_round_loses_nothing(tiny64, tmp_path):
    """After any unit; those of rounds that are not needed are none."""
    first = refined(tiny64, audit=4).audit()["bound"]["effect"]
    asked = {"audit": 4, "refine": f"below {first / 2}", "out": tmp_path / "map.zarr"}
    whole = refined(tiny64, **{**asked, "out": None})
    rounds = whole.provenance["audit"]["rounds"]
    assert 1 < rounds < ROUNDS
    for done in range(2 + rounds):  # the map, the other map, and the rounds
        one = Counts(interrupt=1)
        with pytest.raises(KeyboardInterrupt):
            refined(tiny64, progress=one, **asked)
        assert one.there == done
    found = refined(tiny64, progress=Counts(interrupt=1), **asked)
    assert found.data["why_exact"].equals(whole.data["why_exact"])
    assert found.data["prob"].equals(whole.data["prob"])
    assert found.audit() == whole.audit()


def test_two_threads_refine_as_one_does(tiny64):
    ways = {"atp": EDIT, "eap": "patch L*.z.h* -> L*.mlp_in"}
    asked = {"audit": 4, "refine": "below 0.01"}
    alone = [refined(tiny64, edit=edit, method=method, **asked) for method, edit in ways.items()]
    with ThreadPoolExecutor(2) as pool:
        work = [
            pool.submit(refined, tiny64, edit=edit, method=method, **asked)
            for method, edit in ways.items()
        ]
        found = [one.result() for one in work]
    for one, other in zip(found, alone, strict=True):
        assert one.data["prob"].equals(other.data["prob"])
        assert one.data["why_exact"].equals(other.data["why_exact"])


def test_an_interrupted_one_resumes_bit_for_bit(tiny64, tmp_path):
    asked = {"audit": 4, "refine": "below 1e-7"}
    whole = refined(tiny64, [BERLIN, CAT], **asked)

    class Stops(mt.Observer):
        done = 0

        def unit_done(self, number, of):
            self.done += 1

        @property
        def cancelled(self):
            return self.done >= stop

    # In the other approximation, and in the middle of the third round.
    for stop in (3, 9):
        out = tmp_path / f"{stop}.zarr"
        with pytest.raises(mt.Cancelled):
            refined(tiny64, [BERLIN, CAT], out=out, progress=Stops(), **asked)
        later = Counts()
        found = refined(tiny64, [BERLIN, CAT], out=out, progress=later, **asked)
        assert later.there == stop
        for name in ("prob", "approximate_prob", "why_exact", "change_norm"):
            assert found.data[name].equals(whole.data[name]), name
        assert mt.open_effects(out).audit() == found.audit()


def test_where_no_other_takes_it_the_next_strongest_are_exact(tiny64):
    """Of a knockout all cells of a layer cannot go half the way together."""
    found = refined(tiny64, edit="knockout L*.pattern.h*@-1,*", audit=4, refine=5)
    assert counts(found) == [7, 2, 0]
    size = np.abs(found.approximate("prob").values)
    why = found.data["why_exact"].values
    assert size[why == 1].min() >= np.nanmax(size[why == 0])
    said = " ".join(approximated(found))
    assert "5 that are the next strongest, as no other approximation takes them" in said
    assert "are among those that it holds strongest. With" in said
    question = asking(tiny64, BERLIN, EDIT, metrics=["prob"])
    assert other_of(mt.GradientNorms(), question, mt.Audit(4, 5)) is None


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"refine": "under 3"}, "refine='under 3': give a number of cells, or a bound"),
        ({"refine": "below x"}, "such as 'below 0.05'"),
        ({"refine": "below -1"}, "has to be a number above 0"),
        ({"refine": "below nan"}, "has to be a number above 0"),
        ({"refine": -1}, "audit's refine is -1"),
        ({"refine": 3, "audit": mt.Audit(8, refine=3)}, "is said twice"),
        ({"refine": 3, "method": "exact"}, "of a map that is approximate first"),
        ({"refine": "below 1", "method": "exact", "screen": "bfloat16"}, "approximate first"),
    ],
)
def test_what_cannot_be_refined_is_refused(tiny64, asked, words):
    with pytest.raises(SweepError, match=words):
        refined(tiny64, **asked)
    with pytest.raises(SweepError, match="take one of the two"):
        mt.Audit(8, refine=3, below=0.1)
    with pytest.raises(SweepError, match="has to be a number above 0"):
        mt.Audit(below=10**400)


def test_where_an_audit_has_every_cell_none_is_refined(tiny64):
    found = refined(tiny64, CAT, "patch L*.mlp_out@-1", audit=64, refine=10)
    assert counts(found)[2] == 0
    assert "Refined" not in " ".join(approximated(found))
