"""``microtome lab``."""

from __future__ import annotations

import logging
import threading
import warnings
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from microtome.amounts import bytes_of, many
from microtome.errors import MicrotomeError, PromptWarning, SweepError, TextError, there_are
from microtome.frontends.lab import shelf
from microtome.frontends.lab.desk import Desk
from microtome.frontends.lab.guard import is_loopback
from microtome.frontends.lab.jobs import Jobs
from microtome.frontends.lab.server import serve
from microtome.frontends.shown import out, say
from microtome.model import cache
from microtome.texts import LANGUAGES

FOLDER = "lab"
"""Where maps are kept, in the user's cache."""
LEAST = 2**20
"""Bytes that have to be kept at least: whoever says fewer has left out the unit."""


def lab(
    models: Sequence[str],
    host: str,
    port: int,
    keep: Path | None,
    keep_most: str,
    opens: bool,
    lang: str,
) -> None:
    """Serve the lab until Ctrl-C."""
    if lang not in LANGUAGES:
        raise TextError(f"There is no language {lang!r}; {there_are(lang, LANGUAGES)}")
    place, most = kept_in(keep), most_of(keep_most)
    if place is not None:
        shelf.trim(place, most)
    desk = Desk(models, typed=is_loopback(host))
    # The page says what may not have been meant.
    warnings.simplefilter("ignore", PromptWarning)
    # It would tell of each moment in which more is asked for than is answered at once.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)

    def started(url: str) -> None:
        say(f"The lab is at {url}")
        kept = f"Maps are kept in {place}, up to {in_units(most)}."
        say(kept if place else "Maps are kept in memory alone.")
        say("Ctrl-C ends it.")
        out.file.flush()
        if opens:
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()

    serve(desk, Jobs(desk, place, most), host=host, port=port, lang=lang, started=started)


def clear(keep: Path | None) -> None:
    """Remove the maps that are kept, and say what was removed and what was not."""
    place = folder_of(keep)
    if place is None:
        say("Maps are kept in memory alone: there is nothing to remove.")
        return
    removed = shelf.clear(place)
    say(f"Removed {_maps(removed.maps)} ({in_units(removed.size)}) from {place}.")
    if removed.left:
        say(f"Left {_maps(removed.left)}: in use, or they cannot be removed.")
    if others := shelf.others(place):
        say(f"Left alone what the lab did not put there: {others:,} more.")


def most_of(given: str) -> int:
    """How many bytes of maps are kept.

    Raises:
        SweepError: it is no number of bytes, or so small that the unit was forgotten.
    """
    most = bytes_of(given, "--keep-most")
    if most < LEAST:
        raise SweepError(
            f"--keep-most {given} is less than any map takes: say it with its unit, such as 20GiB."
        )
    return most


def in_units(size: int) -> str:
    """Bytes for people.

    >>> in_units(20 * 2**30), in_units(1_572_864), in_units(0)
    ('20 GiB', '1.5 MiB', '0 MiB')
    """
    unit, name = (2**30, "GiB") if size >= 2**30 else (2**20, "MiB")
    return f"{size / unit:.3g} {name}"


def folder_of(given: Path | None) -> Path | None:
    """The folder that maps are kept in; None where the user wants no cache."""
    root = cache.directory()
    return given if given is not None or root is None else root / FOLDER


def kept_in(given: Path | None) -> Path | None:
    """The folder that maps are kept in, there from now on; None where the user wants no cache.

    Raises:
        MicrotomeError: it cannot be one.
    """
    folder = folder_of(given)
    if folder is None:
        return None
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise MicrotomeError(
            f"Maps cannot be kept in {folder} ({error.strerror}): give another place, --keep DIR."
        ) from None
    return folder


def _maps(n: int) -> str:
    return many(n, "map")
