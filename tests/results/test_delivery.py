"""Blocks that workers write into a sink's place themselves: there, or nowhere."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from faults.injected import full_at
from microtome.errors import EffectsError
from microtome.results import delivery
from microtome.results.delivery import Shared
from microtome.results.sinks import MemorySink, StoreSink
from results.samples import QUESTION, UNITS, bits, block

OTHER = {**QUESTION, "seed": 1}


@pytest.fixture(params=["a folder", "an object store"])
def place(request, tmp_path):
    name = f"{tmp_path.name}/map.zarr"
    return tmp_path / "map.zarr" if request.param == "a folder" else f"memory://delivery/{name}"


def test_a_block_that_is_delivered_is_one_that_was_taken(place):
    with StoreSink(place, QUESTION, UNITS) as sink:
        sent = pickle.loads(pickle.dumps(sink.delivery()))
        told = sent.deliver(block(1))
        assert (told.unit, told.cells) == (1, len(block(1).cells))
        assert sink.done == frozenset()  # the sink keeps the list
        sink.heard(told)
        sink.take(block(0))
        assert sink.done == {0, 1}
        assert [bits(one) for one in sink.blocks()] == [bits(block(0)), bits(block(1))]
        sent.deliver(block(2))  # whoever asked was killed before it heard of it
    with StoreSink(place, QUESTION, UNITS) as again:
        assert again.done == {0, 1, 2}


def test_what_was_delivered_is_discarded_with_what_was_taken(place):
    with StoreSink(place, QUESTION, UNITS) as sink:
        sink.heard(sink.delivery().deliver(block(1)))
        sink.discard()
        assert sink.done == frozenset()
    with StoreSink(place, QUESTION, UNITS) as sink:
        assert sink.done == frozenset()


def test_a_worker_that_sees_another_place_or_comes_late_writes_nothing(place, tmp_path):
    with StoreSink(place, QUESTION, UNITS) as sink:
        sent = sink.delivery()
        elsewhere = Shared(str(tmp_path / "other.zarr"), sent.question, sent.word, sent.name)
        for one in (elsewhere, Shared("nowhere://x", sent.question, sent.word, sent.name)):
            assert bits(one.deliver(block(0))) == bits(block(0))
        assert not os.path.exists(tmp_path / "other.zarr.partial")
    late = sent.deliver(block(0))  # its sink is closed
    assert bits(late) == bits(block(0))
    with StoreSink(place, QUESTION, UNITS) as sink:
        assert sink.delivery().word != sent.word
        assert bits(sent.deliver(block(0))) == bits(block(0))  # and here is another
        assert sink.done == frozenset()


def test_a_unit_of_another_question_is_no_unit_whoever_wrote_it(tmp_path):
    """Such as by a worker whose sink was killed, into the folder of its successor."""
    with StoreSink(tmp_path / "e.zarr", QUESTION, UNITS) as sink:
        own = sink.delivery()
        sink.heard(own.deliver(block(0)))
        Shared(own.path, "of another", own.word, own.name).deliver(block(0))
        with pytest.raises(EffectsError, match=r"000000\.zip cannot be used: it is of another"):
            list(sink.blocks())


def test_what_a_killed_worker_was_writing_is_cleared_up(tmp_path):
    path = tmp_path / "e.zarr"
    with StoreSink(path, QUESTION, UNITS) as sink:
        sink.take(block(0))
        sink.delivery()
    units = Path(f"{path}.partial") / "units"
    (units / "000001.zip.1234.writing").write_bytes(b"half")
    (units.parent / "shared").write_bytes(b"a word of one that was killed")
    with StoreSink(path, QUESTION, UNITS) as sink:
        assert sink.done == {0}
        assert os.listdir(units) == ["000000.zip"]
        assert "shared" not in os.listdir(units.parent)
    with pytest.raises(EffectsError, match="1 unit of an unfinished sweep that ask another"):
        StoreSink(path, OTHER, UNITS)


def test_a_full_disk_is_told_by_the_worker_as_by_the_sink(tmp_path):
    with StoreSink(tmp_path / "e.zarr", QUESTION, UNITS) as sink:
        sent = sink.delivery()
        with full_at(1, lasting=True), pytest.raises(EffectsError, match="Free some space"):
            sent.deliver(block(0))
        assert not list(tmp_path.rglob("*.zip"))


def test_memory_is_nobody_elses():
    assert MemorySink().delivery() is None


def test_a_place_that_is_given_back_at_the_last_moment_is_not_made_anew(tmp_path, monkeypatch):
    """Nor is a folder left there that would be nobody's."""
    sink = StoreSink(tmp_path / "e.zarr", QUESTION, UNITS)
    sent, packed = sink.delivery(), delivery.pack

    def late(*args):
        sink.close()
        return packed(*args)

    monkeypatch.setattr(delivery, "pack", late)
    assert bits(sent.deliver(block(0))) == bits(block(0))
    assert os.listdir(tmp_path) == []
