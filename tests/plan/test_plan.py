"""The plan of a sweep: which cells there are, in which order; and not one tensor."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

from microtome.edits import Edit, as_edits
from microtome.errors import AddressError, EditError, PromptError, SweepError
from microtome.language.sites import Dimensions
from microtome.plan.memory.budget import Budget
from microtome.plan.plan import make_plan
from microtome.plan.question import ask
from microtome.prompts.encoding import Encoded
from microtome.prompts.prompt import Prompt
from microtome.prompts.tokens import Tokens

DIMS = Dimensions(
    n_layers=2, n_heads=3, n_kv_heads=3, d_model=6, d_head=2, d_mlp=4, d_vocab=9, n_positions=16
)


def encoded(*pieces: str, donor: tuple[str, ...] | None = None) -> Encoded:
    tokens = Tokens.of_texts(*pieces)
    other = None if donor is None else Tokens.of_texts(*donor)
    return Encoded(Prompt(tokens.text), tokens, other, None, None)


BUDGET = Budget()
THREE, FIVE = encoded("a", " b", " c"), encoded("d", " e", " f", " g", " h")


def planned(edits, prompts=(THREE,), dims=DIMS, over=None, reference=(), budget=BUDGET):
    return make_plan(ask(dims, prompts, as_edits(edits), (), over, reference), budget=budget)


@pytest.mark.parametrize(
    ("edit", "axes", "shape"),
    [
        ("zero L*.z.h*@-1", ("prompt", "layer", "head"), (1, 2, 3)),
        ("zero L1.z.h2", ("prompt",), (1,)),
        ("zero L0.mlp_post.n::2", ("prompt",), (1,)),
        ("zero L*.resid_post", ("prompt", "layer"), (1, 2)),
        ("zero L*.z.h*@*", ("prompt", "layer", "head", "pos"), (1, 2, 3, 3)),
        ("zero L*.k.h*", ("prompt", "layer", "kv_head"), (1, 2, 3)),
        ("zero L0.mlp_post.n*@*", ("prompt", "neuron", "pos"), (1, 4, 3)),
        ("zero L0.resid_pre.d*", ("prompt", "d"), (1, 6)),
        ("zero embed@*", ("prompt", "pos"), (1, 3)),
    ],
)
def test_stars_are_axes_in_the_order_of_the_text(edit, axes, shape):
    plan = planned(edit)
    assert tuple(axis.name for axis in plan.axes) == axes
    assert plan.shape == shape
    assert [axis.values for axis in plan.axes] == [tuple(range(n)) for n in shape]


def test_cells_are_the_product_in_order_with_numbers_for_stars():
    plan = planned("scale(2) L*.z.h*@-1")
    assert [cell.index for cell in plan.cells] == list(itertools.product([0], range(2), range(3)))
    assert [str(cell.edits[0]) for cell in plan.cells] == [
        f"scale(2) L{layer}.z.h{head}@-1" for layer in range(2) for head in range(3)
    ]
    assert all(cell.prompt == 0 for cell in plan.cells)


def test_a_parameter_given_in_over_is_the_last_axis_with_its_values():
    plan = planned("noise(std=9) L*.z", over={"std": [1.0, 0.5], "seed": [3, 4]})
    assert [(a.name, a.values) for a in plan.axes[2:]] == [("std", (1.0, 0.5)), ("seed", (3, 4))]
    assert plan.shape == (1, 2, 2, 2)
    assert str(plan.cells[1].edits[0]) == "noise(seed=4) L0.z"
    assert str(plan.cells[-1].edits[0]) == "noise(std=0.5, seed=4) L1.z"


def test_over_varies_every_edit_that_has_the_parameter():
    edits = ["scale(9) L0.z", "scale(8) L1.z", "zero L0.q"]
    plan = planned(edits, over={"factor": [1, 2]})
    assert [[str(e) for e in cell.edits] for cell in plan.cells] == [
        [f"scale({f}) L0.z", f"scale({f}) L1.z", "zero L0.q"] for f in (1, 2)
    ]


def test_edits_that_star_the_same_move_along_it_together():
    plan = planned(["zero L*.z.h*", "scale(2) L*.resid_post@*"])
    assert [axis.name for axis in plan.axes] == ["prompt", "layer", "head", "pos"]
    assert len(plan.cells) == 2 * 3 * 3
    assert [str(e) for e in plan.cells[-1].edits] == ["zero L1.z.h2", "scale(2) L1.resid_post@2"]


def test_positions_beyond_a_shorter_prompt_are_absent():
    plan = planned("zero embed@*", (THREE, FIVE))
    assert plan.shape == (2, 5)
    assert [cell.index for cell in plan.cells] == [(0, n) for n in range(3)] + [
        (1, n) for n in range(5)
    ]
    assert [cell.index[1] for cell in plan.of_prompt(0)] == [0, 1, 2]


def test_no_tensor_is_touched(monkeypatch):
    def touched(*_, **__):
        raise AssertionError("the plan made a tensor")

    for name in ("tensor", "zeros", "empty", "full", "from_numpy", "arange", "stack", "cat"):
        monkeypatch.setattr(torch, name, touched)
    donor = encoded("a", " b", " c", donor=("x", " y", " z"))
    plan = planned(["patch L*.z.h*@*", "scale(2) L*.z"], (donor,), over={"factor": [1.0, 3.0]})
    assert len(plan.cells) == 2 * 3 * 3 * 2
    assert plan.cost.flops > 0


def test_attention_to_later_tokens_is_no_cell():
    plan = planned("zero L*.pattern.h*@*,*", (encoded("a", " b", " c"),))
    pairs = {tuple(cell.index[3:]) for cell in plan.cells}
    assert pairs == {(q, k) for q in range(3) for k in range(q + 1)}
    assert plan.shape[3:] == (3, 3)


def test_a_knockout_that_would_leave_a_token_nothing_is_no_cell():
    plan = planned("knockout L0.pattern.h0@*,*", (encoded("a", " b", " c"),))
    assert (0, 0) not in {tuple(cell.index[1:]) for cell in plan.cells}
    assert len(plan.cells) == 5


def test_a_larger_question_costs_more():
    small, large = planned("zero L*.z"), planned("zero L*.z.h*")
    assert (small.cost.flops, small.cost.passes) < (large.cost.flops, large.cost.passes)
    assert large.cost.bytes > 0


@pytest.mark.parametrize(
    ("edits", "more", "error", "says"),
    [
        ([], {}, SweepError, "needs an edit"),
        ("scale(2) L0.z", {"over": {"facto": [1.0]}}, SweepError, "Did you mean 'factor'"),
        ("zero L0.z", {"over": {"factor": [1.0]}}, SweepError, "no parameter of zero L0.z"),
        ("scale(2) L0.z", {"over": {"factor": []}}, SweepError, "at least one"),
        ("mean L0.z", {"over": {"over": "tensor"}}, SweepError, "takes a list"),
        ("scale(2) L0.z", {"over": {"factor": [1.0, 2.0, 1.0]}}, SweepError, "a value twice"),
        ("scale(2) L0.z", {"over": {"factor": ["a"]}}, EditError, "finite number"),
        ("zero L2.z", {}, AddressError, "layer 2 does not exist"),
        ("zero L*.z@3", {}, AddressError, "pos 3 does not exist"),
        ("zero L*.pattern.h*@0,1", {}, AddressError, "no token attends to a later one"),
        ("add(1) L*.pattern.h*@0", {}, EditError, "takes in attention to later tokens"),
        (
            "knockout L*.pattern.h*@{0,1},0",
            {},
            EditError,
            "the token at position 0 attends to is left",
        ),
        ("knockout L*.z.h*", {}, EditError, "of attention weights"),
        ("patch L*.z", {}, PromptError, "donor"),
        ("mean(over='positions') L*.z@*", {}, EditError, "mean over one position"),
    ],
)
def test_what_does_not_fit_is_refused(edits, more, error, says):
    with pytest.raises(error, match=says):
        planned(edits, **more)


def test_a_position_that_only_one_prompt_lacks_is_refused():
    with pytest.raises(AddressError, match="pos 4 does not exist"):
        planned("zero L*.z@4", (FIVE, THREE))


def test_a_donor_of_another_length_is_refused_unless_positions_are_roles():
    other = encoded("a", " b", " c", donor=("x", " y"))
    with pytest.raises(PromptError, match="differ in length, 3 and 2"):
        planned("patch L*.z@*", (other,))
    assert len(planned("patch L*.z@last", (other,)).cells) == 2


@pytest.mark.parametrize("vectors", [[[0.0] * 6, [1.0] * 6], [torch.zeros(6), torch.ones(6)]])
def test_vectors_may_be_given_in_over(vectors):
    plan = planned("add(0) L0.resid_post", over={"vector": vectors})
    assert plan.shape == (1, 2)


@pytest.mark.parametrize(
    ("edit", "over"),
    [
        ("mean L0.resid_post@1", {"over": ["tensor", "positions"]}),
        ("mean L0.z", {"over": ["tensor", "prompts"]}),
        ("replace(0) L0.z", {"value": [0.5, (1.0, 2.0)]}),
    ],
)
def test_values_in_over_are_checked_before_anything_runs(edit, over):
    with pytest.raises((EditError, SweepError)):
        planned(edit, over=over)


def test_memory_is_planned_for_the_variant_that_needs_most():
    others = [encoded("w", " x", " y")] * 50
    sizes = [
        planned("mean L*.z.h*@-1", over={"over": kinds}, reference=others).cost.bytes
        for kinds in (["tensor"], ["tensor", "prompts"], ["prompts", "tensor"])
    ]
    assert sizes[0] < sizes[1] == sizes[2]


def test_memory_is_planned_for_every_head_whose_own_key_is_edited():
    """Each takes a row of attention of its own."""
    grouped = replace(DIMS, n_heads=4, n_kv_heads=2)
    one, all_four = (
        planned(text, dims=grouped).cost.bytes
        for text in ("zero L0.k_head.h1@0", "zero L0.k_head@0")
    )
    assert one < all_four


def test_a_mean_over_one_prompt_is_refused_before_anything_runs():
    with pytest.raises(EditError, match="at least two reference prompts"):
        planned("mean(over='prompts') L0.z", reference=(THREE,))


def test_where_a_cell_lands_is_known_without_making_its_edits(monkeypatch):
    plan = planned(["zero L*.z.h*@*", "scale(2) L*.resid_post", "zero embed"])
    whole = [[one for own in cell.regions for one in own] for cell in plan.cells]

    def made(*_, **__):
        raise AssertionError("an edit was made")

    monkeypatch.setattr(Edit, "at", made)
    assert [[*plan.cells.regions(n)] for n in range(len(plan.cells))] == whole
    with pytest.raises(AssertionError, match="was made"):
        plan.cells[0]
