"""Which files a folder of results has, what is in one, and whether one can be written.

::

    effects.zarr            one sweep; several are effects/<name>.zarr
    figures/<name>.html     each figure, to hover over; plotly.min.js beside them
    figures/<name>.png      the same as a picture
    tables/<name>.csv       tables of all cells, and of the prompts, for spreadsheets
    summary.json            the numbers and findings, for programs
    report.html             all of it on one page, for people
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from microtome import figures
from microtome.errors import EffectsError, listing
from microtome.paths import PARTIAL, at_home, cannot_name
from microtome.report.names import is_legal
from microtome.report.writing import plain
from microtome.results import disk
from microtome.results.opening import ONE, SEVERAL
from microtome.results.sound import is_result

SUMMARY, REPORT, INDEX = "summary.json", "report.html", "index.html"
FIGURES, TABLES = "figures", "tables"
ZARR = ".zarr"
LOCK = ".microtome.lock"
"""Says who is writing to a folder."""
MARK = "microtome_folder"
"""Key of a summary by which a folder is known to be one of ours; its value is the format."""
FORMAT = 1

STATE, BEFORE = "state", "before"
"""Keys of a summary: what belongs together, and what an earlier run left."""
COMPLETE = "complete"
"""The state of a folder in which all belongs together."""


def check_folder(out: str | Path) -> Path:
    """Whether results can be written to a folder, before anything is computed.

    Nothing is changed: the folder is not even made.

    Returns:
        The folder.

    Raises:
        EffectsError: a file or a link is in the way, something of someone else's is in the
            folder, or it cannot be written to.
    """
    out = _path(out)
    with disk.failures(out):
        _check_way(out)
        if not out.exists():
            return out
        if summary_in(out) is None and not all(map(_is_unfinished, out.iterdir())):
            raise EffectsError(
                f"{out} is not empty and holds no {SUMMARY} of microtome's; it is left alone. "
                "Choose a new folder, or empty this one."
            )
        _check_places(out)
    return out


def check_index(out: str | Path, names: Iterable[str]) -> Path:
    """Whether an index and the folders of several reports can be written; see `check_folder`."""
    out = _path(out)
    with disk.failures(out):
        _check_way(out)
        disk.refuse_link(out / INDEX)
        for name in names:
            disk.refuse_link(out / name)
            check_folder(out / name)
    return out


def is_answered(out: Path, names: Iterable[str] = ()) -> bool:
    """Whether a folder has an answer that another would take the place of.

    One that was stopped while its summary, figures and report were written is none: the same again
    goes on there. What else it has of results is somebody's, and stays.

    Args:
        out: the folder.
        names: of the results that the command at hand keeps there itself, and goes on with.
    """
    if not (out / SUMMARY).exists():
        return False
    summary = summary_in(out) or {}
    if summary.get(STATE, COMPLETE) == COMPLETE:
        return True
    own = {f"{SEVERAL}/{name}{ZARR}" if name else ONE for name in names}
    listed = union(listed_in(summary), listed_in(summary.get(BEFORE)))["effects"]
    there = {path.removesuffix(PARTIAL) for path in _results(out)}
    return not own.issuperset({path for path in listed if (out / path).exists()} | there)


def kept_in(out: str | Path) -> str:
    """What is in a folder of results, in words.

    >>> kept_in("nowhere")
    'nothing yet'
    """
    out = at_home(out)
    there = sorted(_results(out))
    whole = [path for path in there if not path.endswith(PARTIAL)]
    partial = [path for path in there if path.endswith(PARTIAL)]
    said = [f"{listing(whole)} (whole)"] if whole else []
    said += [f"{listing(partial)} (as far as it was done)"] if partial else []
    return " and ".join(said) or "nothing yet"


def listed_in(summary: object) -> dict[str, list[str]]:
    """The files that a summary names, those that can be ours: anybody may have written it."""
    given = summary if isinstance(summary, dict) else {}
    effects, pictures, tables = (
        [one for one in found if isinstance(one, str)] if isinstance(found, list) else []
        for found in (given.get("effects"), given.get(FIGURES), given.get(TABLES))
    )
    return {
        "effects": [path for path in effects if _is_ours(path)],
        FIGURES: [name for name in pictures if is_legal(name)],
        TABLES: [name for name in tables if is_legal(name)],
    }


def union(*several: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """The files of several lists, each once."""
    return {
        kind: list(dict.fromkeys(one for listed in several for one in listed[kind]))
        for kind in ("effects", FIGURES, TABLES)
    }


def summary_in(out: Path) -> dict[str, Any] | None:
    """The summary of a folder of ours; None where there is none that can be read."""
    try:
        found = plain(json.loads((out / SUMMARY).read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and MARK in found else None


def _path(out: str | Path) -> Path:
    figures.refuse_file(out)
    if cannot_name(at_home(out)):
        raise EffectsError(f"{str(out)[:80]!r} cannot name a folder on this machine.")
    return at_home(out)


def _check_way(out: Path) -> None:
    """Raise `EffectsError` unless the folder, or the next that it would be made in, takes files."""
    if out.is_symlink() and not out.exists():
        raise EffectsError(f"{out} is a link to nothing; results are written to a folder.")
    nearest = next(way for way in (out, *out.parents) if way.exists())
    if not nearest.is_dir():
        raise EffectsError(f"{nearest} is a file; results are written to a folder.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise EffectsError(f"{nearest} cannot be written to; choose another folder.")


def _check_places(out: Path) -> None:
    """Raise `EffectsError` where something that is not ours has a name that we write."""
    for name in (SUMMARY, REPORT):
        disk.refuse_link(out / name)
        if (out / name).is_dir():
            raise EffectsError(f"{out / name} is a folder, where a file is to be written.")
    for name in (SEVERAL, FIGURES, TABLES):
        disk.refuse_link(out / name)
        if (out / name).exists() and not (out / name).is_dir():
            raise EffectsError(f"{out / name} is a file, where a folder is to be written.")
    for path in (out / ONE, *(out / SEVERAL).glob(f"*{ZARR}")):
        disk.refuse_link(path)
        if path.exists() and not is_result(path):
            raise EffectsError(f"{path} exists and is not a saved result; it is left alone.")
    for path in (*(out / FIGURES).glob("*"), *(out / TABLES).glob("*")):
        disk.refuse_link(path)


def _is_unfinished(path: Path) -> bool:
    """Whether it is what a run leaves that was stopped before it wrote its summary."""
    if path.name == SEVERAL and path.is_dir() and not path.is_symlink():
        return all(one.name.endswith((PARTIAL, ZARR)) for one in path.iterdir())
    ours = (ONE, ONE + PARTIAL, SUMMARY + disk.WRITING, LOCK)
    return path.name in ours and not path.is_symlink()


def _results(out: Path) -> Iterator[str]:
    for folder, where in ((out, ""), (out / SEVERAL, f"{SEVERAL}/")):
        for path in folder.glob(f"*{ZARR}*"):
            if path.name.endswith(PARTIAL) or (is_result(path) and path.suffix == ZARR):
                yield where + path.name


def _is_ours(path: str) -> bool:
    name = path.removeprefix(f"{SEVERAL}/").removesuffix(ZARR)
    return path == ONE or (path == f"{SEVERAL}/{name}{ZARR}" and is_legal(name))
