"""One look at all modules finds what torch's own walk finds, in its order; equal ones are two."""

import pytest
import torch
from torch import nn

from microtome.language.sites import site as find_site
from microtome.model.modules import module_at, modules, named_modules, parameters


class Equal(nn.Module):
    """One that says that it equals every other, as a user's may."""

    def __eq__(self, other):
        return isinstance(other, Equal)

    def __hash__(self):
        return 0


def made():
    shared, none = nn.Linear(2, 2), nn.Sequential(nn.ReLU())
    none.register_module("nothing", None)
    none.register_parameter("no_weight", None)
    whole = nn.Sequential(shared, nn.Sequential(none, shared, nn.LayerNorm(2)), nn.Linear(2, 3))
    whole[2].bias = shared.bias
    return whole


def test_all_are_found_in_torchs_order(tiny, of_family):
    for top in (made(), tiny.hf, of_family("llama").hf, tiny.hf.transformer.h):
        assert named_modules(top) == [*top.named_modules()]
        assert modules(top) == [*top.modules()]
        found = dict.fromkeys(map(id, parameters(top)))
        assert [*found] == [id(own) for own in top.parameters()]


def test_a_module_inside_itself_is_found_once():
    top = nn.Sequential(nn.ReLU())
    top[0].around = top
    assert named_modules(top) == [("", top), ("0", top[0])]


def test_modules_that_are_equal_are_all_found():
    both = nn.Sequential(Equal(), Equal())
    assert len([*both.modules()]) == 2  # torch takes the two for one
    assert [path for path, _ in named_modules(both)] == ["", "0", "1"]


def test_dtypes_are_those_of_all_parameters(tiny):
    kinds = {own.dtype for own in tiny.hf.parameters()}
    assert set(tiny.dtypes) == kinds == {torch.float32}


def test_a_module_is_found_by_its_path_or_it_is_said_that_there_is_none(tiny):
    for top in (made(), tiny.hf):
        for path, module in top.named_modules():
            assert module_at(top, path) is module
    for path in ("transformer.h.9", "transformer.h.0.weight", "transformer.nothing.h"):
        with pytest.raises(AttributeError) as ours:
            module_at(tiny.hf, path)
        with pytest.raises(AttributeError) as theirs:
            tiny.hf.get_submodule(path)
        assert str(ours.value) == str(theirs.value)


def test_a_name_that_a_class_answers_to_is_found():
    class Around(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.ReLU()

        @property
        def same(self):
            return self.inner

    top = Around()
    assert module_at(top, "same") is top.inner


def test_sites_are_ordered_as_in_a_block(tiny):
    names = ["resid_post", "z", "resid_pre", "resid_mid", "k"]
    names.sort(key=lambda name: tiny.anatomy.order(find_site(name), 1))
    assert names == ["resid_pre", "k", "z", "resid_mid", "resid_post"]
