"""``microtome lab``: what reaches the server, and how a process of its own begins and ends."""

from __future__ import annotations

import importlib
import os
import re
import stat

import pytest
from typer.testing import CliRunner

import microtome as mt
from microtome.errors import MicrotomeError, TextError
from microtome.frontends import lab_command
from microtome.frontends.cli import app
from microtome.frontends.commands import lab as command
from microtome.model import cache


@pytest.fixture
def called(monkeypatch):
    """What the server was started with."""
    found = {}

    def serve(desk, jobs, **how):
        found.update(how, desk=desk, jobs=jobs)
        how["started"]("http://127.0.0.1:1/")

    monkeypatch.setattr(command, "serve", serve)
    monkeypatch.setattr(command.webbrowser, "open", lambda url: found.update(opened=url))
    monkeypatch.setattr(command.warnings, "simplefilter", lambda *args: None)
    return found


def test_models_and_options_reach_the_server(called, tmp_path):
    keep = tmp_path / "maps" / "here"
    asked = ["lab", "nano", "gpt2", "--keep", str(keep), "--port", "0", "--lang", "vi", "--no-open"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert [one.name for one in called["desk"].offers[:2]] == ["nano", "gpt2"]
    assert called["desk"].typed
    assert (called["host"], called["port"], called["lang"]) == ("127.0.0.1", 0, "vi")
    assert called["jobs"].keep == keep
    assert called["jobs"].most == 20 * 2**30
    assert stat.S_IMODE(keep.stat().st_mode) == 0o700
    assert "opened" not in called
    assert "http://127.0.0.1:1/" in done.output


def test_maps_have_a_bound_and_can_be_cleared(called, tmp_path, monkeypatch, nano):
    keep = ["--keep", str(tmp_path)]
    done = CliRunner().invoke(app, ["lab", *keep, "--keep-most", "1.5GiB", "--no-open"])
    assert done.exit_code == 0, done.output
    assert called["jobs"].most == 3 * 2**29
    assert "up to 1.5 GiB" in done.output
    for wrong, says in (("20", "say it with its unit"), ("much", "expected bytes")):
        done = CliRunner().invoke(app, ["lab", *keep, "--keep-most", wrong, "--no-open"])
        assert says in str(done.exception)
    called.clear()
    for day, name in enumerate("ab", 1):
        place = tmp_path / f"{name * 24}.zarr"
        mt.sweep(nano, "It is", "zero L0.mlp_out", metrics="kl", progress=False, out=place)
        os.utime(place, (day * 86_400, day * 86_400))
    (tmp_path / "mine").write_text("mine")
    monkeypatch.setattr(command, "LEAST", 1)
    most = str(sum(file.stat().st_size for file in place.rglob("*") if file.is_file()))
    CliRunner().invoke(app, ["lab", *keep, "--keep-most", most, "--no-open"])
    assert {one.name for one in tmp_path.iterdir()} == {place.name, "mine"}, "as it begins"
    called.clear()
    done = CliRunner().invoke(app, ["lab", "--clear", *keep])
    assert re.search(r"Removed 1 map \(0\.\d+ MiB\) from", done.output)
    assert "Left alone what the lab did not put there: 1 more." in done.output
    assert [one.name for one in tmp_path.iterdir()] == ["mine"]
    assert called == {}, "it serves nothing"
    done = CliRunner().invoke(app, ["lab", "--clear", "--keep", str(tmp_path / "nowhere")])
    assert "Removed 0 maps" in done.output
    assert not (tmp_path / "nowhere").exists()


def test_beyond_this_machine_no_other_models_are_asked_for(called):
    done = CliRunner().invoke(app, ["lab", "--host", "0.0.0.0", "--no-open"])
    assert done.exit_code == 0, done.output
    assert not called["desk"].typed


def test_maps_are_kept_in_the_users_cache_or_in_memory(monkeypatch, tmp_path, capsys):
    assert command.kept_in(None) == cache.directory() / "lab"
    monkeypatch.setenv(cache.VARIABLE, cache.OFF)
    assert command.kept_in(None) is None
    command.clear(None)
    assert "kept in memory alone" in capsys.readouterr().out
    assert command.kept_in(tmp_path / "there").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(MicrotomeError, match="give another place, --keep DIR"):
        command.kept_in(tmp_path / "file" / "below")


def test_a_language_that_there_is_not_is_refused(called):
    with pytest.raises(TextError, match="no language 'fr'; there are: en, vi"):
        command.lab([], "127.0.0.1", 0, None, "20GiB", False, "fr")


@pytest.mark.parametrize("missing", ["dash", "waitress"])
def test_where_the_extra_is_missing_one_command_brings_it(monkeypatch, missing):
    def absent(name: str):
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

    monkeypatch.setattr(lab_command, "imported", absent)
    with pytest.raises(MicrotomeError, match=r"needs \w+.*: pip install 'microtome\[lab\]'"):
        lab_command.lab()


def test_another_missing_module_is_a_fault(monkeypatch):
    monkeypatch.setattr(lab_command, "imported", lambda name: importlib.import_module("nowhere"))
    with pytest.raises(ModuleNotFoundError, match="nowhere"):
        lab_command.lab()
