"""Sinks: units that outlast their process, one question a place, one writer at a time."""

from __future__ import annotations

import io
import os
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

import microtome as mt
from microtome.errors import EffectsError
from microtome.results.identity import Undertaken, difference, digest
from microtome.results.sinks import MemorySink, StoreSink
from microtome.results.units import pack, unpack
from results.samples import QUESTION, UNITS, bare, bits, block

OTHER = {**QUESTION, "seed": 1}


def sweep(path: Path, question=QUESTION, units=range(UNITS), seed=0, **how) -> StoreSink:
    """Whatever is left to do of some units, and the sink that it is in."""
    sink = StoreSink(path, question, UNITS, **how)
    for unit in sorted(set(units) - sink.done):
        sink.take(block(unit))
    return sink


def same(found, wanted) -> bool:
    return [bits(one) for one in found] == [bits(one) for one in wanted]


def test_a_block_comes_back_bit_for_bit():
    again = unpack(pack(block(1), "q"))
    assert bits(again) == bits(block(1))
    assert list(again.values) == list(block(1).values)
    assert pack(block(1), "q") == pack(again, "q")


def test_a_unit_on_disk_is_a_zarr_group_that_other_programs_read(tmp_path):
    sink = sweep(tmp_path / "e.zarr", units=[2])
    file = tmp_path / "e.zarr.partial" / "units" / "000002.zip"
    group = zarr.open_group(zarr.storage.ZipStore(file), mode="r", zarr_format=2)
    np.testing.assert_array_equal(group["values=prob@last"], block(2).values["prob@last"])
    assert zipfile.ZipFile(io.BytesIO(file.read_bytes())).testzip() is None
    sink.close()


@pytest.mark.parametrize("kind", ["memory", "store"])
def test_blocks_come_in_the_order_of_their_units(tmp_path, kind):
    sink = MemorySink() if kind == "memory" else StoreSink(tmp_path / "e.zarr", QUESTION, UNITS)
    for unit in (2, 0, 1):
        assert unit not in sink.done
        sink.take(block(unit))
    assert sink.done == {0, 1, 2}
    assert same(sink.blocks(), map(block, range(3)))
    sink.close()
    sink.close()


def test_the_next_run_goes_on_from_there(tmp_path):
    path = tmp_path / "e.zarr"
    sweep(path, units=[0, 2]).close()
    with sweep(path, units=[]) as sink:
        assert sink.done == {0, 2}
        assert not sink.finished
        sink.take(block(1))
        assert same(sink.blocks(), map(block, range(3)))
        sink.finish(bare().data)
        assert sink.finished
    assert os.listdir(tmp_path) == ["e.zarr"]
    xr.testing.assert_identical(mt.open_effects(path).data, bare().data)


def written(path) -> tuple[int, int]:
    """Which file a chunk is, and when it was written; reading it moves neither."""
    found = (path / "prob" / "0.0").stat()
    return found.st_ino, found.st_mtime_ns


def test_a_finished_sweep_has_nothing_left_to_do(tmp_path):
    path = tmp_path / "e.zarr"
    with sweep(path) as sink:
        sink.finish(bare().data)
    before = written(path)
    with StoreSink(path, QUESTION, UNITS) as sink:
        assert sink.finished
        assert sink.done == {0, 1, 2}
        with pytest.raises(EffectsError, match="is finished, and has no units any more"):
            list(sink.blocks())
        sink.finish(bare(1).data)
    assert written(path) == before
    assert os.listdir(tmp_path) == ["e.zarr"]


def test_a_finished_result_that_is_damaged_is_computed_again(tmp_path):
    path = tmp_path / "e.zarr"
    with sweep(path) as sink:
        sink.finish(bare().data)
    (path / "prob" / "0.0").unlink()
    with sweep(path) as sink:
        assert not sink.finished
        assert "prob/0.0 is missing" in sink.notes[0]
        sink.finish(bare().data)
    xr.testing.assert_identical(mt.open_effects(path).data, bare().data)


def test_an_unfinished_sweep_of_another_question_is_left_unless_it_is_to_be_replaced(tmp_path):
    path = tmp_path / "e.zarr"
    sweep(path, units=[0, 1]).close()
    with pytest.raises(
        EffectsError, match=r"holds 2 units of an unfinished sweep.*seed is 0 there and 1 here"
    ):
        StoreSink(path, OTHER, UNITS)
    with pytest.raises(EffectsError, match="number of units is 3 there and 4 here"):
        StoreSink(path, QUESTION, 4)
    with StoreSink(path, QUESTION, UNITS) as sink:
        assert sink.done == {0, 1}
    with StoreSink(path, OTHER, UNITS, overwrite=True) as sink:
        assert sink.done == frozenset()


@pytest.mark.parametrize("by_hand", [True, False])
def test_an_older_result_stays_until_its_successor_is_complete(tmp_path, by_hand):
    path = tmp_path / "e.zarr"
    if by_hand:
        bare().save(path)
    else:
        with sweep(path) as sink:
            sink.finish(bare().data)
    wanted = "does not say what it answers" if by_hand else "seed is 0 there and 1 here"
    with pytest.raises(EffectsError, match=rf"{wanted}.*let it be replaced"):
        StoreSink(path, OTHER, UNITS)
    with sweep(path, OTHER, overwrite=True) as sink:
        xr.testing.assert_identical(mt.open_effects(path).data, bare().data)
        sink.finish(bare(1).data)
    xr.testing.assert_identical(mt.open_effects(path).data, bare(1).data)
    assert os.listdir(tmp_path) == ["e.zarr"]


def test_units_of_a_third_question_outlast_a_look_at_the_finished_one(tmp_path):
    path = tmp_path / "e.zarr"
    with sweep(path) as sink:
        sink.finish(bare().data)
    sweep(path, OTHER, units=[1], overwrite=True).close()
    with StoreSink(path, QUESTION, UNITS) as sink:
        assert sink.finished
    with StoreSink(path, OTHER, UNITS, overwrite=True) as sink:
        assert sink.done == {1}


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 1
    file.write_bytes(data)


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def _other_sweep(file: Path) -> None:
    file.write_bytes(pack(block(1, seed=1), digest(OTHER)))


def _other_unit(file: Path) -> None:
    file.write_bytes(pack(block(0), digest(QUESTION)))


def _link(file: Path) -> None:
    file.rename(file.parent.parent.parent / "elsewhere")
    file.symlink_to(file.parent.parent.parent / "elsewhere")


def _pipe(file: Path) -> None:
    """What would be waited for, where there are such."""
    file.unlink()
    getattr(os, "mkfifo", Path.touch)(file)


@pytest.mark.parametrize("damage", [_flip, _cut, _other_sweep, _other_unit, _link, _pipe])
def test_a_unit_that_cannot_be_trusted_is_computed_again_and_said(tmp_path, damage):
    path = tmp_path / "e.zarr"
    sweep(path).close()
    damage(tmp_path / "e.zarr.partial" / "units" / "000001.zip")
    with StoreSink(path, QUESTION, UNITS) as sink:
        assert sink.done == {0, 2}
        assert len(sink.notes) == 1
        assert sink.notes[0].startswith("Unit 1 cannot be used")
        sink.take(block(1))
        assert same(sink.blocks(), map(block, range(3)))


@pytest.mark.parametrize("damage", [_flip, _cut, Path.unlink])
def test_units_whose_question_is_lost_are_not_taken_for_anybodys(tmp_path, damage):
    path = tmp_path / "e.zarr"
    sweep(path, units=[0]).close()
    damage(tmp_path / "e.zarr.partial" / "question.json")
    with pytest.raises(EffectsError, match=r"1 unit .* whose question.json is missing or damaged"):
        StoreSink(path, QUESTION, UNITS)
    with StoreSink(path, QUESTION, UNITS, overwrite=True) as sink:
        assert sink.done == frozenset()


def test_a_unit_that_is_damaged_while_the_sweep_runs_is_an_error(tmp_path):
    with sweep(tmp_path / "e.zarr") as sink:
        _flip(tmp_path / "e.zarr.partial" / "units" / "000002.zip")
        with pytest.raises(EffectsError, match=r"000002.zip cannot be used: it is damaged"):
            list(sink.blocks())


def test_an_unfinished_sweep_is_told_to_whoever_opens_its_result(tmp_path):
    path = tmp_path / "e.zarr"
    sweep(path, units=[0, 2]).close()
    with pytest.raises(EffectsError, match=r"2 of 3 units are in .*\.partial, and the same sweep"):
        mt.open_effects(path)


def test_nothing_is_left_of_a_sweep_that_never_began(tmp_path):
    StoreSink(tmp_path / "e.zarr", QUESTION, UNITS).close()
    assert os.listdir(tmp_path) == []


def test_a_result_can_be_saved_beside_an_unfinished_sweep(tmp_path):
    path = tmp_path / "e.zarr"
    sweep(path, units=[0]).close()
    bare().save(path)
    xr.testing.assert_identical(mt.open_effects(path).data, bare().data)
    with StoreSink(path, QUESTION, UNITS, overwrite=True) as sink:
        assert sink.done == {0}


def test_the_second_writer_is_refused_and_told_of_the_first(tmp_path):
    path = tmp_path / "e.zarr"
    first = sweep(path, units=[0])
    for second in (lambda: StoreSink(path, QUESTION, UNITS), lambda: bare().save(path)):
        with pytest.raises(
            EffectsError, match=rf"is being written by process {os.getpid()} on .* since 20.*T"
        ):
            second()
    first.take(block(1))
    first.close()
    with StoreSink(path, QUESTION, UNITS) as sink:
        assert sink.done == {0, 1}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_a_fork_in_the_middle_gives_nothing_back_and_writes_nothing(tmp_path):
    path = tmp_path / "e.zarr"
    sink = sweep(path, units=[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch has threads
        child = os.fork()
    if not child:
        code = 1
        try:
            with sink:
                sink.take(block(1))
        except EffectsError as error:
            code = 0 if "forked from" in str(error) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with pytest.raises(EffectsError, match="is being written by process"):
        StoreSink(path, QUESTION, UNITS)
    sink.close()
    with StoreSink(path, QUESTION, UNITS) as again:
        assert again.done == {0}


def test_a_sink_that_nobody_has_any_more_holds_nothing(tmp_path):
    sink = sweep(tmp_path / "e.zarr", units=[0])
    del sink
    StoreSink(tmp_path / "e.zarr", QUESTION, UNITS).close()


class TestWhatASinkRefuses:
    def test_units_that_the_question_does_not_have(self, tmp_path):
        sink = sweep(tmp_path / "e.zarr", units=[])
        with sink, pytest.raises(EffectsError, match="no unit 3; the question has 3"):
            sink.take(block(3))

    def test_to_finish_what_is_not_done(self, tmp_path):
        sink = sweep(tmp_path / "e.zarr", units=[1])
        with sink, pytest.raises(EffectsError, match=r"2 of 3 units are missing \(0, 2\)"):
            sink.finish(bare().data)

    def test_blocks_after_it_was_closed(self, tmp_path):
        sink = sweep(tmp_path / "e.zarr", units=[0])
        sink.close()
        for late in (lambda: sink.take(block(1)), lambda: sink.finish(bare().data)):
            with pytest.raises(EffectsError, match="was given back already"):
                late()

    def test_questions_that_are_no_json(self, tmp_path):
        with pytest.raises(EffectsError, match="cannot be written as JSON"):
            StoreSink(tmp_path / "e.zarr", {"edits": {1, 2}}, 1)

    def test_verification_that_is_no_json(self, tmp_path):
        odd = block(0)
        odd.notes.append(np.zeros(3))
        with sweep(tmp_path / "e.zarr", units=[]) as sink:
            with pytest.raises(EffectsError, match="Unit 0 cannot be saved"):
                sink.take(odd)
            assert sink.done == frozenset()


def test_questions_are_compared_as_json():
    assert digest({"a": (1, 2), "b": None}) == digest({"b": None, "a": [1, 2]})
    assert digest({"a": 1}) != digest({"a": 1.5})
    asked = Undertaken({"factor": [float("inf")], "text": "\ud800"}, 2)
    assert Undertaken.read(asked.written()) == asked


@pytest.mark.parametrize(
    ("there", "asked", "wanted"),
    [
        ({"a": 1}, {"a": 1, "b": 2}, "b is not given there and 2 here"),
        ({"a": [1]}, {"a": []}, "a.0 is 1 there and not given here"),
        ({"a": {"b": "x" * 99}}, {"a": 1}, f"a is {{'b': '{'x' * 52}… there and 1 here"),
        (dict.fromkeys("abcde", 0), {}, "c is 0 there and not given here; 2 more"),
    ],
)
def test_the_first_differences_are_named(there, asked, wanted):
    assert wanted in difference(there, asked)
