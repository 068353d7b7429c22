"""Sweeps of the lab: one after another, seen while they grow, cancelled, kept on disk."""

from __future__ import annotations

import copy
import threading
import time

import numpy as np
import pytest

import microtome as mt
from microtome.errors import LoadError, SweepError
from microtome.frontends.lab import jobs as lab_jobs
from microtome.frontends.lab.asked import Asked, known_as
from microtome.frontends.lab.costing import cost_of
from microtome.frontends.lab.desk import Desk
from microtome.frontends.lab.jobs import CANCELLED, DONE, FAILED, RUNNING, WAITING, Jobs
from microtome.frontends.lab.state import View
from microtome.model.loaded import Loaded
from microtome.passes.exclusive import turns
from microtome.passes.session import session
from microtome.plan import units

VIEW = View(model="nano", text="Berlin is the capital of", target=" Germany", contrast=" France")
ASKED = Asked.of(VIEW)


def other(edit: str) -> Asked:
    return Asked(ASKED.model, ASKED.prompt, edit, ASKED.metric)


@pytest.fixture
def desk(nano):
    return Desk(load=lambda name: nano)


@pytest.fixture
def jobs(desk, tmp_path):
    made = Jobs(desk, tmp_path)
    yield made
    made.close()


@pytest.fixture
def held(monkeypatch):
    """Sweeps wait until they are let go, and then are as ever."""
    let, sweep = threading.Event(), mt.sweep

    def waiting(*args, **more):
        assert let.wait(300)
        return sweep(*args, **more)

    monkeypatch.setattr(lab_jobs.mt, "sweep", waiting, raising=False)
    return let


def test_a_map_of_the_lab_is_that_of_a_sweep(jobs, nano):
    job = jobs.submit(ASKED)
    assert job.over.wait(60)
    told = jobs.progress(ASKED)
    assert (told.state, told.why) == (DONE, "")
    assert round(told.cells, 6) == told.of_cells == 48
    alone = mt.sweep(nano, ASKED.prompt, VIEW.edit, metrics="logit_diff", progress=False)
    assert told.effects.data["logit_diff"].equals(alone.data["logit_diff"])


def test_what_was_asked_before_is_not_computed_again(jobs, desk, tmp_path):
    job = jobs.submit(ASKED)
    assert jobs.submit(ASKED) is job
    assert job.over.wait(60)
    assert jobs.submit(ASKED) is job
    assert jobs.is_kept(ASKED)
    again = Jobs(desk, tmp_path)
    assert again.find(ASKED) is None
    opened = again.submit(ASKED)
    assert opened.over.wait(60)
    assert opened.effects.data.identical(job.effects.data)
    assert again.progress(ASKED).of_cells == 0  # nothing was planned: it was opened
    again.close()


def test_what_lies_at_its_place_and_answers_something_else_goes(jobs, nano, tmp_path):
    place = tmp_path / f"{ASKED.key(nano)}.zarr"
    mt.sweep(nano, VIEW.text, "zero L*.mlp_out", metrics="kl", out=place, progress=False)
    job = jobs.submit(ASKED)
    assert job.over.wait(60)
    assert (job.state, job.why) == (DONE, "")
    assert mt.open_effects(place).data.identical(job.effects.data)


def test_without_a_place_results_are_in_memory(desk):
    jobs = Jobs(desk)
    assert jobs.submit(ASKED).over.wait(60)
    assert jobs.progress(ASKED).state == DONE
    assert not jobs.is_kept(ASKED)
    jobs.close()


def test_sweeps_wait_for_their_turn_in_the_order_in_which_they_were_asked(jobs, held):
    asked = [ASKED, other("zero L*.resid_post@-1"), other("zero L*.mlp_out@-1")]
    made = [jobs.submit(one) for one in asked]
    while jobs.progress(asked[0]).state != RUNNING:
        pass
    assert [jobs.progress(one).place for one in asked] == [0, 1, 2]
    assert jobs.waiting("nano") == asked
    made[1].cancel()
    assert jobs.progress(asked[1]).state == CANCELLED
    assert jobs.progress(asked[2]).place == 1
    held.set()
    assert all(one.over.wait(60) for one in made)
    assert [one.state for one in made] == [DONE, CANCELLED, DONE]
    assert jobs.waiting("nano") == []


def test_a_sweep_goes_on_as_long_as_somebody_wants_it(jobs, held, monkeypatch):
    """Who asks the same, or only looks at it, does not lose it to who cancels."""
    job = jobs.submit(ASKED, "one")
    assert jobs.submit(ASKED, "two") is job
    assert jobs.progress(ASKED, "looking").state in (WAITING, RUNNING)
    for asker, others in (("one", ["two", "looking"]), ("two", ["looking"])):
        job.leave(asker)
        assert jobs.progress(ASKED, asker).state == CANCELLED
        assert {jobs.progress(ASKED, one).state for one in others} <= {WAITING, RUNNING}
        assert not job.cancelled
    assert jobs.submit(ASKED, "two") is job, "who wants it again has it again"
    assert jobs.progress(ASKED, "two").state in (WAITING, RUNNING)
    job.leave("looking")
    assert not job.cancelled
    monkeypatch.setattr(lab_jobs, "AWAY", -1.0)  # whose page is closed is not waited for
    jobs.progress(ASKED, "closed")
    job.leave("two")
    assert job.cancelled
    again = jobs.submit(ASKED, "one")
    assert again is not job
    held.set()
    assert job.over.wait(60)
    assert again.over.wait(60)
    assert (job.state, again.state) == (CANCELLED, DONE)


def test_what_was_cancelled_can_be_asked_again(jobs, held):
    first, second = jobs.submit(ASKED), jobs.submit(other("zero L*.mlp_out@-1"))
    second.cancel()
    again = jobs.submit(second.asked)
    assert again is not second
    assert again.state == WAITING
    held.set()
    assert again.over.wait(60)
    assert first.state == again.state == DONE


def test_a_sweep_that_is_refused_says_why_and_the_next_one_runs(jobs):
    bad = jobs.submit(other("zero L99.z.h*@-1"))
    good = jobs.submit(ASKED)
    assert bad.over.wait(60)
    assert good.over.wait(60)
    assert jobs.progress(bad.asked).state == FAILED
    assert "99" in jobs.progress(bad.asked).why
    assert good.state == DONE


def test_a_map_is_seen_while_it_grows_and_its_units_outlive_a_cancel(jobs, desk, monkeypatch):
    """Cells that are computed are those of the whole map; the others are absent, not zero."""
    monkeypatch.setattr(units, "WORK", 1.0)
    monkeypatch.setattr(units, "PASSES", 60)
    seen = []

    class Looking(lab_jobs.Job):
        def unit_done(self, number, of):
            super().unit_done(number, of)
            if self.effects is not None:
                seen.append(self.progress())
                self.cancel()

    monkeypatch.setattr(lab_jobs, "Job", Looking)
    job = jobs.submit(ASKED)
    assert job.over.wait(60)
    assert job.state == CANCELLED
    [part] = seen
    assert 0 < part.units < part.of_units
    assert 0 < part.effects.n_cells < 48
    assert not jobs.is_kept(ASKED)

    monkeypatch.undo()
    monkeypatch.setattr(units, "WORK", 1.0)
    monkeypatch.setattr(units, "PASSES", 60)
    planned = []
    monkeypatch.setattr(
        lab_jobs.Job, "advanced", lambda self, cells: planned.append(cells), raising=True
    )
    again = jobs.submit(ASKED)
    assert again.over.wait(60)
    assert again.state == DONE
    whole = again.effects.data["logit_diff"].values
    there = ~np.isnan(part.effects.data["logit_diff"].values)
    np.testing.assert_array_equal(part.effects.data["logit_diff"].values[there], whole[there])
    assert planned[0] == there.sum()  # the first unit was there at once, whole
    told = jobs.progress(ASKED)
    assert told.units == told.of_units  # that one is counted


def test_a_click_is_answered_in_the_middle_of_a_unit(jobs, nano, monkeypatch):
    """What another thread asks of the model does not wait for the map, nor for a part of it."""
    alone, answered, clicks = nano.run(VIEW.text).logits, [], []

    class Asking(lab_jobs.Job):
        def advanced(self, cells):
            super().advanced(cells)
            clicks.append(threading.Thread(target=self.click))
            clicks[-1].start()
            while not turns.is_awaited(turns.holder(nano.hf)):
                time.sleep(0.001)

        def click(self):
            with session(nano.hf, nano.anatomy):
                answered.append((nano.run(VIEW.text).logits, self.progress().units))

    monkeypatch.setattr(lab_jobs, "Job", Asking)
    job = jobs.submit(ASKED)
    assert job.over.wait(60)
    for click in clicks:
        click.join(60)
    assert (job.state, job.progress().of_units) == (DONE, 1)
    assert len(answered) == len(clicks) > 2
    assert all(logits.equal(alone) for logits, _ in answered)
    assert {done for _, done in answered} == {0}


def test_the_end_of_the_server_cancels_and_takes_no_more(desk, tmp_path, held):
    jobs = Jobs(desk, tmp_path)
    running, waiting = jobs.submit(ASKED), jobs.submit(other("zero L*.mlp_out@-1"))
    cancel = waiting.cancel  # the last to be told
    waiting.cancel = lambda: (cancel(), held.set())
    jobs.close()
    assert running.state == waiting.state == CANCELLED
    with pytest.raises(SweepError, match="about to end"):
        jobs.submit(other("zero L*.attn_out@-1"))


def test_no_more_than_some_wait(jobs, held, monkeypatch):
    monkeypatch.setattr(lab_jobs, "MOST_WAITING", 2)
    jobs.submit(ASKED)
    jobs.submit(other("zero L*.mlp_out@-1"))
    with pytest.raises(SweepError, match="2 maps wait for 'nano' already"):
        jobs.submit(other("zero L*.attn_out@-1"))
    held.set()


def test_few_results_are_kept_in_memory(jobs, monkeypatch):
    monkeypatch.setattr(lab_jobs, "MOST_KEPT", 1)
    first = jobs.submit(ASKED)
    assert first.over.wait(60)
    second = jobs.submit(other("zero L*.mlp_out@-1"))
    assert second.over.wait(60)
    assert jobs.find(ASKED) is None
    assert jobs.find(second.asked) is second


def test_what_was_looked_at_last_is_kept_the_longest(jobs, monkeypatch):
    monkeypatch.setattr(lab_jobs, "MOST_KEPT", 2)
    asked = [other(f"zero L0.z.h{head}@-1") for head in range(3)]
    for one in (*asked[:2], asked[0], asked[2]):
        assert jobs.submit(one).over.wait(60)
    assert [jobs.find(one) is not None for one in asked] == [True, False, True]


def test_what_was_cancelled_and_asked_again_is_the_newest(jobs, held, monkeypatch):
    monkeypatch.setattr(lab_jobs, "MOST_KEPT", 3)
    asked = [other(f"zero L0.z.h{head}@-1") for head in range(5)]
    jobs.submit(asked[0])
    jobs.submit(asked[1]).cancel()
    waiting = [jobs.submit(one) for one in (asked[2], asked[1])]
    held.set()
    assert all(job.over.wait(60) for job in waiting)
    for one in asked[3:]:
        assert jobs.submit(one).over.wait(60)
    assert [jobs.find(one) is not None for one in asked] == [False, True, False, True, True]


def test_the_name_of_a_question_is_of_its_weights_and_all_that_is_asked(nano, tiny):
    every = [
        ASKED.key(nano),
        ASKED.key(tiny),
        other("zero L*.z.h*@*").key(nano),
        Asked(ASKED.model, ASKED.prompt, ASKED.edit, "prob").key(nano),
        Asked.of(View(**{**vars(VIEW), "donor": "Paris is the capital of"})).key(nano),
    ]
    assert len(set(every)) == len(every)
    assert Asked.of(VIEW).key(nano) == every[0]


def test_a_model_that_is_not_offered_has_no_sweeps(jobs):
    with pytest.raises(LoadError, match="not offered"):
        jobs.submit(Asked("elsewhere", ASKED.prompt, ASKED.edit, ASKED.metric))


def test_models_of_the_same_weights_are_told_apart(nano):
    """By what turns texts into tokens, and by settings that no weight says."""
    told = copy.deepcopy(nano.tokenizer)
    told.add_tokens(["Berlin is"])
    settled = copy.deepcopy(nano.hf)
    settled.config.layer_norm_epsilon = 0.5
    others = [
        Loaded(nano.hf, told, nano.anatomy, nano.name),
        Loaded(settled, nano.tokenizer, nano.anatomy, nano.name),
    ]
    assert {one.weight_hash for one in others} == {nano.weight_hash}
    assert len({known_as(one) for one in (nano, *others)}) == 3
    assert len({ASKED.key(one) for one in (nano, *others)}) == 3


def test_a_model_that_changed_while_its_map_waited_has_not_that_map(nano, tiny, held):
    models = iter([nano, tiny, tiny])
    desk = Desk(load=lambda name: next(models))
    jobs = Jobs(desk)
    first = jobs.submit(ASKED)
    second = jobs.submit(other("zero L*.mlp_out@-1"))
    del desk._futures["nano"]  # forgotten, as others were asked for, and loaded again
    held.set()
    assert second.over.wait(60)
    assert first.over.wait(60)
    assert second.state == FAILED
    assert "files were changed" in second.why
    jobs.close()


def test_a_map_that_no_memory_holds_is_refused_before_it_is_laid_out(jobs, monkeypatch):
    monkeypatch.setattr("microtome.frontends.lab.asked.MOST_CELLS", 47)
    job = jobs.submit(ASKED)
    assert job.over.wait(60)
    assert job.state == FAILED
    assert "has 48 cells here, and a map of the lab at most 47" in job.why
    with pytest.raises(SweepError, match="put a number in the place of a star"):
        cost_of(jobs.desk, ASKED)
