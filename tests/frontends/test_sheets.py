"""YAML: what it reads plain words as, and what it refuses with a line."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from microtome.errors import ExperimentError
from microtome.sheets import Sheet, dump

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), PLAIN, min_size=1, max_size=4))
def test_what_is_written_reads_back_equal(fields):
    assert Sheet.of(dump(fields)).fields == fields


@given(st.dictionaries(st.text(), st.text(), min_size=1, max_size=4))
def test_what_is_written_means_the_same_to_other_readers(fields):
    assert yaml.safe_load(dump(fields)) == fields


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("no", "no"), ("on", "on"), ("true", True), ("~", None), ("1e-3", 0.001), ("5E2", 500.0),
        (".5", 0.5), ("-.inf", -float("inf")), ("010", "010"), ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"), ("1_000", "1_000"), ("0x1F", "0x1F"), ("-7", -7),
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
        ("a: !!python/object/apply:os.getcwd []", "line 1, column 4: not YAML: could not det"),
        ("a: !!int abc", "cannot be read as YAML"),
        ("a: !!bool maybe", "cannot be read as YAML"),
        ("a: [1, 2", "line 1, column 9: not YAML"),
        ("a: 1\n\tb: 2", "line 2"),
        ("a: 1\n---\nb: 2", "another document"),
        ("? [1]\n: 2", "line 1: a field's name is a word"),
        ("a: \x00", "is not YAML"),
        ("a: " + 1500 * "[" + 1500 * "]", "cannot be read as YAML"),
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
