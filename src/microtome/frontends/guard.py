"""How the command line ends: never with a traceback that nobody asked for.

====  ======================================================================================
code  when
====  ======================================================================================
0     it did what was asked
1     something that nobody foresaw; ``MICROTOME_TRACEBACK=1`` shows where
2     it refuses, in one message
129   SIGHUP: the terminal was closed
130   Ctrl-C
141   whoever read the output, such as ``head``, has closed it
143   SIGTERM
====  ======================================================================================

What was finished is kept, and the message names the command that goes on from there.
"""

from __future__ import annotations

import _thread
import contextlib
import io
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TextIO

from rich.markup import escape

from microtome.errors import NO_DOCSTRINGS, CacheWarning, MicrotomeError, PromptWarning
from microtome.frontends.shown import err

UNFORESEEN, REFUSED = 1, 2
ENDING = ("SIGINT", "SIGTERM", "SIGHUP")
"""Signals that end a command, where there are such."""
SIGNALLED = 128
"""A shell's own code for a program that a signal ended: this and the signal's number."""
SOON = 0.01
"""Seconds after which a signal that was swallowed comes again."""
TRACEBACK = "MICROTOME_TRACEBACK"


class Stopped(BaseException):
    """A signal; no error, so that nothing on the way takes it for one and goes on.

    Attributes:
        number: the signal's.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def guarded(run: Callable[[], object]) -> None:
    """Run a command; always ends with `SystemExit` unless all is well."""
    _open_streams()
    _make_writable(sys.stdout, "replace")
    _make_writable(sys.stderr, "backslashreplace")
    try:
        with _signals(), _plain_warnings():
            if guarded.__doc__ is None:  # there is no help, either
                raise MicrotomeError(NO_DOCSTRINGS)
            _check_arguments(sys.argv[1:])
            run()
            sys.stdout.flush()
    except Stopped as stop:
        _leave_stopped(stop, stop.number)
    except KeyboardInterrupt as stop:
        _leave_stopped(stop, signal.SIGINT)
    except MicrotomeError as error:
        _leave(_readable(str(error)), REFUSED)
    except BrokenPipeError:
        _leave_quietly()
    except SystemExit as stop:
        # What rich and typer make of it by themselves.
        if isinstance(stop.__context__, BrokenPipeError):
            _leave_quietly()
        raise
    except OSError as error:
        # A terminal that is closed takes no word on the way out.
        if (before := _stopped_before(error)) is not None:
            _leave_stopped(before, before.number)
        _raise_if_asked()
        where = f" {error.filename}:" if error.filename else ""
        said = _readable(f"Cannot go on:{where} {error.strerror or error}.")
        _leave(f"{said}{_hint()}", UNFORESEEN)
    except Exception as error:
        _raise_if_asked()
        said = " ".join(_readable(str(error)).split())
        _leave(f"Unexpected {type(error).__name__}: {said}.{_hint()}", UNFORESEEN)


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Signals that end a command raise `Stopped`, unless the caller has them ignored."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    before: dict[int, Any] = {}
    try:
        with _swallowed_by_nobody():
            for one in [getattr(signal, name) for name in ENDING if hasattr(signal, name)]:
                if signal.getsignal(one) is not signal.SIG_IGN:
                    with contextlib.suppress(ValueError):  # only the main thread hears of signals
                        before[one] = signal.signal(one, stop)
            yield
    except (Stopped, KeyboardInterrupt) as came:
        for one in before:  # whoever presses Ctrl-C twice is told as well
            signal.signal(one, signal.SIG_IGN)
        _leave_stopped(came, getattr(came, "number", signal.SIGINT))
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


@contextlib.contextmanager
def _swallowed_by_nobody() -> Iterator[None]:
    """A signal that comes where Python ignores what is raised, in a ``__del__``, comes again."""
    own, over = sys.unraisablehook, threading.Event()

    def again(number: int) -> None:
        if over.is_set():
            return
        if hasattr(signal, "pthread_kill"):  # which wakes a thread that waits, too
            signal.pthread_kill(threading.main_thread().ident or 0, number)
        else:
            _thread.interrupt_main(signal.Signals(number))

    def hear(ignored: sys.UnraisableHookArgs) -> None:
        if not isinstance(ignored.exc_value, Stopped | KeyboardInterrupt):
            own(ignored)
            return
        number = getattr(ignored.exc_value, "number", signal.SIGINT)
        timer = threading.Timer(SOON, again, [number])
        timer.daemon = True
        timer.start()

    sys.unraisablehook = hear
    try:
        yield
    finally:
        over.set()
        sys.unraisablehook = own


@contextlib.contextmanager
def _plain_warnings() -> Iterator[None]:
    """Our own warnings are said as errors are, and once: the message, and no line of the source."""
    with warnings.catch_warnings():
        shown = warnings.showwarning
        told: set[str] = set()

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if not issubclass(category, PromptWarning | CacheWarning):
                shown(message, category, filename, lineno, file, line)
                return
            if str(message) in told:
                return
            told.add(str(message))
            said = escape(_readable(str(message)))
            err.print(f"[bold yellow]microtome, a warning:[/bold yellow] {said}", soft_wrap=True)

        warnings.showwarning = show
        yield


def _open_streams() -> None:
    """Where the caller has closed standard output or errors, what goes there goes nowhere."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115


def _make_writable(stream: object, errors: str) -> None:
    """Have a stream replace what its encoding lacks, and half characters."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors=errors)


def _check_arguments(given: list[str]) -> None:
    for number, text in enumerate(given, 1):
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            shown = ascii(text[max(0, error.start - 20) : error.end])
            raise MicrotomeError(
                f"Argument {number} is not UTF-8 text, at {shown}: set the terminal to UTF-8, or "
                "put prompts in a .jsonl file that is saved as UTF-8."
            ) from None
        if "\0" in text:
            raise MicrotomeError(f"Argument {number} holds a NUL character.")


def _leave_stopped(stop: BaseException, number: int) -> None:
    name = "Interrupted" if number == signal.SIGINT else "Terminated"
    first = stop if hasattr(stop, "__notes__") else _stopped_before(stop)
    _leave("\n".join([f"{name}.", *getattr(first, "__notes__", [])]), SIGNALLED + number)


def _stopped_before(error: BaseException) -> Stopped | None:
    """The signal that an error came after, if it did."""
    before = error.__context__
    while before is not None and not isinstance(before, Stopped):
        before = before.__context__
    return before


def _leave(message: str, code: int) -> None:
    with contextlib.suppress(OSError):  # nobody is left to tell
        err.print(f"[bold red]microtome:[/bold red] {escape(message)}", soft_wrap=True)
    sys.exit(code)


def _leave_quietly() -> None:
    """Whoever read the output has closed it: there is nobody to write to, Python at exit too."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(SIGNALLED + signal.SIGPIPE)


def _readable(message: str) -> str:
    """A message with the middle of what was given left out where that is pages long."""
    return re.sub(r"\S{400,}", lambda long: f"{long[0][:150]}…{long[0][-50:]}", message)


def _raise_if_asked() -> None:
    """Raise the error at hand where tracebacks are wanted."""
    if os.environ.get(TRACEBACK, "0") not in ("", "0"):
        raise


def _hint() -> str:
    return f" ({TRACEBACK}=1 in the environment shows where.)"
