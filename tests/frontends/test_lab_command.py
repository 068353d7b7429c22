"""``microtome lab``: what reaches the server, and how a process of its own begins and ends."""

from __future__ import annotations

import importlib
import stat

import pytest
from typer.testing import CliRunner

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
    assert stat.S_IMODE(keep.stat().st_mode) == 0o700
    assert "opened" not in called
    assert "http://127.0.0.1:1/" in done.output


def test_beyond_this_machine_no_other_models_are_asked_for(called):
    done = CliRunner().invoke(app, ["lab", "--host", "0.0.0.0", "--no-open"])
    assert done.exit_code == 0, done.output
    assert not called["desk"].typed


def test_maps_are_kept_in_the_users_cache_or_in_memory(monkeypatch, tmp_path):
    assert command.kept_in(None) == cache.directory() / "lab"
    monkeypatch.setenv(cache.VARIABLE, cache.OFF)
    assert command.kept_in(None) is None
    assert command.kept_in(tmp_path / "there").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(MicrotomeError, match="give another place, --keep DIR"):
        command.kept_in(tmp_path / "file" / "below")


def test_a_language_that_there_is_not_is_refused(called):
    with pytest.raises(TextError, match="no language 'fr'; there are: en, vi"):
        command.lab([], "127.0.0.1", 0, None, False, "fr")


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
