"""YAML: what it reads plain words as, and what it refuses with a line."""

from __future__ import annotations

import os

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from microtome.errors import ExperimentError
from microtome.sheets import LARGEST, Sheet, dump, flow, value_of

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), PLAIN, min_size=1, max_size=4))
def test_what_is_written_reads_back_equal(fields):
    assert Sheet.of(dump(fields)).fields == fields


@given(PLAIN)
def test_what_is_written_on_one_line_reads_back_equal(value):
    assert value_of(flow(value)) == value


@pytest.mark.parametrize("value", ["1e-3", "no", "1:30", "", " a", "a: b", "[x", "# x", "0o17"])
def test_a_text_on_one_line_stays_a_text(value):
    assert "\n" not in flow(value)
    assert value_of(flow([value, {"x": value}])) == [value, {"x": value}]


def test_a_field_of_a_field_may_be_a_number():
    sheet = Sheet.of("also:\n  3: 0.9\n  '4': 1")
    assert sheet.fields == {"also": {3: 0.9, "4": 1}}
    assert sheet.place(("also", 3)) == "the YAML, line 2, also[3]"


@given(st.dictionaries(st.text(), st.text(), min_size=1, max_size=4))
def test_what_is_written_means_the_same_to_other_readers(fields):
    assert yaml.safe_load(dump(fields)) == fields


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("no", "no"), ("on", "on"), ("true", True), ("~", None), ("1e-3", 0.001), ("5E2", 500.0),
        (".5", 0.5), ("-.inf", -float("inf")), ("010", "010"), ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"), ("1_000", "1_000"), ("0x1F", "0x1F"), ("-7", -7),
        ("0o17", "0o17"), ("yes", "yes"), ("off", "off"), ("y", "y"), ("12:30:45", "12:30:45"),
        ("' Germany'", " Germany"), ("zero L*.z.h*@-1", "zero L*.z.h*@-1"),
        ('patch L*.z@"Sam"', 'patch L*.z@"Sam"'), ("zero L:.z", "zero L:.z"),
    ],
)  # fmt: skip
def test_plain_words(word, value):
    found = Sheet.of(f"x: {word}").fields["x"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", r"t.yaml, line 3: 'a' is given twice; first on line 1"),
        ("a:\n  b: 1\n  b: 2", r"line 3: 'a.b' is given twice; first on line 2"),
        ("a:\n- {x: 1}\n- {x: 1, x: 2}", r"line 3: 'a\[1\].x' is given twice"),
        ("a: &x 1", "line 1: anchors and aliases"),
        ("a: *x", "line 1: anchors and aliases"),
        ("a: !!python/object/apply:os.getcwd []", "line 1: the tag .*getcwd' is not read"),
        ("a:\n- !!timestamp no", "line 2: the tag .*timestamp' is not read"),
        ("a: !!int abc", "line 1: cannot be read as YAML"),
        ("a: !!bool maybe", "line 1: cannot be read as YAML"),
        ("a:\n  b: " + 5000 * "9", "line 2: cannot be read as YAML .*5000 digits"),
        ("a: [1, 2", "line 1, column 9: not YAML"),
        ("a: 1\n\tb: 2", "line 2"),
        ("a: 1\n---\nb: 2", "another document"),
        ("? [1]\n: 2", "line 1: a field's name is a word"),
        ("a: 1\nb: \x00", r"line 2: not YAML: the character '\\x00' cannot stand"),
        ("a:\n  " + 64 * "[" + 64 * "]", "line 2: lists and fields lie in one another 65 deep; 64"),
        ("a: {true: 1}", "line 1: a field's name is a word"),
        ("a: {1: x, 1: y}", r"line 1: 'a\[1\]' is given twice"),
        ("1: a", "line 1: a field's name is a word, not 1"),
        ("", "t.yaml is empty; expected fields, such as 'model: nano'"),
        ("# nothing", "is empty"),
        ("[1, 2]", "expected fields"),
    ],
)
def test_what_is_refused(text, message):
    with pytest.raises(ExperimentError, match=message):
        Sheet.of(text, "t.yaml")


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ExperimentError, match=r"Cannot read .*nowhere\.yaml: No such file"):
        Sheet.read(tmp_path / "nowhere.yaml")
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("a: ä".encode("latin-1"))
    with pytest.raises(ExperimentError, match="not UTF-8"):
        Sheet.read(latin)


def test_a_byte_order_mark_is_no_part_of_the_first_field(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("\ufeffmodel: nano", encoding="utf-8")
    assert Sheet.read(file).fields == {"model": "nano"}


def test_what_is_no_regular_file_is_refused_and_never_waited_for(tmp_path):
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    for path, kind in ((pipe, "a named pipe"), (tmp_path, "a folder"), ("/dev/zero", "a device")):
        with pytest.raises(ExperimentError, match=f"it is {kind}, and a regular file is needed"):
            Sheet.read(path)
    with pytest.raises(ExperimentError, match="null"):
        Sheet.read("a\x00b.yaml")


def test_a_file_that_is_too_large_is_refused(tmp_path):
    file = tmp_path / "large.yaml"
    with file.open("wb") as stream:
        stream.truncate(LARGEST + 1)
    with pytest.raises(ExperimentError, match="larger than the 16,777,216 bytes"):
        Sheet.read(file)


def test_bytes_that_are_not_utf8_are_told_with_their_line(tmp_path):
    file = tmp_path / "latin.yaml"
    file.write_bytes(b"a: b\nc: \xe4")
    with pytest.raises(ExperimentError, match=r"not UTF-8 text \(line 2, byte 8"):
        Sheet.read(file)
