"""A saved result: every byte proved, nothing run that it asks for, nothing of others touched."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import xarray as xr

import microtome as mt
from microtome.errors import EffectsError
from microtome.results import codecs, form
from microtome.results.checksums import LIST, Checksums
from microtome.results.form import storable
from results.samples import WORD, bare, sample

FORMAT_1 = Path(__file__).parent / "format_1.zarr.zip"


@pytest.fixture
def format_1(tmp_path) -> Path:
    """What the last build with format 1 wrote of `sample`."""
    with zipfile.ZipFile(FORMAT_1) as archive:
        archive.extractall(tmp_path / "old.zarr")
    return tmp_path / "old.zarr"


def put(path: Path, files: dict[str, bytes]) -> Path:
    """A store made by hand, with a list that fits."""
    for name, data in {**files, LIST: Checksums.of(files).written()}.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def test_a_result_comes_back_with_names_that_no_file_system_takes(tmp_path):
    saved = sample()
    opened = mt.open_effects(saved.save(tmp_path / "e.zarr"))
    xr.testing.assert_identical(opened.data, saved.data)
    assert list(opened.data.data_vars) == list(saved.data.data_vars)
    assert os.listdir(tmp_path) == ["e.zarr"]
    again = mt.open_effects(opened.save(tmp_path / "again.zarr"))
    xr.testing.assert_identical(again.data, saved.data)


def test_the_same_result_gives_the_same_bytes():
    assert form.encode(sample().data) == form.encode(sample().data)


def test_large_arrays_are_cut_and_scalars_and_empty_ones_are_kept(monkeypatch):
    monkeypatch.setattr(form, "PER_FILE", 1 << 10)
    large = np.random.default_rng(0).random((40, 50, 60))
    variables = {"p": (("x", "y", "z"), large), "s": ((), 1.5), "e": ("w", np.zeros(0))}
    data = xr.Dataset(variables, attrs={"provenance": "{}"})
    files = form.encode(data)
    assert len([name for name in files if name.startswith("p/")]) > 3
    xr.testing.assert_identical(form.decode(files), data)


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 5000])
@pytest.mark.parametrize("read", [mt.open_effects, mt.open_aggregates, mt.circuits.open_scores])
def test_a_name_that_no_file_can_have_is_refused(read, name):
    with pytest.raises(EffectsError, match="Nothing can be read at"):
        read(name)


def test_format_1_still_opens(format_1):
    opened = mt.open_effects(format_1)
    xr.testing.assert_identical(opened.data, sample().data)
    assert list(opened.data.data_vars) == list(sample().data.data_vars)
    assert not (format_1 / LIST).exists()


@pytest.mark.parametrize("file", ["prob/0.0.0", "text/0", "prob/.zarray", ".zattrs"])
def test_format_1_cut_short_is_an_error_of_ours(format_1, file):
    cut = format_1 / file
    cut.write_bytes(cut.read_bytes()[:-3])
    with pytest.raises(EffectsError, match="is no saved result"):
        mt.open_effects(format_1)


def _unlisted(path: Path, data: xr.Dataset, chunks: dict[str, tuple[int, ...]]) -> Path:
    """A result as format 1 was written: without chunks of nothing but fill values."""
    form = {"format": 1, "variables": list(map(str, data.data_vars))}
    files = {name: name.replace("/", "%2F") for name in form["variables"]}
    cut = {files[name]: {"chunks": size} for name, size in chunks.items()}
    data.rename(files).assign_attrs(form).to_zarr(path, zarr_format=2, encoding=cut)
    return path


def _losses(path: Path) -> dict[str, bool]:
    """By chunk, whether the result without it is refused for it."""
    found = {}
    for file in sorted(file for file in path.rglob("*") if file.name[0].isdigit()):
        whole, name = file.read_bytes(), file.relative_to(path).as_posix()
        file.unlink()
        try:
            mt.open_effects(path)
            found[name] = False
        except EffectsError as error:
            found[name] = "is missing, and what it held is not absent" in str(error)
        file.write_bytes(whole)
    return found


def test_format_1_without_any_of_its_chunks_is_refused(format_1):
    losses = _losses(format_1)
    assert len(losses) == 20
    assert all(losses.values())


def test_format_1_in_many_chunks_leaves_out_absent_ones_and_no_others(tmp_path):
    data = sample().data.isel(layer=slice(1, None), at_layer=slice(1))
    data = data.drop_vars([name for name in data if "loss" in name or WORD in name])
    here = data["values_changed"].notnull()
    for name, absent in (("top1", -1), ("top1_token", ""), ("std(L*.resid_post)", np.nan)):
        data[name] = data[name].where(here, absent).assign_attrs(data[name].attrs)
    cells = [name for name, values in data.items() if values.dims == ("prompt", "layer", "factor")]
    path = _unlisted(tmp_path / "old.zarr", data, dict.fromkeys(cells, (1, 1, 2)))
    # The second prompt has no cells in the last layer; an axis of one value has 0 there.
    assert not (path / "prob" / "1.1.0").exists()
    assert not (path / "at_layer" / "0").exists()
    xr.testing.assert_identical(mt.open_effects(path).data, data)
    losses = _losses(path)
    assert len(losses) == 22
    assert all(losses.values())


@pytest.mark.parametrize("lost", ["top1/0.0.0", "top1_token/0.0.0", "clean_top1/0"])
def test_format_1_without_the_ids_or_the_texts_of_tokens_is_refused(tmp_path, lost):
    data = sample().data
    data["top1"] += 3
    data["top1_token"][:] = "東京"
    data["clean_top1"][:] = 3
    data["clean_top1_token"][:] = "東京"
    path = _unlisted(tmp_path / "old.zarr", data, {})
    xr.testing.assert_identical(mt.open_effects(path).data, data)
    (path / lost).unlink()
    with pytest.raises(EffectsError, match=f"{lost} is missing"):
        mt.open_effects(path)


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [_flip, _cut, Path.unlink])
def test_whichever_file_is_damaged_is_named(tmp_path, damage):
    path = bare().save(tmp_path / "e.zarr")
    files = sorted(file for file in path.rglob("*") if file.is_file())
    assert len(files) == 4 + 3 * 3
    for file in files:
        whole = file.read_bytes()
        damage(file)
        with pytest.raises(EffectsError, match="is no saved result") as raised:
            mt.open_effects(path)
        assert file.relative_to(path).as_posix() in str(raised.value)
        file.write_bytes(whole)
    mt.open_effects(path)


def test_every_byte_of_the_list_counts():
    written = Checksums({"a": "b"}, {"seed": 0}).written()
    assert Checksums.read(written) == Checksums({"a": "b"}, {"seed": 0})
    for at in range(len(written)):
        for wrong in (written[:at] + b" " + written[at:], written[:at] + written[at + 1 :]):
            with pytest.raises(EffectsError, match=r"checksums\.json is damaged"):
                Checksums.read(wrong)


def test_files_that_are_not_listed_are_not_read(tmp_path):
    path = bare().save(tmp_path / "e.zarr")
    (path / "prob" / "0.1").write_bytes(b"not ours")
    (path / ".DS_Store").write_bytes(b"not ours")
    xr.testing.assert_identical(mt.open_effects(path).data, bare().data)


class TestWhatIsNotRun:
    class Bomb:
        """Leaves a file where it is unpickled."""

        def __init__(self, path: Path):
            self.path = path

        def __reduce__(self):
            return (Path.touch, (self.path,))

    @pytest.mark.parametrize("version", [1, 2])
    @pytest.mark.parametrize("as_filter", [True, False])
    def test_a_pickle(self, tmp_path, monkeypatch, version, as_filter):
        monkeypatch.setattr(numcodecs.pickles, "ALLOW_UNSAFE_PICKLE_DECODE", True)
        files = form.encode(sample().data)
        meta = json.loads(files["text/.zarray"])
        meta["filters"] = [{"id": "pickle", "protocol": 5}] if as_filter else meta["filters"]
        meta["compressor"] = None if as_filter else {"id": "pickle", "protocol": 5}
        files["text/.zarray"] = json.dumps(meta).encode()
        files["text/0"] = pickle.dumps(self.Bomb(tmp_path / "bang"))
        files[".zattrs"] = files[".zattrs"].replace(b'"format": 2', b'"format": %d' % version)
        path = put(tmp_path / "e.zarr", files)
        if version == 1:
            (path / LIST).unlink()
        with pytest.raises(
            EffectsError, match=r"text/.zarray asks for the codec \['pickle'\].*run"
        ):
            mt.open_effects(path)
        assert not (tmp_path / "bang").exists()

    @pytest.mark.parametrize("kind", ["more", "less", "text"])
    def test_a_chunk_of_another_size_than_declared(self, tmp_path, kind):
        files = form.encode(sample().data)
        blosc = numcodecs.Blosc("lz4")
        if kind == "text":
            name = "text/0"
            files[name] = files[name][:4] + (1 << 30).to_bytes(4, "little") + files[name][8:]
        else:
            name = "prob/0.0.0"
            files[name] = blosc.encode(np.zeros(10**6 if kind == "more" else 2))
        with pytest.raises(EffectsError, match=rf"{name} .*(declared|can)\."):
            mt.open_effects(put(tmp_path / "e.zarr", files))

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("dtype", "|V8"),
            ("dtype", [["a", "<f8"]]),
            ("order", "F"),
            ("chunks", [0, 3, 2]),
            ("shape", [10**9, 10**9, 10**9]),
            ("compressor", {"id": "gzip"}),
        ],
    )
    def test_metadata_that_microtome_does_not_write(self, tmp_path, key, value):
        files = form.encode(sample().data)
        meta = json.loads(files["prob/.zarray"])
        files["prob/.zarray"] = json.dumps({**meta, key: value}).encode()
        with pytest.raises(EffectsError, match="prob"):
            mt.open_effects(put(tmp_path / "e.zarr", files))

    def test_zstandard_is_read_and_proved_too(self, tmp_path):
        files = form.encode(sample().data)
        meta = json.loads(files["prob/.zarray"])
        zstd = numcodecs.Zstd()
        meta["compressor"] = {"id": "zstd", "level": 0}
        files["prob/.zarray"] = json.dumps(meta).encode()
        chunk = sample().data["prob"].to_numpy().tobytes()
        files["prob/0.0.0"] = zstd.encode(chunk)
        opened = mt.open_effects(put(tmp_path / "e.zarr", files))
        xr.testing.assert_identical(opened.data, sample().data)
        files["prob/0.0.0"] = zstd.encode(b"0" * 10**6)
        with pytest.raises(EffectsError, match="holds 1,000,000 bytes, and 96 are declared"):
            codecs.check(files, complete=True)

    def test_a_list_that_names_files_elsewhere(self, tmp_path):
        (tmp_path / "secret").write_bytes(b"x")
        for name in ("../secret", str(tmp_path / "secret"), "../.zattrs"):
            path = bare().save(tmp_path / "e.zarr")
            files = {**Checksums.read((path / LIST).read_bytes()).files, name: "0"}
            (path / LIST).write_bytes(Checksums(files).written())
            with pytest.raises(EffectsError, match="not the name of a file of a store"):
                mt.open_effects(path)


class TestLinks:
    def test_a_link_to_a_result_is_read_and_never_written_through(self, tmp_path):
        kept = bare().save(tmp_path / "kept.zarr")
        link = tmp_path / "link.zarr"
        link.symlink_to(kept)
        xr.testing.assert_identical(mt.open_effects(link).data, bare().data)
        with pytest.raises(EffectsError, match=r"is a link to .*kept\.zarr; nothing is written"):
            bare(1).save(link)
        xr.testing.assert_identical(mt.open_effects(kept).data, bare().data)

    @pytest.mark.parametrize("given", [None, True, b"e.zarr", 5])
    def test_a_place_that_is_no_path_is_refused(self, given):
        with pytest.raises(EffectsError, match="Results are written to a folder, named by a text"):
            bare().save(given)

    @pytest.mark.parametrize("name", ["", "units", "new", "old", "gone", "question.json", "lock"])
    def test_links_beside_a_result_are_not_followed(self, tmp_path, name):
        precious = tmp_path / "precious"
        precious.mkdir()
        (precious / "thesis").write_text("years of work")
        beside = tmp_path / "e.zarr.partial"
        if name:
            beside.mkdir()
        (beside / name if name else beside).symlink_to(precious)
        with pytest.raises(EffectsError, match="is a link to"):
            bare().save(tmp_path / "e.zarr")
        assert os.listdir(precious) == ["thesis"]

    def test_a_link_inside_a_result_is_refused(self, tmp_path):
        path = bare().save(tmp_path / "e.zarr")
        (path / "prob" / "0.0").rename(tmp_path / "elsewhere")
        (path / "prob" / "0.0").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(EffectsError, match=r"prob/0\.0 is a link"):
            mt.open_effects(path)


def test_a_folder_beside_it_that_is_somebodys_is_left_alone(tmp_path):
    beside = tmp_path / "e.zarr.partial"
    beside.mkdir()
    (beside / "thesis").write_text("years of work")
    with pytest.raises(EffectsError, match="is not what microtome leaves beside a result"):
        bare().save(tmp_path / "e.zarr")
    assert os.listdir(beside) == ["thesis"]


@pytest.mark.parametrize(
    ("coordinates", "message"),
    [
        ({"seed": [1, 10**20]}, r"seed=1000+ could not be saved.*64 bits"),
        ({"layer": range(3), "seed": [-(2**63) - 1]}, "seed=-9223372036854775809 .*64 bits"),
        ({"how": ["a", "\ud800"]}, "lone surrogate"),
        ({"factor": [0.5, None]}, "factor=None .*NoneType"),
    ],
)
def test_what_cannot_be_saved_is_known_before_anything_runs(coordinates, message):
    with pytest.raises(EffectsError, match=message):
        storable(coordinates)


def test_what_can_be_saved_passes():
    values = [1, 2**63 - 1, -(2**63), 0.5, np.float32(1), np.int64(3), True, "東京", float("nan")]
    storable({"layer": range(10**9), "seed": values})


def test_a_result_with_a_value_that_has_no_form_is_refused_before_the_older_is_touched(tmp_path):
    path = bare().save(tmp_path / "e.zarr")
    data = bare().data.assign(odd=("prompt", np.array([10**20], dtype=object)))
    with pytest.raises(EffectsError, match="has a value that cannot be saved"):
        mt.Effects(data.assign(clean_odd=data["odd"])).save(path)
    xr.testing.assert_identical(mt.open_effects(path).data, bare().data)
