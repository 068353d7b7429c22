"""How the command line ends: exit codes, messages, and no traceback that nobody asked for."""

from __future__ import annotations

import errno
import io
import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import microtome
from microtome import MicrotomeError
from microtome.errors import LoadError, PromptWarning
from microtome.frontends import cli, guard
from microtome.report import Folder
from microtome.verbs import load as loading

SOURCE = Path(microtome.__file__).parent
BERLIN = ["-p", "Berlin is the capital of", "--target", " Germany"]


@pytest.fixture
def end(monkeypatch, capsys):
    """Runs a function as a command; gives exit code, output and error output."""

    def ending(run, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["microtome", *arguments])
        code: int | str | None = 0
        try:
            guard.guarded(run)
        except SystemExit as stop:
            code = stop.code
        shown = capsys.readouterr()
        return int(code or 0), shown.out, shown.err

    return ending


@pytest.fixture
def own_signals():
    """Gives back to the tests how they take signals."""
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for one, handler in before.items():
        signal.signal(one, handler)


def raising(error: BaseException):
    def run():
        raise error

    return run


def test_a_warning_of_ours_is_said_once_and_without_the_line_of_the_source(end):
    def run():
        for text in ("[no] such space", "another", "[no] such space"):
            warnings.warn(text, PromptWarning, stacklevel=1)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        code, _, err = end(run)
    said = [f"microtome, a warning: {text}\n" for text in ("[no] such space", "another")]
    assert (code, err) == (0, "".join(said))


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (MicrotomeError("[red]no[/red] such layer"), 2, "microtome: [red]no[/red] such layer"),
        (RuntimeError("broken"), 1, "Unexpected RuntimeError: broken. (MICROTOME_TRACEBACK=1"),
        (RecursionError("too deep"), 1, "Unexpected RecursionError"),
        (OSError(errno.ENOSPC, "No space left on device", "x"), 1, "x: No space left on device."),
        (KeyboardInterrupt(), 130, "microtome: Interrupted."),
        (BrokenPipeError(), 141, ""),
    ],
    ids=lambda given: type(given).__name__ if isinstance(given, Exception) else "",
)
def test_every_end_is_one_message_with_a_code_of_its_own(end, error, code, words):
    found, out, err = end(raising(error))
    assert (found, out) == (code, "")
    assert words in err
    assert bool(err) == bool(words)
    assert "Traceback" not in err


def test_a_traceback_is_shown_where_it_is_asked_for(end, monkeypatch):
    monkeypatch.setenv(guard.TRACEBACK, "1")
    with pytest.raises(RuntimeError, match="broken"):
        end(raising(RuntimeError("broken")))


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_in_a_sweep_names_what_is_kept_and_the_command_that_goes_on(
    end, tmp_path, monkeypatch, number, code
):
    out = tmp_path / "a folder"

    def stopped(*given, **more):
        (out / "effects.zarr.partial").mkdir(parents=True)
        os.kill(os.getpid(), number)
        raise AssertionError("the signal was not heard")

    monkeypatch.setattr("microtome.frontends.experiment.experiment.sweep", stopped)
    asked = ["sweep", "nano", *BERLIN, "-e", "zero L*.z.h*", "-o", str(out)]
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    found, _, err = end(cli.app, *asked)
    assert found == code
    assert "Traceback" not in err
    assert f"Kept in {out}: effects.zarr.partial" in err
    assert shlex.split(err.splitlines()[-1]) == ["microtome", *asked]
    assert [
        signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    ] == before


def test_a_terminal_that_is_closed_takes_no_word_of_the_stop(end):
    def closing():
        try:
            os.kill(os.getpid(), signal.SIGHUP)
        finally:
            raise OSError(5, "Input/output error")

    code, _, err = end(closing)
    assert code == 129
    assert "Terminated" in err


def test_a_study_that_is_stopped_keeps_the_sweeps_that_are_done(end, tmp_path, monkeypatch):
    kept, keep = [], Folder.kept

    def keeping(self, name=""):
        keep(self, name)
        kept.append(self.path_of(name))
        if len(kept) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Folder, "kept", keeping)
    asked = ["study", "run", "head-ablation", "--model", "nano", "-o", str(tmp_path / "out")]
    code, _, err = end(cli.app, *asked)
    assert code == 143
    names = sorted(f"effects/{path.name}" for path in kept)
    assert f"Kept in {tmp_path / 'out'}: {', '.join(names)} (whole)" in err
    assert all(microtome.open_effects(path).n_cells for path in kept)


def test_without_docstrings_it_says_so(end, monkeypatch):
    """As with ``python -OO``, where transformers has no models."""
    monkeypatch.setattr(guard.guarded, "__doc__", None)
    code, _, err = end(cli.app, "study", "list")
    assert code == 2
    assert "started with -OO" in err
    monkeypatch.setattr(loading.load, "__doc__", None)
    with pytest.raises(LoadError, match="start it with -O,"):
        microtome.load("nano")


def test_signals_that_the_caller_ignores_stay_ignored(end):
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        code, *_ = end(lambda: os.kill(os.getpid(), signal.SIGTERM))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert code == 0


@pytest.mark.parametrize("text", ["caf\udce9", "half \ud83d", "nul\0"])
def test_an_argument_that_is_no_text_is_named(end, text):
    code, _, err = end(cli.app, "run", "nano", "-p", text)
    assert code == 2
    assert "Argument 4" in err


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_output_that_is_not_utf8_is_shown_as_far_as_it_can_be(monkeypatch, encoding):
    streams = [io.TextIOWrapper(io.BytesIO(), encoding) for _ in range(2)]
    for name, stream in zip(("stdout", "stderr"), streams, strict=True):
        monkeypatch.setattr(sys, name, stream)
    monkeypatch.setattr(sys, "argv", ["microtome", "study", "list", "--lang", "vi"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    assert b"ioi-levels" in streams[0].buffer.getvalue()
    monkeypatch.setattr(sys, "argv", ["microtome", "study", "show", "飞"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    sys.stderr.flush()
    assert stop.value.code == 2
    assert b"\\u98de" in streams[1].buffer.getvalue()


def test_what_is_pages_long_is_cut_in_messages_and_never_in_the_command(end):
    code, _, err = end(raising(MicrotomeError(f"No layer {'9' * 5000} here.")))
    assert code == 2
    assert len(err) < 500
    assert "here." in err


LONG = "9" * 5000


@pytest.mark.parametrize(
    "arguments",
    [
        ["-e", f"zero L{LONG}.z"],
        ["-e", f"zero L0.z@-{LONG}:"],
        ["-e", f"zero L0.z.h{{{LONG}}}"],
        ["-e", f"scale({LONG}) L0.z"],
        ["-e", f"noise(seed={LONG}) L0.z"],
        ["-e", f'apply("{"a." * 5000}b:c") L0.z'],
        ["-e", "replace(" + "[" * 5000 + ") L0.z"],
        ["-e", 'zero L0.z@" "'],
        ["-e", "zero L0.z", "-m", f"loss@{LONG}"],
        ["-e", "zero L0.z", "-m", "loss@" + "[" * 5000],
        ["-e", "scale(1) L0.z", "--over", f"factor={LONG}"],
        ["-e", "zero L0.z", "--memory", LONG],
        ["--config", "x" * 5000],
    ],
)
def test_huge_numbers_and_deep_brackets_are_refused(end, arguments):
    given = ["nano", *BERLIN] if arguments[0] == "-e" else []
    code, _, err = end(cli.app, "plan", *given, *arguments)
    assert code == 2, err
    assert len(err) < 3000


@pytest.mark.parametrize("value", [LONG, "[" * 3000])
def test_huge_values_of_a_study_are_refused(end, value):
    code, _, err = end(
        cli.app, "study", "run", "hidden-scaling", "--model", "nano", "--set", f"layer={value}"
    )
    assert code == 2, err


INTERRUPTED = """
import os, runpy, signal, sys

class Interrupting:
    def find_spec(self, name, path, target=None):
        if name == "microtome":
            os.kill(os.getpid(), signal.{name})

sys.meta_path.insert(0, Interrupting())
runpy.run_path({path!r}, run_name="__main__")
"""


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_while_importing_gives_no_traceback(name, code):
    program = INTERRUPTED.format(name=name, path=str(SOURCE / "__main__.py"))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (code, b"", b"")


AGAIN = """
import atexit, os, runpy, signal, sys
from microtome.frontends import cli, guard

leave = guard._leave
def leaving(message, code):
    os.kill(os.getpid(), signal.{name})
    leave(message, code)

def stopped(**given):
    os.kill(os.getpid(), signal.{name})

cli.app = stopped
if not {late}:
    guard._leave = leaving
else:
    atexit.register(lambda: os.kill(os.getpid(), signal.{name}))
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("microtome", run_name="__main__")
"""


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
@pytest.mark.parametrize("late", [False, True], ids=["while it is said", "at exit"])
def test_a_second_signal_gives_no_traceback_and_cuts_no_word(name, code, late):
    program = AGAIN.format(name=name, late=late)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=False, text=True
    )
    word = "Interrupted" if name == "SIGINT" else "Terminated"
    assert done.stderr == f"microtome: {word}.\n"
    assert done.returncode == code


DELETED = """
import os, runpy, signal, time
from microtome.frontends import cli

class Told:
    def __del__(self):
        os.kill(os.getpid(), signal.{name})

def goes_on(**given):
    Told()
    time.sleep(60)

cli.app = goes_on
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("microtome", run_name="__main__")
"""


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_where_python_ignores_what_is_raised_is_not_lost(name, code):
    program = DELETED.format(name=name)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=False, text=True, timeout=50
    )
    word = "Interrupted" if name == "SIGINT" else "Terminated"
    assert (done.returncode, done.stderr) == (code, f"microtome: {word}.\n")


def test_python_m_is_the_command(monkeypatch, capsys, own_signals):
    monkeypatch.setattr(sys, "argv", ["microtome", "study", "show", "nothing"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(SOURCE / "__main__.py"), run_name="__main__")
    assert stop.value.code == 2
    assert re.search("No study is called 'nothing'", capsys.readouterr().err)
