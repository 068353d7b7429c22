"""``microtome lab``."""

from __future__ import annotations

import logging
import threading
import warnings
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from microtome.errors import MicrotomeError, PromptWarning, TextError, did_you_mean, listing
from microtome.frontends.lab.desk import Desk
from microtome.frontends.lab.guard import is_loopback
from microtome.frontends.lab.jobs import Jobs
from microtome.frontends.lab.server import serve
from microtome.frontends.shown import out, say
from microtome.model import cache
from microtome.texts import LANGUAGES

FOLDER = "lab"
"""Where maps are kept, in the user's cache."""


def lab(
    models: Sequence[str], host: str, port: int, keep: Path | None, opens: bool, lang: str
) -> None:
    """Serve the lab until Ctrl-C."""
    if lang not in LANGUAGES:
        raise TextError(
            f"There is no language {lang!r}; there are: {listing(LANGUAGES)}."
            f"{did_you_mean(lang, LANGUAGES)}"
        )
    place = kept_in(keep)
    desk = Desk(models, typed=is_loopback(host))
    # The page says what may not have been meant.
    warnings.simplefilter("ignore", PromptWarning)
    # It would tell of each moment in which more is asked for than is answered at once.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)

    def started(url: str) -> None:
        say(f"The lab is at {url}")
        say(f"Maps are kept in {place}." if place else "Maps are kept in memory alone.")
        say("Ctrl-C ends it.")
        out.file.flush()
        if opens:
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()

    serve(desk, Jobs(desk, place), host=host, port=port, lang=lang, started=started)


def kept_in(given: Path | None) -> Path | None:
    """The folder that maps are kept in, there from now on; None where the user wants no cache.

    Raises:
        MicrotomeError: it cannot be one.
    """
    root = cache.directory()
    folder = given if given is not None or root is None else root / FOLDER
    if folder is None:
        return None
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise MicrotomeError(
            f"Maps cannot be kept in {folder} ({error.strerror}): give another place, --keep DIR."
        ) from None
    return folder
