"""Which published claims hold on which models: one table over the reports of several."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from microtome.paths import at_home
from microtome.report.document import VERDICTS
from microtome.report.html import MARKS, environment, texts_of
from microtome.report.writing import write_file

OVERVIEW_PAGE, OVERVIEW_DATA = "overview.html", "overview.json"
HOLDING = ("holds", "holds here")
JUDGED = (*HOLDING, "does not hold", "does not hold here")


@dataclass(frozen=True)
class OnModel:
    """A claim on one model.

    Attributes:
        verdict: one of `VERDICTS`.
        measured: what was measured, in words.
        value: the number that decides; NaN where there is none.
    """

    verdict: str
    measured: str
    value: float


@dataclass(frozen=True)
class ClaimRow:
    """A claim over several models.

    Attributes:
        claim, rule, published: as in a `Finding`.
        number: what the deciding number is.
        on: model → the claim there; models on which the study did not run are left out.
    """

    claim: str
    rule: str
    published: str
    number: str
    on: Mapping[str, OnModel]

    @property
    def judged_on(self) -> int:
        """On how many models there is a verdict."""
        return sum(one.verdict in JUDGED for one in self.on.values())

    @property
    def holds_on(self) -> int:
        """On how many of those it holds."""
        return sum(one.verdict in HOLDING for one in self.on.values())


@dataclass(frozen=True)
class StudyRows:
    """One study over several models.

    Attributes:
        study, title: its name, and that in words.
        claims: a row each; none where it ran on no model.
        reports: model → its report, from the overview on.
        caveats: model → what that report begins with.
        failures: model → why it did not run there.
        skipped: those of them that are of another kind than the study is for, so that nothing
            failed.
    """

    study: str
    title: str
    claims: tuple[ClaimRow, ...]
    reports: Mapping[str, str]
    caveats: Mapping[str, tuple[str, ...]]
    failures: Mapping[str, str]
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Overview:
    """Studies over several models: which published claims generalise.

    Attributes:
        models: in the order in which they were asked for.
        studies: likewise.
        lang: of its texts.
    """

    models: tuple[str, ...]
    studies: tuple[StudyRows, ...]
    lang: str = "en"

    def as_dict(self) -> dict[str, Any]:
        """The same in JSON's own types; a number that there is not is null."""
        return {
            "models": list(self.models),
            "studies": [
                {
                    "study": one.study,
                    "title": one.title,
                    "reports": dict(one.reports),
                    "caveats": {model: list(said) for model, said in one.caveats.items()},
                    "failures": dict(one.failures),
                    "claims": [_row_as_dict(row) for row in one.claims],
                }
                for one in self.studies
            ],
        }


def _row_as_dict(row: ClaimRow) -> dict[str, Any]:
    return {
        "claim": row.claim,
        "rule": row.rule,
        "published": row.published,
        "number": row.number,
        "holds_on": row.holds_on,
        "judged_on": row.judged_on,
        "on": {
            model: {
                "verdict": one.verdict,
                "measured": one.measured,
                "value": one.value if math.isfinite(one.value) else None,
            }
            for model, one in row.on.items()
        },
    }


def render_overview(overview: Overview) -> str:
    """The overview as one self-contained HTML page."""
    return (
        environment()
        .get_template("overview.html.jinja")
        .render(
            overview=overview, say=texts_of(overview.lang), marks={v: MARKS[v] for v in VERDICTS}
        )
    )


def write_overview(out: str | Path, overview: Overview) -> Path:
    """Write the overview, as a page and as data, beside the models' folders.

    Returns:
        The page.

    Raises:
        EffectsError: the disk refuses, or a link is in the way.
    """
    page = at_home(out) / OVERVIEW_PAGE
    text = json.dumps(overview.as_dict(), indent=2, ensure_ascii=False, allow_nan=False)
    write_file(at_home(out) / OVERVIEW_DATA, text + "\n")
    write_file(page, render_overview(overview))
    return page
