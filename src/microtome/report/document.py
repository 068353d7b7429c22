"""What a report says, before it is laid out. All text is plain; it is escaped where it is shown."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from microtome.errors import EffectsError, listing
from microtome.report.names import LONGEST, is_legal

VERDICTS = (
    "holds",
    "does not hold",
    "holds here",
    "does not hold here",
    "not comparable on this model",
    "not judged",
)
"""What can be said of a claim: where it was published, on another model, and where nothing can."""
ROLES = ("recipient", "donor")


@dataclass(frozen=True)
class Picture:
    """A figure.

    Attributes:
        name: of its files, in lower-case letters, digits, - and _; unique in a report.
        figure: the plotly figure.
        caption: how to read it, in a sentence.
    """

    name: str
    figure: go.Figure
    caption: str

    def __post_init__(self) -> None:
        if not is_legal(self.name):
            raise EffectsError(
                f"{self.name!r} cannot name a picture's files: use a-z, 0-9, - and _, at most "
                f"{LONGEST} of them, and no name of a device, such as con."
            )


@dataclass(frozen=True, eq=False)
class Table:
    """A table.

    Attributes:
        title: over it.
        frame: its rows and columns; the index is left out.
        caption: how to read it; may be empty.
    """

    title: str
    frame: pd.DataFrame
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """A part of a report, with a heading.

    Attributes:
        title: the heading.
        paragraphs: text, before pictures and tables.
        pictures, tables: in order.
    """

    title: str
    paragraphs: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()
    tables: tuple[Table, ...] = ()


@dataclass(frozen=True)
class Finding:
    """A published claim, held against what was measured.

    Attributes:
        claim: what was reported.
        measured: the measured value, in words.
        verdict: one of `VERDICTS`.
        note: when the claim counts as holding, or what stands in the way of a judgement.
        published: where the claim was made.
    """

    claim: str
    measured: str
    verdict: str
    note: str = ""
    published: str = ""

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise EffectsError(
                f"{self.verdict!r} is no verdict; there are: {listing(map(repr, VERDICTS))}."
            )


@dataclass(frozen=True)
class Snippet:
    """Code to copy: ``title`` says what it does."""

    title: str
    code: str


@dataclass(frozen=True)
class TokenRow:
    """A text, token by token.

    Attributes:
        role: ``"recipient"`` or ``"donor"``.
        tokens: the text of each token, in order, white space and all.
    """

    role: str
    tokens: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise EffectsError(f"A row of tokens is a recipient or a donor, not {self.role!r}.")


@dataclass(frozen=True)
class Document:
    """A report.

    Attributes:
        title: of the whole.
        question: what is asked, in plain words.
        method: how it is answered; a blank line begins a new paragraph.
        sections: text, pictures and tables, in order.
        findings: claims with what was measured; may be none.
        snippets: code that repeats it.
        provenance: what is needed to repeat it: names → values, which may be nested.
        tokens: the prompts as the model reads them; of many, the first few.
        n_prompts: how many there are in all.
        sites: where in a block the edits sit, for the drawing beside the method; may be none.
        parallel: attention and MLP of such a block read the same input.
        lang: the language of its texts, which that of its headings follows.
        caveats: what a reader must know before anything else, a sentence each.
        exports: tables that are written beside it whole, by the names of their files.
    """

    title: str
    question: str
    method: str
    sections: tuple[Section, ...]
    findings: tuple[Finding, ...] = ()
    snippets: tuple[Snippet, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    tokens: tuple[TokenRow, ...] = ()
    n_prompts: int = 1
    sites: tuple[str, ...] = ()
    parallel: bool = False
    lang: str = "en"
    caveats: tuple[str, ...] = ()
    exports: Mapping[str, pd.DataFrame] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [picture.name for picture in self.pictures]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise EffectsError(f"Two pictures have the same name: {listing(twice)}.")

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """All pictures, in order."""
        return tuple(picture for section in self.sections for picture in section.pictures)

    @property
    def verdicts(self) -> dict[str, int]:
        """How many findings have each verdict, those that occur, in the order of `VERDICTS`."""
        return verdict_counts(self.findings)


def verdict_counts(findings: Iterable[Finding]) -> dict[str, int]:
    """How many findings have each verdict, those that occur, in the order of `VERDICTS`.

    >>> verdict_counts([Finding("a", "1", "holds"), Finding("b", "2", "holds")])
    {'holds': 2}
    """
    found = [finding.verdict for finding in findings]
    return {verdict: found.count(verdict) for verdict in VERDICTS if verdict in found}


@dataclass(frozen=True)
class Card:
    """A report on the page that leads to several.

    Attributes:
        title, question: of the report.
        href: where the report lies, from the index page on.
        thumbnail: a PNG of its key figure; None where there is none.
        caption: of that figure.
        findings: its claims.
        cells: how many cells its sweeps have.
        seconds: how long it took.
        failure: why it did not run; empty where it did.
        skipped: it is for models of another kind, so that nothing failed.
        caveats: what its report begins with.
    """

    title: str
    question: str
    href: str = ""
    thumbnail: bytes | None = None
    caption: str = ""
    findings: tuple[Finding, ...] = ()
    cells: int = 0
    seconds: float = 0.0
    failure: str = ""
    skipped: bool = False
    caveats: tuple[str, ...] = ()

    @property
    def verdicts(self) -> dict[str, int]:
        """How many findings have each verdict."""
        return verdict_counts(self.findings)

    @property
    def picture(self) -> str:
        """The thumbnail as an address that holds the picture itself."""
        assert self.thumbnail is not None, "asked for only where there is one"
        return "data:image/png;base64," + base64.b64encode(self.thumbnail).decode()


@dataclass(frozen=True)
class Index:
    """The page that leads to several reports on one model."""

    model: str
    cards: tuple[Card, ...]
    lang: str = "en"
