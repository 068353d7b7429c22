"""Cells that are computed again from the first edited position on are those of whole passes."""

from __future__ import annotations

import mistakes
import numpy as np
import pytest
import torch

import microtome as mt
from microtome.engines import comparison
from microtome.engines.rerun import first_position, rerun
from microtome.engines.walk import batches, walk
from microtome.errors import VerificationError
from microtome.passes.past import Past
from microtome.passes.session import session
from microtome.passes.trace import trace
from microtome.plan.plan import make_plan
from microtome.verbs.answer import sources_of
from microtome.verbs.sweep import asking
from oracles.families import ENCODERS, FAMILIES

MARY = mt.Prompt(
    "When Mary and John went to the store",
    donor="When John and Mary gave to the store",
    target=" Mary",
    contrast=" John",
)
QUESTIONS = ("patch L*.z.h*@4", "scale(3) L*.k.h*@5", "zero L*.mlp_out@{3,-1}")


@pytest.fixture(scope="module", params=[name for name in FAMILIES if name not in ENCODERS])
def name(request):
    return request.param


def planned(model, edit, metrics=("kl", "logit_diff@6")):
    return make_plan(asking(model, MARY, edit, metrics=[*metrics]))


def both_ways(model, plan, cells):
    """What the unembedding reads of some cells: from the first edited position, and in whole."""
    start, sources = first_position(plan, cells), sources_of(model, plan)
    with session(model.hf, model.anatomy), torch.no_grad():
        clean = trace(model.hf, model.anatomy, [plan.question.encoded[0].tokens])
        past = Past(clean.keys, clean.values)
        return start, *(
            rerun(model, plan, cells, sources, past=known, start=begin)
            for known, begin in ((past, start), (None, 0))
        )


def test_from_the_first_edited_position_it_is_the_whole_pass(name, of_family):
    model = of_family(name)
    for edit in QUESTIONS:
        plan = planned(model, edit)
        cells = sorted({0, len(plan.cells) // 2, len(plan.cells) - 1})
        start, cut, whole = both_ways(model, plan, cells)
        assert start == {"patch L*.z.h*@4": 4, "scale(3) L*.k.h*@5": 5}.get(edit, 3)
        assert set(cut.final) == set(whole.final) == {6, 7}
        for place, final in whole.final.items():
            assert float((cut.final[place] - final).abs().max()) < FAMILIES[name].rounding, edit


def test_it_begins_where_a_metric_reads_and_no_later(tiny64):
    plan = planned(tiny64, "zero L*.z.h*@-1", ["kl", "logit_diff@2"])
    assert first_position(plan, [0, 5]) == 2
    start, cut, whole = both_ways(tiny64, plan, [0, 5])
    assert (start, cut.rows.start, whole.rows.start) == (2, 2, 0)
    for place, final in whole.final.items():
        assert torch.allclose(cut.final[place], final, rtol=0, atol=1e-11)


def started(monkeypatch) -> list[int]:
    """The positions at which the passes of verification begin, from now on."""
    starts, plain = [], comparison.rerun

    def noted(*given, **more):
        starts.append(given[-1])
        return plain(*given, **more)

    monkeypatch.setattr(comparison, "rerun", noted)
    return starts


@pytest.mark.parametrize(
    ("edit", "options", "start"),
    [
        ("patch L*.z.h*@-1", {}, 7),
        ("patch L*.z.h*@-1", {"verify": "all"}, 0),
        ("zero L*.z.h*", {}, 0),
        ("zero L*.pattern.h*@-1,0", {}, 0),
        ("zero L*.q_in.h*@-1", {}, 0),
        ("zero L*.z.h*@-1", {"metrics": ["kl", "norm(L*.resid_post)"]}, 0),
        ("zero L*.z.h*@-1", {"metrics": ["kl", "kl@3"]}, 3),
        ("zero L*.z.h*@-1", {"memory": 170_000}, 0),
    ],
)
def test_what_is_computed_again_in_whole(tiny64, monkeypatch, edit, options, start):
    starts = started(monkeypatch)
    effects = mt.sweep(tiny64, MARY, edit, **{"metrics": ["kl"], **options})
    assert set(starts) == {start}
    why = effects.provenance["verification"]["why"]
    assert (f"from position {start} on" in why) == bool(start)


def test_several_prompts_and_half_precision_are_computed_again_in_whole(
    tiny64, make_gpt2, tokenizer, monkeypatch
):
    starts = started(monkeypatch)
    other = mt.Prompt(**{**MARY.as_dict(), "text": MARY.donor, "donor": MARY.text})
    mt.sweep(tiny64, [MARY, other], "patch L*.z.h*@-1", metrics=["kl"])
    half = mt.load(make_gpt2(dtype=torch.bfloat16), tokenizer=tokenizer)
    mt.sweep(half, MARY, "patch L*.z.h*@-1", metrics=["kl"])
    assert starts
    assert set(starts) == {0}


def wrong_keys(monkeypatch):
    """The clean run's keys and values are those of another text."""
    plain = walk.trace

    def other(*given, **more):
        found = plain(*given, **more)
        object.__setattr__(found, "keys", tuple(keys.roll(1, dims=2) for keys in found.keys))
        return found

    monkeypatch.setattr(walk, "trace", other)


def late(monkeypatch):
    """Cells start one token late, behind what they edit: nothing of it is done."""
    plain = batches.starts_of

    def later(*given):
        found = plain(*given)
        return {
            prompt: own._replace(positions=np.minimum(own.positions + 1, 7))
            for prompt, own in found.items()
        }

    monkeypatch.setattr(batches, "starts_of", later)
    mistakes.changed(monkeypatch, lambda own: mistakes.moved(own, "pos", 1, 8))


@pytest.mark.parametrize("fault", [wrong_keys, late, mistakes.skips, mistakes.one_token_off])
@pytest.mark.parametrize("edit", ["patch L*.z.h*@4", "patch L*.resid_pre@-2"])
def test_a_wrong_past_and_a_wrong_start_are_found(tiny64, monkeypatch, edit, fault):
    starts = started(monkeypatch)
    mt.sweep(tiny64, MARY, edit, metrics=["kl"])
    assert min(starts) > 0
    fault(monkeypatch)
    with pytest.raises(VerificationError):
        mt.sweep(tiny64, MARY, edit, metrics=["kl"])
