"""Tables and JSON: complete at any width, plain in a pipe."""

from __future__ import annotations

import io
import json

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from microtome.frontends import shown
from microtome.frontends.shown import Table, print_fields, print_json, print_table, say, tell

NAMES = ("replace-activations-of-everything", "an-even-longer-name-of-a-study-than-that-one")
PROSE = (
    "What happens downstream when activations are written over with something too loud? " * 3
).strip()
TABLE = Table(
    ("study", "question", "passes_expected"),
    ((NAMES[0], PROSE, 1.5), (NAMES[1], "日本 short [bold]", 20000.25)),
    names=("study",),
    title="Studies [x]",
)


@pytest.fixture
def printed(monkeypatch):
    """Prints on a console of some width, terminal or pipe; gives the text."""

    def printing(do, width: int, terminal: bool) -> str:
        where = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)
        monkeypatch.setattr(shown, "out", where)
        do()
        return where.file.getvalue()

    return printing


@pytest.mark.parametrize("width", [10, 40, 80, 200])
def test_names_are_whole_on_a_terminal_of_any_width(printed, width):
    text = printed(lambda: print_table(TABLE), width, terminal=True)
    for name in NAMES:
        assert name in text
    assert "…" not in text
    if width >= 80:
        assert max(map(len, text.splitlines())) <= width
        assert "1.5" in text
        assert "┃" in text


def test_all_of_the_prose_is_there_where_it_is_wrapped(printed):
    text = printed(lambda: print_table(TABLE), 80, terminal=True)
    words = "".join(text.replace("│", " ").split())
    for word in PROSE.split():
        assert word in words


def test_a_pipe_gets_the_same_plain_text_at_any_width(printed):
    wide, narrow = (printed(lambda: print_table(TABLE), w, terminal=False) for w in (300, 20))
    assert wide == narrow
    title, header, first, second = wide.splitlines()
    assert title == "Studies [x]"
    assert header.split() == ["study", "question", "passes_expected"]
    assert PROSE in first
    assert "[bold]" in second
    assert "\x1b" not in wide
    assert first.index(PROSE) == header.index("question")


def test_long_lines_and_fields_are_not_wrapped_in_a_pipe(printed):
    text = printed(lambda: say(PROSE, heading="prompt"), 20, terminal=False)
    assert text == f"prompt  {PROSE}\n"
    text = printed(lambda: print_fields({"a": "1", "edits": PROSE}), 20, terminal=False)
    assert text == f"a      1\nedits  {PROSE}\n"


def test_frames_become_tables_and_what_is_absent_is_empty():
    frame = pd.DataFrame({"token": [" a", "b"], "p": [0.123456, 2.0], "n": pd.array([1, None])})
    table = Table.of(frame)
    assert table.cells == (('" a"', "0.1235", "1"), ("b", "2", ""))
    assert table.numeric(1)
    assert not table.numeric(0)


def test_a_number_that_there_is_none_of_is_empty_and_its_column_one_of_numbers():
    table = Table(("low",), ((0.5,), (float("nan"),), (None,)))
    assert table.cells == (("0.5",), ("",), ("",))
    assert table.numeric(0)


def test_yes_and_no_are_words_and_no_numbers():
    table = Table(("sure", "n"), ((True, 1), (False, 20)))
    assert [table.numeric(column) for column in (0, 1)] == [False, True]
    assert not Table(("n",), ()).numeric(0)


def test_in_a_pipe_a_row_is_one_line_whatever_is_in_it(printed):
    table = Table(("text", "n"), (("one\ntwo", 1), ("three", 2)))
    text = printed(lambda: print_table(table), 80, terminal=False)
    assert text.splitlines() == ["text     n", "one two  1", "three    2"]


def test_json_has_plain_values_and_no_nan(capsys):
    answer = {"a": np.float32(0.5), "b": [float("nan"), pd.NA, None], "c": np.arange(2), "é": True}
    print_json(answer)
    assert json.loads(capsys.readouterr().out) == {
        "a": 0.5, "b": [None, None, None], "c": [0, 1], "é": True
    }  # fmt: skip


def test_json_is_ascii_where_the_output_has_no_more(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr("sys.stdout", stream)
    print_json({"é": "飞"})
    stream.flush()
    assert json.loads(stream.buffer.getvalue()) == {"é": "飞"}


def test_sentences_are_wrapped_between_words_on_a_terminal_and_whole_in_a_pipe(printed):
    lines = printed(lambda: tell(PROSE), 40, terminal=True).splitlines()
    assert max(map(len, lines)) <= 40
    assert " ".join(" ".join(lines).split()) == PROSE
    assert printed(lambda: tell(PROSE), 40, terminal=False) == PROSE + "\n"


def test_a_word_between_colons_is_told_as_it_stands_in_the_prompt():
    text = "the word ':smile:' of ioi:abc:4"
    for to in (shown.out, shown.err):
        with to.capture() as told:
            to.print(text, soft_wrap=True)
            to.print(text, soft_wrap=True, markup=False)
            to.print(text, soft_wrap=True, highlight=False)
        assert told.get() == f"{text}\n" * 3
