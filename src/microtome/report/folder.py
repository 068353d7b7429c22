"""What a sweep or a study leaves on disk.

::

    effects.zarr            one sweep; several are effects/<name>.zarr
    figures/<name>.html     each figure, to hover over; plotly.min.js beside them
    figures/<name>.png      the same as a picture
    tables/<name>.csv       tables of all cells, and of the prompts, for spreadsheets
    summary.json            the numbers and findings, for programs
    report.html             all of it on one page, for people

It is written in this order: effects, summary, figures, tables, report; what an earlier run left
goes when all of it is there. Until then the summary's ``state`` says what belongs together.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from microtome import figures
from microtome.engines.observer import Observer, Relay
from microtome.errors import EffectsError, ReportError, listing
from microtome.report.document import Document, Index
from microtome.report.html import render, render_index
from microtome.report.names import distinct, is_legal
from microtome.results import disk, stores
from microtome.results.effects import ONE, SEVERAL, Effects
from microtome.results.stores import PARTIAL

SUMMARY, REPORT, INDEX = "summary.json", "report.html", "index.html"
FIGURES, TABLES = "figures", "tables"
ZARR = ".zarr"
GONE = ".gone"
"""End of the name of a result that is being removed."""
LONGEST_NAME = 255
"""Bytes of a file's name, on all file systems in use."""
SUFFIXES = {FIGURES: (".html", ".png"), TABLES: (".csv",)}
"""Of the files of each name in a folder."""
MARK = "microtome_folder"
"""Key of a summary by which a folder is known to be one of ours; its value is the format."""
FORMAT = 1

STATE, BEFORE = "state", "before"
COMPLETE = "complete"
REPLACING = (
    "effects are being written: summary, figures and report may belong to an earlier result, and "
    "so may some of the effects"
)
UNDRAWN = (
    "effects and summary are written: figures and report are not, and any that are here belong to "
    "an earlier result"
)


def write_folder(
    out: str | Path,
    effects: Effects | Mapping[str, Effects],
    document: Document | Callable[[], Document],
    summary: Mapping[str, Any],
) -> Path:
    """Write results, figures, summary and report to a folder.

    Args:
        out: the folder; made if it is not there. One that this function wrote is replaced.
        effects: one result, or several by name.
        document: the report, or what makes it once the effects are written.
        summary: what ``summary.json`` holds besides the findings and the names of the files:
            plain values and numpy's numbers; NaN becomes null.

    Returns:
        The folder.

    Raises:
        EffectsError: something else is in the folder, and is left alone; or the disk refuses.
        ReportError: figures or report failed; effects and summary are there.
    """
    named = {"": effects} if isinstance(effects, Effects) else effects
    folder = Folder(out, named)
    for name, one in named.items():
        folder.keep(one, name)
    return folder.finish(document, summary)


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
        if _summary(out) is None and not all(map(_is_unfinished, out.iterdir())):
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


def write_index(out: str | Path, index: Index) -> Path:
    """Write the page that leads to several reports.

    Raises:
        EffectsError: the disk refuses, or a link is in the way.
    """
    path = Path(out) / INDEX
    write_file(path, render_index(index))
    return path


def kept_in(out: str | Path) -> str:
    """What is in a folder of results, in words.

    >>> kept_in("nowhere")
    'nothing yet'
    """
    out = Path(out)
    there = sorted(_results(out))
    whole = [path for path in there if not path.endswith(PARTIAL)]
    partial = [path for path in there if path.endswith(PARTIAL)]
    said = [f"{listing(whole)} (whole)"] if whole else []
    said += [f"{listing(partial)} (as far as it was done)"] if partial else []
    return " and ".join(said) or "nothing yet"


class Beginning(Relay):
    """An observer who has a folder say that results are being written, once there is one."""

    def __init__(self, to: Observer, folder: Folder) -> None:
        super().__init__(to)
        self._folder = folder

    def finishing(self) -> None:
        """The result is about to take an earlier one's place."""
        self._folder.begin()
        super().finishing()


class Folder:
    """A folder of results while it is written, part by part.

    Args:
        out: the folder.
        names: of the results that it will hold; one empty name where it holds one result.

    Raises:
        EffectsError: as `check_folder` does.
    """

    def __init__(self, out: str | Path, names: Iterable[str] = ("",)) -> None:
        self.out = check_folder(out)
        names = list(names)
        files = [""] if names == [""] else distinct(names)
        self._paths = {
            name: f"{SEVERAL}/{file}{ZARR}" if file else ONE
            for name, file in zip(names, files, strict=True)
        }
        self._kept: list[str] = []
        self._before: dict[str, list[str]] = {}
        self._marked = False

    def path_of(self, name: str = "") -> Path:
        """Where a result is written."""
        return self.out / self._paths[name]

    def begin(self) -> None:
        """Make the folder, and have its summary say that results are being written.

        Only what is in the place of an earlier result needs this; `keep` does it by itself.
        """
        if self._marked:
            return
        earlier = _summary(self.out) or {}
        self._before = _union(_listed(earlier), _listed(earlier.get(BEFORE)))
        self._write_summary({**earlier, MARK: FORMAT, STATE: REPLACING, BEFORE: self._before})
        self._marked = True

    def keep(self, effects: Effects, name: str = "") -> Path:
        """Write a result, in the place of an earlier one.

        Raises:
            EffectsError: the disk refuses. An earlier result is as it was.
        """
        path = self.path_of(name)
        self.begin()
        effects.save(path)
        self.kept(name)
        return path

    def kept(self, name: str = "") -> None:
        """A result is in its place; a sweep has put it there."""
        self._kept.append(self._paths[name])

    @property
    def several(self) -> Path:
        """Where results lie that somebody else writes, each in a store of its name."""
        return self.out / SEVERAL

    def kept_besides(self, names: Iterable[str]) -> None:
        """Those of these results that are in their places are of this run."""
        paths = (f"{SEVERAL}/{name}{ZARR}" for name in names)
        self._kept += [path for path in paths if stores.is_result(self.out / path)]

    @contextlib.contextmanager
    def keeping(self, what: str) -> Iterator[None]:
        """What fails here leaves the results that are kept, and its error says so.

        Raises:
            ReportError: in the place of any error, which is its cause.
        """
        try:
            yield
        except ReportError:
            raise
        except Exception as error:
            kept = listing([*self._kept, *([SUMMARY] if self._marked else [])]) or "nothing"
            kind = "" if isinstance(error, EffectsError) else f"{type(error).__name__}: "
            raise ReportError(
                f"{what} failed: {kind}{str(error).rstrip('.')}. Kept in {self.out}: {kept}; "
                "microtome.open_effects reads the effects."
            ) from error

    def finish(
        self, document: Document | Callable[[], Document], summary: Mapping[str, Any]
    ) -> Path:
        """Write summary, figures and report, and remove what an earlier run left.

        Returns:
            The folder.

        Raises:
            EffectsError: the summary cannot be written.
            ReportError: figures or report failed; effects and summary are there.
        """
        self.begin()
        whole = {MARK: FORMAT, **_plain(summary), "findings": [], "effects": self._kept}
        unfinished = {STATE: UNDRAWN, BEFORE: self._before}
        self._write_summary({**whole, FIGURES: [], TABLES: [], **unfinished})
        with self.keeping("The report"):
            made = document if isinstance(document, Document) else document()
        whole |= {
            "findings": [dataclasses.asdict(finding) for finding in made.findings],
            FIGURES: [picture.name for picture in made.pictures],
            TABLES: [*made.exports],
        }
        self._write_summary({**whole, **unfinished})
        self._draw(made)
        with self.keeping("Removing what an earlier run left"):
            self._clean(whole)
        self._write_summary({**whole, STATE: COMPLETE})
        return self.out

    def _draw(self, document: Document) -> None:
        where = self.out / FIGURES
        if document.pictures:
            with self.keeping(f"Writing {FIGURES}"):
                _write_unless_there(where / figures.PLOTLY, figures.plotly_js())
        for picture in document.pictures:
            with self.keeping(f"The figure {picture.name!r}"):
                page = figures.page_of(picture.figure)
                _write(where / f"{picture.name}.html", _utf8(page))
                _write(where / f"{picture.name}.png", figures.png_of(picture.figure))
        for name, frame in document.exports.items():
            with self.keeping(f"The table {name!r}"):
                text = frame.to_csv(index=False, lineterminator="\n")
                _write(self.out / TABLES / f"{name}.csv", _utf8(text))
        with self.keeping("The report"):
            _write(self.out / REPORT, _utf8(render(document)))

    def _clean(self, whole: Mapping[str, Any]) -> None:
        """Remove what only an earlier result has: files of fixed names, and nothing else."""
        for path in self._before["effects"]:
            stale = self.out / path
            if path not in whole["effects"] and stores.is_result(stale) and not stale.is_symlink():
                with disk.failures(stale):
                    disk.remove_folder(stale, stale.with_name(stale.name + GONE))
        for kind, suffixes in SUFFIXES.items():
            gone = [name for name in self._before[kind] if name not in whole[kind]]
            for file in (self.out / kind / f"{name}{end}" for name in gone for end in suffixes):
                if file.is_file() and not file.is_symlink():
                    with disk.failures(file):
                        disk.remove_file(file)

    def _write_summary(self, fields: Mapping[str, Any]) -> None:
        text = json.dumps(fields, indent=2, ensure_ascii=False, allow_nan=False)
        _write(self.out / SUMMARY, _utf8(text + "\n"))


def _path(out: str | Path) -> Path:
    try:
        named = os.fsencode(out)
    except UnicodeEncodeError:
        named = b"\0"
    longest = max(map(len, named.split(os.fsencode(os.sep))))
    if b"\0" in named or longest > LONGEST_NAME:
        raise EffectsError(f"{str(out)[:80]!r} cannot name a folder on this machine.")
    figures.refuse_file(out)
    return Path(out)


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
        if path.exists() and not stores.is_result(path):
            raise EffectsError(f"{path} exists and is not a saved result; it is left alone.")
    for path in (*(out / FIGURES).glob("*"), *(out / TABLES).glob("*")):
        disk.refuse_link(path)


def _is_unfinished(path: Path) -> bool:
    """Whether it is what a run leaves that was stopped before it wrote its summary."""
    if path.name == SEVERAL and path.is_dir() and not path.is_symlink():
        return all(one.name.endswith((PARTIAL, ZARR)) for one in path.iterdir())
    ours = (ONE, ONE + PARTIAL, SUMMARY + disk.WRITING)
    return path.name in ours and not path.is_symlink()


def _results(out: Path) -> Iterator[str]:
    for folder, where in ((out, ""), (out / SEVERAL, f"{SEVERAL}/")):
        for path in folder.glob(f"*{ZARR}*"):
            if path.name.endswith(PARTIAL) or (stores.is_result(path) and path.suffix == ZARR):
                yield where + path.name


def _listed(summary: object) -> dict[str, list[str]]:
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


def _is_ours(path: str) -> bool:
    name = path.removeprefix(f"{SEVERAL}/").removesuffix(ZARR)
    return path == ONE or (path == f"{SEVERAL}/{name}{ZARR}" and is_legal(name))


def _union(*several: Mapping[str, list[str]]) -> dict[str, list[str]]:
    return {
        kind: list(dict.fromkeys(one for listed in several for one in listed[kind]))
        for kind in ("effects", FIGURES, TABLES)
    }


def _summary(out: Path) -> dict[str, Any] | None:
    try:
        found = _plain(json.loads((out / SUMMARY).read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and MARK in found else None


def write_file(path: Path, text: str) -> None:
    """Write a text as a file of a report, whole; see `write_index`."""
    _write(path, _utf8(text))


def _write(path: Path, data: bytes) -> None:
    """Write a file whole, in the place of any there, through no link."""
    disk.refuse_link(path)
    with disk.failures(path):
        disk.make_folder(path.parent)
        disk.write_file(path, data)


def _write_unless_there(path: Path, data: bytes) -> None:
    if not (path.is_file() and path.read_bytes() == data):
        _write(path, data)


def _utf8(text: str) -> bytes:
    """A text for a file; half a character, which no encoding has, becomes a question mark."""
    return text.encode("utf-8", "replace")


def _plain(value: Any) -> Any:
    """A value in JSON's own types."""
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(one) for one in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
