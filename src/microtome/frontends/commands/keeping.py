"""Around a command: what is silent, and what is said of results that are kept."""

from __future__ import annotations

import contextlib
import io
import shlex
import sys
from collections.abc import Callable, Iterator
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
def writing_to(out: Path, kept: Callable[[Path], str] = kept_in) -> Iterator[None]:
    """Whoever stops the program in here is told what is kept in a folder, and how to go on."""
    try:
        yield
    except (Stopped, KeyboardInterrupt) as stop:
        stop.add_note(f"Kept in {out}: {kept(out)}. To go on, the same again:\n{again()}")
        raise


@contextlib.contextmanager
def keeping(
    folder: Path | None, kept: Callable[[Path], str] = kept_in, option: str = "--keep"
) -> Iterator[None]:
    """The same where what is done is kept in a folder that is asked for with an option."""
    if folder is not None:
        with writing_to(folder, kept):
            yield
        return
    try:
        yield
    except (Stopped, KeyboardInterrupt) as stop:
        stop.add_note(
            f"Nothing is kept. With {option} DIR all that is done is, and the same again goes on "
            f"from there:\n{again()} {option} DIR"
        )
        raise


def again() -> str:
    """The command that is running, as it is given again."""
    return shlex.join(["microtome", *sys.argv[1:]])
