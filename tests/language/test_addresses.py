"""Addresses: the grammar, what each one selects, and how a wrong one is refused."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from microtome.errors import AddressError, PromptError
from microtome.language.addresses import (
    Address,
    Everything,
    Group,
    Index,
    Role,
    Span,
    Star,
    Word,
    parse,
)
from microtome.language.sites import POSITIONS, SITES, Dimensions, dimension
from microtome.prompts.resolve import check, counterpart, regions, spans
from microtome.prompts.tokens import Tokens

DIMS = Dimensions(
    n_layers=3, n_heads=4, n_kv_heads=2, d_model=8, d_head=2, d_mlp=5, d_vocab=6, n_positions=16
)
TOKENS = Tokens.of_texts("Pine", "apple", " on", " pizza", " is", " good")
WITH_ROLES = Tokens(
    TOKENS.text, TOKENS.ids, TOKENS.pieces, TOKENS.offsets, {"subject": "pizza", "verb": 4}
)

# ------------------------------------------------------------------------------- the grammar

integers = st.integers(-99, 99)
indices = st.builds(Index, integers)
steps = st.none() | st.integers(2, 9)
ends = st.none() | integers
slices = st.builds(Span, ends, ends, steps).filter(
    lambda s: (s.start, s.stop, s.step) != (None, None, None)
)
words = st.text(min_size=1, max_size=8).filter(str.strip).map(Word)
roles = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,6}", fullmatch=True).map(Role)


def groups(members) -> st.SearchStrategy:
    return st.lists(members, min_size=1, max_size=4, unique=True).map(lambda m: Group(tuple(m)))


everything, star = st.just(Everything()), st.just(Star())
numeric = everything | star | indices | slices | groups(indices)
positions = numeric | words | roles | groups(indices | words | roles)


@st.composite
def addresses(draw) -> Address:
    site = draw(st.sampled_from(list(SITES.values())))
    layers = draw(numeric) if site.layered else None
    selectors = tuple(
        draw(positions if axis in POSITIONS else everything if axis == "vocab" else numeric)
        for axis in site.axes
    )
    return Address(site, layers, selectors)


@given(addresses())
def test_the_text_of_an_address_parses_to_the_same_address(address):
    assert parse(str(address)) == address


@given(addresses())
def test_the_text_of_an_address_is_canonical(address):
    assert str(parse(str(address))) == str(address)


@pytest.mark.parametrize(
    ("text", "stars", "canonical"),
    [
        ("L*.z.h*@-1", ("layer", "head"), "L*.z.h*@-1"),
        ("L5.z.h3", (), "L5.z.h3"),
        ("L3.k.h2", (), "L3.k.h2"),
        ("L4.mlp_post.n::2", (), "L4.mlp_post.n::2"),
        ("L*.resid_post", ("layer",), "L*.resid_post"),
        ("L*.hidden", ("layer",), "L*.resid_post"),
        ("L*.z.h*@*", ("layer", "head", "pos"), "L*.z.h*@*"),
        ('L2.z.h:@"pineapple"', (), 'L2.z@"pineapple"'),
        ("L*.k.h*", ("layer", "kv_head"), "L*.k.h*"),
        ("L0.mlp_post.n*@*", ("neuron", "pos"), "L0.mlp_post.n*@*"),
        ("L0.resid_pre.d*", ("d",), "L0.resid_pre.d*"),
        ("L0.q.h1.d*", ("d",), "L0.q.h1.d*"),
        ('L5.pattern.h3@-1,"Sam"', (), 'L5.pattern.h3@-1,"Sam"'),
        ("L5.pattern.h3@-1", (), "L5.pattern.h3@-1,:"),
        ("L*.pattern.h*@*,*", ("layer", "head", "q_pos", "k_pos"), "L*.pattern.h*@*,*"),
        ("embed@0", (), "embed@0"),
        ("logits", (), "logits"),
        ("  L1.z.h{0, 2}@{subject,-1} ", (), "L1.z.h{0,2}@{subject,-1}"),
        ("L:.z@:", (), "L:.z"),
        ("L1:.z.h0:4:1", (), "L1:.z.h0:4"),
    ],
)
def test_addresses_of_the_design_mean_what_it_says(text, stars, canonical):
    address = parse(text)
    assert (address.stars, str(address)) == (stars, canonical)


def test_an_index_takes_the_place_of_a_star_and_of_nothing_else():
    address = parse("L*.k.h*@*")
    assert str(address.fix(layer=0, pos=3)) == "L0.k.h*@3"
    assert address.fix(layer=1, kv_head=0, pos=2) == parse("L1.k.h0@2")
    assert str(address.together()) == "L:.k"


# ----------------------------------------------------------------------------- what is selected


@st.composite
def starless(draw) -> str:
    """An address, often valid, without stars, in numbers near the sizes of DIMS."""
    near = st.integers(-7, 7)
    some = (
        near.map(str)
        | st.just(":")
        | st.tuples(st.none() | near, st.none() | near, st.none() | st.integers(1, 3)).map(
            lambda s: ":".join("" if end is None else str(end) for end in s)
        )
        | st.lists(near, min_size=1, max_size=3).map(lambda m: "{" + ",".join(map(str, m)) + "}")
    )
    site = draw(st.sampled_from(list(SITES.values())))
    text = f"L{draw(some)}.{site.name}" if site.layered else site.name
    for letter in {"h": "head kv_head", "n": "neuron", "d": "d_model d_head"}.items():
        if set(letter[1].split()) & set(site.axes):
            text += f".{letter[0]}{draw(some)}"
    return text + f"@{draw(some)}" + (f",{draw(some)}" if site.name == "pattern" else "")


def chosen(selector: str, size: int) -> list[int] | None:
    """What a selector picks out of a range, by numpy's own indexing; None where it is no index."""
    everything = np.arange(size)
    if selector.startswith("{"):
        numbers = [int(n) for n in selector[1:-1].split(",")]
    elif ":" in selector:
        parts = [int(n) if n else None for n in selector.split(":")]
        if any(n is not None and abs(n) > size for n in parts[:2]):
            return None  # numpy would clip here, and nothing is clipped
        return everything[slice(*parts)].tolist() or None
    else:
        numbers = [int(selector)]
    try:
        return sorted(set(everything[numbers].tolist()))
    except IndexError:
        return None


def site_is_ahead(site: str, wanted: list) -> bool:
    """Attention of queries to nothing but later keys, which a causal model has not."""
    return site == "pattern" and None not in wanted and max(wanted[1]) < min(wanted[2])


@given(starless())
@example("L0.pattern.h1@0,1:")
@example("L0.pattern.h1@2,{0,1}")
@example("L0.z.h0@0:7")
@example("L-3.k.h{1,-1}@::3")
def test_regions_are_what_numpy_selects_or_an_error(text):
    address = parse(text)
    body, _, place = text.partition("@")
    layers, _, rest = body.partition(".") if address.site.layered else ("", "", body)
    units = {part[0]: part[1:] for part in rest.split(".")[1:]}
    wanted = []
    places = re.split(r",(?![^{]*})", place)  # at a comma that is in no set
    for axis in address.site.axes:
        size = len(TOKENS) if axis in POSITIONS else DIMS.size(axis)
        letter = {"head": "h", "kv_head": "h", "neuron": "n", "d_model": "d", "d_head": "d"}
        text_of = places.pop(0) if axis in POSITIONS else units.get(letter.get(axis, ""), ":")
        wanted.append(chosen(text_of, size))
    where = chosen(layers[1:], DIMS.n_layers) if layers else [None]
    ahead = site_is_ahead(address.site.name, wanted)
    if where is None or None in wanted or ahead:
        with pytest.raises(AddressError):
            regions(address, DIMS, TOKENS)
        return
    found = regions(address, DIMS, TOKENS)
    assert [r.layer for r in found] == where
    grid = np.zeros([len(TOKENS) if a in POSITIONS else DIMS.size(a) for a in address.site.axes])
    for region in found:
        assert [list(i) for i in region.indices] == wanted
        assert region.shape == grid[np.ix_(*wanted)].shape
        assert region.size == grid[np.ix_(*wanted)].size


@given(addresses())
def test_stars_range_over_everything_there_is(address):
    sizes = {"pos": 6, "q_pos": 6, "k_pos": 6, "layer": 3}
    wanted = {}
    if address.layers == Star():
        wanted["layer"] = range(3)
    inner = list(zip(address.site.axes, address.selectors, strict=True))
    inner.sort(key=lambda pair: pair[0] in POSITIONS)  # units first, then positions
    for axis, selector in inner:
        if selector == Star():
            wanted[dimension(axis)] = range(sizes[axis] if axis in sizes else DIMS.size(axis))
    found = spans(address, DIMS, TOKENS)
    assert found == wanted
    assert tuple(found) == address.stars == tuple(wanted)


def test_every_cell_of_stars_is_one_index_and_together_they_are_everything():
    address = parse("L*.k.h*@*")
    ranges = spans(address, DIMS, TOKENS)
    cells = [
        regions(address.fix(**dict(zip(ranges, where, strict=True))), DIMS, TOKENS)
        for where in itertools.product(*ranges.values())
    ]
    seen = [(r.layer, r.indices[0], r.indices[1]) for [r] in cells]
    assert len(seen) == len(set(seen)) == 3 * 2 * 6
    assert {
        (r.layer, h, p)
        for r in regions(address.together(), DIMS, TOKENS)
        for h in r.indices[1]
        for p in r.indices[0]
    } == {(a, h[0], p[0]) for a, p, h in seen}


def test_a_word_is_its_last_token_and_a_role_is_where_the_prompt_says():
    def place(text: str) -> tuple[int, ...]:
        return regions(parse(text), DIMS, WITH_ROLES)[0].indices[0]

    assert place('L0.z@"Pineapple"') == (1,)
    assert place('L0.z@" pizza"') == (3,)
    assert place("L0.z@subject") == (3,)
    assert place("L0.z@verb") == (4,)
    assert place("L0.z@last") == (5,)
    assert place('L0.z@{verb,"Pineapple",0}') == (0, 1, 4)


# --------------------------------------------------------------------------------- bad addresses


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("L0.resid_pots", ["resid_pots", "Did you mean 'resid_post'?", "resid_mid"]),
        ("z.h3", ["lacks its layers", "L*.z.h3", "L:.z.h3", "L0.z.h3"]),
        ("L0.embed", ["'embed' is in no layer", "write 'embed'"]),
        ("L0.z.n3", ["z has no units 'n'", "h (head)", "d (d_head)"]),
        ("L0.resid_post.h3", ["resid_post has no units 'h'", "d (d_model)"]),
        ("logits.d3", ["logits has no units 'd'", "none"]),
        ("L0.z.h1.h2", ["head is selected twice"]),
        ("L0.z.h", ["expected units"]),
        ("L0.z@", ["expected positions"]),
        ("L0.z@0,1", ["unexpected text"]),
        ("L0.pattern.h0@1,", ["expected positions"]),
        ("L0.pattern.h0@1,2,3", ["unexpected text"]),
        ("L0.z.h{}", ["an empty set selects nothing"]),
        ("L0.z.h{1;2}", ["a set lists integers"]),
        ("L0.z.h{subject}", ["units are numbers"]),
        ("L0.z.hsubject", ["units are numbers"]),
        ("L0.z.h::0", ["step must be 1 or more"]),
        ("L0.z.h::-1", ["step must be 1 or more"]),
        ('L0.z@"  "', ["an empty word"]),
        (r'L0.z@"\x"', ["JSON's escapes"]),
        ("Lsubject.z", ["No site is called 'Lsubject'"]),
        ("L0", ['expected "."']),
        ("", ["expected a site"]),
        ("L0.z.h3 and more", ["unexpected text"]),
    ],
)
def test_a_text_that_is_no_address_says_why(text, says):
    with pytest.raises(AddressError) as error:
        parse(text)
    for words_ in says:
        assert words_ in str(error.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("L3.z", ["layer 3 does not exist", "there are 3", "0 … 2", "The nearest is 2"]),
        ("L-4.z", ["layer -4 does not exist", "-3 … -1", "The nearest is -3"]),
        ("L0.z.h4", ["head 4 does not exist", "there are 4", "The nearest is 3"]),
        ("L0.k.h2", ["kv_head 2 does not exist", "there are 2", "The nearest is 1"]),
        ("L0.z.h{0,9}", ["head 9 does not exist"]),
        ("L0.mlp_post.n5", ["neuron 5 does not exist"]),
        ("L0.resid_post.d8", ["d_model 8 does not exist"]),
        (
            "L0.z@6",
            ["pos 6 does not exist", "the prompt has 6 tokens", "3:' pizza'", "nearest is 5"],
        ),
        ("L0.z@-7", ["pos -7 does not exist", "The nearest is -6"]),
        ("L0.z@0:7", ["pos 7 does not exist"]),
        ("L0.z@-7:", ["pos -7 does not exist"]),
        ("L0:4.z", ["layer 4 does not exist"]),
        ("L0.z@3:3", ["selects no pos out of 6"]),
        ("L2:1.z", ["selects no layer out of 3"]),
        ("L0.pattern.h0@2,{3,5}", ["no token attends to a later one", "3:' pizza'"]),
        ("L*.z", ["has stars", "':' for all together"]),
    ],
)
def test_an_address_that_names_nothing_says_what_exists(text, says):
    with pytest.raises(AddressError) as error:
        regions(parse(text), DIMS, TOKENS)
    for words_ in says:
        assert words_ in str(error.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('L0.z@"pizzas"', ["'pizzas' is not in the prompt", "Did you mean 'pizza'?"]),
        ('L0.z@"apple"', ["'apple' is not in the prompt"]),  # inside a word is not the word
        ("L0.z@object", ["no role 'object'", "last, subject, verb", '@"object"']),
        ("L0.z@subjects", ["Did you mean 'subject'?"]),
    ],
)
def test_a_place_that_the_prompt_lacks_says_what_it_has(text, says):
    with pytest.raises(PromptError) as error:
        regions(parse(text), DIMS, WITH_ROLES)
    for words_ in says:
        assert words_ in str(error.value)


def test_a_word_that_occurs_twice_is_refused_with_its_positions():
    twice = Tokens.of_texts("the", " cat", " and", " the", " dog")
    with pytest.raises(PromptError, match=r"2 times, at positions 0, 3"):
        regions(parse('L0.z@"the"'), DIMS, twice)


def test_check_looks_behind_the_stars():
    check(parse("L*.z.h*@*"), DIMS, TOKENS)
    with pytest.raises(AddressError, match="pos 6"):
        check(parse("L*.z.h*@6"), DIMS, TOKENS)


alphabet = st.sampled_from([*'Lz.h@*:{},-+"\\0123 \n', "embed", "pattern", "resid_post", "٣"])


@given(st.lists(alphabet, max_size=12).map("".join) | st.text(max_size=20))
@example("L0.z@" + json.dumps("a\nb"))
@example("L0.z@{-1,}")
def test_no_text_raises_anything_but_an_address_error(text):
    try:
        address = parse(text)
    except AddressError:
        return
    assert parse(str(address)) == address


@pytest.mark.parametrize("text", ["L-:.z", "L0.z.h:-", "L0.z@::-", "L" + "9" * 5000 + ".z"])
def test_numbers_that_are_none_are_an_address_error(text):
    with pytest.raises(AddressError):
        parse(text)


# ---------------------------------------------------------------------------- the other prompt


def test_in_a_prompt_of_the_same_length_a_place_is_the_same_position():
    other = Tokens.of_texts("a", " b", " c", " d", " e", " f")
    moved = counterpart(parse('L0.z@"Pineapple"'), DIMS, TOKENS, other)
    assert moved.indices[0] == (1,)


def test_in_a_prompt_of_another_length_only_roles_have_a_place():
    other = Tokens.of_texts("a", " b", " c")
    assert counterpart(parse("L0.z@last"), DIMS, TOKENS, other).indices[0] == (2,)
    for text in ("L0.z", "L0.z@0", 'L0.z@"pizza"', "L0.z@{last,0}", "L0.z@1:3"):
        with pytest.raises(PromptError, match="differ in length, 6 and 3 tokens"):
            counterpart(parse(text), DIMS, TOKENS, other)


def test_a_weight_of_a_later_token_is_not_taken_for_one_that_exists():
    here = replace(TOKENS, places={"a": 0, "b": 2})
    other = replace(TOKENS, places={"a": 2, "b": 0})
    for text in ("L0.pattern.h0@{a,b},{a,b}", "L0.pattern.h0@b,a"):
        with pytest.raises(PromptError, match="no token attends to a later one"):
            counterpart(parse(text), DIMS, here, other)
    counterpart(parse("L0.pattern.h0@b,a"), DIMS, here, here)
    counterpart(parse("L0.pattern.h0@b,a"), replace(DIMS, causal=False), here, other)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("L3.z.h2@'Sam'", 'L3.z.h2@"Sam"'),
        ("L3.z.h2@“Sam”", 'L3.z.h2@"Sam"'),
        ("L5.pattern.h3@-1,'Sam'", 'L5.pattern.h3@-1,"Sam"'),
        ("L3.z.h2@{'Sam',1}", 'L3.z.h2@{"Sam",1}'),
        ("L3.Z.h2", "L3.z.h2"),
        ("l3.z.h2", "L3.z.h2"),
        ("L3.z.H2", "L3.z.h2"),
        ("L3.z.head2", "L3.z.h2"),
        ("L3.mlp_post.neuron*", "L3.mlp_post.n*"),
        ("L3.z.2", "L3.z.h2"),
        ("L3.z[2]", "L3.z.h2"),
        ("L3.z.h[2,3]", "L3.z.h{2,3}"),
        ("L3.z.h2,3", "L3.z.h{2,3}"),
        ("L1,2.z", "L{1,2}.z"),
        ("L3.z.h2@[-1]", "L3.z.h2@-1"),
        ("L3.z.h2 @ -1", "L3.z.h2@-1"),
    ],
)
def test_what_is_nearly_an_address_is_refused_with_what_it_would_be(given, meant):
    with pytest.raises(AddressError) as refused:
        parse(given)
    assert str(refused.value).endswith(f". Did you mean {meant!r}?")
    parse(meant)


@pytest.mark.parametrize(
    "given", ["L3.z.h2@", "L3.z.x2", "L3.z.h2 and more", "L-.z", "L3.z.h2@0-3"]
)
def test_what_could_be_meant_in_several_ways_is_not_guessed_at(given):
    with pytest.raises(AddressError) as refused:
        parse(given)
    assert "Did you mean 'L" not in str(refused.value)
