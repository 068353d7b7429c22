"""What a sweep or a study leaves on disk: written part by part, so that all of it belongs together.

Effects, summary, figures, tables, report, in this order; what an earlier run left goes when all of
it is there. Until then the summary's ``state`` says what belongs together. What there is, is in
`report.layout`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from microtome import figures
from microtome.engines.observer import Observer, Relay
from microtome.errors import EffectsError, ReportError, listing
from microtome.paths import at_home, settled
from microtome.report.document import Document, Index
from microtome.report.html import render, render_index
from microtome.report.layout import (
    BEFORE,
    COMPLETE,
    FIGURES,
    FORMAT,
    INDEX,
    LOCK,
    MARK,
    REPORT,
    STATE,
    SUMMARY,
    TABLES,
    ZARR,
    check_folder,
    listed_in,
    summary_in,
    union,
)
from microtome.report.names import distinct
from microtome.report.spreadsheets import csv_of
from microtome.report.writing import plain, utf8, write, write_file, write_unless_there
from microtome.results import disk
from microtome.results.effects import Effects
from microtome.results.hold import Hold
from microtome.results.opening import ONE, SEVERAL
from microtome.results.sound import is_result

GONE = ".gone"
"""End of the name of a result that is being removed."""

SUFFIXES = {FIGURES: (".html", ".png"), TABLES: (".csv",)}
"""Of the files of each name in a folder."""

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
    with Folder(out, named) as folder:
        for name, one in named.items():
            folder.keep(one, name)
        return folder.finish(document, summary)


def write_index(out: str | Path, index: Index) -> Path:
    """Write the page that leads to several reports.

    Raises:
        EffectsError: the disk refuses, or a link is in the way.
    """
    path = at_home(out) / INDEX
    write_file(path, render_index(index))
    return path


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

    Within its block (``with Folder(…) as folder``) it is nobody else's, from when it is there: what
    two write at a time into one would be mixed up.

    Args:
        out: the folder.
        names: of the results that it will hold; one empty name where it holds one result.

    Raises:
        EffectsError: as `check_folder` does.
    """

    def __init__(self, out: str | Path, names: Iterable[str] = ("",)) -> None:
        self.named = check_folder(out)  # as it was given, for whoever is told of it
        self.out = settled(self.named)
        names = list(names)
        files = [""] if names == [""] else distinct(names)
        self._paths = {
            name: f"{SEVERAL}/{file}{ZARR}" if file else ONE
            for name, file in zip(names, files, strict=True)
        }
        self._kept: list[str] = []
        self._before: dict[str, list[str]] = {}
        self._marked = False
        self._hold: Hold | None = None

    def __enter__(self) -> Self:
        if self.out.is_dir():
            self._take()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._hold is not None:
            self._hold.release()
            self._hold = None

    def path_of(self, name: str = "") -> Path:
        """Where a result is written."""
        return self.out / self._paths[name]

    def begin(self) -> None:
        """Make the folder, and have its summary say that results are being written.

        Only what is in the place of an earlier result needs this; `keep` does it by itself.

        Raises:
            EffectsError: somebody else is writing there, or the disk refuses.
        """
        if self._marked:
            return
        self._take()
        earlier = summary_in(self.out) or {}
        self._before = union(listed_in(earlier), listed_in(earlier.get(BEFORE)))
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
        self._kept += [path for path in paths if is_result(self.out / path)]

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
                f"{what} failed: {kind}{str(error).rstrip('.')}. Kept in {self.named}: {kept}; "
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
        whole = {MARK: FORMAT, **plain(summary), "findings": [], "effects": self._kept}
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
        return self.named

    def _take(self) -> None:
        """Have the folder to oneself, made if it is not there."""
        if self._hold is None:
            with disk.failures(self.named):
                disk.make_folder(self.out)
                self._hold = Hold(self.out / LOCK, self.named)

    def _draw(self, document: Document) -> None:
        where = self.out / FIGURES
        if document.pictures:
            with self.keeping(f"Writing {FIGURES}"):
                write_unless_there(where / figures.PLOTLY, figures.plotly_js())
        for picture in document.pictures:
            with self.keeping(f"The figure {picture.name!r}"):
                page = figures.page_of(picture.figure)
                write(where / f"{picture.name}.html", utf8(page))
                write(where / f"{picture.name}.png", figures.png_of(picture.figure))
        for name, frame in document.exports.items():
            with self.keeping(f"The table {name!r}"):
                write(self.out / TABLES / f"{name}.csv", utf8(csv_of(frame)))
        with self.keeping("The report"):
            write(self.out / REPORT, utf8(render(document)))

    def _clean(self, whole: Mapping[str, Any]) -> None:
        """Remove what only an earlier result has: files of fixed names, and nothing else."""
        for path in self._before["effects"]:
            stale = self.out / path
            if path not in whole["effects"] and is_result(stale) and not stale.is_symlink():
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
        write(self.out / SUMMARY, utf8(text + "\n"))
