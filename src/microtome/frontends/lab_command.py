"""The command that opens the lab; see `cli` for how it is answered."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

from microtome.errors import MicrotomeError
from microtome.frontends.arguments import MODEL_HELP, Language, examples
from microtome.frontends.folding import folded
from microtome.frontends.helping import Command
from microtome.frontends.importing import imported

NEEDED = ("dash", "flask", "waitress", "werkzeug")
"""What the extra ``lab`` brings."""


def add_to(app: typer.Typer) -> None:
    """Add it to the command line."""
    app.command(
        cls=Command,
        epilog=examples(
            "microtome lab",
            "microtome lab smollm2 --lang vi",
            "microtome lab nano gpt2 --host 0.0.0.0 --port 8050 --no-open",
            "microtome lab --clear",
        ),
    )(folded(lab))


def lab(
    model: Annotated[
        list[str] | None,
        typer.Argument(help=f"Those that are offered, the first one open. {MODEL_HELP}"),
    ] = None,
    host: Annotated[
        str,
        typer.Option(help="Where to listen. Beyond this machine, pages ask for a token."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8050,
    keep: Annotated[
        Path | None, typer.Option(help="Where maps are kept; in the cache unless given.")
    ] = None,
    keep_most: Annotated[
        str,
        typer.Option(
            help="Bytes of maps that are kept; those looked at the longest ago go, none in use."
        ),
    ] = "20GiB",
    clear: Annotated[
        bool, typer.Option("--clear", help="Remove the maps that are kept, and serve nothing.")
    ] = False,
    opens: Annotated[
        bool, typer.Option("--open/--no-open", help="Open a browser, or print the address alone.")
    ] = True,
    lang: Language = "en",
) -> None:
    """Maps in a browser: ask, look, click a part and watch the answer change."""
    answering = _answering()
    if clear:
        answering.clear(keep)
    else:
        answering.lab(model or [], host, port, keep, keep_most, opens, lang)


def _answering() -> ModuleType:
    """The module that answers.

    Raises:
        MicrotomeError: what the lab is made with is not installed.
    """
    try:
        return imported("microtome.frontends.commands.lab")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in NEEDED:
            raise
        raise MicrotomeError(
            f"The lab needs {error.name}, which is not installed: pip install 'microtome[lab]'"
        ) from None
