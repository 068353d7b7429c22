"""Hooks that are vouched for: as fast as without, held to it, and on record."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
import xarray as xr

import microtome as mt
from conftest import BERLIN, PARIS
from microtome.errors import MicrotomeError, VerificationError
from microtome.model.watching import watchers

PROMPT = mt.Prompt(BERLIN, donor=PARIS, target=" Germany")
EDIT = "patch L*.z.h*@-1"


class Recorder:
    """Keeps the shapes that it sees."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, module, given, made) -> None:
        whole = made[0] if isinstance(made, tuple) else made
        self.shapes.append(tuple(whole.shape))


@pytest.fixture
def own(make_gpt2, tokenizer):
    """A model of this test alone."""
    return mt.load(make_gpt2(dtype=torch.float64), tokenizer=tokenizer)


def swept(model, **options):
    return mt.sweep(model, PROMPT, EDIT, metrics="prob", progress=False, **options)


def test_the_walk_goes_on_with_it_and_the_record_names_it(own, make_gpt2, tokenizer):
    plain, seen = swept(own), Recorder()
    own.hf.transformer.h[1].mlp.register_forward_hook(mt.watching(seen))
    assert own.whole is None
    watched = swept(own)
    xr.testing.assert_equal(watched.data, plain.data)
    assert watched.provenance["engine"]["name"] == plain.provenance["engine"]["name"] == "walk"
    assert watched.provenance["model"]["watching"] == ["Recorder on transformer.h.1.mlp"]
    assert "watching" not in plain.provenance["model"]
    assert seen.shapes


def test_the_same_hook_by_itself_makes_the_model_run_whole_and_says_what_to_do(own):
    own.hf.transformer.h[1].mlp.register_forward_hook(Recorder())
    assert "microtome.watching" in own.whole
    assert swept(own).provenance["engine"]["name"] == "reference"


@pytest.mark.parametrize("global_too", [False, True])
def test_hooks_before_a_call_and_of_every_module_are_named(own, global_too):
    look = mt.watching(lambda module, given: None)
    if global_too:
        handle = torch.nn.modules.module.register_module_forward_pre_hook(look)
        where = "every module"
    else:
        handle = own.hf.register_forward_pre_hook(look)
        where = "the model"
    with torch.no_grad():
        own.hf(input_ids=torch.tensor([[1, 2]]))
    [told] = watchers(own.hf)
    handle.remove()
    assert told.endswith(f"<lambda> on {where}")
    assert not [*watchers(own.hf)]


def test_one_that_gives_something_back_is_refused(own):
    own.hf.transformer.h[1].mlp.register_forward_hook(mt.watching(lambda m, given, made: made * 2))
    with pytest.raises(MicrotomeError, match=r"lambda.* vouched for .* gave something back.*full"):
        swept(own)


def test_one_that_writes_into_what_it_sees_is_refused(own):
    def louder(module, given, made):
        made.mul_(2)

    own.hf.transformer.h[1].mlp.register_forward_hook(mt.watching(louder))
    with pytest.raises(MicrotomeError, match=r"louder .* wrote into what it was given"):
        own.run(BERLIN)


def test_one_that_writes_behind_torchs_back_is_found_by_verification(own):
    def unseen(module, given, made):
        made.data[:, -1] = made.data[:, -1] * made.shape[1]

    own.hf.transformer.h[1].mlp.register_forward_hook(mt.watching(unseen))
    with pytest.raises(VerificationError):
        swept(own)


def test_what_is_kept_goes_on_though_another_call_watched(own, tmp_path):
    swept(own, out=tmp_path / "e.zarr")
    own.hf.transformer.h[1].mlp.register_forward_hook(mt.watching(Recorder()))
    swept(own, out=tmp_path / "e.zarr")


@pytest.mark.parametrize("global_too", [False, True])
def test_on_an_activation_function_it_sees_what_the_function_makes(own, global_too):
    """The walk computes it in one pass over memory, and with the same numbers."""
    plain, act, made = swept(own, verify=0), own.hf.transformer.h[1].mlp.act, []

    def look(module, given, values):
        if module is act:
            made.append((given[0].shape, values.shape, float(values.abs().max())))

    if global_too:
        handle = torch.nn.modules.module.register_module_forward_hook(mt.watching(look))
    else:
        handle = act.register_forward_hook(mt.watching(look))
    try:
        xr.testing.assert_equal(swept(own, verify=0).data, plain.data)
    finally:
        handle.remove()
    assert made
    assert all(before == after for before, after, _ in made)


def test_what_it_counts_outside_of_the_model_costs_nothing_and_on_a_module_the_walk(own):
    seen = Counter()

    def outside(module, given, made):
        seen[module] += 1

    def inside(module, given, made):
        module.calls = getattr(module, "calls", 0) + 1

    mlp = own.hf.transformer.h[1].mlp
    with mlp.register_forward_hook(mt.watching(outside)):
        assert [swept(own).provenance["engine"]["name"] for _ in range(2)] == ["walk", "walk"]
    assert seen[mlp]
    with mlp.register_forward_hook(mt.watching(inside)):
        swept(own)
        engine = swept(own).provenance["engine"]
    assert engine["name"] == "reference"
    assert "transformer.h.1.mlp.calls changed" in engine["why"]
