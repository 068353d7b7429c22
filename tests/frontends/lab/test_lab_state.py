"""The address bar holds the whole state: there and back, and whatever a browser sends."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtome.frontends.lab.state import (
    KINDS,
    LONGEST,
    LONGEST_QUERY,
    MOST,
    MOST_STEPS,
    SHORT,
    WAYS,
    Against,
    View,
)
from microtome.texts import LANGUAGES

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
SOME = TEXTS.filter(bool)
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,9}", fullmatch=True)
NUMBERED = st.lists(st.tuples(NAMES, st.integers(-999, 10**6)), max_size=4, unique=True).map(tuple)
SEVERAL = st.lists(TEXTS, max_size=4, unique=True).map(tuple)
VIEWS = st.builds(
    View,
    model=TEXTS,
    text=TEXTS,
    donor=TEXTS,
    target=TEXTS,
    contrast=TEXTS,
    roles=NUMBERED,
    edit=TEXTS,
    metric=TEXTS,
    at=NUMBERED,
    chosen=SEVERAL,
    pins=SEVERAL,
    notes=st.lists(
        st.tuples(TEXTS.filter(lambda text: "|" not in text), TEXTS), max_size=3, unique=True
    ).map(tuple),
    reader=TEXTS,
    way=st.sampled_from(["", *WAYS]),
    against=st.none() | st.builds(Against, st.sampled_from(KINDS), SOME),
    steps=st.integers(1, MOST_STEPS),
    panel=st.from_regex(r"[a-z]{0,20}", fullmatch=True),
    lang=st.sampled_from(["", *LANGUAGES]),
)


@given(VIEWS)
def test_a_view_comes_back_from_its_address(view):
    found = View.from_query(view.to_query())
    assert found == view
    assert not found.problems
    assert View.from_query(view.to_query().removeprefix("?")) == view


@given(st.text(max_size=300) | st.none())
def test_whatever_a_browser_sends_there_is_a_view(query):
    found = View.from_query(query)
    assert View.from_query(found.to_query()) == found


def test_the_other_side_of_a_comparison_may_be_as_long_as_a_text():
    view = View(text="a", against=Against("prompt", "word " * (LONGEST // 8)))
    assert len(view.against.value) > SHORT
    found = View.from_query(view.to_query())
    assert (found, found.problems) == (view, ())


def test_the_first_page_has_no_query():
    assert View().to_query() == ""
    assert View.from_query("") == View.from_query(None) == View.from_query("?") == View()


def test_what_an_address_is_made_of_stays_legible():
    view = View(edit='patch L*.z.h{1,2}@"a b"', chosen=("zero L0.z.h1@-1",))
    assert view.to_query() == "?edit=patch%20L*.z.h{1,2}@%22a%20b%22&cell=zero%20L0.z.h1@-1"


@pytest.mark.parametrize(
    ("query", "why", "part"),
    [
        ("steps=0", "unknown", "steps"),
        (f"steps={MOST_STEPS + 1}", "unknown", "steps"),
        ("steps=many", "unknown", "steps"),
        ("lang=fr", "unknown", "lang"),
        ("panel=<script>", "unknown", "panel"),
        ("against=weather:rain", "unknown", "against"),
        ("against=model:", "unknown", "against"),
        ("role=subject", "unreadable", "role"),
        ("at=layer:1e9", "unreadable", "at"),
        ("note=words", "unreadable", "note"),
        (f"model={'m' * (SHORT + 1)}", "long", "model"),
        (f"text={'a' * (LONGEST + 1)}", "long", "text"),
        ("&".join(f"cell={n}" for n in range(MOST + 1)), "many", "cell"),
        (f"cell={'c' * (SHORT + 1)}", "unreadable", "cell"),
        ("text=" + "a" * LONGEST_QUERY, "long", ""),
    ],
)
def test_what_cannot_be_used_is_left_out_and_said(query, why, part):
    found = View.from_query("?" + query)
    assert [(one.why, one.part) for one in found.problems] == [(why, part)]
    assert len(found.problems[0].given) <= 60
    assert len(found.chosen) <= MOST


def test_half_a_character_has_no_bytes():
    assert View(text="a\ud800").to_query() == "?text=a%3F"


def test_the_last_of_several_values_counts_and_lists_have_each_once():
    found = View.from_query("?text=one&text=two&cell=a&cell=a&cell=b")
    assert (found.text, found.chosen) == ("two", ("a", "b"))


def test_the_metric_follows_what_the_prompt_allows():
    assert View(text="a").measured == "kl"
    assert View(text="a", contrast=" b").measured == "kl"
    assert View(text="a", target=" b").measured == "prob"
    assert View(text="a", target=" b", contrast=" c").measured == "logit_diff"
    assert View(text="a", target=" b", metric="rank").measured == "rank"


def test_a_plus_is_a_space_as_browsers_send_it():
    assert View.from_query("?text=Berlin+is").text == "Berlin is"
    assert View.from_query("?text=" + quote("1+1")).text == "1+1"


@pytest.mark.parametrize(
    "edit",
    [
        'apply("os:abort") L0.z.h1',
        ' apply ("os:abort") L*.z',
        'add("/etc/passwd") L*.resid_post',
        'add({3: "v.safetensors"}) L3.resid_post',
        'project(vector="v.gguf") L3.resid_post',
        'clamp(["a"], 0, 1) L3.resid_post',
        'replace("v.safetensors") L3.resid_post',
    ],
)
def test_an_address_asks_for_no_code_and_no_file(edit):
    asked = f"?edit={quote(edit)}&cell={quote(edit)}&cell=zero L0.z.h1&against=edit:{quote(edit)}"
    found = View.from_query(asked)
    assert found.edit == View().edit
    assert found.chosen == ("zero L0.z.h1",)
    assert found.against is None
    assert [(one.why, one.part) for one in found.problems] == [
        ("refused", "edit"),
        ("refused", "cell"),
        ("refused", "against"),
    ]


@pytest.mark.parametrize(
    "edit",
    [
        'mean(over="positions") L*.attn_out',
        'patch(align="words") L*.z.h*',
        'noise(how="add", relative=True) L2.mlp_out',
        "add([0.5, 1], factor=2) L0.resid_post",
        "L*.z.h*",
    ],
)
def test_other_edits_are_read_as_they_are(edit):
    found = View.from_query(f"?edit={quote(edit)}")
    assert (found.edit, found.problems) == (edit, ())


@pytest.mark.parametrize("sent", [None, 1, 1e308, True, [], {}, ["?text=a"], {"text": "a"}])
def test_what_no_page_sends_is_the_first_page(sent):
    assert View.from_query(sent) == View()
