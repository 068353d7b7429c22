"""Tables as CSV that a spreadsheet shows and does not run.

A token, a role or a prompt may come from anybody, and a spreadsheet takes a text that begins with
``=``, ``+``, ``-`` or ``@`` for a formula. Such a text gets a ``'`` before it (OWASP, "CSV
Injection"). One that has some already gets one more, so that nothing is lost: a program that takes
one ``'`` away where it stands before such a text has the texts as they were. Numbers stay numbers.
"""

from __future__ import annotations

import re

import pandas as pd

RUN = re.compile("'*[=+\\-@\t\r\n＝＋－＠]")
"""How a text begins that a spreadsheet would run, in the wide letters of East Asia as well."""


def csv_of(table: pd.DataFrame) -> str:
    """A table as CSV (RFC 4180), without its row labels.

    Lines end in CRLF, as Python quotes a text for what a line ends in: a bare CR in one would be
    the end of a row to whoever reads it, and what is behind it the beginning of another.

    >>> csv_of(pd.DataFrame({"token": ["=1+1", "is"], "effect": [-0.5, 2.0]})).splitlines()
    ['token,effect', "'=1+1,-0.5", 'is,2.0']
    """
    return str(inert(table).to_csv(index=False, lineterminator="\r\n"))


def inert(table: pd.DataFrame) -> pd.DataFrame:
    """A table in which no text, and no name of a column, is a formula to a spreadsheet."""
    made = table.rename(columns=_inert)
    for number, dtype in enumerate(made.dtypes):
        if not pd.api.types.is_numeric_dtype(dtype):
            made.isetitem(number, [_inert(value) for value in made.iloc[:, number]])
    return made


def _inert(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and RUN.match(value) else value
