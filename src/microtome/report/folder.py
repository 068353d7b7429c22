"""What a sweep or a study leaves on disk.

::

    effects.zarr            one sweep; several are effects/<name>.zarr
    figures/<name>.html     each figure, to hover over; plotly.min.js beside them
    figures/<name>.png      the same as a picture
    summary.json            the numbers and findings, for programs
    report.html             all of it on one page, for people
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from microtome import figures
from microtome.errors import EffectsError
from microtome.report.document import Document
from microtome.report.html import render
from microtome.results.effects import Effects

SUMMARY = "summary.json"
MARK = "microtome_folder"
"""Key of a summary by which a folder is known to be one of ours; its value is the format."""
FORMAT = 1


def write_folder(
    out: str | Path,
    effects: Effects | Mapping[str, Effects],
    document: Document,
    summary: Mapping[str, Any],
) -> Path:
    """Write results, figures, summary and report to a folder.

    Args:
        out: the folder; made if it is not there. One that this function wrote is replaced.
        effects: one result, or several by name.
        document: the report.
        summary: what ``summary.json`` holds besides the findings and the names of the files:
            plain values and numpy's numbers; NaN becomes null.

    Returns:
        The folder.

    Raises:
        EffectsError: something else is in the folder, and is left alone.
    """
    out = Path(out)
    _make_room(out)
    stored = {"effects.zarr": effects} if isinstance(effects, Effects) else {
        f"effects/{name}.zarr": one for name, one in effects.items()
    }  # fmt: skip
    written = {
        MARK: FORMAT,
        **_plain(summary),
        "findings": [dataclasses.asdict(finding) for finding in document.findings],
        "effects": list(stored),
        "figures": [picture.name for picture in document.pictures],
    }
    # The summary first: should anything fail after it, the folder is still known as ours.
    text = json.dumps(written, indent=2, ensure_ascii=False, allow_nan=False)
    (out / SUMMARY).write_text(text + "\n", encoding="utf-8")
    for path, one in stored.items():
        (out / path).parent.mkdir(exist_ok=True)
        one.save(out / path)
    for picture in document.pictures:
        figures.save(picture.figure, out / "figures", picture.name)
    (out / "report.html").write_text(render(document), encoding="utf-8")
    return out


def _make_room(out: Path) -> None:
    """Make the folder, or take out of it what was written before, and nothing else."""
    if out.is_file():
        raise EffectsError(f"{out} is a file; results are written to a folder.")
    out.mkdir(parents=True, exist_ok=True)
    if not any(out.iterdir()):
        return
    before = _summary(out)
    if before is None:
        raise EffectsError(
            f"{out} is not empty and holds no {SUMMARY} of microtome's; it is left alone. "
            "Choose a new folder, or empty this one."
        )
    for name in map(Path, before.get("figures", ())):
        for suffix in ("html", "png"):
            (out / "figures" / f"{name.name}.{suffix}").unlink(missing_ok=True)
    for path in map(Path, before.get("effects", ())):
        where = out / path
        if where.parent in (out, out / "effects") and (where / ".zgroup").is_file():
            shutil.rmtree(where)


def _summary(out: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((out / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and MARK in found else None


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
