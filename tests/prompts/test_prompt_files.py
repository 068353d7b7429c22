"""Files of prompts: what can be read in two ways is refused, and nothing is waited for."""

from __future__ import annotations

import csv
import io
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtome.errors import PromptError
from microtome.prompts.files import READERS
from microtome.prompts.prompt import Prompt
from microtome.prompts.prompts import Prompts


def read(folder, name, text):
    path = folder / name
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return list(Prompts.read(path))


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("e.csv", 'text,target\r\n"A\r\nB", a\r\n', [Prompt("A\r\nB", target=" a")]),
        ("f.jsonl", '{"text": "A"}\r\n\r\n{"text": "B"}', [Prompt("A"), Prompt("B")]),
        ("g.jsonl", '{"text": "A"}\r{"text": "B"}\r', [Prompt("A"), Prompt("B")]),
        ("j.CSV", "text\nBerlin is\n", [Prompt("Berlin is")]),
        ("j.JSONL", '{"text": "A"}', [Prompt("A")]),
        ("l.jsonl", '{"text": "A\u2028B"}\n', [Prompt("A\u2028B")]),
        ("l.csv", "text\nA\u2028B\x0bC\n", [Prompt("A\u2028B\x0bC")]),
        ("m.csv", 'text\n"' + "a " * 100_000 + '"', [Prompt("a " * 100_000)]),
        ("o.csv", "text,target,contrast\nA, a\n", [Prompt("A", target=" a")]),
        ("q.tsv", 'text\ttarget\n"a\tb"\tc, d\nA\n', [Prompt("a\tb", target="c, d"), Prompt("A")]),
        ("r.json", '[{"text": "A"},\n {"text": "B"}]', [Prompt("A"), Prompt("B")]),
        ("q.csv", 'text\n"say ""hi"", he said"\n\nA\n', [Prompt('say "hi", he said'), Prompt("A")]),
    ],
)  # fmt: skip
def test_what_is_plain_is_read(tmp_path, name, text, wanted):
    assert read(tmp_path, name, text) == wanted


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("a.csv", "text,kind,n\nA,x,1\nB,,2\n", [{"kind": "x", "n": "1"}, {"n": "2"}]),
        ("b.jsonl", '{"text": "A", "n": 1, "ok": true}', [{"n": 1, "ok": True}]),
        ("c.jsonl", '{"text": "A", "meta": {"n": 1}, "kind": "x"}', [{"n": 1, "kind": "x"}]),
        ("d.csv", 'text,meta\nA,"{""n"": 2}"\n', [{"n": 2}]),
    ],
)
def test_what_is_no_field_is_kept_as_what_else_is_known(tmp_path, name, text, wanted):
    found = read(tmp_path, name, text)
    assert [dict(prompt.meta) for prompt in found] == wanted
    lines = "\n".join(json.dumps(prompt.as_dict()) for prompt in found)
    assert read(tmp_path, "again.jsonl", lines) == found


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ('{"text": "A", "targt": " b"}', r"unknown field 'targt'.*Did you mean 'target'"),
        ('{"text": "A", "Contrast": " b"}', r"unknown field 'Contrast'.*Did you mean 'contrast'"),
        ('{"text": "A", "": 1}', "unknown field ''"),
        ('{"text": "A", "note": [1]}', r"'note' is \[1\]: names are words, and values text"),
        ('{"text": "A", "meta": [1]}', "meta is names with values"),
    ],
)
def test_what_is_nearly_a_field_is_one_mistyped(tmp_path, row, says):
    with pytest.raises(PromptError, match=says):
        read(tmp_path, "p.jsonl", row)


NOTHING = "line 3: the field 'text' is missing. (Or 'ids', or 'messages'.) What is given: nothing."
NO_TEXT = (
    "line 2: the field 'text' is missing. (Or 'ids', or 'messages'.) "
    "What is given: 'target', 'prompt', 'kind'."
)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.csv", "text,target,target\nA, b, c\n", "line 1: two columns are called 'target'"),
        ("b.csv", "text,text\nA,B\n", "line 1: two columns are called 'text'"),
        ("c.jsonl", '{"text": "A"}\n{"text": "A", "text": "B"}', "line 2: 'text' is given twice."),
        ("d.csv", 'text,roles\nA,"{""s"": 0, ""s"": 1}"\n', "line 2: 's' is given twice."),
        (
            "e.csv",
            'text,target\nA,b\n"C\nD,E\n',
            "line 3: not CSV: the file ends inside the quotes",
        ),
        ("f.csv", 'text,target\nA, " a"\n', "line 2: not CSV: a quote inside a field, ' \" a\"'"),
        ("g.csv", 'text\n"A" B\n', "line 2: not CSV: text after the quotes of a field"),
        ("h.csv", "text;target\nA; b\n", "line 1: one column, 'text;target': fields are separated"),
        ("q.csv", 'text,roles\nA,"{""s"": 0}"\nB,,C\n', "line 3: more values than the header"),
        ("i.csv", "text,target\nA, b\n,\n", NOTHING),
        ("s.csv", "prompt,target,kind\nA, b,c\n", NO_TEXT),
        ("k.csv", "text, target\nA, b\n", "line 2: unknown field ' target'"),
        (
            "l.jsonl",
            '{"text": ' + "[" * 100_000 + "]" * 100_000 + "}",
            "line 1: not JSON that can",
        ),
        ("m.jsonl", '{"roles": {"s": ' + "9" * 5000 + "}}", "line 1: not JSON (Exceeds the limit"),
        ("n.jsonl", '{"text": "A"}\n{"text": "\\ud83d"}', "line 2: A prompt's text has half a cha"),
        ("o.jsonl", '{"text": "A", "roles": {"s": ""}}', "line 1: The word of role 's' is ''"),
        ("r.csv", 'ids\n"[1], ""x"": 2"\n', "line 2: ids: expected a list in JSON"),
        ("p.csv", 'text,roles\nA,"{""s"": 0}"\nB,[1]\n', "line 3: expected an object"),
        ("t.tsv", "text,target\nA,b\n", "line 1: one column, 'text,target': fields are separated"),
        ("u.tsv", 'text\ttarget\nA\tb"\n', "line 2: not CSV: a quote inside a field"),
        ("v.tsv", "text\nA\tb\n", "line 2: more values than the header"),
        ("w.json", '[{"text": "A"}, "B"]', "row 2: expected an object with a prompt's fields"),
        ("y.json", '[{"text": "A"}, {"txt": "B"}]', "row 2: unknown field 'txt'"),
        (
            "q.jsonl",
            '{"text": "A", "n": 1, "meta": {"n": 2}}',
            "line 1: 'n' is given twice: by itself, and in 'meta'.",
        ),
    ],
)
def test_what_is_not_is_refused_with_its_line(tmp_path, name, text, says):
    with pytest.raises(PromptError) as error:
        read(tmp_path, name, text)
    assert f"{name}, {says}" in str(error.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"text": "A"}', "a.json: expected a list of objects with a prompt's fields"),
        ('{"text": "A"}\n{"text": "B"}', "call it .jsonl"),
        ("[" * 100_000, "too deeply nested"),
        ("[]", "a.json holds no prompts"),
        ('[{"text": "A", "text": "B"}]', "'text' is given twice."),
    ],
)
def test_json_that_is_no_list_is_refused(tmp_path, text, says):
    with pytest.raises(PromptError, match=says):
        read(tmp_path, "a.json", text)


def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path):
    for name in ("p.jsonl", "p.json"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(PromptError, match="it is a named pipe, and a regular file is needed"):
            Prompts.read(tmp_path / name)
    os.mkdir(tmp_path / "q.csv")
    with pytest.raises(PromptError, match="it is a folder"):
        Prompts.read(tmp_path / "q.csv")


@given(
    st.lists(st.lists(st.text(max_size=6), min_size=2, max_size=2), min_size=1, max_size=4),
    st.booleans(),
)
def test_csv_is_that_of_the_standard_library_where_that_writes_it(rows, by_line):
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, quoting=csv.QUOTE_ALL)
    writer.writerow(["text", "target"])
    writer.writerows(rows)
    pieces = stream.getvalue().splitlines(keepends=True) if by_line else [stream.getvalue()]
    found = [fields for _, fields in READERS[".csv"](pieces, "p.csv")]
    names = ("text", "target")
    assert found == [{k: v for k, v in zip(names, row, strict=True) if v} for row in rows]


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=4))
def test_json_is_that_of_the_standard_library(fields):
    [(where, found)] = READERS[".jsonl"]([json.dumps(fields)], "p.jsonl")
    assert (where, found) == ("p.jsonl, line 1", fields)


@pytest.mark.parametrize("form", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
@pytest.mark.parametrize("name", ["p.csv", "p.jsonl"])
def test_text_of_wide_characters_is_told_as_such(tmp_path, form, name):
    path = tmp_path / name
    path.write_bytes('{"text": "Berlin is"}'.encode(form))
    with pytest.raises(PromptError, match="is not UTF-8 text but UTF-16 or UTF-32"):
        Prompts.read(path)


def test_what_is_null_in_a_table_is_not_given(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"text": "A", "target": null, "template": null, "order": 2}')
    assert Prompts.read(path)[0] == Prompt("A", meta={"order": 2})


# -------------------------------------------------------------------------------- texts and words

HALF = "half a cat \ud83d"


@pytest.mark.parametrize(
    "fields",
    [
        {"text": HALF},
        {"text": "A", "donor": HALF},
        {"text": "A", "target": HALF},
        {"text": "A", "contrast": HALF},
        {"text": "A", "roles": {"s": HALF}},
        {"text": "A", "roles": {"s": (0, HALF)}},
        {"messages": [{"role": "user", "content": HALF}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": HALF}]}]},
        {"messages": [{"role": "user", "content": "A", HALF: "B"}]},
        {"text": "A", "donor_messages": [{"role": "user", "content": [HALF]}]},
    ],
)
def test_half_a_character_is_refused_with_its_place(fields):
    with pytest.raises(PromptError) as error:
        Prompt(**fields)
    assert r"half a character, '\ud83d', at its place 11, in 'half a cat \ud83d'" in str(
        error.value
    )
    str(error.value).encode()  # and can be printed


@pytest.mark.parametrize("word", ["", " ", "\n\t", ("a", "")])
def test_a_role_of_no_word_is_refused(word):
    with pytest.raises(PromptError, match=r"word of role 's' is .*, which stands nowhere: give a"):
        Prompt("A", roles={"s": word})
