"""Which cells walk together: rectangles that cover every cell once and fit into the memory."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import microtome as mt
from microtome.edits import as_edits
from microtome.engines.walk.batches import batches, companies, tiles
from microtome.language.sites import Dimensions
from microtome.plan.beside import used
from microtome.plan.memory.budget import Budget
from microtome.plan.memory.needs import needs_of
from microtome.plan.memory.room import room_for
from microtome.plan.plan import Plan, make_plan
from microtome.plan.question import ask
from microtome.plan.starts import shared_starts, starts_of
from microtome.prompts.encoding import Encoded
from microtome.prompts.tokens import Tokens

DIMS = Dimensions(4, 3, 3, 6, 2, 24, 99)


def encoded(n: int, shift: int = 0) -> Encoded:
    tokens = Tokens.of_texts(*(f" t{k + shift}" for k in range(n)))
    donor = replace(tokens, ids=tuple(99 - i for i in tokens.ids))
    return Encoded(mt.Prompt("".join(tokens.pieces), donor="x"), tokens, donor, 0, 1)


PROMPTS = (encoded(5), encoded(3), encoded(5, 7), encoded(5, 2))


def planned(edit, budget: Budget = Budget()) -> Plan:
    return make_plan(ask(DIMS, PROMPTS, as_edits(edit)), budget=budget)


def walked(edit: str, budget: Budget):
    plan = planned(edit, budget)
    found = []
    for unit in plan.units:
        for company in companies(plan, unit, budget):
            length = len(PROMPTS[company.prompts[0]].tokens)
            assert {len(PROMPTS[n].tokens) for n in company.prompts} == {length}
            found += [(plan, *pair) for pair in batches(plan, company, budget)]
    return found


@pytest.mark.parametrize("edit", ["zero L*.z.h*@*", "zero L*.z.h*", "zero L{1,3}.z.h*@-1"])
@pytest.mark.parametrize("memory", [2**31, 40_000])
def test_every_cell_walks_once_and_as_its_batch_says(edit, memory):
    seen = []
    for plan, batch, room in walked(edit, Budget(memory=memory)):
        seen += batch.cells.ravel().tolist()
        for prompt, row in zip(batch.prompts, batch.cells, strict=True):
            assert (plan.cells.prompt[row] == prompt).all()
            assert (plan.cells.position[row] >= batch.position).all()
            assert (plan.cells.entry[row] == batch.layers).all()
        assert (np.diff(batch.layers) >= 0).all()
        assert batch.cells.shape[1] <= room.batch
        assert used([(room, len(batch))]) <= memory
    assert sorted(seen) == list(range(len(plan.cells)))


def test_prompts_of_one_length_walk_together():
    sizes = [batch.cells.shape for _, batch, _ in walked("zero L*.z.h*@-1", Budget())]
    assert sorted(sizes) == [(1, 12), (3, 12)]


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 5)), min_size=1, max_size=7),
    st.integers(0, 30),
)
def test_starts_are_shared_in_the_cheapest_way(each, reading):
    """Held against every way to cut them into runs of neighbours."""
    length, positions = len(each) + 2, np.arange(len(each))
    work, depth = (np.array(column, dtype=float) for column in zip(*each, strict=True))

    def cost(starts):
        batches = [depth[starts == start].max() for start in np.unique(starts)]
        return ((length - starts) * work).sum() + reading * sum(batches)

    ways = itertools.product([True, False], repeat=len(each) - 1)
    cheapest = min(
        cost(np.maximum.accumulate(np.where([True, *way], positions, 0))) for way in ways
    )
    found = shared_starts(positions, work, depth, length, reading)
    assert (found <= positions).all()
    assert cost(found) == cheapest


def test_few_cells_share_starts_and_many_do_not():
    for edit, shared in (("patch L*.resid_post@*", True), ("zero L*.mlp_post.n*@*", False)):
        plan = planned(edit)
        found = {}
        for unit in plan.units:
            length = len(PROMPTS[unit.prompts[0]].tokens)
            found |= starts_of(plan.cells, unit, length, DIMS, reading=8)
        assert sorted(found) == list(range(len(PROMPTS)))
        own = [plan.cells.position[one.cells] - one.positions for one in found.values()]
        earlier = np.concatenate(own)
        assert len(earlier) == len(plan.cells)
        assert (earlier >= 0).all()
        assert (earlier > 0).any() == shared


def test_a_cell_that_edits_what_leaves_a_block_enters_the_next():
    plan = planned("zero L*.resid_post@-1")
    assert sorted(set(plan.cells.entry.tolist())) == [1, 2, 3, 4]
    both = planned(["zero L*.z.h0", "zero L*.resid_post"])
    assert sorted(set(both.cells.entry.tolist())) == [0, 1, 2, 3]


def test_halves_are_the_whole():
    _, batch, _ = max(walked("zero L*.z.h*@-1", Budget()), key=lambda found: len(found[1]))
    while len(batch) > 1:
        one, two = batch.halves()
        assert len(one) >= 1
        assert len(two) >= 1
        assert sorted([*one.cells.ravel(), *two.cells.ravel()]) == sorted(batch.cells.ravel())
        batch = two


@given(st.integers(1, 9), st.integers(1, 40), st.integers(1, 50))
def test_tiles_cover_a_rectangle_once_and_are_no_larger_than_asked(prompts, cells, size):
    count, found = np.zeros((prompts, cells), dtype=int), []
    for tile in tiles(prompts, range(cells), size):
        part = count[tile.prompts, tile.cells]
        part += 1
        found.append(part.size)
        assert 1 <= part.size <= size
    assert (count == 1).all()
    assert all(one + other > size for one, other in itertools.pairwise(found)), (
        "two would be one tile"
    )


def needs(edit, budget=Budget(), dims=DIMS):
    question = ask(dims, PROMPTS, as_edits(edit))
    return needs_of(question, make_plan(question).cells, [0], budget)


def test_room_is_for_what_memory_allows():
    own = needs("zero L*.z.h*")
    wide = room_for(own, 5, 5, 0, Budget())
    tight = room_for(own, 5, 5, 0, Budget(memory=40_000))
    assert wide.tile == 512 // 5
    assert tight.tile < wide.tile
    assert used([(tight, 10**6)]) <= 40_000
    # A prompt longer than a tile still is one.
    assert room_for(own, 1000, 1000, 0, Budget()).tile == 1


def test_what_one_head_alone_sees_takes_attention_once_more():
    grouped = replace(DIMS, n_heads=4, n_kv_heads=2)
    one, four = (needs(f"zero L0.k_head{part}@0", dims=grouped) for part in (".h1", ""))
    assert (one.branches, four.branches) == (1, 4)
    assert four.inside(5, 5) > one.inside(5, 5)
