"""Each operation against a closed form in numpy, and what all of them promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import microtome as mt
from microtome.edits import Context, Edit, Source
from microtome.edits.keys import key
from microtome.errors import EditError
from microtome.language.addresses import parse
from microtome.language.regions import Region
from microtome.language.sites import Dimensions
from microtome.prompts.resolve import regions
from microtome.prompts.tokens import Tokens
from microtome.texts import brief

DIMS = Dimensions(
    n_layers=2, n_heads=4, n_kv_heads=2, d_model=8, d_head=2, d_mlp=5, d_vocab=6, n_positions=16
)
TOKENS = Tokens.of_texts("a", " b", " c", " d", " e")
CELLS = 3

# Ranks two and three, single rows and columns, gaps.
ADDRESSES = (
    "L0.z",
    "L0.z.h2",
    "L0.z.h{0,3}@1:4",
    "L0.z.h:.d1@-1",
    "L1.k.h1@{0,2}",
    "L0.resid_post",
    "L0.resid_post@2",
    "L0.mlp_post.n::2@:3",
    "L1.attn_out.d{0,7}",
)
ALL = {
    "zero": lambda at: mt.zero(at),
    "scale": lambda at: mt.scale(at, -1.5),
    "mean tensor": lambda at: mt.mean(at),
    "mean positions": lambda at: mt.mean(at, over="positions"),
    "mean prompts": lambda at: mt.mean(at, over="prompts"),
    "patch": lambda at: mt.patch(at),
    "replace": lambda at: mt.replace(at, 0.25),
    "add": lambda at: mt.add(at, -2),
    "noise": lambda at: mt.noise(at, mean=1, std=0.5),
    "noise add": lambda at: mt.noise(at, how="add"),
    "noise relative": lambda at: mt.noise(at, relative=True, how="add"),
    "shuffle": lambda at: mt.shuffle(at),
    "apply": lambda at: mt.apply(at, torch.tanh),
}


def region_of(address: str) -> Region:
    return regions(parse(address), DIMS, TOKENS)[0]


def values_of(region: Region, cells: int = CELLS, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(cells, *region.shape, generator=generator, dtype=torch.float64)


def context_of(region: Region, cells: int = CELLS) -> Context:
    keys = tuple(f"{key(region, TOKENS)} cell {n}" for n in range(cells))
    return Context(region.site.axes, keys, values_of(region, cells, seed=1))


def changed(edit: Edit, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values before, after, and the source, as numpy arrays."""
    region = region_of(str(edit.address))
    edit.check(region)
    before, context = values_of(region, seed=seed), context_of(region)
    kept = before.clone()
    after = edit.change(before, context)
    assert torch.equal(before, kept), "an edit must not change its argument"
    assert (after.shape, after.dtype) == (before.shape, before.dtype)
    return before.numpy(), after.numpy(), context.source.numpy()


# ------------------------------------------------------------------------------- closed forms


@pytest.mark.parametrize("at", ADDRESSES)
class TestClosedForms:
    def test_zero_is_zero(self, at):
        before, after, _ = changed(mt.zero(at))
        np.testing.assert_array_equal(after, np.zeros_like(before))

    @pytest.mark.parametrize("factor", [0.0, 1.0, -1.5, 1e6])
    def test_scale_multiplies(self, at, factor):
        before, after, _ = changed(mt.scale(at, factor))
        np.testing.assert_array_equal(after, before * factor)

    def test_mean_over_the_tensor_is_one_number_per_cell(self, at):
        before, after, _ = changed(mt.mean(at))
        for row, wanted in zip(after, before, strict=True):
            np.testing.assert_allclose(row, np.full(row.shape, wanted.mean()), rtol=1e-13)

    def test_mean_over_positions_keeps_features(self, at):
        if region_of(at).shape[0] == 1:
            pytest.skip("one position: refused, see below")
        before, after, _ = changed(mt.mean(at, over="positions"))
        wanted = np.broadcast_to(before.mean(axis=1, keepdims=True), before.shape)
        np.testing.assert_allclose(after, wanted, rtol=1e-13, atol=1e-16)

    @pytest.mark.parametrize("make", [mt.patch, lambda at: mt.mean(at, over="prompts")])
    def test_patch_and_mean_over_prompts_bring_what_is_given(self, at, make):
        _, after, source = changed(make(at))
        np.testing.assert_array_equal(after, source)

    def test_replace_with_a_number_or_with_an_array_of_the_regions_shape(self, at):
        before, after, _ = changed(mt.replace(at, -0.75))
        np.testing.assert_array_equal(after, np.full_like(before, -0.75))
        array = np.random.default_rng(0).normal(size=region_of(at).shape)
        before, after, _ = changed(mt.replace(at, array))
        np.testing.assert_array_equal(after, np.broadcast_to(array, before.shape))

    def test_add_a_number_a_vector_of_features_or_a_whole_region(self, at):
        shape = region_of(at).shape
        rng = np.random.default_rng(0)
        before, after, _ = changed(mt.add(at, 2))
        np.testing.assert_array_equal(after, before + 2)
        for array in (rng.normal(size=shape[1:]), rng.normal(size=shape)):
            before, after, _ = changed(mt.add(at, array))
            np.testing.assert_array_equal(after, before + array)  # position is the first axis

    def test_noise_replaces_or_is_added_in_units_or_in_deviations(self, at):
        before, plain, _ = changed(mt.noise(at, seed=3))  # the draws themselves
        _, shifted, _ = changed(mt.noise(at, mean=2, std=0.5, seed=3))
        _, added, _ = changed(mt.noise(at, mean=2, std=0.5, how="add", seed=3))
        _, relative, _ = changed(mt.noise(at, mean=2, std=0.5, relative=True, seed=3))
        np.testing.assert_allclose(shifted, plain * 0.5 + 2, rtol=1e-13)
        np.testing.assert_allclose(added, before + plain * 0.5 + 2, rtol=1e-13, atol=1e-15)
        deviations = (
            before.reshape(CELLS, -1).std(axis=1, ddof=1).reshape(-1, *[1] * (before.ndim - 1))
        )
        np.testing.assert_allclose(relative, (plain * 0.5 + 2) * deviations, rtol=1e-12)

    def test_shuffle_keeps_the_numbers_of_each_position(self, at):
        before, after, _ = changed(mt.shuffle(at))
        rows = before.reshape(CELLS, before.shape[1], -1), after.reshape(CELLS, before.shape[1], -1)
        np.testing.assert_array_equal(*(np.sort(r, axis=2) for r in rows))

    def test_apply_is_the_function(self, at):
        before, after, _ = changed(mt.apply(at, torch.tanh))
        np.testing.assert_allclose(after, np.tanh(before), rtol=1e-13)


def test_shuffle_moves_values_and_each_position_by_itself():
    before, after, _ = changed(mt.shuffle("L0.resid_post"))
    assert not np.array_equal(before, after)
    where = [[list(row).index(x) for x in moved]
             for row, moved in zip(before[0], after[0], strict=True)]  # fmt: skip
    assert len({tuple(order) for order in where}) > 1


def test_shuffle_mixes_heads_that_are_addressed_together():
    before, after, _ = changed(mt.shuffle("L0.z"))
    assert not np.array_equal(np.sort(before, axis=-1), np.sort(after, axis=-1))


def test_noise_has_the_moments_that_it_says():
    region = Region(region_of("L0.resid_post").site, 0, (tuple(range(100)), tuple(range(100))))
    values = torch.zeros(2, *region.shape, dtype=torch.float64)
    drawn = mt.noise("L0.resid_post", mean=3, std=2).change(
        values, Context(region.site.axes, ("a", "b"))
    )
    assert drawn.mean() == pytest.approx(3, abs=5 * 2 / math.sqrt(20_000))
    assert drawn.std() == pytest.approx(2, abs=0.06)
    assert abs(np.corrcoef(drawn[0].flatten(), drawn[1].flatten())[0, 1]) < 0.05


def test_a_feature_axis_of_one_may_be_left_out_of_a_vector():
    before, after, _ = changed(mt.add("L0.z.h2", [1.0, -1.0]))
    np.testing.assert_array_equal(after, before + np.array([1.0, -1.0]))


# ---------------------------------------------------------------------------- what all promise


@pytest.mark.parametrize("at", ADDRESSES)
@pytest.mark.parametrize("name", ALL)
def test_cells_changed_together_are_as_if_changed_one_by_one(name, at):
    edit, region = ALL[name](at), region_of(at)
    if name == "mean positions" and region.shape[0] == 1:
        pytest.skip("one position: refused")
    values, context = values_of(region), context_of(region)
    together = edit.change(values, context)
    for n in range(CELLS):
        alone = Context(context.axes, (context.keys[n],), context.source[n : n + 1])
        row = edit.change(values[n : n + 1], alone)
        torch.testing.assert_close(together[n : n + 1], row, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ALL)
def test_the_type_of_the_values_is_kept(name, dtype):
    region = region_of("L0.z")
    context = context_of(region)
    context = Context(context.axes, context.keys, context.source.to(dtype))
    assert ALL[name]("L0.z").change(values_of(region).to(dtype), context).dtype == dtype


@pytest.mark.parametrize("make", [mt.noise, mt.shuffle])
class TestSeeds:
    def draw(self, make, at="L0.resid_post", seed=0, tokens=TOKENS):
        region = regions(parse(at), DIMS, tokens)[0]
        context = Context(region.site.axes, (key(region, tokens),))
        same = torch.arange(region.size, dtype=torch.float64).reshape(1, *region.shape)
        return make(at, seed=seed).change(same, context)

    def test_the_same_region_of_the_same_prompt_draws_the_same(self, make):
        assert torch.equal(self.draw(make), self.draw(make))

    def test_an_equal_region_written_otherwise_draws_the_same(self, make):
        assert torch.equal(self.draw(make), self.draw(make, "L-2.hidden@0:5"))

    def test_numbers_drawn_elsewhere_do_not_matter(self, make):
        torch.manual_seed(1)
        first = self.draw(make)
        torch.manual_seed(2)
        assert torch.equal(first, self.draw(make))
        state = torch.get_rng_state()
        self.draw(make)
        assert torch.equal(state, torch.get_rng_state())

    def test_another_seed_layer_site_place_or_prompt_draws_others(self, make):
        other = Tokens(TOKENS.text, (5, 1, 2, 3, 4), TOKENS.pieces, TOKENS.offsets)
        draws = [
            self.draw(make),
            self.draw(make, seed=1),
            self.draw(make, "L1.resid_post"),
            self.draw(make, "L0.resid_pre"),
            self.draw(make, tokens=other),
        ]
        for n, one in enumerate(draws):
            assert not any(torch.equal(one, another) for another in draws[:n])


# ------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (mt.mean("L0.z@2", over="positions"), ["mean over one position", "over="]),
        (mt.mean("L0.resid_post.d3@2"), ["mean of a single value"]),
        (mt.noise("L0.resid_post.d3@2", relative=True), ["single value has no standard deviation"]),
        (mt.shuffle("L0.resid_post.d3"), ["one coordinate at a position cannot be shuffled"]),
        (mt.replace("L0.z.h2", [1.0, 2.0]), ["[2]", "[5, 1, 2]", "Nothing is broadcast"]),
        (mt.replace("L0.resid_post", np.ones((5, 1))), ["[5, 1]", "[5, 8] fits"]),
        (mt.add("L0.resid_post", np.ones(5)), ["[5]", "[5, 8] or [8]"]),
        (mt.add("L0.resid_post", np.ones((1, 8))), ["[1, 8]"]),
        (
            mt.add("L0.resid_post", np.ones(50)),
            ["add([1.0, 1.0, … 50 numbers]) L0"],
        ),
        (mt.project("L0.resid_post", np.ones(50)), ["project([1.0, 1.0, … 50 numbers]"]),
    ],
)
def test_an_edit_that_could_do_nothing_there_is_refused(edit, says):
    with pytest.raises(EditError) as error:
        edit.check(region_of(str(edit.address)))
    for words in [brief(str(edit)), *says]:
        assert words in str(error.value)


@pytest.mark.parametrize(
    ("fn", "says"),
    [
        (lambda x: x[:, :1], "returned shape [3, 1, 4, 2]"),
        (lambda x: None, "returned None"),
        (lambda x: 3.0, "returned 3.0"),
    ],
)
def test_a_function_that_returns_something_else_is_refused(fn, says):
    with pytest.raises(EditError) as error:
        changed(mt.apply("L0.z", fn))
    assert says in str(error.value)
    assert "shape [3, 5, 4, 2]" in str(error.value)


def test_a_function_gets_a_copy_and_its_result_the_values_type():
    def careless(x):
        x.zero_()
        return x.to(torch.float32)

    _, after, _ = changed(mt.apply("L0.z", careless))
    assert (after == 0).all()


def test_only_patch_and_the_mean_over_prompts_need_a_source():
    sources = {name: make("L0.z").source for name, make in ALL.items()}
    assert sources.pop("patch") is Source.DONOR
    assert sources.pop("mean prompts") is Source.REFERENCE
    assert set(sources.values()) == {Source.NOTHING}


def test_shapes_in_annotations_are_executed():
    # The import hook in conftest must reach the operations: integers are no activations.
    with pytest.raises(TypeError):
        mt.zero("L0.z").change(torch.zeros(1, 5, 4, 2, dtype=torch.int64), Context((), ()))
