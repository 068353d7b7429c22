"""A sweep on workers is the sweep of one process, bit for bit, whatever happens to them."""

from __future__ import annotations

import gc
import importlib
import os
import pickle
import re
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP

import microtome as mt
from forked import in_a_copy
from microtome.errors import VerificationError, WorkerError
from microtome.plan import units
from microtome.results.delivery import Shared
from microtome.results.sinks import StoreSink
from microtome.verbs.answer import Job
from microtome.verbs.elsewhere import Recipe, There, known
from microtome.workers import clusters, crew, desk, here
from microtome.workers.desk import Failed, Ready
from workers.inline import Inline, Inside
from workers.light import Doubling, Nothing, Numbered

PROMPTS = [
    mt.Prompt(text, donor=donor, target=" Germany", contrast=" France")
    for text, donor in (
        ("Berlin is the capital of", "Paris is the capital of"),
        ("The cat sat", "The dog sat"),
        ("Rome is the capital of", "Berlin is the capital of"),
    )
]
EDIT = "patch L*.z.h*@-1"
METRICS = ("logit_diff", "kl", "top1", "norm(L*.resid_post@-1)")


@pytest.fixture(autouse=True)
def small_units(monkeypatch):
    monkeypatch.setattr(units, "WORK", 2e9)
    monkeypatch.setattr(units, "PASSES", 0)


@pytest.fixture(scope="module")
def folder(make_gpt2, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    make_gpt2().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return mt.load(folder)


def sweep(model, **more):
    asked = {"metrics": METRICS, "verify": 1, "progress": False, **more}
    return mt.sweep(model, PROMPTS, EDIT, **asked)


def stored(out: Path) -> dict[str, bytes]:
    """Every file of a store but what says when it was made, and how long that took."""
    names = (str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    told = (".zattrs", ".zmetadata", "checksums.json")
    return {name: (out / name).read_bytes() for name in names if name not in told}


def plain(effects) -> dict:
    actual = effects.provenance["actual"]
    told = {k: v for k, v in effects.provenance.items() if k not in ("created", "actual")}
    return {**told, "token_blocks": actual["token_blocks"]}


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    """The sweep of this process, and its store."""
    out = tmp_path_factory.mktemp("whole") / "map.zarr"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(units, "WORK", 2e9)
        patch.setattr(units, "PASSES", 0)
        effects = sweep(model, out=out)
    assert effects.provenance["predicted"]["units"] > 5
    return effects, stored(out)


def assert_same(effects, out: Path, whole) -> None:
    wanted, files = whole
    xr.testing.assert_identical(effects.data.drop_attrs(), wanted.data.drop_attrs())
    assert stored(out) == files
    assert plain(effects) == plain(wanted)


class Killing(mt.Observer):
    """Kills a process after so many units."""

    def __init__(self, pid, after: int = 2) -> None:
        self.pid, self.after, self.units, self.notes = pid, after, 0, []
        self.killed = None

    def unit_done(self, number, of):
        self.units += 1
        if self.units == self.after:
            self.killed = self.pid()
            os.kill(self.killed, signal.SIGKILL)

    def note(self, text):
        self.notes.append(text)


@pytest.fixture
def started(monkeypatch):
    """The processes that are started, in order."""
    found: list[here._Process] = []
    own = here.Shop.hire

    def hire(self):
        found.append(own(self))
        return found[-1]

    monkeypatch.setattr(here.Shop, "hire", hire)
    return found


@pytest.mark.slow
def test_two_processes_one_of_them_killed_give_the_same_store(model, whole, started, tmp_path):
    out = tmp_path / "map.zarr"
    killing = Killing(lambda: started[0].pid)
    effects = sweep(model, out=out, workers=mt.workers.processes(2), progress=killing)
    assert_same(effects, out, whole)
    assert killing.killed == started[0].pid
    assert killing.notes == []
    codes = [one._process.exitcode for one in started]
    assert codes[0] == -signal.SIGKILL
    assert None not in codes
    hired = len(started)
    again = sweep(model, out=out, workers=mt.workers.processes(2))  # it is there: nobody is hired
    assert len(started) == hired
    xr.testing.assert_identical(again.data, effects.data)


class KillingLate(Killing):
    """Kills one when the last two units are on their way: who is hired for it has little to do."""

    def unit_done(self, number, of):
        self.after = of - 2
        super().unit_done(number, of)


def on_ray(folder: Path, out: Path, told: Path) -> None:
    """Sweep on two actors, one of which is killed, and write down what was said."""
    with open(told.with_name("ray"), "wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    ready, own = [], clusters._Actor.answer

    def answer(self):
        found = own(self)
        ready.extend([found.pid] if isinstance(found, Ready) else [])
        return found

    clusters._Actor.answer = answer
    workers = mt.workers.ray(count=2, init={"num_cpus": 2, "object_store_memory": 2**27})
    killing = KillingLate(lambda: ready[0])
    sweep(mt.load(folder), out=out, workers=workers, progress=killing)
    assert killing.killed == ready[0]
    told.write_text(f"killed one, {killing.notes}", encoding="utf-8")


@pytest.mark.slow
def test_two_actors_of_ray_one_of_them_killed_give_the_same_store(folder, whole, tmp_path):
    """In a process of its own, which Ray may leave as it likes."""
    pytest.importorskip("ray")
    out, told = tmp_path / "map.zarr", tmp_path / "told"
    code = in_a_copy(lambda: on_ray(folder, out, told))
    assert code == 0, (tmp_path / "ray").read_text(encoding="utf-8")
    assert told.read_text(encoding="utf-8") == "killed one, []"
    assert_same(mt.open_effects(out), out, whole)


@pytest.mark.parametrize("delivered", [True, False])
def test_what_goes_through_workers_is_what_stays_here(
    model, whole, tmp_path, monkeypatch, delivered
):
    """Written by them, or brought to this process, which writes it."""
    out, taken = tmp_path / "map.zarr", []
    take = StoreSink.take
    monkeypatch.setattr(StoreSink, "take", lambda own, one: taken.append(one) or take(own, one))
    if not delivered:  # as where they see another folder under the name
        monkeypatch.setattr(Shared, "deliver", lambda own, block: block)
    told = Killing(os.getpid, after=-1)
    assert_same(sweep(model, out=out, workers=Inline(), progress=told), out, whole)
    assert told.units == whole[0].provenance["predicted"]["units"]
    assert len(taken) == (0 if delivered else told.units)
    assert os.listdir(tmp_path) == ["map.zarr"]


def test_workers_write_to_an_object_store_themselves(model, monkeypatch):
    asked = {"metrics": "kl", "verify": 0, "progress": False}
    wanted = mt.sweep(model, PROMPTS, "zero L*.z.h*@-1", **asked)
    monkeypatch.setattr(StoreSink, "take", None)
    place = {"out": "memory://workers/map.zarr", "workers": Inline()}
    found = mt.sweep(model, PROMPTS, "zero L*.z.h*@-1", **asked, **place)
    xr.testing.assert_identical(found.data.drop_attrs(), wanted.data.drop_attrs())


def test_whoever_is_at_work_is_ended_before_the_place_is_given_back(
    model, whole, tmp_path, monkeypatch
):
    """Or it would write there when somebody else has it."""
    out, there, ended = tmp_path / "map.zarr", tmp_path / "map.zarr.partial", []

    class Stopping(Killing):
        def unit_done(self, number, of):
            self.units += 1
            if self.units == 3:
                raise KeyboardInterrupt

    def dismiss(self):
        ended.append(sorted(os.listdir(there)))

    monkeypatch.setattr(Inside, "dismiss", dismiss)
    with pytest.raises(KeyboardInterrupt):
        sweep(model, out=out, workers=Inline(), progress=Stopping(os.getpid))
    assert {*map(tuple, ended)} == {("lock", "question.json", "shared", "units")}
    assert sorted(os.listdir(there)) == ["question.json", "units"]
    rest = Killing(os.getpid, after=-1)
    assert_same(sweep(model, out=out, workers=Inline(), progress=rest), out, whole)
    assert rest.units <= whole[0].provenance["predicted"]["units"] - 3


def test_a_screened_sweep_and_a_stream_on_workers_are_those_of_this_process(
    make_gpt2, tokenizer, tmp_path
):
    """Of a model without a place to load it from, which is sent."""
    model = mt.load(make_gpt2(), tokenizer=tokenizer)
    outs = iter(tmp_path / f"{n}.zarr" for n in range(4))
    screened = [
        sweep(model, screen="bfloat16", refine=5, workers=w, out=next(outs))
        for w in (None, Inline())
    ]
    xr.testing.assert_identical(*(own.data.drop_attrs() for own in screened))
    asked = {"metrics": "kl", "progress": False, "keep": "aggregates"}
    stream = mt.Stream(PROMPTS, 2)
    sums = [
        mt.sweep(model, stream, "patch L*.z.h*", **asked, workers=w, out=next(outs))
        for w in (None, Inline())
    ]
    xr.testing.assert_identical(*(own.data.drop_attrs() for own in sums))


def test_units_that_kill_their_workers_are_named_and_the_rest_is_kept(model, whole, tmp_path):
    out = tmp_path / "map.zarr"
    told = Killing(os.getpid, after=-1)
    workers = Inline(lambda unit: unit == 1)
    total = whole[0].provenance["predicted"]["units"]
    with pytest.raises(WorkerError) as error:
        sweep(model, out=out, workers=workers, progress=told)
    says = str(error.value)
    assert f"1 of {total} units killed 3 workers each and were left out" in says
    assert re.search(r"Unit 1 \(\d+ cells, 'patch L\d.z.h\d@-1' to 'patch L\d.z.h\d@-1'", says)
    assert says.endswith("of prompts 1): it was told to.")
    assert [note[:6] for note in told.notes] == ["Unit 1"]
    assert told.units == total - 1
    rest = Killing(os.getpid, after=-1)
    assert_same(sweep(model, out=out, progress=rest), out, whole)  # it is run here
    assert rest.units == 1


def test_an_error_of_a_unit_is_the_same_error_here(model, monkeypatch):
    def start(self, model, tick=None):
        raise VerificationError("a cell is off")

    monkeypatch.setattr(Job, "start", start)
    with pytest.raises(VerificationError, match="a cell is off") as error:
        sweep(model, workers=Inline())
    assert "Raised by a worker" in error.value.__notes__[0]


class Halved(GPT2MLP):
    """Half of what an MLP adds."""

    def forward(self, x):
        return super().forward(x / 2)


def test_an_interrupt_that_comes_before_a_worker_is_ready_does_not_end_it():
    """What a terminal sends reaches each of its processes; whoever asked is the one to decide."""
    shop = here.Shop(here.packed("no recipe"))
    hand = shop.hire()
    try:
        for number in range(20):
            os.kill(hand.pid, (signal.SIGINT, signal.SIGHUP)[number % 2])
            time.sleep(0.01)
        [(_, outcome)] = shop.wait([hand], 300)
    finally:
        hand.dismiss()
    assert isinstance(outcome, Failed)


def test_a_worker_that_stands_still_with_nothing_to_do_is_given_up(started, monkeypatch):
    """What it is sent then does not fit into its pipe, and nobody else may stand still for that."""
    monkeypatch.setattr(crew, "LISTEN", 0.01)
    now = [0.0]

    def time_passes_while_it_does() -> None:
        now[0] += 60 * started[0]._process.is_alive()

    own = crew.Crew(here.Shop(here.packed(Nothing())), 1, patience=200, clock=lambda: now[0])
    try:
        assert list(own.run(Doubling(), [Numbered(1)], lose=no_unit)) == [2]
        os.kill(started[0].pid, signal.SIGSTOP)
        large, listen = Doubling(bytes(2**22)), time_passes_while_it_does
        assert list(own.run(large, [Numbered(2)], lose=no_unit, listen=listen)) == [4]
    finally:
        own.close()
    assert [one._process.exitcode for one in started] == [-signal.SIGKILL, 0]
    assert now[0] > 200


def no_unit(unit: object, why: str) -> None:
    raise AssertionError(why)


def test_what_cannot_be_sent_is_told_as_it_is():
    own = crew.Crew(here.Shop(here.packed(Nothing())), 1)
    try:
        with pytest.raises((AttributeError, pickle.PicklingError), match="lambda"):
            list(own.run(Doubling(), [SimpleNamespace(number=lambda: 0)], lose=no_unit))
    finally:
        own.close()


class TestRecipe:
    def test_a_model_is_loaded_where_it_was_and_proved_to_be_the_same(self, model, folder):
        recipe = Recipe.of(model, None)
        assert (recipe.name, recipe.module) == (str(folder), None)
        assert known(recipe.open()) == known(model)

    def test_a_model_by_a_path_from_here_is_found_from_anywhere(self, folder, model, monkeypatch):
        monkeypatch.chdir(folder.parent)
        recipe = Recipe.of(mt.load(folder.name), None)
        assert recipe.name == str(folder)
        monkeypatch.chdir("/")
        assert known(recipe.open()) == known(model)

    def test_a_model_that_was_changed_is_sent(self, folder):
        model = mt.load(folder)
        model.hf.transformer.h[0].mlp.c_proj.weight.data += 1
        recipe = Recipe.of(model, None)
        assert recipe.module is model.hf
        assert recipe.open().weight_hash == model.weight_hash

    @pytest.mark.parametrize("how", ["a setting", "a class"])
    def test_a_model_of_which_something_else_was_changed_is_sent_too(self, folder, how):
        """No weight tells of it, and what its name brings back is another."""
        model = mt.load(folder)
        block = model.hf.transformer.h[0]
        match how:
            case "a setting":
                block.ln_1.eps = 1.0
            case "a class":
                block.mlp.__class__ = Halved
        recipe = Recipe.of(model, None)
        assert recipe.module is model.hf
        sent = pickle.loads(here.packed(recipe)).open()
        asked = {"metrics": "kl", "progress": False}
        one, other = (mt.sweep(m, PROMPTS[:1], EDIT, **asked) for m in (model, sent))
        xr.testing.assert_identical(one.data.drop_attrs(), other.data.drop_attrs())
        by_name = Recipe(str(folder), {}, None, None, "cpu", recipe.known)
        with pytest.raises(WorkerError, match=r"A worker is of another kind.*modules"):
            by_name.open()

    @pytest.mark.parametrize("what", ["weights", "versions", "dtype", "tokenizer"])
    def test_a_worker_of_another_kind_is_refused(self, model, what, make_gpt2, folder):
        own = Recipe.of(model, None)
        others = {
            "weights": {"weight_hash": "0" * 64},
            "versions": {"versions": {**own.known["versions"], "torch": "1.0"}},
            "dtype": {"dtype": "bfloat16", "dtypes": ["bfloat16"]},
            "tokenizer": {"tokenizer": "0" * 64},
        }
        wrong = Recipe(own.name, {}, None, None, "cpu", {**own.known, **others[what]})
        with pytest.raises(WorkerError, match="A worker is of another kind") as error:
            wrong.open()
        assert next(iter(others[what])) in str(error.value)

    def test_a_worker_computes_as_this_process_does(self, model):
        """With as many threads, whatever it had before."""
        recipe = Recipe.of(model, None)
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(threads + 1)
            assert known(recipe.open()) == known(model) | {"modes": recipe.known["modes"]}
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(threads)

    @pytest.mark.skipif(not hasattr(torch.backends.mkldnn, "matmul"), reason="an older torch")
    def test_a_worker_rounds_products_of_a_cpu_as_this_process_does(self, model):
        onednn = torch.backends.mkldnn.matmul
        before = onednn.fp32_precision
        try:
            onednn.fp32_precision = "bf16"
            recipe = Recipe.of(model, None)
            assert recipe.known["modes"]["fp32_onednn"] == "bf16"
            onednn.fp32_precision = "ieee"
            assert known(model) != recipe.known
            recipe.open()
            assert onednn.fp32_precision == "bf16"
        finally:
            onednn.fp32_precision = before

    def test_hooks_of_ones_own_stay_here(self, folder):
        model = mt.load(folder)
        model.hf.transformer.h[0].register_forward_hook(lambda *_: None)
        with pytest.raises(WorkerError, match=r"The model has .*workers load models of their own"):
            sweep(model, workers="processes:1", out=None)


def test_an_error_that_only_a_worker_knows_is_told_in_words(monkeypatch):
    """A class of the script that asks has another module there, and loads there alone."""
    own = type("Mine", (Exception,), {"__module__": "__mp_main__"})
    monkeypatch.setitem(sys.modules, "__mp_main__", SimpleNamespace(Mine=own))
    sent = desk._portable(own("off"))
    assert (type(sent), str(sent)) == (RuntimeError, "Mine: off")
    assert "Raised by a worker" in sent.__notes__[0]


def test_all_actors_that_answered_are_heard():
    """One that is left out would be taken for one that hangs."""

    class Library:
        def wait(self, refs, *, num_returns, timeout):
            return refs[:num_returns], refs[num_returns:]

        def get(self, ref):
            return ref

    cluster = object.__new__(clusters.Cluster)
    cluster._ray = Library()
    hands = [object.__new__(clusters._Actor) for _ in range(3)]
    for number, hand in enumerate(hands):
        hand._ray, hand.coming = cluster._ray, number
    assert cluster.wait(hands, 0.0) == [*zip(hands, range(3), strict=True)]


def test_a_ray_that_was_started_for_a_model_that_does_not_fit_is_ended(monkeypatch):
    told = []

    class Library:
        is_initialized = staticmethod(lambda: False)
        init = staticmethod(lambda **how: told.append("init"))
        shutdown = staticmethod(lambda: told.append("shutdown"))

        @staticmethod
        def put(recipe):
            raise MemoryError("the store is full")

    monkeypatch.setattr(clusters, "_library", Library)
    with pytest.raises(MemoryError):
        clusters.Cluster(mt.workers.ray(), b"")
    assert told == ["init", "shutdown"]


@pytest.mark.parametrize("how", [{"address": "ray://host:10001"}, {"init": {"num_cpus": 2}}])
def test_a_cluster_is_not_taken_for_another(monkeypatch, how):
    monkeypatch.setattr(clusters, "_library", lambda: SimpleNamespace(is_initialized=lambda: True))
    with pytest.raises(WorkerError, match=r"in a cluster of Ray's already.*ray\.shutdown"):
        clusters.Cluster(mt.workers.ray(**how), b"")


def test_a_hook_that_watches_is_not_left_without_anything_to_see(folder):
    model = mt.load(folder)
    model.hf.transformer.h[0].register_forward_hook(mt.watching(lambda *_: None))
    with pytest.raises(WorkerError, match="would see nothing of what workers compute"):
        sweep(model, workers=Inline())


def test_a_result_says_the_device_of_its_workers(model):
    told = {"model": {"name": "nano", "device": "cpu"}}
    assert There(model, mt.workers.processes(1)).located(told) is told
    there = There(model, mt.workers.ray(gpus_per_worker=1))
    assert there.located(told) == {"model": {"name": "nano", "device": "cuda:0"}}
    assert told["model"]["device"] == "cpu"


def test_a_study_hands_its_workers_on(nano, monkeypatch):
    asked = {}

    def sweep(*_, **how):
        asked.update(how)
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib.import_module("microtome.studies.perform"), "sweep", sweep)
    with pytest.raises(KeyboardInterrupt):
        mt.studies.run("head-ablation", model=nano, workers="processes:2")
    assert asked["workers"] == "processes:2"


def test_a_function_made_on_the_spot_is_refused(model):
    edit = mt.apply("L0.z.h0@-1", lambda x: x * np.float32(2))
    with pytest.raises(WorkerError, match="What is asked cannot be sent to workers"):
        mt.sweep(
            model, PROMPTS, edit, metrics="kl", progress=False, workers=mt.workers.processes(1)
        )


def doubled(x):
    return x * 2


def halved(x):
    return x / 2


def test_a_function_that_is_another_where_the_worker_is_is_refused(model, monkeypatch):
    """Such as when its file is changed on the way: who is hired later reads what is there then."""
    edit = mt.apply("L0.z.h0@-1", doubled)
    asked = {"metrics": "kl", "progress": False}
    own = mt.sweep(model, PROMPTS, edit, **asked)
    there = mt.sweep(model, PROMPTS, edit, **asked, workers=Inline())
    xr.testing.assert_identical(own.data.drop_attrs(), there.data.drop_attrs())
    published = Inline.publish

    def publish(self, job):
        sent = published(self, job)
        monkeypatch.setattr(doubled, "__code__", halved.__code__)
        return sent

    monkeypatch.setattr(Inline, "publish", publish)
    with pytest.raises(WorkerError, match=r"The function of 'apply.*is another where the worker"):
        mt.sweep(model, PROMPTS, edit, **asked, workers=Inline())


def looks_for_garbage() -> None:
    raise WorkerError(f"looking: {gc.isenabled()}")


class Looking:
    def __reduce__(self):
        return looks_for_garbage, ()


def test_nobody_looks_for_garbage_among_what_a_recipe_imports():
    told = desk.Desk(pickle.dumps(Looking())).open()
    assert str(told.error) == "looking: False"
    assert gc.isenabled()


def test_what_has_no_name_where_the_worker_is_is_told_in_words():
    desk_ = desk.Desk(b"cnowhere\nthing\n.")
    assert isinstance(desk_.open().error, WorkerError)
    assert "put them in a module that can be imported" in str(desk_.open().error)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("rai:auto", r"There are no workers 'rai:auto'.*Did you mean 'ray'"),
        ("processes", "workers 'processes' cannot be read; such as processes:2"),
        ("processes:0", "count=0: give how many processes"),
        ("ray:auto,count=x", "workers 'ray:auto,count=x' cannot be read"),
        ("ray:auto,gpu=1", "workers 'ray:auto,gpu=1' cannot be read"),
    ],
)
def test_names_that_are_none(name, says):
    with pytest.raises(WorkerError, match=says):
        mt.workers.workers_of(name)


def test_a_number_is_no_workers(nano):
    with pytest.raises(WorkerError, match=r"mt\.workers\.processes\(2\).*, not 2"):
        mt.sweep(nano, mt.tasks.ioi(1), "zero L1.z.h*@-1", metrics="prob", workers=2)


def test_names_of_workers():
    ray = mt.workers.workers_of("ray:ray://host:10001,count=8,gpus=0.5,cpus=2,patience=60")
    assert ray == mt.workers.ray(
        "ray://host:10001", count=8, gpus_per_worker=0.5, cpus_per_worker=2.0, patience=60.0
    )
    assert mt.workers.workers_of("ray") == mt.workers.ray(cpus_per_worker=1.0)
    assert mt.workers.workers_of("ray:count=2") == mt.workers.ray(count=2)
