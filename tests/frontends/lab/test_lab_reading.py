"""A prompt as its tokens while it is typed: what is wrong with a part does not hide the others."""

from __future__ import annotations

import pytest

import microtome as mt
from microtome.frontends.lab.examples import EXAMPLES, QUESTIONS
from microtome.frontends.lab.reading import read
from microtome.frontends.lab.state import View

BERLIN = View(
    text="Berlin is the capital of",
    donor="Paris is the capital of",
    target=" Germany",
    contrast=" France",
    roles=(("city", 0),),
)


def test_tokens_stand_beside_the_donors_and_have_their_roles(nano):
    found = read(nano, BERLIN)
    [encoded] = nano.encode(mt.Prompt(BERLIN.text, donor=BERLIN.donor))
    assert tuple(one.text for one in found.tokens) == encoded.tokens.pieces
    assert tuple(one.donor for one in found.tokens) == encoded.donor.pieces
    assert [one.differs for one in found.tokens] == [True, False, False, False, False]
    assert [one.position for one in found.tokens] == [0, 1, 2, 3, 4]
    assert found.tokens[0].roles == ("city",)
    assert "' Germany'" in found.target
    assert "' France'" in found.contrast
    assert found.problems == found.notes == ()


def test_a_donor_of_another_length_stands_by_itself(nano):
    found = read(nano, View(text="Berlin is the capital of", donor="Paris is the"))
    assert found.has_donor
    assert found.donor == ("Paris", " is", " the")
    assert {one.donor for one in found.tokens} == {None}


def test_an_empty_field_says_nothing(nano):
    assert read(nano, View()).tokens == ()
    assert read(nano, View(text="  \n")).problems == ()


@pytest.mark.parametrize(
    ("wrong", "words", "left"),
    [
        ({"target": "Germany"}, "Germany", ("contrast", "has_donor")),
        ({"roles": (("city", 99),)}, "99", ("target", "contrast", "has_donor")),
        ({"donor": "word " * 300}, "128", ("target", "contrast")),
    ],
)
def test_what_is_wrong_is_said_and_the_rest_is_shown(nano, wrong, words, left):
    found = read(nano, View(**{**vars(BERLIN), "problems": (), **wrong}))
    if found.problems:
        assert words in " ".join(found.problems)
    else:
        assert words in " ".join(found.notes)
    assert len(found.tokens) == 5
    assert all(getattr(found, name) for name in left)


def test_a_text_that_is_too_long_is_said(nano):
    found = read(nano, View(text="word " * 300))
    assert found.tokens == ()
    assert "128" in found.problems[0]


def test_what_may_not_be_meant_is_a_note(nano):
    found = read(nano, View(text="Berlin is the capital of ", target="Germany"))
    assert "space" in " ".join(found.notes)


def test_a_single_token_and_an_encoder(nano, bert64):
    assert len(read(nano, View(text="Berlin")).tokens) == 1
    found = read(bert64, View(text="pay no [MASK] to that man", target="attention"))
    assert [one.added for one in found.tokens] == [True, *[False] * 6, True]
    assert "attention" in found.target


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_opens_on_a_fresh_machine(nano, name):
    view = EXAMPLES[name](View(model="nano", lang="vi"))
    assert (view.model, view.lang) == ("nano", "vi")
    assert View.from_query(view.to_query()) == view
    found = read(nano, view)
    assert found.problems == found.notes == ()
    assert found.has_donor
    assert QUESTIONS[name].measured == "logit_diff"
    mt.Experiment(
        model="nano",
        prompts=[mt.Prompt(view.text, donor=view.donor, target=view.target)],
        edits=[view.edit],
        metrics=["prob"],
    ).plan(nano)
