"""Results on object stores: whole or refused, and gone on with; held to what local ones are."""

from __future__ import annotations

import itertools

import fsspec
import pytest
import xarray as xr

import microtome as mt
from microtome.errors import EffectsError
from microtome.plan import units

PROMPTS = ("Berlin is the capital of", "The cat sat")
NUMBERS = itertools.count()


@pytest.fixture
def url():
    """A place that nothing is at."""
    return f"memory://results/{next(NUMBERS)}/map.zarr"


@pytest.fixture
def files():
    return fsspec.filesystem("memory")


@pytest.fixture(scope="module")
def effects(tiny64):
    return sweep(tiny64)


def sweep(model, edit="zero L*.z.h*@-1", **more):
    return mt.sweep(model, PROMPTS, edit, metrics="kl", **{"progress": False, **more})


def test_what_is_saved_is_opened(effects, url):
    assert effects.save(url) == url
    xr.testing.assert_identical(mt.open_effects(url).data, effects.data)
    effects.save(url)  # again, in its own place
    xr.testing.assert_identical(mt.open_effects(url).data, effects.data)


def test_its_files_are_those_of_a_local_one(effects, url, files, tmp_path):
    effects.save(url)
    effects.save(tmp_path / "map.zarr")
    root = url.removeprefix("memory:/")
    remote = {path.removeprefix(root).lstrip("/"): files.cat(path) for path in files.find(root)}
    local = {
        str(path.relative_to(tmp_path / "map.zarr")): path.read_bytes()
        for path in (tmp_path / "map.zarr").rglob("*")
        if path.is_file()
    }
    assert remote == local


def test_what_an_older_one_had_and_this_one_has_not_goes(tiny64, effects, url, files):
    more = mt.sweep(tiny64, PROMPTS, "zero L*.z.h*@-1", metrics=["kl", "top1"], progress=False)
    root = url.removeprefix("memory:/")
    more.save(url)
    assert any("top1" in path for path in files.find(root))
    effects.save(url)
    assert not any("top1" in path for path in files.find(root))


@pytest.mark.parametrize("damage", ["a chunk", "a chunk that is gone", "the list", "no list"])
def test_what_is_damaged_or_half_written_is_refused(effects, url, files, damage):
    effects.save(url)
    root = url.removeprefix("memory:/")
    chunk = next(path for path in files.find(root) if path.endswith("0.0.0"))
    match damage:
        case "a chunk":
            *most, last = files.cat(chunk)
            files.pipe_file(chunk, bytes([*most, last ^ 1]))
        case "a chunk that is gone":
            files.rm_file(chunk)
        case "the list":
            files.pipe_file(f"{root}/checksums.json", b"{}")
        case "no list":
            files.rm_file(f"{root}/checksums.json")
    with pytest.raises(EffectsError, match="is no saved result"):
        mt.open_effects(url)


class Stopping(mt.Observer):
    def __init__(self, after: int | None = None) -> None:
        self.after, self.units = after, 0

    def unit_done(self, number, of):
        self.units += 1

    @property
    def cancelled(self):
        return self.after is not None and self.units >= self.after


def test_a_sweep_that_was_stopped_is_gone_on_with_and_is_the_same(tiny64, url, files, monkeypatch):
    monkeypatch.setattr(units, "WORK", 2e9)
    monkeypatch.setattr(units, "PASSES", 0)
    undisturbed, first, second = Stopping(), Stopping(2), Stopping()
    wanted = sweep(tiny64, "zero L*.z.h*@*", progress=undisturbed)
    with pytest.raises(mt.Cancelled):
        sweep(tiny64, "zero L*.z.h*@*", progress=first, out=url)
    with pytest.raises(EffectsError, match="it is not there; a sweep into it has begun"):
        mt.open_effects(url)
    with pytest.raises(EffectsError, match="2 units of an unfinished sweep that ask another"):
        sweep(tiny64, "zero L*.z.h*@-1", out=url)
    found = sweep(tiny64, "zero L*.z.h*@*", progress=second, out=url)
    assert (first.units, first.units + second.units) == (2, undisturbed.units)
    xr.testing.assert_identical(found.data.drop_attrs(), wanted.data.drop_attrs())
    assert not files.exists(url.removeprefix("memory:/") + ".partial")
    xr.testing.assert_identical(sweep(tiny64, "zero L*.z.h*@*", out=url).data, found.data)
    with pytest.raises(EffectsError, match="the result of another question"):
        sweep(tiny64, out=url)
    sweep(tiny64, out=url, overwrite=True)


def test_what_is_somebody_elses_is_left_alone(effects, url, files):
    files.pipe_file(url.removeprefix("memory:/") + "/notes.txt", b"mine")
    with pytest.raises(EffectsError, match=r"holds something that is not a saved .*notes\.txt"):
        effects.save(url)
    assert files.cat(url.removeprefix("memory:/") + "/notes.txt") == b"mine"


def test_another_store_of_zarr_is_somebody_elses_too(tiny64, effects, url, files):
    root = url.removeprefix("memory:/")
    files.pipe_file(f"{root}/.zattrs", b'{"title": "ocean"}')
    files.pipe_file(f"{root}/.zgroup", b'{"zarr_format": 2}')
    with pytest.raises(EffectsError, match=r"holds something that is not a saved .*zattrs"):
        effects.save(url)
    with pytest.raises(EffectsError, match=r"holds something that is not a saved"):
        sweep(tiny64, out=url, overwrite=True)
    assert len(files.find(root)) == 2


def test_what_was_half_written_is_written_again(effects, url, files, monkeypatch):
    own, written = type(files).pipe_file, []

    def pipe_file(self, path, value, **how):
        written.append(path)
        if len(written) == 2:
            raise OSError("the connection is lost")
        own(self, path, value, **how)

    monkeypatch.setattr(type(files), "pipe_file", pipe_file)
    with pytest.raises(EffectsError, match=r"connection is lost\. What was there may be gone"):
        effects.save(url)
    effects.save(url)
    xr.testing.assert_identical(mt.open_effects(url).data, effects.data)


def test_a_folder_is_given_by_its_path(effects, tmp_path):
    with pytest.raises(EffectsError, match="is a folder of this machine: give its path, /"):
        effects.save(f"file://{tmp_path}/map.zarr")


def test_a_store_that_nobody_knows_is_refused_before_anything_runs(tiny64):
    with pytest.raises(EffectsError, match=r"nothing://map.zarr cannot be opened.*s3fs for s3://"):
        sweep(tiny64, out="nothing://map.zarr")
