"""A figure as one file: SVG and PDF for papers, PNG, or a page to hover over."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import plotly.graph_objects as go

from microtome.errors import EffectsError, did_you_mean, glimpse, listing
from microtome.figures import style
from microtome.figures.png import picture_of
from microtome.paths import PARTIAL, at_home, cannot_name, on_its_way

DRAWN = (".png", ".svg", ".pdf")
KINDS = (*DRAWN, ".html")
"""Endings of the files that a figure can be written to."""

OTHERS = (".jpg", ".jpeg", ".eps", ".webp", ".tif", ".tiff", ".gif", ".bmp", ".ps")
"""Endings of pictures that are not written."""


TABLES = (
    ".csv", ".tsv", ".json", ".jsonl", ".xlsx", ".parquet", ".txt", ".npz", ".npy", ".pt",
    ".pkl", ".pickle", ".joblib", ".h5", ".hdf5", ".feather", ".nc",
)  # fmt: skip
"""Endings of files of numbers, which are written by pandas, or by xarray."""


def refuse_file(path: str | Path) -> None:
    """Raise `EffectsError` if a path for results is none, or names a picture or a table.

    A folder that is called like a table, whole or begun, is one that an earlier release wrote.

    >>> refuse_file("map.svg")
    Traceback (most recent call last):
    microtome.errors.EffectsError: 'map.svg' names a picture, and results with their coordinates...
    """
    given: object = path
    if not isinstance(given, str | os.PathLike):
        raise EffectsError(
            f"Results are written to a folder, named by a text, not by {glimpse(given)}."
        )
    kind = Path(path).suffix.lower()
    if is_picture(path):
        instead, what = "effects.figure().save(…)", "picture"
    elif kind in TABLES and not _is_begun(at_home(path)):
        what = "table"
        instead = "effects.to_dataframe(), and pandas' to_csv and its like; or effects.data"
    else:
        return
    raise EffectsError(
        f"{str(path)!r} names a {what}, and results with their coordinates are written to a "
        f"folder: name one here. For a {what}: {instead}."
    )


def _is_begun(path: Path) -> bool:
    return any(os.path.isdir(f"{path}{ending}") for ending in ("", PARTIAL))


def is_picture(path: str | Path) -> bool:
    """Whether a path names a picture, by its ending: one that can be written or one that cannot.

    >>> is_picture("map.SVG"), is_picture("map.jpg"), is_picture("results/map")
    (True, True, False)
    """
    return Path(path).suffix.lower() in (*KINDS, *OTHERS)


def check_picture(path: str | Path, overwrite: bool = True) -> Path:
    """A path to which a picture can be written.

    Raises:
        EffectsError: it has another ending, its folder is not there, or something else has its
            name; or a file has it, which is not to be replaced.
    """
    path = at_home(path)
    kind = path.suffix.lower()
    if cannot_name(path):
        raise EffectsError(f"{str(path)[:80]!r} cannot name a file on this machine.")
    if kind not in KINDS:
        raise EffectsError(
            f"{str(path)!r}: a figure is written as {listing(KINDS)}, not "
            f"{f'as {kind}' if kind else 'without an ending'}.{did_you_mean(kind, KINDS)}"
        )
    if path.is_dir():
        raise EffectsError(f"{path} is a folder, where a picture is to be written.")
    if not path.parent.is_dir():
        raise EffectsError(f"{path}: there is no folder {path.parent}.")
    if path.exists() and not overwrite:
        raise EffectsError(f"{path} is there already: give another name, or --overwrite.")
    return path


def write(figure: go.Figure, path: str | Path) -> Path:
    """Write a figure of microtome's to one file; its ending says as what.

    Args:
        figure: from `Effects.figure` or another of microtome's.
        path: ending in ``.svg`` or ``.pdf`` (without pixels, for papers), ``.png``, or ``.html``
            (to hover over; it holds all that it needs).

    Returns:
        The path.

    Raises:
        EffectsError: another ending, a folder that is not there, or a trace that cannot be drawn.
    """
    path = check_picture(path)
    kind = path.suffix.lower()
    if kind == ".html":
        page: str = figure.to_html(include_plotlyjs=True, config=dict(style.CONFIG))
        data = page.encode("utf-8", "replace")
    else:
        data = picture_of(figure, kind[1:])
    beside = on_its_way(path, ".writing")
    try:
        beside.write_bytes(data)  # a picture that is there stays until this one is whole
        beside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):  # the first failure is the one to tell
            beside.unlink(missing_ok=True)
        raise EffectsError(f"Cannot write {path}: {error.strerror or error}.") from error
    return path


class Drawn(go.Figure):  # type: ignore[misc]  # plotly has no types
    """A plotly figure that is also written as SVG and PDF, without a browser."""

    def save(self, path: str | Path) -> Path:
        """Write it to one file; see `write`.

        >>> import tempfile
        >>> from microtome.figures import style
        >>> figure = Drawn(style.figure("Heads", "", "head", "layer"))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     figure.save(f"{folder}/map.svg").suffix
        '.svg'
        """
        return write(self, path)
