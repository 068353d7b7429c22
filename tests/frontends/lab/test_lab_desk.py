"""Models of the lab: loaded once, in the background; few are kept; who may ask for what."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

import microtome as mt
from microtome.errors import LoadError
from microtome.frontends.lab import desk as desks
from microtome.frontends.lab.desk import Desk


class Loader:
    """Loads what it has, when it is let."""

    def __init__(self, **models) -> None:
        self.models, self.asked, self.gate = models, [], threading.Event()
        self.gate.set()

    def __call__(self, name):
        self.asked.append(name)
        assert self.gate.wait(300)
        if name not in self.models:
            raise LoadError(f"no {name} here")
        return self.models[name]


def test_a_model_is_loaded_once_and_meanwhile_the_page_is_told(nano):
    loader = Loader(nano=nano)
    loader.gate.clear()
    desk = Desk(load=loader)
    assert desk.state("nano").state == "loading"
    assert desk.loaded("nano") is None
    loader.gate.set()
    assert desk.model("nano") is desk.model("nano") is nano
    assert desk.state("nano").is_ready
    assert loader.asked == ["nano"]


def test_what_failed_says_why_and_is_tried_again_when_asked_again():
    loader = Loader()
    desk = Desk(["broken"], load=loader)
    with pytest.raises(LoadError, match="no broken here"):
        desk.model("broken")
    assert desk.default == "broken"
    loader.models["broken"] = object()
    assert desk.model("broken") is loader.models["broken"]


def test_a_page_that_looks_again_and_again_does_not_load_again_what_failed():
    loader = Loader()
    desk = Desk(["broken"], load=loader)
    with pytest.raises(LoadError):
        desk.model("broken")
    for _ in range(3):
        state = desk.state("broken")
        assert (state.state, state.why) == ("failed", "no broken here")
    assert loader.asked == ["broken"]


def test_what_failed_is_tried_again_after_a_while_where_one_only_looks(nano, monkeypatch):
    loader = Loader()
    desk = Desk(["late"], load=loader)
    with pytest.raises(LoadError):
        desk.model("late")
    loader.models["late"] = nano
    monkeypatch.setattr(desks, "RETRY", -1.0)
    assert desk.state("late").state in ("loading", "ready")
    assert desk.model("late") is nano
    assert loader.asked == ["late", "late"]


def test_a_model_on_its_way_is_not_forgotten(nano):
    loader = Loader(a=nano, b=nano)
    loader.gate.clear()
    desk = Desk(["a", "b"], load=loader, most=1)
    assert [desk.state(name).state for name in ("a", "b", "a")] == ["loading"] * 3
    loader.gate.set()
    assert desk.model("a") is desk.model("b") is nano
    assert sorted(loader.asked) == ["a", "b"]


def test_a_name_that_nobody_offered_is_for_those_who_sit_at_the_machine_and_type_it(nano):
    loader = Loader(nano=nano, other=nano)
    away = Desk(load=loader)
    away.name("other")
    with pytest.raises(LoadError, match="'other' is not offered here; models: nano"):
        away.model("other")
    assert away.state("other").state == "failed"
    here = Desk(load=loader, typed=True)
    with pytest.raises(LoadError, match="once it is typed"):
        here.model("other")  # anybody can write an address
    assert loader.asked == []
    here.name("other")
    assert here.model("other") is nano
    assert Desk(["other"], load=loader).model("other") is nano
    here.name(" ")
    with pytest.raises(LoadError, match="not offered"):
        here.model(" ")


def test_few_are_kept_and_those_that_were_asked_for_last(nano):
    loader = Loader(a=nano, b=nano, c=nano)
    desk = Desk(["a", "b", "c"], load=loader, most=2)
    for name in ("a", "b", "a", "c", "a", "b"):
        desk.model(name)
    assert loader.asked == ["a", "b", "c", "b"]


def test_what_cannot_be_loaded_here_is_offered_with_the_reason(monkeypatch):
    def missing():
        raise LoadError("get it with pip")

    monkeypatch.setattr(desks, "installed", missing)
    desk = Desk(load=Loader())
    assert [(one.name, one.lacks) for one in desk.offers] == [
        ("nano", ""),
        ("smollm2", "get it with pip"),
    ]
    with pytest.raises(LoadError, match="get it with pip"):
        desk.model("smollm2")


def test_the_pace_is_measured_once_on_what_is_asked(nano, bert64):
    desk = Desk(["bert"], load=Loader(nano=nano, bert=bert64))
    first = desk.pace("nano", mt.Prompt("Berlin"))
    assert first > 0
    assert desk.pace("nano", mt.Prompt("Berlin is the capital of")) == first
    assert desk.pace("bert", mt.Prompt("pay no [MASK] to that man")) > 0


def test_the_pace_is_measured_by_one_at_a_time(nano, monkeypatch):
    """Of several at once, each would measure how long it waits for the model."""
    desk = Desk(load=lambda name: nano)
    busy, most, run = [], [], type(nano).run

    def counted(self, *given):
        busy.append(1)
        most.append(len(busy))
        try:
            return run(self, *given)
        finally:
            busy.pop()

    monkeypatch.setattr(type(nano), "run", counted)
    prompt = mt.Prompt("Berlin is the capital of")
    with ThreadPoolExecutor(6) as pool:
        paces = list(pool.map(lambda _: desk.pace("nano", prompt), range(6)))
    assert max(most) == 1
    assert len(most) == 2
    assert len(set(paces)) == 1


def test_the_pace_is_of_one_token_in_the_second_run(nano, monkeypatch):
    runs, run = [], type(nano).run
    monkeypatch.setattr(type(nano), "run", lambda *given: runs.append(given) or run(*given))
    clock = SimpleNamespace(
        monotonic=time.monotonic, perf_counter=lambda: [0.0, 100.0, 110.0][len(runs)]
    )
    monkeypatch.setattr(desks, "time", clock)
    assert Desk(load=Loader(nano=nano)).pace("nano", mt.Prompt("Berlin is the capital of")) == 2.0


def test_the_pace_of_a_long_text_is_that_of_its_beginning(nano, monkeypatch):
    desk, given, run = Desk(load=lambda name: nano), [], type(nano).run
    monkeypatch.setattr(type(nano), "run", lambda self, one: given.append(one) or run(self, one))
    monkeypatch.setattr(desks, "PACED", 10)
    assert desk.pace("nano", mt.Prompt("Berlin is the capital of", target=" Germany")) > 0
    assert [one.text for one in given] == ["Berlin is "] * 2
    desk._paces.clear()
    desk.pace("nano", mt.Prompt(" " * 10 + "Berlin"))
    assert given[-1].text.strip() == "Berlin"


def test_at_the_end_what_is_on_its_way_is_waited_for(nano):
    """A thread in the middle of loading would take down the process that ends."""
    loader, ended = Loader(nano=nano), threading.Event()
    loader.gate.clear()
    desk = Desk(load=loader)
    assert desk.state("nano").state == "loading"
    desk.close(patience=0)
    ending = threading.Thread(target=lambda: (desk.close(300), ended.set()))
    ending.start()
    assert not ended.wait(0.05)
    loader.gate.set()
    assert ended.wait(300)
    assert desk.state("nano").is_ready
