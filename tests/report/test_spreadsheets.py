"""Tables as CSV: nothing that a spreadsheet would run, and no text is lost."""

from __future__ import annotations

import io

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtome.report.spreadsheets import csv_of, inert

UNDO = r"^'(?='*[=+\-@\t\r\n＝＋－＠])"
"""As docs/file-forms.md has it."""


@given(st.lists(st.text(st.sampled_from("'=+-@\t\r\n＝a1 ")), min_size=1, max_size=6))
def test_nothing_runs_and_every_text_comes_back(texts):
    made = inert(pd.DataFrame({"token": texts}))["token"]
    assert not made.str.match(r"[=+\-@\t\r\n＝＋－＠]").any()
    read = pd.read_csv(
        io.BytesIO(csv_of(pd.DataFrame({"n": -1, "token": texts})).encode()),
        dtype=str,
        keep_default_na=False,
    )
    assert read["token"].str.replace(UNDO, "", regex=True).tolist() == texts


def test_a_text_with_a_carriage_return_begins_no_row():
    """Where a row began in the middle of a text, what is behind it would be run."""
    made = csv_of(pd.DataFrame({"token": ["x\r=1+1", "y"]}))
    assert made == 'token\r\n"x\r=1+1"\r\ny\r\n'


@pytest.mark.parametrize("kind", [object, "str", "category"])
def test_numbers_and_what_is_absent_stay_as_they_are(kind):
    table = pd.DataFrame({"=a": [-1.5, 2.0], "n": [-1, 3], "b": ["-x", None], "c": [None, 0.5]})
    table["b"] = table["b"].astype(kind)
    table.insert(1, "=a", ["@", "b"], allow_duplicates=True)
    read = pd.read_csv(io.StringIO(csv_of(table)), header=None)
    assert read.values[0].tolist() == ["'=a", "'=a", "n", "b", "c"]
    assert read.fillna("").values[1].tolist() == ["-1.5", "'@", "-1", "'-x", ""]
    assert read.fillna("").values[2].tolist() == ["2.0", "b", "3", "", "0.5"]
    assert table.columns[0] == "=a"


def test_the_pattern_of_the_docs_is_this_one(request):
    page = (request.config.rootpath / "docs" / "file-forms.md").read_text("utf-8")
    assert UNDO in page
