"""The text form of edits: it reads back as the same edit; a wrong one says how it is written."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

import microtome as mt
from microtome.edits import OPERATIONS, Edit
from microtome.edits.text import form
from microtome.errors import AddressError, EditError

ADDRESSES = st.sampled_from(
    [
        "L*.z.h*@-1",
        'L5.z.h{0,2}@"a (word), with) signs"',
        "embed",
        "L0.mlp_post.n::2@1:4",
        "logits@last",
    ]
)
floats = st.floats(allow_nan=False, allow_infinity=False)
seeds = st.integers(0, 2**40)


def arrays(elements) -> st.SearchStrategy:
    rows = st.integers(1, 3).flatmap(
        lambda n: st.lists(st.lists(elements, min_size=n, max_size=n), min_size=1, max_size=3)
    )
    return elements | st.lists(elements, min_size=1, max_size=4) | rows


vectors = arrays(floats) | st.dictionaries(
    st.integers(0, 9), arrays(floats), min_size=1, max_size=2
)

edits = st.one_of(
    st.builds(mt.zero, ADDRESSES),
    st.builds(mt.patch, ADDRESSES),
    st.builds(mt.knockout, ADDRESSES),
    st.builds(mt.mean, ADDRESSES, over=st.sampled_from(["tensor", "positions", "prompts"])),
    st.builds(mt.scale, ADDRESSES, floats | st.integers(-9, 9)),
    st.builds(
        mt.noise,
        ADDRESSES,
        mean=floats,
        std=floats.map(abs),
        how=st.sampled_from(["replace", "add"]),
        relative=st.booleans(),
        seed=seeds,
    ),
    st.builds(mt.replace, ADDRESSES, arrays(floats)),
    st.builds(mt.add, ADDRESSES, vectors, floats),
    st.builds(mt.project, ADDRESSES, vectors, floats),
    st.builds(
        mt.clamp, ADDRESSES, vectors, floats.map(lambda x: -abs(x)), st.none() | floats.map(abs)
    ),
    st.builds(mt.shuffle, ADDRESSES, seed=seeds),
    st.builds(mt.apply, ADDRESSES, st.sampled_from([torch.sign, torch.nn.functional.gelu, len])),
)


@given(edits)
def test_the_text_of_an_edit_parses_to_the_same_edit(edit):
    again = mt.edit(str(edit))
    assert again == edit
    assert str(again) == str(edit)


def test_every_operation_is_covered_by_the_property_above():
    assert set(OPERATIONS) == {
        "zero", "mean", "scale", "noise", "patch", "replace", "add", "project", "clamp", "shuffle",
        "knockout", "apply",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (mt.zero("L5.z.h3"), "zero L5.z.h3"),
        (mt.scale("L2.resid_post", 0.6), "scale(0.6) L2.resid_post"),
        (mt.scale("L2.hidden", 2.0), "scale(2) L2.resid_post"),
        (mt.mean("L0.z"), "mean L0.z"),
        (mt.mean("L0.z", over="prompts"), 'mean(over="prompts") L0.z'),
        (mt.noise("L0.z", how="add", seed=3), 'noise(how="add", seed=3) L0.z'),
        (mt.noise("L0.z", relative=True), "noise(relative=True) L0.z"),
        (mt.patch("L*.z.h*@-1"), "patch L*.z.h*@-1"),
        (mt.knockout('L5.pattern.h3@-1,"Sam"'), 'knockout L5.pattern.h3@-1,"Sam"'),
        (mt.replace("L0.z", [1, 2.5]), "replace([1.0, 2.5]) L0.z"),
        (mt.add("L0.z", np.float32(0.5)), "add(0.5) L0.z"),
        (mt.add("L0.z", torch.tensor([1.0, -1.0])), "add([1.0, -1.0]) L0.z"),
        (mt.add("L0.z", 0.5, factor=2), "add(0.5, factor=2) L0.z"),
        (mt.add("L:.z", {1: [0.5], 0: [2]}), "add({0: [2.0], 1: [0.5]}) L:.z"),
        (mt.project("L0.z", [1, 0]), "project([1.0, 0.0]) L0.z"),
        (mt.clamp("L0.z", [1, 0], high=2), "clamp([1.0, 0.0], high=2) L0.z"),
        (mt.shuffle("L0.z", 1), "shuffle(seed=1) L0.z"),
        (mt.apply("L0.z", torch.sign), 'apply("torch:sign") L0.z'),
    ],
)
def test_the_text_is_the_one_that_the_design_writes(edit, text):
    assert str(edit) == text
    assert mt.edit(text) == edit


@pytest.mark.parametrize(
    ("loose", "same"),
    [
        ("  zero   L5.z.h3  ", "zero L5.z.h3"),
        ("zero() L5.z.h3", "zero L5.z.h3"),
        ("scale(factor=0.6)L2.resid_post", "scale(0.6) L2.resid_post"),
        ("scale( 1e-1 ) L2.resid_post", "scale(0.1) L2.resid_post"),
        ("noise(1, 2, 'add') L0.z", 'noise(mean=1, std=2, how="add") L0.z'),
        ("replace(-3) L0.z", "replace(-3) L0.z"),
        ('zero L0.z@"(a) b"', 'zero L0.z@"(a) b"'),
    ],
)
def test_a_looser_text_means_the_same(loose, same):
    assert str(mt.edit(loose)) == same


def test_edits_are_values():
    assert len({mt.scale("L0.z", 0.5), mt.scale("L0.z", 0.5), mt.scale("L0.z", 0.25)}) == 2
    assert len({mt.add("L0.z", [1, 2]), mt.add("L0.z", np.array([1.0, 2.0]))}) == 1
    with pytest.raises(AttributeError):
        mt.scale("L0.z", 0.5).factor = 1.0


def test_values_are_a_copy_that_nothing_can_change():
    given_ = np.array([1.0, 2.0])
    edit = mt.add("L0.z", given_)
    given_[0] = 9
    assert str(edit) == "add([1.0, 2.0]) L0.z"
    with pytest.raises(ValueError, match="read-only"):
        edit.vector.array[0] = 9


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", ["Cannot read the edit ''", "name(parameters) address"]),
        ("5 L0.z", ["Cannot read the edit"]),
        ("zeor L0.z", ["No edit is called 'zeor'", "Did you mean 'zero'?", "shuffle"]),
        ("zero", ["lacks an address", "zero L5.z.h3"]),
        ("scale(0.5)", ["lacks an address"]),
        ("scale L0.z", ["Wrong parameters", "scale(factor) address"]),
        ("scale(1, 2) L0.z", ["Wrong parameters"]),
        ("scale(by=2) L0.z", ["Wrong parameters"]),
        ("zero(1) L0.z", ["Wrong parameters", "zero address"]),
        ("scale(half) L0.z", ["Parameters are numbers", "scale(factor) address"]),
        ("scale(0.5 L0.z", ["Cannot read the parameters"]),
        ("scale('a') L0.z", ["factor must be a finite number, not 'a'"]),
        ("scale(True) L0.z", ["factor must be a finite number, not True"]),
        ("scale(1e999) L0.z", ["factor must be a finite number, not inf"]),
        (f"scale({10**400}) L0.z", ["factor must be a finite number, not 1000"]),
        ("noise(std=-1) L0.z", ["std must be 0 or more, not -1"]),
        ("noise(how='mix') L0.z", ["'replace' | 'add', not 'mix'"]),
        ("mean(over='heads') L0.z", ["'tensor' | 'positions' | 'prompts', not 'heads'"]),
        ("replace('a') L0.z", ["Expected a finite number or an array of them, not 'a'"]),
        ("replace([1, [2]]) L0.z", ["Expected a finite number or an array"]),
        ("replace([]) L0.z", ["at least one"]),
        ("replace(None) L0.z", ["finite"]),
        ("add(1e999) L0.z", ["finite"]),
        ("apply('torch:no_such') L0.z", ["cannot import 'torch:no_such'"]),
        ("apply('no_such_package:f') L0.z", ["cannot import"]),
        ("apply(3) L0.z", ["apply takes a function", "not 3"]),
    ],
)
def test_a_text_that_is_no_edit_says_why(text, says):
    with pytest.raises(EditError) as error:
        mt.edit(text)
    for words in says:
        assert words in str(error.value)


def test_a_wrong_address_is_an_address_error():
    with pytest.raises(AddressError, match="No site is called 'y'"):
        mt.edit("zero L0.y")


def test_the_form_lists_parameters_with_their_defaults():
    noise = "noise(mean=0.0, std=1.0, how='replace', relative=False, seed=0) address"
    assert form(OPERATIONS["noise"]) == noise
    assert form(OPERATIONS["zero"]) == "zero address"


alphabet = st.sampled_from(
    [*"()[]{}'\",=: -*\\", *OPERATIONS, "L0.z", "0.5", "seed", "over", "None", "lambda"]
)


@given(st.lists(alphabet, max_size=10).map("".join) | st.text(max_size=20))
@example("scale(**{'factor': 2}) L0.z")
@example("scale(*[2]) L0.z")
def test_no_text_raises_anything_but_an_edit_or_address_error(text):
    try:
        edit = mt.edit(text)
    except (EditError, AddressError):
        return
    assert isinstance(edit, Edit)


@pytest.mark.parametrize(
    "text",
    [
        "scale({[]: 1}) L0.z",
        "scale(" + "-" * 3000 + "1) L0.z",
        "scale(2, factor=3) L0.z",
        "scale(factor=2, factor=3) L0.z",
        "replace('3') L0.z",
    ],
)
def test_parameters_that_python_alone_would_stumble_over_are_an_edit_error(text):
    with pytest.raises(EditError):
        mt.edit(text)


@pytest.mark.parametrize("seed", [1.0, True, "a", None, -0.5])
def test_a_seed_is_a_whole_number(seed):
    # 1, 1.0 and True are equal to Python and would be one text, but draw different numbers.
    for make in (mt.noise, mt.shuffle):
        with pytest.raises(EditError):
            make("L0.z", seed=seed)


@pytest.mark.parametrize("relative", ["no", 2, None])
def test_a_switch_is_true_or_false(relative):
    with pytest.raises(EditError):
        mt.noise("L0.z", relative=relative)


@pytest.mark.parametrize("address", [5, None, ["L0.z"]])
def test_an_address_is_a_text_or_an_address(address):
    with pytest.raises((EditError, AddressError)):
        mt.zero(address)


def test_equal_values_hash_the_same():
    assert mt.replace("L0.z", -0.0) == mt.replace("L0.z", 0.0)
    assert hash(mt.replace("L0.z", -0.0)) == hash(mt.replace("L0.z", 0.0))


@pytest.mark.parametrize("factor", [np.float32(0.5), np.int64(2)])
def test_numpys_numbers_are_numbers(factor):
    assert mt.scale("L0.z", factor).factor == float(factor)
