"""A stream on workers: they begin with the next window, and nothing but the time is another."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import xarray as xr

import microtome as mt
from microtome.errors import EffectsError, WorkerError
from microtome.results.windows import StoreWindows
from microtome.verbs.overall import Begun
from workers.inline import Inline, Inside

TEXTS = (
    "Berlin is the capital of",
    "Rome is in",
    "The cat sat",
    "Paris is the capital of",
    "A dog",
)
PROMPTS = [mt.Prompt(text, target=" Germany", contrast=" France") for text in TEXTS]


class Log(mt.Observer):
    """What is sent to workers, and what is told of the sweep, in order.

    Attributes:
        after: stops after so many units.
    """

    def __init__(self, after: int | None = None) -> None:
        self.after, self.units = after, 0
        self.told: list[tuple[object, ...]] = []

    def given(self) -> None:
        """A unit was sent."""

    def expected(self, cells, units, flops):
        self.told.append(("expected", cells, units, flops))

    def unit_there(self, number, of):
        self.units += 1

    def unit_done(self, number, of):
        self.told.append(("done", number, of))
        self.units += 1
        if self.units == self.after:
            raise KeyboardInterrupt

    @property
    def heard(self) -> list[tuple[object, ...]]:
        return [own for own in self.told if own[0] != "sent"]


class Logged(Inline):
    """Workers that write down of which job they are sent a unit.

    Attributes:
        hang: whether they never answer what is of the second.
    """

    def __init__(self, log: Log, hang: bool = False) -> None:
        super().__init__()
        self.log, self.hang, self.at = log, hang, {}

    def hire(self):
        hand = super().hire()
        own = hand.send

        def send(number, job, unit):
            self.log.told.append(("sent", number))
            self.log.given()
            self.at[hand] = number
            own(number, job, unit)

        hand.send = send
        return hand

    def wait(self, hands, seconds):
        return super().wait([own for own in hands if not (self.hang and self.at.get(own))], seconds)


def sweep(
    model,
    log: Log,
    workers: bool = False,
    source=PROMPTS,
    hang: bool = False,
    dies=lambda unit: False,
    **more,
):
    asked = {"metrics": "kl", "verify": 0, "progress": log, **more}
    who = Logged(log, hang) if workers else None
    if who is not None:
        who.dies = dies
    return mt.sweep(model, mt.Stream(source, 2), "zero L*.z.h*@-1", workers=who, **asked)


def in_first(log: Log) -> int:
    """How many units the first window has."""
    kinds = [own[0] for own in log.heard]
    return kinds.index("expected", 1) - 1


def parts(folder: Path) -> list[str]:
    return sorted(os.listdir(folder / "map.zarr.partial" / "windows"))


def test_windows_overlap_and_all_that_is_told_is_as_in_one_process(tiny64):
    """Prompts of the second window come when workers are at the first, and not before."""
    alone, there, given = Log(), Log(), threading.Event()

    def source() -> Iterator[mt.Prompt]:
        yield from PROMPTS[:2]
        assert given.wait(600)
        yield from PROMPTS[2:]

    there.given = given.set
    found = sweep(tiny64, there, True, source)
    wanted = sweep(tiny64, alone, False, source)
    xr.testing.assert_identical(found.data.drop_attrs(), wanted.data.drop_attrs())
    assert there.heard == alone.heard
    assert [own[0] for own in alone.heard].count("expected") == 3
    last = there.told.index(alone.heard[in_first(alone)])
    assert [own[1] for own in there.told[:last] if own[0] == "sent"].count(1) > 0
    assert ("sent", 2) not in there.told[:last]


@pytest.mark.parametrize("keep", ["cells", "aggregates"])
def test_what_was_stopped_when_some_of_the_next_window_was_there_is_gone_on_with(
    tiny64, tmp_path, keep
):
    alone, rest = Log(), Log()
    wanted = sweep(tiny64, alone, keep=keep)
    first = Log(after=in_first(alone))
    with pytest.raises(KeyboardInterrupt):
        sweep(tiny64, first, workers=True, keep=keep, out=tmp_path / "map.zarr")
    begun = parts(tmp_path)
    assert {name[:6] for name in begun} == {"000000", "000001"}
    found = sweep(tiny64, rest, keep=keep, out=tmp_path / "map.zarr")
    xr.testing.assert_identical(found.data.drop_attrs(), wanted.data.drop_attrs())
    done = [own for own in rest.told if own[0] == "done"]
    assert len(begun) + len(done) == rest.units == alone.units
    assert os.listdir(tmp_path) == ["map.zarr"]


def test_whoever_is_at_the_next_window_is_ended_before_the_place_is_given_back(
    tiny64, tmp_path, monkeypatch
):
    there, ended = tmp_path / "map.zarr.partial", []

    def full(self, number, chain, data):
        raise EffectsError("No space left on device")

    monkeypatch.setattr(StoreWindows, "keep", full)
    monkeypatch.setattr(Inside, "dismiss", lambda hand: ended.append(sorted(os.listdir(there))))
    with pytest.raises(EffectsError, match="No space left"):
        sweep(tiny64, Log(), workers=True, hang=True, out=tmp_path / "map.zarr")
    assert {*map(tuple, ended)} == {("lock", "question.json", "shared", "units", "windows")}
    assert sorted(os.listdir(there)) == ["question.json", "units", "windows"]


@pytest.mark.parametrize("workers", [False, True])
def test_a_source_that_breaks_off_ends_it_when_its_window_comes(tiny64, tmp_path, workers):
    def source() -> Iterator[mt.Prompt]:
        yield from PROMPTS[:3]
        raise ConnectionError("gone")

    log = Log()
    with pytest.raises(ConnectionError, match="gone"):
        sweep(tiny64, log, workers, source, out=tmp_path / "map.zarr")
    assert parts(tmp_path) == ["000000.zip"]
    assert sum(own[0] == "expected" for own in log.told) == 1


def test_a_unit_that_kills_its_workers_ends_it_when_its_window_is_done(tiny64, tmp_path):
    """What was done of the next one is gone on with, too."""
    log, out = Log(), tmp_path / "map.zarr"
    with pytest.raises(WorkerError, match="1 of 2 units killed 3 workers each and were left out"):
        sweep(tiny64, log, workers=True, dies=lambda unit: unit == 1, out=out)
    begun = parts(tmp_path)
    assert begun == ["000000-000000.zip", "000001-000000.zip"]
    assert [own[0] for own in log.heard] == ["expected", "done"]
    wanted, rest = sweep(tiny64, Log()), Log()
    found = sweep(tiny64, rest, out=out)
    xr.testing.assert_identical(found.data.drop_attrs(), wanted.data.drop_attrs())
    assert [own[0] for own in rest.heard].count("done") == rest.units - len(begun)


@pytest.mark.parametrize(("workers", "most"), [(False, [0, 0, 0]), (True, [0, 1, 1])])
def test_no_more_than_two_windows_are_there_at_once(tiny64, monkeypatch, workers, most):
    alive, found, of = weakref.WeakSet[Begun](), [], Begun.of

    def counted(*how: object) -> Begun:
        found.append(len(alive))
        one = of(*how)
        alive.add(one)
        return one

    monkeypatch.setattr(Begun, "of", counted)
    sweep(tiny64, Log(), workers)
    assert found == most
