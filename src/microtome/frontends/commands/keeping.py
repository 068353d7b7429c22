"""Around a command: what is silent, and what is said of results that are kept."""

from __future__ import annotations

import contextlib
import io
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import transformers

from microtome.frontends.arguments import Shown
from microtome.frontends.guard import Stopped
from microtome.report import kept_in


@contextlib.contextmanager
def answering(shown: Shown) -> Iterator[None]:
    """Hugging Face says nothing that is no error; where it is to be quiet, nobody does."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with contextlib.redirect_stderr(io.StringIO()) if shown.quiet else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def writing_to(out: Path) -> Iterator[None]:
    """Whoever stops the program in here is told what is kept in a folder, and how to go on."""
    try:
        yield
    except (Stopped, KeyboardInterrupt) as stop:
        command = shlex.join(["microtome", *sys.argv[1:]])
        stop.add_note(f"Kept in {out}: {kept_in(out)}. To go on, the same again:\n{command}")
        raise
