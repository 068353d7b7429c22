"""Alignment of prompts of different lengths: which token stands for which, and what patch does."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import microtome as mt
from microtome.errors import EditError, PromptError, SweepError
from microtome.language.addresses import parse
from microtome.prompts.alignment import aligned
from microtome.prompts.resolve import counterpart
from microtome.prompts.tokens import Tokens
from oracles.plain_hooks import Change
from oracles.plain_hooks import run as plainly


def tokens(text: str, **places: str | int) -> Tokens:
    """A text cut at its bars; ``<…>`` is what a tokenizer adds, which stands for no text."""
    pieces = text.split("|")
    made = Tokens.of_texts(*(piece for piece in pieces if not piece.startswith("<")))
    offsets, rest = [], iter(made.offsets)
    for piece in pieces:
        end = len(made.text) if offsets else 0
        offsets.append((end, end) if piece.startswith("<") else next(rest))
    ids = tuple(sum(map(ord, piece)) for piece in pieces)
    return Tokens(made.text, ids, tuple(pieces), tuple(offsets), places)


WORDS = [
    # prompt, donor, counterparts: equal words in the same order
    ("The| cat| sat", "The| cat| sat", [0, 1, 2]),
    ("The| cat| sat", "Then| the| big| cat", [None, 3, None]),
    ("The| cat| sat", "The| old| cat| sat", [0, 2, 3]),
    ("<s>|The| cat", "<s>|A|.| The| cat", [0, 3, 4]),
    ("The| cat|</s>|<end>", "A|<end>", [None, None, None, 1]),
    # A word is a word, not the token that it begins with.
    ("a| well", "a| well|ness| spa", [0, None]),
    # In as many tokens, one by one; else the last one.
    ("Pine|apple| pie", "my| Pine|apple| pie", [1, 2, 3]),
    ("Pine|apple| pie", "my| Pi|neap|ple| pie", [None, 3, 4]),
    ("Sam| and| Sam", "Sam", [0, None, None]),
    # A token that has parts of two words is matched with both or not at all.
    ('a| b."| c', 'x| b."| c', [None, 1, 2]),
    ("no| word", "same| here|!", [None, None]),
]

ROLES = [
    # prompt, roles, donor, roles, counterparts
    ("Rome| is| in", {}, "So| Rome| is| in", {}, [None, None, 3]),
    ("Rome| is| in", {"city": "Rome"}, "So| Oslo| is| in", {"city": "Oslo"}, [1, 2, 3]),
    ("<s>|Rome| is", {"city": "Rome"}, "<s>|So| Oslo| is", {"city": "Oslo"}, [0, 2, 3]),
    ("The| town| Rome| is", {"c": "Rome"}, "A| city| Os|lo| is", {"c": "Oslo"}, [0, 1, 3, 4]),
    ("A| Os|lo| is", {"c": "Oslo"}, "So| A| Tu|nis| is", {"c": "Tunis"}, [None, 2, 3, 4]),
    # The roles stand the other way round; what is between them is between them.
    (
        "When| Sam| and| Al| go",
        {"a": "Sam", "b": "Al"},
        "When| Al| and| Sam| do",
        {"a": "Sam", "b": "Al"},
        [0, 3, 2, 1, 4],
    ),
    (
        "Sam| and| Al| go",
        {"a": "Sam", "b": "Al"},
        "Sam| with| an| Al| go",
        {"a": "Sam", "b": "Al"},
        [0, None, 3, 4],
    ),
    # A role at the end is a role, not the last token.
    ("I| saw| Rome", {"c": "Rome"}, "Oslo| is| big", {"c": "Oslo"}, [None, None, 0]),
    ("a| b| c| d", {"here": 1}, "x| a| b| c| d", {"here": 2}, [None, 2, 3, 4]),
    ("Rome| is", {"a": 0, "b": "Rome"}, "So| Oslo| is", {"a": 1, "b": "Oslo"}, [1, 2]),
]


@pytest.mark.parametrize(("text", "donor", "there"), WORDS)
def test_by_words(text, donor, there):
    assert list(aligned("words", tokens(text), tokens(donor)).there) == there


@pytest.mark.parametrize(("text", "ours", "donor", "theirs", "there"), ROLES)
def test_by_roles(text, ours, donor, theirs, there):
    found = aligned("roles", tokens(text, **ours), tokens(donor, **theirs))
    assert list(found.there) == there


def test_roles_that_share_a_token_in_one_prompt_alone_are_refused():
    one = tokens("Sam| and| Al", a="Sam", b="Al")
    other = tokens("Sam| goes", a="Sam", b=0)
    with pytest.raises(PromptError, match="'a' and 'b' share a token in one prompt"):
        aligned("roles", one, other)


def test_a_role_that_the_donor_lacks_is_refused():
    with pytest.raises(PromptError, match="'Rome' is not in the prompt"):
        aligned("roles", tokens("Rome| is", c="Rome"), tokens("So| Oslo| is", c="Rome"))


PIECES = st.lists(st.sampled_from([" a", " b", " cat", " do", "g", ".", "<s>"]), min_size=1)


@given(PIECES, PIECES)
def test_any_two_prompts_align_in_order(one, other):
    """Counterparts exist, none is taken twice, and none overtakes another."""
    here, there = tokens("|".join([*one, " end"])), tokens("|".join([*other, " end"]))
    for by in ("words", "roles"):
        found = [place for place in aligned(by, here, there).there if place is not None]
        assert found == sorted(set(found))
        assert all(0 <= place < len(there) for place in found)
    assert aligned("words", here, here).there == tuple(range(len(here)))
    assert aligned("roles", here, here).there == tuple(range(len(here)))


def test_it_is_shown_token_by_token():
    shown = str(aligned("words", tokens("The| old| cat| sat"), tokens("The| cat| has| sat|!")))
    assert shown.splitlines() == [
        "  0:'The'  = 0:'The'",
        "  1:' old' · nothing",
        "  2:' cat' = 1:' cat'",
        "           · 2:' has'",
        "  3:' sat' = 3:' sat'",
        "           · 4:'!'",
    ]


def test_a_place_without_a_counterpart_is_refused_and_shown():
    dims = mt.load("nano").anatomy.dims
    one, other = tokens("The| old| cat"), tokens("The| cat")
    found = counterpart(parse("L0.z@{0,2}"), dims, one, other, "words")
    assert found.indices[0] == (0, 1)
    for text in ("L0.z", "L0.z@1", 'L0.z@"old"', "L0.z@{0,1}"):
        with pytest.raises(PromptError, match=r"position 1 .*no counterpart.*@\{0,2\}") as error:
            counterpart(parse(text), dims, one, other, "words")
        assert "1:' old' · nothing" in str(error.value)


def test_prompts_of_different_lengths_are_told_how_to_be_aligned(tiny):
    with pytest.raises(PromptError, match=r'patch\(align="roles"\)'):
        tiny.run(mt.Prompt("The cat sat", donor="The cat"), edits=["patch L0.z"])


# ------------------------------------------------------------------------------------ the edit

CITY = mt.Prompt(
    "When Mary and John went to the store",
    donor="The dog gave John a drink to the store",
    target=" Mary",
    contrast=" John",
    roles={"man": "John"},
)
WORD_PAIRS = {
    "words": {3: 3, 5: 6, 6: 7, 7: 8},
    "roles": {3: 3, 7: 8, 0: 0, 1: 1, 2: 2},
}
EDIT = {by: f'patch(align="{by}") ' for by in WORD_PAIRS}


def test_the_text_form_parses_and_prints_back():
    for by in ("roles", "words"):
        edit = mt.edit(f'patch(align="{by}") L*.z.h*@*')
        assert edit == mt.patch("L*.z.h*@*", align=by)
        assert str(edit) == f'patch(align="{by}") L*.z.h*@*'
    assert str(mt.patch("L0.z", align="position")) == "patch L0.z"
    with pytest.raises(EditError, match=r"'position' \| 'roles' \| 'words', not 'word'"):
        mt.patch("L0.z", align="word")


@pytest.fixture(scope="module")
def city(tiny64):
    [one] = tiny64.encode(CITY)
    assert (len(one.tokens), len(one.donor)) == (8, 9)
    return one


def by_hand(model, one, site, layer, pairs, unit=None):
    """The logits when these positions of the donor are put in."""
    donor = plainly(model.hf, one.donor.ids).seen[site, layer]
    rest = [list(range(n)) for n in donor.shape[1:]]
    if unit is not None:
        rest[0] = [unit]
    here, there = list(pairs), list(pairs.values())
    values = donor[np.ix_(there, *rest)]
    change = Change(site, layer, [here, *rest], lambda x: values)
    return plainly(model.hf, one.tokens.ids, [change]).logits


@pytest.mark.parametrize("by", WORD_PAIRS)
def test_a_run_takes_each_position_from_its_counterpart(tiny64, city, by):
    pairs = WORD_PAIRS[by]
    where = ",".join(map(str, pairs))
    for site in ("resid_pre", "k", "z", "mlp_post"):
        run = tiny64.run(CITY, edits=[f"{EDIT[by]}L1.{site}@{{{where}}}"])
        wanted = by_hand(tiny64, city, site, 1, dict(sorted(pairs.items())))
        assert float((run.logits[0] - wanted).abs().max()) <= 1e-11
    with pytest.raises(PromptError, match=r"no counterpart"):
        tiny64.run(CITY, edits=[f"{EDIT[by]}L1.z"])


@pytest.mark.parametrize("engine", ["walk", "reference"])
@pytest.mark.parametrize("by", WORD_PAIRS)
def test_a_map_has_a_cell_for_every_counterpart_and_no_other(tiny64, city, by, engine):
    asked = {"metrics": ["logit_diff"], "engine": engine, "verify": 100}
    effects = mt.sweep(tiny64, CITY, f"{EDIT[by]}L*.z.h*@*", **asked)
    found = effects.data["logit_diff"].isel(prompt=0)
    missing = [n for n in range(8) if n not in WORD_PAIRS[by]]
    assert effects.provenance["predicted"]["absent"] == 3 * 4 * len(missing)
    assert effects.data["values_changed"].isel(pos=missing).isnull().all()
    assert found.isel(pos=missing).isnull().all()
    assert found.notnull().sum() == 3 * 4 * len(WORD_PAIRS[by])
    for layer, head, (here, there) in ((0, 1, (3, 3)), (2, 3, (7, 8)), (1, 0, (7, 8))):
        logits = by_hand(tiny64, city, "z", layer, {here: there}, head)[-1]
        wanted = float(logits[city.target] - logits[city.contrast])
        assert abs(float(found[layer, head, here]) - wanted) <= 1e-11
    assert len(effects.top(1000, "logit_diff")) == 3 * 4 * len(WORD_PAIRS[by])


def test_prompts_of_all_lengths_each_with_its_own_alignment(tiny64):
    """A prompt none of whose tokens has a counterpart has no cells; the others are as alone."""
    prompts = [
        CITY,
        mt.Prompt("The cat sat", donor="the dog sat on", target=" Mary", contrast=" John"),
        mt.Prompt("Rome is in", donor="When Mary and John", target=" Mary", contrast=" John"),
    ]
    edit = f"{EDIT['words']}L*.resid_post@*"
    effects = mt.sweep(tiny64, prompts, edit, metrics=["logit_diff", "kl"])
    assert effects.data["kl"].isel(prompt=2).isnull().all()
    assert effects.clean("kl").notnull().all()
    for number, prompt in enumerate(prompts[:2]):
        alone = mt.sweep(tiny64, prompt, edit, metrics=["kl"], engine="reference").data["kl"]
        own = effects.data["kl"].isel(prompt=number, pos=slice(alone.sizes["pos"]))
        np.testing.assert_allclose(own, alone.isel(prompt=0), atol=1e-12)
    with pytest.raises(SweepError, match=r"without a counterpart in the donor cannot be patched"):
        mt.sweep(tiny64, prompts[2], edit, metrics=["kl"])


def test_ways_of_aligning_can_be_an_axis(tiny64):
    edit, over = "patch L1.resid_post@*", {"align": ["words", "roles"]}
    effects = mt.sweep(tiny64, CITY, edit, metrics=["kl"], over=over)
    assert effects.dims == ("prompt", "pos", "align")
    for by, pairs in WORD_PAIRS.items():
        own = effects.data["kl"].isel(prompt=0).sel(align=by)
        assert set(np.flatnonzero(own.notnull())) == set(pairs)


def test_a_screen_and_a_small_memory_leave_absent_cells_absent(tiny64):
    edit = f"{EDIT['words']}L*.z.h*@*"
    whole = mt.sweep(tiny64, CITY, edit, metrics=["kl"])
    for more in ({"screen": "float32", "refine": 3}, {"memory": 400_000}):
        effects = mt.sweep(tiny64, CITY, edit, metrics=["kl"], **more)
        assert (effects.data["kl"].isnull() == whole.data["kl"].isnull()).all()


def test_donors_of_one_length_go_by_the_same_position_unless_asked(tiny64):
    prompt = mt.Prompt("The cat sat", donor="The dog sat", target=" Mary")
    same = mt.sweep(tiny64, prompt, "patch L0.z@*", metrics=["kl"]).data["kl"].values.ravel()
    words = mt.sweep(tiny64, prompt, f"{EDIT['words']}L0.z@*", metrics=["kl"]).data["kl"]
    assert np.isfinite(same).all()
    wanted = [same[0], np.nan, same[2]]
    np.testing.assert_allclose(words.values.ravel(), wanted, rtol=0, atol=1e-12)


def test_reports_and_figures_get_through(tmp_path):
    experiment = mt.Experiment(
        model="nano",
        prompts=[CITY],
        edits=[f"{EDIT['words']}L*.resid_post@*"],
        metrics=["logit_diff"],
        out=tmp_path / "out",
    )
    assert mt.Experiment.from_yaml(experiment.to_yaml()) == experiment
    effects = experiment.run(progress=False)
    missing = int(effects.data["logit_diff"].isnull().sum())
    assert missing > 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert f"{missing:,} more cells of the map do not exist" in page
    assert json.loads((tmp_path / "out" / "summary.json").read_text())
    assert mt.open_effects(tmp_path / "out" / "effects.zarr").data["logit_diff"].isnull().any()


def test_alike_prompts_are_told_apart_by_their_roles():
    """Alignments are kept for later; two prompts of one text may have different roles."""
    one, other = tokens("Sam| and| Al", a="Sam"), tokens("So| Al| and| Sam", a="Sam")
    swapped = replace(other, places={"a": "Al"})
    assert aligned("roles", one, other).there[0] == 3
    assert aligned("roles", one, swapped).there[0] == 1
