"""What the command line shows: texts on standard output, tables, tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from microtome.errors import listing
from microtome.figures.labels import number
from microtome.plan.plan import Plan
from microtome.prompts.alignment import SAME, aligned
from microtome.prompts.encoding import Encoded

out = Console()
err = Console(stderr=True)


def print_tokens(encoded: Encoded, alignments: Sequence[str]) -> None:
    """The prompt's tokens, and its donor's where one is used: below, or aligned token by token."""
    out.print(f"[bold]prompt[/bold]  {escape(str(encoded.tokens))}")
    added = [n for n, own in enumerate(encoded.tokens.added) if own]
    if added:
        out.print(f"        added by the tokenizer: {listing(added)}", highlight=False)
    if alignments and encoded.donor is not None:
        out.print(f"[bold]donor[/bold]   {escape(str(encoded.donor))}")
        for by in alignments:
            if by != SAME:
                out.print(f"[bold]aligned by {by}[/bold]  (prompt = donor)")
                shown = str(aligned(by, encoded.tokens, encoded.donor))
                out.print(shown, markup=False, highlight=False, soft_wrap=True)


def absent(plan: Plan) -> str:
    """How many cells do not exist, in brackets; nothing where all do."""
    if not plan.absent:
        return ""
    return f" ({plan.absent:,} more do not exist: {plan.why_absent})"


def print_table(frame: pd.DataFrame) -> None:
    """Rows and columns."""
    table = Table()
    columns = [[_shown(value) for value in frame[name]] for name in frame.columns]
    for name, cells in zip(frame.columns, columns, strict=True):
        # Headers and prose may take several lines; a token or a number must not be torn apart.
        table.add_column(
            str(name).replace("_", "\n", 1),
            justify="right" if pd.api.types.is_numeric_dtype(frame[name]) else "left",
            no_wrap=max(map(len, cells), default=0) <= 24,
        )
    for row in zip(*columns, strict=True):
        table.add_row(*map(escape, row))
    out.print(table)


def _shown(value: object) -> str:
    """A value in a table; a text in quotes where its white space would be lost."""
    if value is pd.NA:
        return ""
    if isinstance(value, float):
        return number(value)
    if isinstance(value, str) and (not value or value != value.strip()):
        return json.dumps(value, ensure_ascii=False)
    return str(value)
